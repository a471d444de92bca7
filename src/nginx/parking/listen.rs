//! What WebSocket clients say, however they are parked: it is read a little at a time, so that others get their turn.

use std::time::{Duration, Instant};

use comet::outbox::Sent;
use nginx_sys::{
    ngx_add_timer, ngx_connection_t, ngx_del_timer, ngx_msec_t, ngx_post_event,
    ngx_posted_next_events, NGX_AGAIN,
};

use super::compact::hush;
use super::{Ending, Parked};
use crate::talk::{self, Talk};

/// Bytes that are read from a client at once.
const READ_SIZE: usize = 4096;
/// How often that is done before others get their turn.
const READS: usize = 8;
/// And for how long: what a client says may be costly.
const PATIENCE: Duration = Duration::from_millis(2);
/// Milliseconds that a client has to answer a close frame.
const CLOSE_TIMEOUT: ngx_msec_t = 5_000;

/// A parked client that may talk.
pub(super) trait Talker: Copy + Into<Parked> {
    /// Whether something is on its way to the client that its connection does not take yet.
    fn is_held_up(self) -> bool;
    /// How the stream ends once everything has been sent, if it is to end.
    fn ending(self) -> Option<Ending>;
    /// Its conversation.
    fn talk<'a>(self) -> Option<&'a mut Talk>;
    /// Ends the stream: everything has been sent.
    fn finish(self, ending: Ending) -> Sent;
    /// Drops the client: the connection has failed, or the client has gone.
    fn lose(self) -> Sent;
}

/// Reads what a client has sent, until it is to be left alone.
///
/// # Safety
///
/// `c` must be the open connection of the client. It may be closed afterwards.
pub(super) unsafe fn listen(client: impl Talker, c: *mut ngx_connection_t) {
    let mut buffer = [0; READ_SIZE];
    let begin = Instant::now();
    for _ in 0..READS {
        // A client that does not take its replies is not read either.
        if client.is_held_up() && client.ending().is_none() {
            // SAFETY: the caller's promise, and nothing has ended the client since.
            if unsafe { !hush(c) } {
                client.lose();
            }
            return;
        }
        let goes_on = if client.talk().is_some_and(|talk| talk.has_more()) {
            talk::received(client.into(), &[])
        } else {
            // SAFETY: as above, and a buffer of this size.
            let len = unsafe {
                let Some(recv) = (*c).recv else { return };
                recv(c, buffer.as_mut_ptr(), READ_SIZE)
            };
            if len == NGX_AGAIN as isize {
                // SAFETY: as above.
                if unsafe { !hush(c) } {
                    client.lose();
                }
                return;
            }
            let Some(bytes) = usize::try_from(len).ok().and_then(|len| buffer.get(..len)) else {
                client.lose();
                return;
            };
            if bytes.is_empty() {
                return hang_up(client);
            }
            talk::received(client.into(), bytes)
        };
        if !goes_on {
            return;
        }
        if begin.elapsed() > PATIENCE {
            break;
        }
    }
    // SAFETY: the read event of an open connection; closing it takes it out of the queue.
    unsafe { ngx_post_event((*c).read, &raw mut ngx_posted_next_events) };
}

/// The client has closed its side, or has taken too long to do so.
pub(super) fn hang_up(client: impl Talker) {
    match client.ending() {
        Some(Ending::Closing | Ending::Closed) => client.finish(Ending::Closed),
        _ => client.lose(),
    };
}

/// Our close frame has been sent. The client is to see it before the connection goes, so it closes first.
///
/// # Safety
///
/// `c` must be an open connection of a stream.
pub(super) unsafe fn await_close(c: *mut ngx_connection_t) {
    // SAFETY: the caller's promise.
    unsafe {
        if (*(*c).write).timer_set() != 0 {
            ngx_del_timer((*c).write);
        }
        if (*(*c).read).timer_set() == 0 {
            ngx_add_timer((*c).read, CLOSE_TIMEOUT);
        }
    }
}
