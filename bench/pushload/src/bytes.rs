//! Small byte-slice helpers shared by the parsers.

/// Position of `needle` in `hay` (libc memchr: vectorised, and we link libc anyway).
#[inline]
pub fn find_byte(hay: &[u8], needle: u8) -> Option<usize> {
    if hay.is_empty() {
        return None;
    }
    // SAFETY: the pointer and the length describe `hay`.
    let p = unsafe { libc::memchr(hay.as_ptr().cast(), needle as i32, hay.len()) };
    if p.is_null() {
        None
    } else {
        Some(p as usize - hay.as_ptr() as usize)
    }
}

/// Position of the first occurrence of `needle` in `hay`.
pub fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    if needle.is_empty() {
        return Some(0);
    }
    let mut at = 0;
    while let Some(p) = find_byte(&hay[at..], needle[0]) {
        let p = at + p;
        if hay.len() - p < needle.len() {
            return None;
        }
        if &hay[p..p + needle.len()] == needle {
            return Some(p);
        }
        at = p + 1;
    }
    None
}

/// Strips spaces and tabs on both sides.
pub fn trim(mut s: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = s {
        s = rest;
    }
    while let [rest @ .., b' ' | b'\t' | b'\r'] = s {
        s = rest;
    }
    s
}

/// Decimal digits only; None for anything else or on overflow.
pub fn parse_u64(s: &[u8]) -> Option<u64> {
    if s.is_empty() {
        return None;
    }
    let mut v: u64 = 0;
    for &b in s {
        if !b.is_ascii_digit() {
            return None;
        }
        v = v.checked_mul(10)?.checked_add((b - b'0') as u64)?;
    }
    Some(v)
}

/// True if the comma-separated list holds `token` (ASCII case-insensitive).
pub fn has_token(list: &[u8], token: &[u8]) -> bool {
    list.split(|&b| b == b',').any(|t| trim(t).eq_ignore_ascii_case(token))
}

/// Appends a decimal number.
pub fn push_u64(out: &mut Vec<u8>, mut v: u64) {
    let mut tmp = [0u8; 20];
    let mut i = tmp.len();
    loop {
        i -= 1;
        tmp[i] = b'0' + (v % 10) as u8;
        v /= 10;
        if v == 0 {
            break;
        }
    }
    out.extend_from_slice(&tmp[i..]);
}

/// A short byte string stored in place (header values we keep between polls).
#[derive(Clone, Copy)]
pub struct Small<const N: usize> {
    len: u8,
    buf: [u8; N],
}

impl<const N: usize> Default for Small<N> {
    fn default() -> Self {
        Small { len: 0, buf: [0; N] }
    }
}

impl<const N: usize> Small<N> {
    /// False (and left unchanged) when the value does not fit.
    pub fn set(&mut self, v: &[u8]) -> bool {
        if v.len() > N || v.len() > 255 {
            return false;
        }
        self.buf[..v.len()].copy_from_slice(v);
        self.len = v.len() as u8;
        true
    }
    /// The bytes.
    pub fn get(&self) -> &[u8] {
        &self.buf[..self.len as usize]
    }
    /// Nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finding() {
        assert_eq!(find(b"abcabd", b"abd"), Some(3));
        assert_eq!(find(b"aab", b"ab"), Some(1));
        assert_eq!(find(b"ab", b"abc"), None);
        assert_eq!(find(b"", b"a"), None);
        assert_eq!(find_byte(b"", b'a'), None);
    }

    #[test]
    fn numbers() {
        assert_eq!(parse_u64(b"0"), Some(0));
        assert_eq!(parse_u64(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_u64(b"18446744073709551616"), None);
        assert_eq!(parse_u64(b""), None);
        assert_eq!(parse_u64(b"-1"), None);
        let mut v = Vec::new();
        push_u64(&mut v, 0);
        push_u64(&mut v, 1234567890);
        assert_eq!(v, b"01234567890");
    }

    #[test]
    fn tokens() {
        assert!(has_token(b"keep-alive, Upgrade", b"upgrade"));
        assert!(!has_token(b"keep-alive", b"close"));
        assert_eq!(trim(b" \ta b\r"), b"a b");
    }

    #[test]
    fn small() {
        let mut s = Small::<4>::default();
        assert!(s.is_empty());
        assert!(s.set(b"abcd"));
        assert!(!s.set(b"abcde"));
        assert_eq!(s.get(), b"abcd");
    }
}
