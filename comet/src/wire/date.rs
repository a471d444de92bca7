//! HTTP dates, read as nginx reads them: what clients send that no standard has is a date here if it is one there.
//!
//! RFC 9110, section 5.6.7, has three formats: `Sun, 06 Nov 1994 08:49:37 GMT`, `Sunday, 06-Nov-94 08:49:37 GMT` and
//! `Sun Nov  6 08:49:37 1994`. As in nginx, the day of the week means nothing, nor does what follows: a zone, whichever it
//! is, or the `; length=5` of old browsers. Of a month only the letters count that tell it from the others.

/// Days of each month; a February of 29 days is looked at apart.
const DAYS: [i64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// Reads an HTTP date: seconds since 1970, or `None` if it is none, or of a time before.
pub fn parse(value: &[u8]) -> Option<u64> {
    let value = value.trim_ascii();
    let end = value.iter().position(|byte| matches!(byte, b',' | b' '))?;
    let (_, rest) = value.split_at_checked(end)?;
    let (separator, rest) = rest.split_first()?;
    let spaces = rest.iter().take_while(|byte| **byte == b' ').count();
    let mut rest = Rest(rest.get(spaces..)?);
    if *separator == b' ' {
        let month = rest.month()?;
        rest.next()?;
        let day = rest.day_without_zero()?;
        rest.expect(b' ')?;
        let time = rest.time_of_day()?;
        rest.expect(b' ')?;
        return seconds(rest.number(4)?, month, day, time);
    }
    let day = rest.number(2)?;
    let separator = rest.next()?;
    let month = rest.month()?;
    rest.expect(separator)?;
    let year = match separator {
        b' ' => rest.number(4)?,
        b'-' => match rest.number(2)? {
            year @ 0..70 => 2000 + year,
            year => 1900 + year,
        },
        _ => return None,
    };
    rest.expect(b' ')?;
    seconds(year, month, day, rest.time_of_day()?)
}

/// What of a date has not been read.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    fn digit(&mut self) -> Option<i64> {
        self.next().filter(u8::is_ascii_digit).map(|digit| i64::from(digit - b'0'))
    }

    fn number(&mut self, digits: usize) -> Option<i64> {
        (0..digits).try_fold(0, |number, _| Some(10 * number + self.digit()?))
    }

    /// A month by its three letters; 0 is January.
    fn month(&mut self) -> Option<usize> {
        Some(match [self.next()?, self.next()?, self.next()?] {
            [b'J', b'a', _] => 0,
            [b'F', ..] => 1,
            [b'M', _, b'r'] => 2,
            [b'A', b'p', _] => 3,
            [b'M', ..] => 4,
            [b'J', _, b'n'] => 5,
            [b'J', ..] => 6,
            [b'A', ..] => 7,
            [b'S', ..] => 8,
            [b'O', ..] => 9,
            [b'N', ..] => 10,
            [b'D', ..] => 11,
            _ => return None,
        })
    }

    /// A day of one or two digits, maybe with a space in place of the first.
    fn day_without_zero(&mut self) -> Option<i64> {
        if self.0.first() == Some(&b' ') {
            self.next();
        }
        let first = self.digit()?;
        match self.0.first() {
            Some(b' ') => Some(first),
            _ => Some(10 * first + self.digit()?),
        }
    }

    /// `HH:MM:SS` in seconds. No minute has a leap second.
    fn time_of_day(&mut self) -> Option<i64> {
        let hour = self.number(2)?;
        self.expect(b':')?;
        let minute = self.number(2)?;
        self.expect(b':')?;
        let second = self.number(2)?;
        (hour < 24 && minute < 60 && second < 60).then_some((hour * 60 + minute) * 60 + second)
    }
}

/// Seconds since 1970. As in nginx, there is a day 0: the last of the month before.
fn seconds(year: i64, month: usize, day: i64, time_of_day: i64) -> Option<u64> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let leap_day = |month| i64::from(is_leap && month == 1);
    if day > DAYS.get(month)? + leap_day(month) {
        return None;
    }
    let before: i64 = DAYS.iter().take(month).sum::<i64>() + i64::from(is_leap && month > 1);
    // Leap days of the years before this one; the first year that is counted from is 1.
    let leap_days = |years: i64| years / 4 - years / 100 + years / 400;
    let years = (year - 1970) * 365 + leap_days((year - 1).max(0)) - leap_days(1969);
    u64::try_from((years + before + day - 1) * 86_400 + time_of_day).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::{date, MAX_DATE};

    /// The moment of the examples in RFC 9110.
    const EXAMPLE: u64 = 784_111_777;

    #[track_caller]
    fn expect(text: &str, time: u64) {
        assert_eq!(parse(text.as_bytes()), Some(time), "{text}");
    }

    #[test]
    fn the_three_date_formats_are_read() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "  Sun, 06 Nov 1994 08:49:37 GMT ",
        ] {
            expect(text, EXAMPLE);
        }
        expect("Fri, 31 Dec 9999 23:59:59 GMT", MAX_DATE);
        expect("Thu, 01 Jan 1970 00:00:00 GMT", 0);
    }

    #[test]
    fn what_follows_the_date_does_not_matter() {
        for end in ["", " ", " -0000", " +0000", " +0100", " UTC", " gmt", "Z", "; length=5", ".5"]
        {
            expect(&format!("Sun, 06 Nov 1994 08:49:37{end}"), EXAMPLE);
            expect(&format!("Sunday, 06-Nov-94 08:49:37{end}"), EXAMPLE);
            expect(&format!("Sun Nov  6 08:49:37 1994{end}"), EXAMPLE);
        }
        assert_eq!(parse(b"Sun, 06 Nov 1994 08:49:37 GM\xc3"), Some(EXAMPLE));
    }

    #[test]
    fn the_day_of_the_week_does_not_matter() {
        for text in [
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "sun,06 Nov 1994 08:49:37 GMT",
            ",   06 Nov 1994 08:49:37 GMT",
            "Dimanche, 06-Nov-94 08:49:37 GMT",
            "Sun, 06-Nov-94 08:49:37 GMT",
            "? Nov 6 08:49:37 1994",
            "Mon   Nov 06 08:49:37 1994",
        ] {
            expect(text, EXAMPLE);
        }
    }

    #[test]
    fn months_are_known_by_what_tells_them_apart() {
        let months = [
            ["Jan", "Jax"],
            ["Feb", "Fxx"],
            ["Mar", "Mxr"],
            ["Apr", "Apx"],
            ["May", "Mxx"],
            ["Jun", "Jxn"],
            ["Jul", "Jxx"],
            ["Aug", "Axx"],
            ["Sep", "Sxx"],
            ["Oct", "Oxx"],
            ["Nov", "Nxx"],
            ["Dec", "Dxx"],
        ];
        let mut first = 725_846_400; // 1993-01-01
        for (month, days) in months.into_iter().zip(DAYS) {
            for name in month {
                expect(&format!("x, 01 {name} 1993 00:00:00"), first);
            }
            first += 86_400 * days.unsigned_abs();
        }
        for name in ["nov", "NOV", "XYZ", "   "] {
            let text = format!("Sun, 06 {name} 1994 08:49:37 GMT");
            let is_month = name == "NOV";
            assert_eq!(parse(text.as_bytes()), is_month.then_some(EXAMPLE), "{name}");
        }
    }

    #[test]
    fn two_digits_are_a_year_from_1970_to_2069() {
        expect("Thursday, 01-Jan-70 00:00:00 GMT", 0);
        expect("Friday, 31-Dec-99 23:59:59 GMT", 946_684_799);
        expect("Saturday, 01-Jan-00 00:00:00 GMT", 946_684_800);
        expect("Tuesday, 31-Dec-69 23:59:59 GMT", 3_155_759_999);
    }

    #[test]
    fn days_are_those_of_the_month() {
        expect("x, 29 Feb 2000 00:00:00", 951_782_400);
        expect("x, 29 Feb 2024 00:00:00", 1_709_164_800);
        expect("x, 00 Mar 2024 00:00:00", 1_709_164_800);
        expect("x, 31 Dec 1999 23:59:59", 946_684_799);
        for bad in ["29 Feb 2023", "29 Feb 2100", "30 Feb 2024", "31 Apr 2024", "32 Jan 2024"] {
            assert_eq!(parse(format!("x, {bad} 00:00:00").as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn every_date_that_is_written_is_read() {
        let seconds = (0..=MAX_DATE).step_by(86_400 * 13 + 12_345);
        seconds.for_each(|time| expect(&date(time), time));
    }

    #[test]
    fn what_is_no_date_is_none() {
        for bad in [
            "",
            ";",
            ",",
            " ",
            "now",
            "784111777",
            "1994-11-06T08:49:37Z",
            "06 Nov 1994 08:49:37 GMT",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun , 06 Nov 1994 08:49:37 GMT",
            "Sun, 06  Nov 1994 08:49:37 GMT",
            "Sun, 06 November 1994 08:49:37 GMT",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sun, 06-Nov 1994 08:49:37 GMT",
            "Sun, 06/Nov/1994 08:49:37 GMT",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:00 GMT",
            "Sun, 06 Nov 1994 23:59:60 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Sun, 06 Nov 1994 08:49:3",
            "Sun, 06 Nov 10000 08:49:37 GMT",
            "Wed, 31 Dec 1969 23:59:59 GMT",
            "Sat, 01 Jan 0000 00:00:00 GMT",
            "Sun Nov 6 08:49:37 94",
            "Sun Nov  x 08:49:37 1994",
            "Sun Nov  6 08:49:37",
            "\u{e4}",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(parse(b"\xff\xfe"), None);
    }
}
