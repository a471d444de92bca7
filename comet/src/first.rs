//! Where a subscriber without a cursor begins (`push_first_message`).

use thiserror::Error;

use crate::message::Position;
use crate::reply::Reply;

/// A value that says nothing that can be understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "push_first_message does not understand \"{0}\": it takes \"oldest\", \"newest\", a number N for the N-th oldest \
     message, -N for the last N messages, or @T for messages since the second T after 1970."
)]
pub struct BadFirst(pub String);

impl BadFirst {
    /// The reply to a client whose request has led to that value.
    pub fn reply(&self) -> Reply {
        Reply::text(400, self.to_string().into_bytes())
    }
}

/// Where to begin: what the first of the values says that says something. An empty one does not, nor does `-` or `@` alone:
/// so a value may be made of a variable that not all requests have.
///
/// # Errors
///
/// [`BadFirst`] for the first value that says something else.
pub fn first<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Result<Position, BadFirst> {
    let said = values.into_iter().find(|value| !matches!(*value, b"" | b"-" | b"@"));
    let Some(value) = said else { return Ok(Position::Oldest) };
    read(value).ok_or_else(|| BadFirst(String::from_utf8_lossy(value).into_owned()))
}

fn read(value: &[u8]) -> Option<Position> {
    match value {
        b"oldest" => Some(Position::Oldest),
        b"newest" => Some(Position::Newest),
        [b'-', digits @ ..] => number(digits).map(|count| match u32::try_from(count) {
            Ok(0) => Position::Newest,
            count => Position::Last(count.unwrap_or(u32::MAX)),
        }),
        [b'@', digits @ ..] => number(digits).map(Position::since),
        digits => number(digits)
            .filter(|place| *place > 0)
            .map(|place| Position::Nth(u32::try_from(place).unwrap_or(u32::MAX))),
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::MessageId;

    fn of(values: &[&str]) -> Result<Position, String> {
        first(values.iter().map(|value| value.as_bytes())).map_err(|BadFirst(value)| value)
    }

    #[test]
    fn words_numbers_and_times_say_where_to_begin() {
        for (value, position) in [
            ("oldest", Position::Oldest),
            ("newest", Position::Newest),
            ("1", Position::Nth(1)),
            ("12", Position::Nth(12)),
            ("-3", Position::Last(3)),
            ("-0", Position::Newest),
            ("-99999999999", Position::Last(u32::MAX)),
            ("@0", Position::Oldest),
            ("@100", Position::After(MessageId { time: 99, tag: u32::MAX })),
        ] {
            assert_eq!(of(&[value]), Ok(position), "{value}");
        }
    }

    #[test]
    fn the_first_value_that_says_something_counts() {
        assert_eq!(of(&[]), Ok(Position::Oldest));
        assert_eq!(of(&["", "-", "@"]), Ok(Position::Oldest));
        assert_eq!(of(&["-", "newest"]), Ok(Position::Newest));
        assert_eq!(of(&["-5", "newest"]), Ok(Position::Last(5)));
    }

    #[test]
    fn nonsense_is_told() {
        for bad in
            ["0", "last", "OLDEST", "--1", "-x", "@-1", "@x", "+1", "1 ", "-99999999999999999999"]
        {
            assert_eq!(of(&[bad, "newest"]), Err(bad.to_owned()));
        }
        let reply = BadFirst("x".into()).reply();
        assert_eq!(reply.status, 400);
    }
}
