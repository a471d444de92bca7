//! A stream that sleeps in the compact way: what it gets goes straight to its connection.
//!
//! One `send` for each client, from a buffer that all clients of the worker share: no chains, no pools, no filters. What
//! the connection does not take waits in the client's outbox, and nothing else is sent to it until that has gone.

use std::rc::Rc;

use comet::config::Settings;
use comet::hub::Key;
use comet::outbox::{Frames, Outbox, Sent};
use comet::wire::chunk::{self, Chunk};
use nginx_sys::{
    ngx_add_timer, ngx_connection_t, ngx_del_timer, ngx_event_t, ngx_handle_write_event, ngx_int_t,
    NGX_AGAIN, NGX_OK,
};

use super::compact::{self, Awakening, Parked, Sleeper, State};
use super::listen::{await_close, hang_up, listen, Talker};
use super::Ending;
use crate::nginx::conf::{core_location, Location};
use crate::nginx::module::ngx_http_push_module;
use crate::nginx::socket;
use crate::talk::{self, Talk};
use crate::worker;

/// What a stream needs while something is on its way.
#[derive(Debug, Default)]
pub struct Live {
    pub outbox: Outbox,
    /// What comes once the outbox is empty.
    pub ending: Option<Ending>,
    /// What a client has sent with its head.
    pub early: Vec<u8>,
}

impl Parked {
    fn sleeper<'a>(self) -> &'a mut Sleeper {
        // SAFETY: a sleeper lives until it is answered or found to have gone, and the worker is one thread; no reference is
        // kept across a call that could wake it.
        unsafe { &mut *self.0.as_ptr() }
    }

    /// What is on its way, if anything is.
    fn live<'a>(self) -> Option<&'a mut Live> {
        self.sleeper().live.as_deref_mut()
    }

    /// Makes room for what is on its way.
    fn live_or_new<'a>(self) -> &'a mut Live {
        self.sleeper().live.get_or_insert_default()
    }

    /// Under which key the worker knows it.
    pub fn key(self) -> Option<Key> {
        Some(self.sleeper().key).filter(|key| *key != Key::NONE)
    }

    /// The settings of its location.
    pub fn settings<'a>(self) -> &'a Settings {
        // SAFETY: the location belongs to the cycle of the connection, which outlives it.
        unsafe {
            let location = *self.sleeper().snapshot.loc_conf().add(ngx_http_push_module.ctx_index);
            &(*location.cast::<Location>()).settings
        }
    }

    /// Whether the client may still be there.
    pub fn is_heard(self) -> bool {
        let sleeper = self.sleeper();
        // SAFETY: the connection of a sleeper is open and ours; before that nothing is known of it. The location belongs to
        // the connection's cycle.
        sleeper.state == State::Falling
            || unsafe {
                let core = core_location(sleeper.snapshot.loc_conf());
                socket::is_heard(sleeper.connection, core)
            }
    }

    /// Milliseconds that the client may take nothing.
    pub fn send_timeout(self) -> u64 {
        // SAFETY: as above.
        unsafe { (*core_location(self.sleeper().snapshot.loc_conf())).send_timeout as u64 }
    }

    /// Takes the conversation, to be put back.
    pub fn take_talk(self) -> Option<Box<Talk>> {
        self.sleeper().talk.take()
    }

    /// Puts the conversation back.
    pub fn put_talk(self, talk: Box<Talk>) {
        self.sleeper().talk = Some(talk);
    }

    /// The stream's connection is ours from now on.
    pub(super) fn go_live(self) {
        let early = self.live().map(|live| std::mem::take(&mut live.early)).unwrap_or_default();
        if !early.is_empty() && !talk::received(self.into(), &early) {
            return;
        }
        if self.is_held_up() || self.ending().is_some() {
            // It was told to end before it could be told anything.
            self.flush();
            return;
        }
        if let Some(key) = self.key() {
            worker::can_take(key);
        }
        self.read();
    }

    /// Sends frames; nothing may wait in the outbox.
    pub fn send(self, frames: &Rc<Chunk>) -> Sent {
        let sleeper = self.sleeper();
        let coded = sleeper.coded;
        // A format may have nothing to say of an empty message; and sending nothing is an error to a connection.
        if frames.payload().is_empty() {
            return Sent::All;
        }
        let bytes = if coded { frames.as_chunk() } else { frames.payload() };
        let sent = match sleeper.state {
            State::Falling => Some(0),
            // SAFETY: an open connection of ours.
            State::Asleep => unsafe { write(sleeper.connection, bytes) },
        };
        match sent {
            Some(len) if len == bytes.len() => Sent::All,
            Some(len) => {
                let frames = Frames { chunk: Rc::clone(frames), coded };
                self.live_or_new().outbox.keep(frames, len);
                self.await_room()
            }
            None => self.lose(),
        }
    }

    /// Sends what is for this client alone, after what waits.
    pub fn say(self, bytes: &[u8]) -> Sent {
        self.live_or_new().outbox.add(bytes);
        self.flush()
    }

    /// Sends the last bytes, and ends the stream when they have gone.
    pub fn end(self, bytes: &[u8], ending: Ending) {
        let sleeper = self.sleeper();
        sleeper.key = Key::NONE;
        let coded = sleeper.coded;
        let live = self.live_or_new();
        if coded && !bytes.is_empty() {
            live.outbox.add(Chunk::new(bytes).as_chunk());
        } else {
            live.outbox.add(bytes);
        }
        if coded && ending == Ending::Complete {
            live.outbox.add(chunk::LAST);
        }
        live.ending = Some(ending);
        self.flush();
    }

    /// Sends what waits. Whoever gets `Broken` must not use the stream again.
    fn flush(self) -> Sent {
        let sleeper = self.sleeper();
        if sleeper.state == State::Falling {
            return Sent::Partly;
        }
        let connection = sleeper.connection;
        let Some(live) = &mut sleeper.live else { return Sent::All };
        // SAFETY: an open connection of ours.
        match live.outbox.flush(|bytes| unsafe { write(connection, bytes) }) {
            Sent::All => match live.ending {
                Some(ending) => self.finish(ending),
                None => {
                    sleeper.live = None;
                    Sent::All
                }
            },
            Sent::Partly => self.await_room(),
            Sent::Broken => self.lose(),
        }
    }

    /// Asks to be told when the connection takes more.
    fn await_room(self) -> Sent {
        let sleeper = self.sleeper();
        if sleeper.state == State::Falling {
            return Sent::Partly;
        }
        // SAFETY: an open connection of ours, and the configuration of its location.
        let registered = unsafe {
            let write = (*sleeper.connection).write;
            let core = core_location(sleeper.snapshot.loc_conf());
            ngx_add_timer(write, (*core).send_timeout);
            ngx_handle_write_event(write, 0) == NGX_OK as ngx_int_t
        };
        if registered {
            Sent::Partly
        } else {
            self.lose()
        }
    }

    /// Reads what the client has sent.
    fn read(self) {
        let sleeper = self.sleeper();
        let connection = sleeper.connection;
        if sleeper.talk.is_none() {
            // SAFETY: an open connection of ours.
            if unsafe { compact::has_left(connection) } {
                self.lose();
            }
            return;
        }
        // SAFETY: an open connection of ours.
        unsafe { listen(self, connection) };
    }

    /// The client has answered our close frame.
    pub fn closed(self) {
        self.finish(Ending::Closed);
    }
}

impl Talker for Parked {
    fn is_held_up(self) -> bool {
        self.live().is_some_and(|live| !live.outbox.is_empty())
    }

    fn ending(self) -> Option<Ending> {
        self.live()?.ending
    }

    fn talk<'a>(self) -> Option<&'a mut Talk> {
        self.sleeper().talk.as_deref_mut()
    }

    fn finish(self, ending: Ending) -> Sent {
        let connection = self.sleeper().connection;
        // SAFETY: an open connection of ours; the sleeper is not used after it was woken.
        unsafe {
            match ending {
                Ending::Complete => self.wake(Awakening::Ended { keep: true }),
                Ending::Closed => self.wake(Awakening::Ended { keep: false }),
                Ending::Cut => self.wake(Awakening::ClientGone),
                Ending::Closing => {
                    await_close(connection);
                    return Sent::All;
                }
            }
        }
        Sent::Broken
    }

    fn lose(self) -> Sent {
        // SAFETY: the sleeper lives, and is not used afterwards.
        unsafe { compact::leave(self) };
        Sent::Broken
    }
}

/// Sends bytes: how many have gone, or nothing if the connection is broken.
///
/// # Safety
///
/// `c` must be an open connection.
unsafe fn write(c: *mut ngx_connection_t, bytes: &[u8]) -> Option<usize> {
    // SAFETY: the caller's promise; nginx only reads from the buffer.
    let sent = unsafe { (*c).send?(c, bytes.as_ptr().cast_mut(), bytes.len()) };
    if sent == NGX_AGAIN as isize {
        return Some(0);
    }
    usize::try_from(sent).ok()
}

/// The stream of a connection of ours.
///
/// # Safety
///
/// `event` must be one of a connection that a stream sleeps on.
unsafe fn stream_of(event: *mut ngx_event_t) -> Option<Parked> {
    // SAFETY: the caller's promise: then the connection's data is the sleeper.
    unsafe {
        let c: *mut ngx_connection_t = (*event).data.cast();
        std::ptr::NonNull::new((*c).data.cast()).map(Parked)
    }
}

/// The client has sent something, has gone, or has taken too long to close.
pub(super) unsafe extern "C" fn can_read(read: *mut ngx_event_t) {
    // SAFETY: nginx passes the read event of a connection that was taken over for a stream.
    let (stream, late, close) = unsafe {
        let c: *mut ngx_connection_t = (*read).data.cast();
        (stream_of(read), (*read).timedout() != 0, (*c).close() != 0)
    };
    match stream {
        Some(stream) if late => hang_up(stream),
        Some(stream) if close => {
            stream.lose();
        }
        Some(stream) => stream.read(),
        None => {}
    }
}

/// The connection takes more, or has not for too long.
pub(super) unsafe extern "C" fn can_write(write: *mut ngx_event_t) {
    // SAFETY: nginx passes the write event of a connection that was taken over for a stream.
    let Some(stream) = (unsafe { stream_of(write) }) else { return };
    // SAFETY: as above. Some event methods would tell again and again that it does (`poll`, `select`), unless asked not to.
    if unsafe {
        let is_late = (*write).timedout() != 0;
        if is_late {
            // For `reset_timedout_connection`.
            (*(*write).data.cast::<ngx_connection_t>()).set_timedout(1);
        }
        is_late || ngx_handle_write_event(write, 0) != NGX_OK as ngx_int_t
    } {
        stream.lose();
        return;
    }
    if !stream.is_held_up() || stream.flush() != Sent::All {
        return;
    }
    // SAFETY: as above; after `All`, the connection is still ours.
    unsafe {
        if (*write).timer_set() != 0 {
            ngx_del_timer(write);
        }
    }
    if let Some(key) = stream.key() {
        worker::can_take(key);
    }
    stream.read();
}
