//! Lines in nginx's error log.

use std::cell::{Cell, RefCell};
use std::ptr;

use nginx_sys::{
    ngx_conf_log_error, ngx_conf_t, ngx_cycle, ngx_cycle_t, ngx_log_error_core, ngx_log_t,
    ngx_uint_t, NGX_LOG_EMERG, NGX_LOG_ERR, NGX_LOG_INFO, NGX_LOG_NOTICE, NGX_LOG_WARN,
};

use super::{clock, text};

/// How serious a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// What clients do wrong.
    Info,
    /// Something that an operator wants to know.
    Notice,
    /// Something that is probably not meant.
    Warn,
    /// Something that did not work.
    Error,
    /// Something that must never happen.
    #[cfg(feature = "faults")]
    Alert,
    /// Something that keeps nginx from starting.
    Emergency,
}

impl Level {
    fn number(self) -> ngx_uint_t {
        (match self {
            Level::Info => NGX_LOG_INFO,
            Level::Notice => NGX_LOG_NOTICE,
            Level::Warn => NGX_LOG_WARN,
            Level::Error => NGX_LOG_ERR,
            #[cfg(feature = "faults")]
            Level::Alert => nginx_sys::NGX_LOG_ALERT,
            Level::Emergency => NGX_LOG_EMERG,
        }) as ngx_uint_t
    }
}

/// What clients can bring about as often as they like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// A request names no channel.
    NoChannel,
    /// A request names more channels than it may.
    ManyChannels,
    /// A channel's id was cut.
    LongId,
    /// A page of another origin was refused.
    Origin,
    /// A message was not published: there is no room.
    Full,
    /// A message was not published: there are as many channels as there may be.
    Limit,
    /// A message was not published: the zone is being replaced.
    Closing,
    /// A large message cannot be kept.
    NoFile,
    /// A message was not published: there is no memory for it.
    Memory,
    /// A subscriber was not served: there is no room for its channel.
    NoRoom,
    /// A subscriber was not served: there are as many channels as there may be.
    NoMore,
    /// Something is short of which clients are refused.
    Short,
    /// There is no room for a worker.
    Worker,
}

/// Milliseconds after which a worker tells of a topic again as something that an operator should know.
const INTERVAL: u64 = 60_000;

impl Topic {
    /// The level of a line about this topic: the one given, but seldom; then it is one of many.
    pub fn level(self, level: Level) -> Level {
        thread_local! {
            static TOLD: RefCell<Vec<(Topic, u64)>> = const { RefCell::new(Vec::new()) };
        }
        let now = clock::now().mono;
        TOLD.with_borrow_mut(|told| match told.iter_mut().find(|(topic, _)| *topic == self) {
            Some((_, at)) if now < at.saturating_add(INTERVAL) => Level::Info,
            Some((_, at)) => {
                *at = now;
                level
            }
            None => {
                told.push((self, now));
                level
            }
        })
    }
}

/// Writes to a log, if it wants lines of that level.
///
/// # Safety
///
/// `log` must be a log of nginx's, or null.
pub unsafe fn write(log: *mut ngx_log_t, level: Level, line: &str) {
    // SAFETY: checked for null; the caller promises the rest.
    if log.is_null() || unsafe { (*log).log_level } < level.number() {
        return;
    }
    let line = text::borrowed(line.as_bytes());
    // SAFETY: "%V" takes one pointer to an ngx_str_t, which lives during the call.
    unsafe { ngx_log_error_core(level.number(), log, 0, c"%V".as_ptr(), &raw const line) };
}

thread_local! {
    /// The cycle whose log is ours; none before the first one begins.
    static NEWEST: Cell<*mut ngx_cycle_t> = const { Cell::new(ptr::null_mut()) };
}

/// Has [`cycle`] write to this cycle's log from now on. nginx itself names a new cycle only after `init_module`, and what is
/// said there would go to the log of the one before.
///
/// # Safety
///
/// `newest` must be the cycle that `init_module` was called with.
pub unsafe fn begin(newest: *mut ngx_cycle_t) {
    NEWEST.set(newest);
}

/// Writes to the log of the cycle.
pub fn cycle(level: Level, line: &str) {
    // SAFETY: `ngx_cycle` is set before any module's code runs. A cycle that was begun is nginx's from then on, until the next
    // one: `init_module` cannot refuse it any more. A cycle's log lives as long as the cycle.
    unsafe {
        let newest = NEWEST.get();
        let cycle = if newest.is_null() { ngx_cycle.cast_const() } else { newest.cast_const() };
        write((*cycle).log, level, line);
    }
}

/// Writes about a configuration, with the file and line that nginx is reading.
///
/// # Safety
///
/// `cf` must be the configuration that nginx has passed to the handler that calls this.
pub unsafe fn configuration(cf: *mut ngx_conf_t, level: Level, line: &str) {
    let line = text::borrowed(line.as_bytes());
    // SAFETY: "%V" takes one pointer to an ngx_str_t, which lives during the call.
    unsafe { ngx_conf_log_error(level.number(), cf, 0, c"%V".as_ptr(), &raw const line) };
}
