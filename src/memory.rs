//! Whether there is memory for what may be large, or for one more who waits.
//!
//! Rust ends a process whose allocation fails, and everybody whom it serves is cut off. So what grows with a message, or with
//! the number of those who wait, is asked for before it is taken, and refused where it is not there: to one client, who is
//! told to come back.

use std::cell::Cell;

use crate::nginx::clock;
use crate::nginx::log::{self, Level, Topic};
use crate::nginx::process;

/// Bytes that nobody asks for: there is always so much, or nothing works any more.
const SMALL: u64 = 64 << 10;
/// Bytes that are left for what cannot be refused.
const RESERVE: usize = 1 << 20;
/// How many times its size a message takes while it is rendered: read, written, and put into a chunk.
const RENDERING: u64 = 4;
/// Bytes that each of those who wait may take when the tables of them grow.
const WAITER: u64 = 256;
/// How many come to wait between two looks.
const CROWD: u32 = 16;
/// Milliseconds between two attempts to find memory that nobody uses any more.
const TIDY: u64 = 1_000;

thread_local! {
    static COUNT: Cell<u32> = const { Cell::new(0) };
    static IS_SHORT: Cell<bool> = const { Cell::new(false) };
    static TIDIED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Whether there is room for so many bytes.
pub fn has_room(bytes: u64) -> bool {
    bytes <= SMALL || is_there(bytes)
}

/// Whether there is room to render bodies of so many bytes.
pub fn has_room_to_render(bytes: u64) -> bool {
    has_room(bytes.saturating_mul(RENDERING))
}

/// Whether one more may wait, beside so many.
pub fn has_room_to_wait(waiting: usize) -> bool {
    let count = COUNT.replace(COUNT.get().wrapping_add(1));
    if count.is_multiple_of(CROWD) || IS_SHORT.get() {
        IS_SHORT.set(!is_there((waiting as u64).saturating_mul(WAITER)));
    }
    !IS_SHORT.get()
}

fn is_there(bytes: u64) -> bool {
    let is_there =
        || usize::try_from(bytes).is_ok_and(|bytes| process::has_room_for(bytes, RESERVE));
    if is_there() {
        return true;
    }
    let now = clock::now().mono;
    if TIDIED.get().is_none_or(|tidied| now.saturating_sub(tidied) >= TIDY) {
        TIDIED.set(Some(now));
        // What has gone in small pieces may make a large one.
        process::give_memory_back();
        if is_there() {
            return true;
        }
    }
    complain("the worker has no memory left for all that it is asked for");
    false
}

/// Tells the operator what is short.
pub fn complain(what: &str) {
    let level = Topic::Short.level(Level::Error);
    log::cycle(level, &format!("push: {what}; clients are told to come back"));
}
