//! How values are written in nginx's configuration: flags, numbers, sizes, times and words.

use super::ConfigError;

/// A kind of value: how to read one, and what to tell an operator who wrote something else.
pub(super) struct Kind<T> {
    parse: fn(&[u8]) -> Option<T>,
    allowed: &'static str,
}

pub(super) const FLAG: Kind<bool> = Kind { parse: flag, allowed: "\"on\" or \"off\"" };

pub(super) const COUNT: Kind<u64> = Kind { parse: number, allowed: "a whole number, such as 10" };

pub(super) const LENGTH: Kind<usize> = Kind {
    parse: |text| number(text)?.try_into().ok().filter(|length| *length > 0),
    allowed: "a number of bytes from 1 on, such as 1024",
};

pub(super) const SIZE: Kind<u64> =
    Kind { parse: size, allowed: "a size in bytes, or with \"k\", \"m\" or \"g\", such as 32M" };

/// A time in milliseconds, written in seconds or larger units.
pub(super) const TIME: Kind<u64> = Kind {
    parse: time,
    allowed: "a time in whole seconds, or with the units y, M, w, d, h, m and s, such as 1h30m",
};

pub(super) const TEXT: Kind<Vec<u8>> =
    Kind { parse: |text| Some(text.to_vec()), allowed: "one word or quoted string" };

pub(super) const PATH: Kind<Vec<u8>> = Kind {
    parse: |text| {
        let is_file = !text.is_empty() && !text.ends_with(b"/") && !text.contains(&0);
        is_file.then(|| text.to_vec())
    },
    allowed: "the path of a file",
};

impl<T> Kind<T> {
    /// A kind of value of its own.
    pub(super) const fn new(parse: fn(&[u8]) -> Option<T>, allowed: &'static str) -> Self {
        Kind { parse, allowed }
    }

    /// Reads the one value of `directive`.
    pub(super) fn read(&self, directive: &'static str, args: &[&[u8]]) -> Result<T, ConfigError> {
        let [text] = args else {
            return Err(ConfigError::Count { directive, allowed: self.allowed });
        };
        (self.parse)(text).ok_or_else(|| ConfigError::Value {
            directive,
            value: String::from_utf8_lossy(text).into_owned(),
            allowed: self.allowed,
        })
    }

    /// Reads the one value of `directive` into `slot`, which must not have one yet.
    pub(super) fn set(
        &self,
        directive: &'static str,
        slot: &mut Option<T>,
        args: &[&[u8]],
    ) -> Result<(), ConfigError> {
        if slot.is_some() {
            return Err(ConfigError::Duplicate { directive });
        }
        *slot = Some(self.read(directive, args)?);
        Ok(())
    }
}

/// Finds the word that `text` stands for: NHPM takes the beginning of a word for the word, in either case.
///
/// An empty value, which begins every word, is a mistake and not the first of them.
pub(super) fn choice<T: Copy>(text: &[u8], words: &[(&str, T)]) -> Option<T> {
    words
        .iter()
        .find(|(word, _)| {
            word.as_bytes()
                .get(..text.len())
                .is_some_and(|start| !start.is_empty() && start.eq_ignore_ascii_case(text))
        })
        .map(|&(_, meaning)| meaning)
}

fn flag(text: &[u8]) -> Option<bool> {
    if text.eq_ignore_ascii_case(b"on") {
        Some(true)
    } else if text.eq_ignore_ascii_case(b"off") {
        Some(false)
    } else {
        None
    }
}

/// Digits and nothing else, up to the largest number that nginx itself can hold.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0, |sum: u64, &byte| append_digit(sum, byte))
}

fn append_digit(sum: u64, byte: u8) -> Option<u64> {
    if !byte.is_ascii_digit() {
        return None;
    }
    let sum = sum.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
    (sum <= i64::MAX as u64).then_some(sum)
}

fn size(text: &[u8]) -> Option<u64> {
    let (digits, unit) = match text {
        [digits @ .., b'k' | b'K'] => (digits, 1 << 10),
        [digits @ .., b'm' | b'M'] => (digits, 1 << 20),
        [digits @ .., b'g' | b'G'] => (digits, 1 << 30),
        _ => (text, 1),
    };
    number(digits)?.checked_mul(unit).filter(|&size| size <= i64::MAX as u64)
}

/// Units of time, largest first, in seconds. The last is for a number without a unit.
const UNITS: [(u8, u64); 8] = [
    (b'y', 365 * 24 * 3600),
    (b'M', 30 * 24 * 3600),
    (b'w', 7 * 24 * 3600),
    (b'd', 24 * 3600),
    (b'h', 3600),
    (b'm', 60),
    (b's', 1),
    (b' ', 1),
];

/// nginx's times: numbers with units, larger units first, none twice; spaces may follow a unit; a last number without
/// a unit is in seconds. There are no milliseconds, for NHPM's settings had none.
fn time(text: &[u8]) -> Option<u64> {
    let mut seconds: u64 = 0;
    let mut units = UNITS.as_slice();
    let mut rest = text;
    loop {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, tail) = rest.split_at_checked(digits)?;
        let (unit, tail) = tail.split_first().unwrap_or((&b' ', &[]));
        let place = units.iter().position(|(name, _)| name == unit)?;
        let (_, scale) = units.get(place)?;
        seconds = seconds.checked_add(number(digits)?.checked_mul(*scale)?)?;
        units = units.get(place + 1..)?;
        rest = tail.trim_ascii_start();
        if rest.is_empty() {
            return seconds
                .checked_mul(1000)
                .filter(|&milliseconds| milliseconds <= i64::MAX as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1000;
    const HOUR: u64 = 3600 * SECOND;
    const DAY: u64 = 24 * HOUR;

    #[test]
    fn flags_are_on_and_off_in_either_case() {
        assert_eq!(flag(b"on"), Some(true));
        assert_eq!(flag(b"ON"), Some(true));
        assert_eq!(flag(b"Off"), Some(false));
        for bad in [&b""[..], b"1", b"yes", b"o", b"onn", b"\xff"] {
            assert_eq!(flag(bad), None);
        }
    }

    #[test]
    fn numbers_are_digits() {
        assert_eq!(number(b"0"), Some(0));
        assert_eq!(number(b"007"), Some(7));
        assert_eq!(number(b"9223372036854775807"), Some(i64::MAX as u64));
        for bad in [&b""[..], b"-1", b"+1", b"1k", b" 1", b"9223372036854775808", b"1.5"] {
            assert_eq!(number(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(size(b"0"), Some(0));
        assert_eq!(size(b"512"), Some(512));
        assert_eq!(size(b"3k"), Some(3072));
        assert_eq!(size(b"3K"), Some(3072));
        assert_eq!(size(b"32M"), Some(32 << 20));
        assert_eq!(size(b"32m"), Some(32 << 20));
        assert_eq!(size(b"1g"), Some(1 << 30));
        assert_eq!(size(b"1G"), Some(1 << 30));
        for bad in [&b""[..], b"k", b"-1k", b"1kk", b"1t", b"1 k", b"1.5m", b"8589934592G"] {
            assert_eq!(size(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn times_are_seconds_without_a_unit() {
        assert_eq!(time(b"0"), Some(0));
        assert_eq!(time(b"90"), Some(90 * SECOND));
    }

    #[test]
    fn times_have_units() {
        for (text, expected) in [
            (&b"1y"[..], 365 * DAY),
            (b"1M", 30 * DAY),
            (b"1w", 7 * DAY),
            (b"1d", DAY),
            (b"1h", HOUR),
            (b"1m", 60 * SECOND),
            (b"1s", SECOND),
            (b"0s", 0),
            (b"1h30m", HOUR + HOUR / 2),
            (b"1h 30m", HOUR + HOUR / 2),
            (b"1h30", HOUR + 30 * SECOND),
            (b"1s1", 2 * SECOND),
            (b"1M1m", 30 * DAY + 60 * SECOND),
            (b"1y1M1w1d1h1m1s", (365 + 30 + 7 + 1) * DAY + HOUR + 61 * SECOND),
            (b"5 ", 5 * SECOND),
        ] {
            assert_eq!(time(text), Some(expected), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for bad in [
            &b""[..],
            b" ",
            b"s",
            b"500ms",
            b"1S",
            b"-1s",
            b"1.5h",
            b"30m1h",
            b"1h1h",
            b"5 5",
            b"1h m",
            b"1x",
            b"\xff",
            b" 5",
            b"5 s",
        ] {
            assert_eq!(time(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn times_that_overflow_are_refused() {
        assert_eq!(time(b"9223372036854775"), Some(9_223_372_036_854_775_000));
        assert_eq!(time(b"9223372036854776"), None);
        assert_eq!(time(b"9223372036854775807"), None);
        assert_eq!(time(b"99999999999999999999"), None);
        assert_eq!(time(b"300000000000y"), None);
        assert_eq!(time(b"9000000000000y9000000000000M"), None);
    }

    #[test]
    fn words_may_be_cut_short() {
        let words = [("last", 1), ("first", 2), ("broadcast", 3)];
        for (text, expected) in [
            (&b"last"[..], Some(1)),
            (b"l", Some(1)),
            (b"FIR", Some(2)),
            (b"Broadcast", Some(3)),
            (b"broadcasts", None),
            (b"lost", None),
            (b"", None),
        ] {
            assert_eq!(choice(text, &words), expected, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn an_error_names_the_directive_and_what_is_allowed() {
        assert_eq!(
            FLAG.read("push_x", &[b"maybe"]).map_err(|error| error.to_string()),
            Err("invalid value \"maybe\" in \"push_x\": allowed is \"on\" or \"off\"".into())
        );
        assert_eq!(
            FLAG.read("push_x", &[]).map_err(|error| error.to_string()),
            Err("invalid number of values in \"push_x\": allowed is \"on\" or \"off\"".into())
        );
    }
}
