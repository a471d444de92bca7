//! What the kernel says of a process.

/// Whether a process has ended, by what its `/proc/PID/stat` says: also one that its parent has not taken note of yet.
pub fn has_ended(stat: &[u8]) -> bool {
    matches!(from_state(stat).first(), Some(b'Z' | b'X'))
}

/// When a process has started, in the kernel's ticks since it was booted, by its `/proc/PID/stat` (proc(5), field 22). With it, a
/// number says which process it is.
pub fn started(stat: &[u8]) -> Option<u64> {
    let field = from_state(stat).split(|&byte| byte == b' ').nth(19)?;
    std::str::from_utf8(field).ok()?.trim_end().parse().ok()
}

/// What comes after the name of the command, which is in brackets, and may hold anything.
fn from_state(stat: &[u8]) -> &[u8] {
    let rest = stat.iter().rposition(|&byte| byte == b')').and_then(|end| stat.get(end + 1..));
    rest.unwrap_or_default().trim_ascii_start()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_the_twenty_second_field() {
        let stat = |name: &str| {
            format!("12 ({name}) S 1 12 12 0 -1 4194560 8 9 10 11 12 13 14 15 16 17 18 0 4711 23\n")
        };
        for name in ["nginx", "a b", "a) R 1", ""] {
            assert_eq!(started(stat(name).as_bytes()), Some(4711), "{name}");
        }
        assert_eq!(started(b"12 (a) S 1 2 3"), None);
        assert_eq!(started(b""), None);
        let last = stat("a").replace(" 23", "");
        assert_eq!(started(last.as_bytes()), Some(4711));
        let own = std::fs::read("/proc/self/stat").unwrap_or_default();
        assert_eq!(started(&own).is_some(), !own.is_empty());
    }

    #[test]
    fn the_state_comes_after_the_name() {
        for (stat, expected) in [
            ("12 (nginx) S 1 12 12 0 -1 4194560", false),
            ("12 (nginx) R 1", false),
            ("12 (nginx) T 1", false),
            ("12 (nginx) D 1", false),
            ("12 (nginx) Z 1 12 12 0 -1 4194560", true),
            ("12 (nginx) X 1", true),
            ("12 (a) Z (b)) S 1", false),
            ("12 (a) S (b)) Z 1", true),
            ("12 () Z", true),
        ] {
            assert_eq!(has_ended(stat.as_bytes()), expected, "{stat}");
        }
        assert!(has_ended(b"12 (\xff) Z 1"));
    }

    #[test]
    fn who_is_not_known_to_have_ended_has_not() {
        for stat in ["", ")", "Z", "12 (nginx", "12 (nginx)", "12 (nginx) ", "12 (nginx Z 1"] {
            assert!(!has_ended(stat.as_bytes()), "{stat}");
        }
    }
}
