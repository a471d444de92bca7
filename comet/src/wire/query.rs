//! Arguments in a query string.

/// The value of the first argument of this name, as it came; empty if there is no `=` behind the name.
pub fn argument<'a>(args: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    args.split(|&byte| byte == b'&').find_map(|argument| {
        let mut parts = argument.splitn(2, |&byte| byte == b'=');
        (parts.next()? == name).then(|| parts.next().unwrap_or_default())
    })
}

/// Undoes `application/x-www-form-urlencoded`; `None` if a percent sign is not followed by two hexadecimal digits.
pub fn decode(mut value: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(value.len());
    while let Some((&byte, mut after)) = value.split_first() {
        decoded.push(match (byte, after) {
            (b'%', [high, low, rest @ ..]) => {
                after = rest;
                hexadecimal(*high)? << 4 | hexadecimal(*low)?
            }
            (b'%', _) => return None,
            (b'+', _) => b' ',
            _ => byte,
        });
        value = after;
    }
    Some(decoded)
}

fn hexadecimal(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_argument_of_a_name_counts() {
        for (args, value) in [
            (&b"a=1"[..], Some(&b"1"[..])),
            (b"b=2&a=1&a=3", Some(b"1")),
            (b"&&xa=2&ax=3&a=1=1", Some(b"1=1")),
            (b"a&a=1", Some(b"")),
            (b"a=&a=1", Some(b"")),
            (b"A=1", None),
            (b"%61=1", None),
            (b"", None),
        ] {
            assert_eq!(argument(args, b"a"), value, "{}", String::from_utf8_lossy(args));
        }
    }

    #[test]
    fn percent_signs_and_plus_signs_are_decoded() {
        assert_eq!(decode(b"a%3A%3ab+c%2B%00%ff").as_deref(), Some(&b"a::b c+\0\xff"[..]));
        assert_eq!(decode(b"").as_deref(), Some(&b""[..]));
        for bad in [&b"%"[..], b"a%3", b"%3g", b"%+1", b"%%41"] {
            assert_eq!(decode(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }
}
