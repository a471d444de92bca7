//! The plain way to park: nginx's own suspension of a request.

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::rc::Rc;

use comet::config::Settings;
use comet::hub::Key;
use comet::outbox::Sent;
use comet::wire::chunk::Chunk;
use nginx_sys::{
    ngx_add_timer, ngx_buf_t, ngx_chain_t, ngx_connection_t, ngx_del_timer, ngx_handle_read_event,
    ngx_handle_write_event, ngx_http_cleanup_add, ngx_http_finalize_request,
    ngx_http_output_filter, ngx_http_request_empty_handler, ngx_http_request_t,
    ngx_http_run_posted_requests, ngx_http_send_special, ngx_http_test_reading, ngx_int_t,
    ngx_post_event, ngx_posted_next_events, ngx_uint_t, NGX_AGAIN, NGX_ERROR,
    NGX_HTTP_CLIENT_CLOSED_REQUEST, NGX_HTTP_LAST, NGX_HTTP_VERSION_20, NGX_OK,
};

use super::listen::{await_close, hang_up, listen, Talker};
use super::live::Live;
use super::{Answer, Ending, Request};
use crate::nginx::conf::{core_location, Location};
use crate::nginx::module::ngx_http_push_module;
use crate::nginx::socket;
use crate::talk::{self, Talk};
use crate::worker;

/// A suspended request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parked(pub(super) NonNull<Place>);

/// In the request's pool.
#[derive(Debug)]
pub(super) struct Place {
    request: *mut ngx_http_request_t,
    /// Under which the worker knows it; nothing before it waits and after it was answered.
    key: Option<Key>,
    /// A WebSocket's conversation.
    talk: Option<Box<Talk>>,
    /// What is on its way to a stream.
    live: Option<Box<Live>>,
    /// What nginx is sending of a stream, until it has gone.
    sending: Option<Rc<Chunk>>,
    link: ngx_chain_t,
    buffer: ngx_buf_t,
}

/// Suspends a request: its content handler must return `Status::LATER`.
pub fn park(request: &Request) -> Option<Parked> {
    // SAFETY: a living request, in its content handler or the handler of its body.
    unsafe {
        let parked = suspend(request.0, None, None)?;
        let handler = if request.is_part() { part_can_read } else { ngx_http_test_reading };
        (*request.0).read_event_handler = Some(handler);
        watch(request.0).then_some(parked).or_else(|| resume(request.0))
    }
}

/// Suspends a stream whose head has been sent: its content handler must return `Status::LATER`.
pub fn park_stream(request: &Request, talk: Option<Box<Talk>>, early: Vec<u8>) -> Option<Parked> {
    let (is_talk, is_early) = (talk.is_some(), !early.is_empty());
    // SAFETY: as in `park`.
    unsafe {
        let r = request.0;
        let live = Box::new(Live { early, ..Live::default() });
        let parked = suspend(r, talk, Some(live))?;
        (*r).read_event_handler = Some(if is_talk { can_read } else { ngx_http_test_reading });
        (*r).write_event_handler = Some(can_write);
        if !watch(r) {
            return resume(r);
        }
        // The worker will know the stream, and look what there is for it, before this turn of the event loop ends.
        ngx_post_event((*(*r).connection).write, &raw mut ngx_posted_next_events);
        if is_early {
            ngx_post_event((*(*r).connection).read, &raw mut ngx_posted_next_events);
        }
        Some(parked)
    }
}

/// # Safety
///
/// `r` must be a living request, in its content handler or the handler of its body.
unsafe fn suspend(
    r: *mut ngx_http_request_t,
    talk: Option<Box<Talk>>,
    live: Option<Box<Live>>,
) -> Option<Parked> {
    // SAFETY: the caller's promise. The cleanup handler is called before the request's pool, where the place lives, is
    // freed. `count` keeps the request until it is finalized.
    unsafe {
        let cleanup = ngx_http_cleanup_add(r, size_of::<Place>());
        let cleanup = cleanup.as_mut()?;
        let place = NonNull::new(cleanup.data.cast::<Place>())?;
        place.write(Place {
            request: r,
            key: None,
            talk,
            live,
            sending: None,
            link: std::mem::zeroed(),
            buffer: std::mem::zeroed(),
        });
        cleanup.handler = Some(gone);
        (*r).write_event_handler = Some(ngx_http_request_empty_handler);
        let main = (*r).main;
        (*main).set_count((*main).count() + 1);
        Some(Parked(place))
    }
}

/// Takes a suspension back: nginx counts the request as busy no longer.
///
/// # Safety
///
/// `r` must have been suspended by the handler that is being called.
unsafe fn resume(r: *mut ngx_http_request_t) -> Option<Parked> {
    // SAFETY: the caller's promise.
    unsafe {
        let main = (*r).main;
        (*main).set_count((*main).count() - 1);
    }
    None
}

/// Has the read handler called when the client goes away.
///
/// # Safety
///
/// As for [`suspend`].
unsafe fn watch(r: *mut ngx_http_request_t) -> bool {
    // SAFETY: the caller's promise. HTTP/2 and 3 have no event for a stream of their own: nginx tells us through the
    // request's read handler.
    unsafe {
        let own_connection = (*r).http_version < NGX_HTTP_VERSION_20 as ngx_uint_t;
        let read = (*(*r).connection).read;
        if own_connection && ngx_handle_read_event(read, 0) != NGX_OK as ngx_int_t {
            return false;
        }
        // The client's end may have come along with its request: epoll does not tell again.
        if own_connection && (*read).ready() != 0 {
            ngx_post_event(read, &raw mut ngx_posted_next_events);
        }
        true
    }
}

unsafe extern "C" fn gone(data: *mut c_void) {
    // SAFETY: nginx passes the data of the cleanup that `suspend` has added; its pool is still there. nginx stops sending
    // before it frees a request.
    unsafe {
        let place = data.cast::<Place>();
        let key = (*place).key.take();
        ptr::drop_in_place(place);
        place.cast::<u8>().write_bytes(0, size_of::<Place>());
        if let (Some(key), Some(parked)) = (key, NonNull::new(place).map(Parked)) {
            worker::ended(key, parked.into());
        }
    }
}

impl Parked {
    fn place<'a>(self) -> &'a mut Place {
        // SAFETY: a parked request lives, and so does its place; the worker is one thread, and no reference is kept across
        // a call that could end the request.
        unsafe { &mut *self.0.as_ptr() }
    }

    fn live<'a>(self) -> Option<&'a mut Live> {
        self.place().live.as_deref_mut()
    }

    /// Says under which key the worker knows the request.
    pub fn set_key(&self, key: Key) {
        self.place().key = Some(key);
    }

    /// Under which key the worker knows it.
    pub fn key(self) -> Option<Key> {
        self.place().key
    }

    /// Sends the reply and ends the request.
    pub fn answer(self, answer: Answer) {
        let place = self.place();
        place.key = None;
        let request = Request(place.request);
        let status = answer.send(&request);
        self.finalize(status.0);
    }

    /// Ends the request.
    fn finalize(self, status: ngx_int_t) {
        // SAFETY: a parked request lives, and so does its place. Its connection may be closed by the finalization, but its
        // memory is not given back before the next turn of the event loop.
        unsafe {
            let r = self.place().request;
            let connection = (*r).connection;
            ngx_http_finalize_request(r, status);
            ngx_http_run_posted_requests(connection);
        }
    }

    /// The settings of its location.
    pub fn settings<'a>(self) -> &'a Settings {
        // SAFETY: the location belongs to the cycle, which outlives its requests.
        unsafe {
            let location = *(*self.place().request).loc_conf.add(ngx_http_push_module.ctx_index);
            &(*location.cast::<Location>()).settings
        }
    }

    /// Whether the client may still be there.
    pub fn is_heard(self) -> bool {
        let request = self.place().request;
        // SAFETY: a living request has a connection and a location.
        unsafe { socket::is_heard((*request).connection, core_location((*request).loc_conf)) }
    }

    /// Milliseconds that the client may take nothing.
    pub fn send_timeout(self) -> u64 {
        // SAFETY: as above.
        unsafe { (*core_location((*self.place().request).loc_conf)).send_timeout as u64 }
    }

    /// Takes the conversation, to be put back.
    pub fn take_talk(self) -> Option<Box<Talk>> {
        self.place().talk.take()
    }

    /// Puts the conversation back.
    pub fn put_talk(self, talk: Box<Talk>) {
        self.place().talk = Some(talk);
    }

    /// Sends frames; nothing may be on its way.
    pub fn send(self, frames: &Rc<Chunk>) -> Sent {
        let place = self.place();
        if frames.payload().is_empty() {
            return Sent::All;
        }
        place.sending = Some(Rc::clone(frames));
        // SAFETY: a living request whose head was sent. The buffer and its link are not in use, for everything that was
        // sent before has gone; the bytes live until this has gone too. nginx only reads from `memory`.
        let code = unsafe {
            let bytes = frames.payload().as_ptr_range();
            place.buffer = std::mem::zeroed();
            place.buffer.pos = bytes.start.cast_mut();
            place.buffer.last = bytes.end.cast_mut();
            place.buffer.set_memory(1);
            place.buffer.set_flush(1);
            place.link.buf = &raw mut place.buffer;
            place.link.next = ptr::null_mut();
            ngx_http_output_filter(place.request, &raw mut place.link)
        };
        self.after_output(code)
    }

    /// Sends what is for this client alone, after what waits.
    pub fn say(self, bytes: &[u8]) -> Sent {
        if let Some(live) = self.live() {
            live.outbox.add(bytes);
        }
        if self.place().sending.is_some() {
            return Sent::Partly;
        }
        self.say_rest()
    }

    /// Sends what was added to the outbox.
    fn say_rest(self) -> Sent {
        let mut rest = Vec::new();
        if let Some(live) = self.live() {
            live.outbox.flush(|bytes| {
                rest.extend_from_slice(bytes);
                Some(bytes.len())
            });
        }
        if !rest.is_empty() {
            return self.send(&Rc::new(Chunk::new(&rest)));
        }
        match self.ending() {
            Some(ending) => self.finish(ending),
            None => Sent::All,
        }
    }

    /// Sends the last bytes, and ends the stream when they have gone.
    pub fn end(self, bytes: &[u8], ending: Ending) {
        self.place().key = None;
        if let Some(live) = self.live() {
            live.outbox.add(bytes);
            live.ending = Some(ending);
        }
        if self.place().sending.is_none() {
            self.say_rest();
        }
    }

    fn after_output(self, code: ngx_int_t) -> Sent {
        if code == NGX_ERROR as ngx_int_t || code > NGX_OK as ngx_int_t {
            return self.lose();
        }
        // SAFETY: a living request.
        let waits = unsafe {
            let r = self.place().request;
            let c = (*r).connection;
            code == NGX_AGAIN as ngx_int_t || (*r).buffered() != 0 || (*c).buffered() != 0
        };
        if waits {
            return self.await_room();
        }
        self.place().sending = None;
        self.say_rest()
    }

    /// Asks to be told when nginx has sent everything.
    fn await_room(self) -> Sent {
        // SAFETY: a living request, with the configuration of its location. `delayed` says that nginx holds back what it
        // could send (`limit_rate`), and that the timer is its own.
        let registered = unsafe {
            let r = self.place().request;
            let write = (*(*r).connection).write;
            let core = core_location((*r).loc_conf);
            if (*write).delayed() == 0 {
                ngx_add_timer(write, (*core).send_timeout);
            }
            ngx_handle_write_event(write, (*core).send_lowat) == NGX_OK as ngx_int_t
        };
        if registered {
            Sent::Partly
        } else {
            self.lose()
        }
    }

    /// The client has answered our close frame.
    pub fn closed(self) {
        self.finish(Ending::Closed);
    }

    /// Reads what a WebSocket client has sent.
    fn read(self) {
        // SAFETY: the connection of a living request, of HTTP/1.1, for others have no WebSockets.
        let connection: *mut ngx_connection_t = unsafe { (*self.place().request).connection };
        // SAFETY: as above.
        let (late, close) =
            unsafe { ((*(*connection).read).timedout() != 0, (*connection).close() != 0) };
        if late {
            return hang_up(self);
        }
        if close {
            self.lose();
            return;
        }
        let early = self.live().map(|live| std::mem::take(&mut live.early)).unwrap_or_default();
        if !early.is_empty() && !talk::received(self.into(), &early) {
            return;
        }
        // SAFETY: as above.
        unsafe { listen(self, connection) };
    }
}

impl Talker for Parked {
    fn is_held_up(self) -> bool {
        self.place().sending.is_some()
    }

    fn ending(self) -> Option<Ending> {
        self.live()?.ending
    }

    fn talk<'a>(self) -> Option<&'a mut Talk> {
        self.place().talk.as_deref_mut()
    }

    fn finish(self, ending: Ending) -> Sent {
        let r = self.place().request;
        match ending {
            Ending::Complete => {
                // SAFETY: a living request whose head was sent.
                let code = unsafe { ngx_http_send_special(r, NGX_HTTP_LAST as ngx_uint_t) };
                self.finalize(code);
            }
            Ending::Cut => {
                self.lose();
            }
            Ending::Closed => {
                // SAFETY: a living request.
                unsafe { (*r).set_keepalive(0) };
                self.finalize(NGX_OK as ngx_int_t);
            }
            Ending::Closing => {
                // SAFETY: the connection of a living request.
                unsafe { await_close((*r).connection) };
                return Sent::All;
            }
        }
        Sent::Broken
    }

    fn lose(self) -> Sent {
        // SAFETY: a living request. Its cleanup tells the worker.
        unsafe { (*(*self.place().request).connection).set_error(1) };
        self.finalize(NGX_HTTP_CLIENT_CLOSED_REQUEST as ngx_int_t);
        Sent::Broken
    }
}

/// The stream that a request is.
///
/// # Safety
///
/// `r` must be a request that `park_stream` has suspended.
unsafe fn stream_of(r: *mut ngx_http_request_t) -> Option<Parked> {
    // SAFETY: the caller's promise: then our cleanup is among those of the request, and of its parts that wait too.
    unsafe {
        let mut cleanup = (*(*r).main).cleanup;
        while let Some(one) = cleanup.as_ref() {
            let ours: unsafe extern "C" fn(*mut c_void) = gone;
            if one.handler.is_some_and(|handler| handler as usize == ours as usize) {
                let place = NonNull::new(one.data.cast::<Place>())?;
                if ptr::eq(place.as_ref().request, r) {
                    return Some(Parked(place));
                }
            }
            cleanup = one.next;
        }
        None
    }
}

/// Bytes, or the client's end, while a part of a page waits. nginx tells the part that is to be sent next, though the bytes may
/// be of the page's body, which is being skipped.
unsafe extern "C" fn part_can_read(r: *mut ngx_http_request_t) {
    // SAFETY: nginx passes the request that has this handler. While `discard_body` is set, the page's own handler is the one
    // that skips (`ngx_http_discard_request_body`); it may end the page, and with it the part.
    unsafe {
        let (main, connection) = ((*r).main, (*r).connection);
        if (*main).discard_body() != 0 {
            if let Some(skip) = (*main).read_event_handler {
                skip(main);
            }
        }
        if (*connection).destroyed() == 0 {
            ngx_http_test_reading(r);
        }
    }
}

unsafe extern "C" fn can_read(r: *mut ngx_http_request_t) {
    // SAFETY: nginx passes the request that has this handler.
    if let Some(stream) = unsafe { stream_of(r) } {
        stream.read();
    }
}

/// nginx can send more, or has not been able to for too long; also called once when the stream begins.
unsafe extern "C" fn can_write(r: *mut ngx_http_request_t) {
    // SAFETY: nginx passes the request that has this handler.
    let Some(stream) = (unsafe { stream_of(r) }) else { return };
    // SAFETY: the connection of a living request.
    let write = unsafe { (*(*r).connection).write };
    // SAFETY: as above; `delayed` as in `await_room`.
    unsafe {
        if (*write).timedout() != 0 {
            if (*write).delayed() == 0 {
                // For `reset_timedout_connection`.
                (*(*r).connection).set_timedout(1);
                stream.lose();
                return;
            }
            (*write).set_timedout(0);
            (*write).set_delayed(0);
        }
        if (*write).delayed() != 0 {
            if ngx_handle_write_event(write, 0) != NGX_OK as ngx_int_t {
                stream.lose();
            }
            return;
        }
        let busy = (*r).buffered() != 0 || (*(*r).connection).buffered() != 0;
        if busy || stream.place().sending.is_some() {
            let code = ngx_http_output_filter(r, ptr::null_mut());
            if stream.after_output(code) != Sent::All {
                return;
            }
        }
        // With `delayed`, the timer is nginx's own (`limit_rate`), without which it would hold back all that comes.
        if (*write).timer_set() != 0 && (*write).delayed() == 0 {
            ngx_del_timer(write);
        }
        if ngx_handle_write_event(write, 0) != NGX_OK as ngx_int_t {
            stream.lose();
            return;
        }
    }
    if let Some(key) = stream.key() {
        worker::can_take(key);
    }
    if stream.place().talk.is_some() {
        stream.read();
    }
}
