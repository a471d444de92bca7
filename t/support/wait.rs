//! Waiting for a condition, with a limit. Nothing here depends on how fast the machine is.

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// How long a test waits for something that must come. `PUSH_TEST_PATIENCE` (seconds) changes it,
/// for runs under valgrind or a sanitizer.
pub fn patience() -> Duration {
    static PATIENCE: OnceLock<Duration> = OnceLock::new();
    *PATIENCE.get_or_init(|| {
        let seconds = std::env::var("PUSH_TEST_PATIENCE").ok().and_then(|s| s.parse().ok());
        Duration::from_secs(seconds.unwrap_or(20))
    })
}

/// Asks `probe` every 10 ms until it has an answer. Panics with `what` when patience ends.
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(start.elapsed() < patience(), "waited {:?} for: {what}", patience());
        thread::sleep(Duration::from_millis(10));
    }
}

/// Asks `probe` every 10 ms until it says yes. Panics with `what` when patience ends.
pub fn until_true(what: &str, mut probe: impl FnMut() -> bool) {
    until(what, || probe().then_some(()));
}

/// Waits until this second, in Unix time, is over.
pub fn until_second_after(second: u64) {
    until_true("the next second", || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        now.expect("after 1970").as_secs() > second
    });
}
