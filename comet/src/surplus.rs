//! When to ask the allocator for what it keeps.
//!
//! What is freed stays with the process, for whatever comes next: after a minute of many large messages a worker would hold
//! tens of megabytes for the rest of its life, with three in use. To give it back, the allocator walks through all that is
//! free, some milliseconds where there is much; so it is asked when the process has grown, and otherwise less and less often
//! while it turns out that what is there is in use.

/// Bytes that are not worth the asking.
const SLACK: u64 = 8 << 20;
/// Milliseconds between two askings at least.
const SHORTEST: u64 = 5_000;
/// And at most.
const LONGEST: u64 = 3_600_000;

/// What is known of a process's memory from the last time.
///
/// Memory that is in use when the process has grown, and is freed later, stays for half as long again as it was in use, and
/// some seconds, at most.
#[derive(Clone, Copy, Debug)]
pub struct Surplus {
    /// Bytes that the process had left then, or less if it has shrunk by itself.
    left: u64,
    asked: u64,
    pause: u64,
}

impl Surplus {
    /// A process that has so many bytes, at a time in milliseconds.
    pub fn new(resident: u64, now: u64) -> Self {
        Surplus { left: resident, asked: now, pause: SHORTEST }
    }

    /// Whether to ask, in a process that has so many bytes now.
    pub fn is_due(&mut self, resident: u64, now: u64) -> bool {
        self.left = self.left.min(resident);
        if resident > self.left.saturating_add(self.left / 4).saturating_add(SLACK) {
            self.pause = SHORTEST;
        }
        now.saturating_sub(self.asked) >= self.pause
    }

    /// Notes that the allocator was asked, and how many bytes the process had before and has now.
    pub fn asked(&mut self, before: u64, left: u64, now: u64) {
        let is_worth_it = before.saturating_sub(left) >= SLACK;
        let pause = if is_worth_it { SHORTEST } else { (self.pause + self.pause / 2).min(LONGEST) };
        *self = Surplus { left, asked: now, pause };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]

    use super::*;

    const MB: u64 = 1 << 20;

    /// Looks once a second, and asks when due, which leaves what is in use: what the process has, at each second.
    fn live(seconds: u64, in_use: impl Fn(u64) -> u64) -> (Vec<u64>, Vec<u64>) {
        let mut surplus = Surplus::new(in_use(0), 0);
        let mut resident = in_use(0);
        let (mut had, mut asked) = (Vec::new(), Vec::new());
        for second in 1..=seconds {
            resident = resident.max(in_use(second));
            if surplus.is_due(resident, second * 1_000) {
                surplus.asked(resident, in_use(second), second * 1_000);
                resident = in_use(second);
                asked.push(second);
            }
            had.push(resident);
        }
        (had, asked)
    }

    #[test]
    fn what_was_used_for_a_moment_is_given_back_within_seconds() {
        let (had, _) = live(2_000, |second| if second == 1_000 { 100 * MB } else { 5 * MB });
        let long = had.iter().filter(|bytes| **bytes > 5 * MB).count() as u64;
        assert!(long <= 1 + SHORTEST * 3 / 2_000, "{long}");
    }

    #[test]
    fn what_was_used_for_long_is_given_back_within_half_that_time() {
        for used in [10, 100, 1_000] {
            let end = 1_000 + used;
            let (had, _) = live(8_000, |second| match second {
                1_000.. if second < end => 100 * MB,
                _ => 5 * MB,
            });
            let last = had.iter().rposition(|bytes| *bytes > 5 * MB).map(|at| at as u64 + 1);
            assert!(last.is_some_and(|last| last < end + used / 2 + 10), "{used}: {last:?}");
        }
    }

    #[test]
    fn a_process_that_uses_what_it_has_is_left_in_peace() {
        let (_, asked) = live(100_000, |_| 500 * MB);
        assert!(asked.len() < 50, "{asked:?}");
        assert!(asked.windows(3).all(|at| at[2] - at[1] >= at[1] - at[0]), "{asked:?}");
    }

    #[test]
    fn a_process_that_grows_is_asked_at_each_quarter_and_not_all_the_time() {
        // To a gigabyte in a thousand seconds.
        let (_, asked) = live(1_000, |second| second * MB);
        assert!(asked.len() < 40, "{asked:?}");
        assert!(asked.windows(2).all(|at| at[1] - at[0] >= SHORTEST / 1_000), "{asked:?}");
    }

    #[test]
    fn any_figures_do() {
        let mut surplus = Surplus::new(u64::MAX, u64::MAX);
        for (resident, now) in [(u64::MAX, 0), (0, u64::MAX), (u64::MAX, u64::MAX), (0, 0)] {
            surplus.is_due(resident, now);
            surplus.asked(resident, u64::MAX, now);
            surplus.asked(resident, 0, now);
        }
    }
}
