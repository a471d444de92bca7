//! What the kernel says of a process.

/// Whether a process has ended, by what its `/proc/PID/stat` says: also one that its parent has not taken note of yet.
pub fn has_ended(stat: &[u8]) -> bool {
    // The name of the command is in brackets, and may hold anything.
    let rest = stat.iter().rposition(|&byte| byte == b')').and_then(|end| stat.get(end + 1..));
    let state = rest.unwrap_or_default().trim_ascii_start().first();
    matches!(state, Some(b'Z' | b'X'))
}

#[cfg(test)]
mod tests {
    use super::has_ended;

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
