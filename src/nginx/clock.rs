//! The time, as nginx has it: read once per turn of the event loop.

use comet::clock::Now;
use nginx_sys::{ngx_cached_time, ngx_current_msec};

/// The present.
pub fn now() -> Now {
    // SAFETY: `ngx_time_init` ran before any module's code, and the pointer always names one of nginx's static slots.
    let seconds = unsafe { (*ngx_cached_time).sec };
    // SAFETY: a plain word that nginx writes between handlers (`ngx_times.c`); CLOCK_MONOTONIC, the same in all processes.
    let mono = unsafe { ngx_current_msec };
    let now = Now { wall: u64::try_from(seconds).unwrap_or(0), mono: mono as u64 };
    #[cfg(feature = "faults")]
    let now = super::faults::shift(now);
    now
}
