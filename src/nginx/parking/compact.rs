//! The compact way to park: only a request's head and what else it knows are kept, not the request.
//!
//! To sleep, the request is ended through nginx's own keep-alive path without a reply and without a line in the access log.
//! That frees its pool and header buffers. The connection is left with a read handler of ours, which notices when the
//! client goes away. Both happen in one step, as soon as the request's handlers have returned: in between, the connection is
//! an idle one, which nginx closes when connections run short.
//!
//! To wake, the head is fed to nginx through the connection's `recv`, as if the client had just sent it. nginx parses it
//! and makes a new request; our handler, the last of the post-read phase, recognises it, puts back what the former one
//! knew, and answers. So no later phase runs twice (access, limits, rewrites), while the reply goes through all filters
//! and the access log gets its one line.
//!
//! ```text
//! content handler ──► falling asleep ──(handlers return: request ended)► asleep ──(answer, or client gone)─► awake
//!                            │  an answer that comes already is kept until then                 │
//!                            └──────────(connection closed instead)──► gone                     └─► replay, reply
//! ```
//!
//! A stream sleeps too, once its head has been sent: what it gets goes straight to the connection, from buffers that all
//! clients of the worker share ([`super::live`]). When it ends, its request is made again only for its line in the access
//! log.
//!
//! What cannot be put back exactly is parked in the plain way: see [`is_usable`] and [`is_streamable`].

use std::cell::{Cell, RefCell};
use std::ptr::{self, NonNull};

use comet::hub::Key;
use nginx_sys::{
    ngx_add_timer, ngx_array_push, ngx_conf_t, ngx_connection_t, ngx_cycle, ngx_del_timer,
    ngx_event_handler_pt, ngx_event_t, ngx_handle_read_event, ngx_http_conf_ctx_t,
    ngx_http_connection_t, ngx_http_core_main_conf_t, ngx_http_core_module, ngx_http_empty_handler,
    ngx_http_finalize_request, ngx_http_handler_pt, ngx_http_phases_NGX_HTTP_POST_READ_PHASE,
    ngx_http_post_request, ngx_http_request_empty_handler, ngx_http_request_t, ngx_int_t,
    ngx_module_t, ngx_recv_pt, ngx_reusable_connection, ngx_uint_t, off_t, u_char, NGX_AGAIN,
    NGX_DECLINED, NGX_DONE, NGX_ERROR, NGX_HTTP_CLIENT_CLOSED_REQUEST, NGX_HTTP_MAX_URI_CHANGES,
    NGX_HTTP_MODULE, NGX_HTTP_SWITCHING_PROTOCOLS, NGX_HTTP_VERSION_10, NGX_HTTP_VERSION_20,
    NGX_OK,
};

use super::live::{self, Live};
use super::snapshot::Snapshot;
use super::{Answer, Request};
use crate::nginx::conf::core_location;
use crate::nginx::timer::Timer;
use crate::nginx::{pool, process};
use crate::talk::Talk;
use crate::worker;

/// Modules whose part of a request is either not needed for the reply and the log, or is put back.
const HARMLESS: [&[u8]; 7] = [
    // Has left its variables, which are kept; a replayed request does not come to its phase.
    b"ngx_http_auth_request_module",
    // Runs again before us, or has left the address, which is kept.
    b"ngx_http_realip_module",
    // Keeps nothing for later.
    b"ngx_http_limit_req_module",
    b"ngx_http_rewrite_module",
    // A patch of Debian's; counts the headers while they are parsed, and does so again.
    b"ngx_http_header_count_module",
    // Have sent a stream's head; a context of one that would change what follows keeps the request.
    b"ngx_http_chunked_filter_module",
    b"ngx_http_copy_filter_module",
];
const REALIP: &[u8] = b"ngx_http_realip_module";

/// A client whose request sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parked(pub(super) NonNull<Sleeper>);

/// Small: there may be a million of them.
#[derive(Debug)]
pub(super) struct Sleeper {
    pub connection: *mut ngx_connection_t,
    /// The connection's number: tells whether it is still the same.
    number: u64,
    http: *mut ngx_http_connection_t,
    pub snapshot: Snapshot,
    /// Under which key the worker knows it, or [`Key::NONE`].
    pub key: Key,
    /// A WebSocket's conversation.
    pub talk: Option<Box<Talk>>,
    /// What is on its way to a stream.
    pub live: Option<Box<Live>>,
    pub state: State,
    pub is_stream: bool,
    /// Whether a stream's frames are sent as chunks.
    pub coded: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The request has not been ended yet.
    Falling,
    /// The connection is ours.
    Asleep,
}

/// Somebody who is to sleep.
#[derive(Debug)]
struct Falling {
    parked: Parked,
    request: *mut ngx_http_request_t,
    /// What came before it was asleep.
    early: Option<Awakening>,
}

/// A sleeper while it is being woken.
#[derive(Debug)]
struct Waking {
    sleeper: *mut Sleeper,
    connection: *mut ngx_connection_t,
    /// The connection's own `recv`, while ours is there.
    recv: ngx_recv_pt,
    was_ready: bool,
    /// Its head, and how much of that nginx has read again.
    head: Vec<u8>,
    replayed: usize,
    /// Bytes that the connection has sent for the request before.
    sent: off_t,
    /// Nothing once the new request has taken it, and the sleeper.
    awakening: Option<Awakening>,
}

/// Why a sleeper wakes.
#[derive(Debug)]
pub(super) enum Awakening {
    Answer(Answer),
    /// Only for the line in the access log.
    ClientGone,
    /// A stream has come to its end; also only for the log. Whether the connection is kept.
    Ended {
        keep: bool,
    },
}

thread_local! {
    /// Those who are to sleep as soon as their handlers have returned.
    static FALLING: RefCell<Vec<Falling>> = const { RefCell::new(Vec::new()) };
    /// nginx's own read handler of connections that it keeps: a function of its that has no name outside.
    static KEPT_HANDLER: Cell<ngx_event_handler_pt> = const { Cell::new(None) };
    static FALL: RefCell<Option<Timer>> = const { RefCell::new(None) };
    /// The one whose head is being replayed.
    static WAKING: RefCell<Option<Waking>> = const { RefCell::new(None) };
    /// For heads that are replayed.
    static HEAD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// What this worker knows of nginx's modules.
    static MODULES: RefCell<Modules> = const { RefCell::new(Modules { harmless: Vec::new(), realip: None }) };
}

struct Modules {
    /// By the index of a request's context.
    harmless: Vec<bool>,
    realip: Option<usize>,
}

/// At the start of a worker.
pub fn start() {
    FALL.set(Some(Timer::new(fall_asleep_all)));
    // SAFETY: the cycle's modules are an array that ends with null; names are static strings of modules.
    MODULES.set(unsafe {
        let mut modules = Modules { harmless: Vec::new(), realip: None };
        let mut module: *mut *mut ngx_module_t = (*ngx_cycle).modules;
        while let Some(known) = (*module).as_ref() {
            if known.type_ == NGX_HTTP_MODULE as ngx_uint_t {
                let name = std::ffi::CStr::from_ptr(known.name).to_bytes();
                let index = known.ctx_index;
                modules.harmless.resize(modules.harmless.len().max(index + 1), false);
                if let Some(harmless) = modules.harmless.get_mut(index) {
                    *harmless = HARMLESS.contains(&name);
                }
                if name == REALIP {
                    modules.realip = Some(index);
                }
            }
            module = module.add(1);
        }
        modules
    });
}

/// At the end of a worker.
pub fn stop() {
    FALL.take();
}

/// Puts our handler behind all others of the post-read phase, so that realip comes before us.
///
/// # Safety
///
/// Only from postconfiguration, with its configuration.
pub unsafe fn install(cf: *mut ngx_conf_t) -> bool {
    // SAFETY: the caller's promise: inside `http`, the core module's main configuration is there. nginx takes the handlers
    // of a phase from the end of the array (`ngx_http_init_phase_handlers`).
    unsafe {
        let context: *mut ngx_http_conf_ctx_t = (*cf).ctx.cast();
        let core = *(*context).main_conf.add(ngx_http_core_module.ctx_index);
        let core: *mut ngx_http_core_main_conf_t = core.cast();
        let phases: *mut nginx_sys::ngx_http_phase_t = (&raw mut (*core).phases).cast();
        let phase = phases.add(ngx_http_phases_NGX_HTTP_POST_READ_PHASE as usize);
        let handlers = &raw mut (*phase).handlers;
        if ngx_array_push(handlers).is_null() {
            return false;
        }
        let handlers: &mut [ngx_http_handler_pt] = (*handlers).as_slice_mut();
        handlers.rotate_right(1);
        if let Some(first) = handlers.first_mut() {
            *first = Some(post_read);
        }
    }
    true
}

/// Sends a request to sleep, if it can be woken without anybody noticing: its content handler must return
/// `Status::LATER`.
pub fn park(request: &Request) -> Option<Parked> {
    let r = request.0;
    // SAFETY: a living request in its content handler. The sleeper lives until it was answered or its connection was
    // found to have gone. `count` keeps the request until the end of this turn, when it is finalized.
    unsafe {
        if !is_usable(r) {
            return None;
        }
        fall(r, None, None)
    }
}

/// Sends a stream whose head has been sent to sleep, under the same conditions: its content handler must return
/// `Status::LATER`.
pub fn park_stream(
    request: &Request,
    talk: &mut Option<Box<Talk>>,
    early: &mut Vec<u8>,
) -> Option<Parked> {
    // SAFETY: as in `park`.
    unsafe {
        let r = request.0;
        if !(is_usable(r) && is_streamable(r)) {
            return None;
        }
        let live = match early.is_empty() {
            true => None,
            false => Some(Box::new(Live { early: std::mem::take(early), ..Live::default() })),
        };
        let parked = fall(r, talk.take(), live)?;
        (*parked.0.as_ptr()).is_stream = true;
        Some(parked)
    }
}

/// Makes a sleeper of a request.
///
/// # Safety
///
/// `r` must be a living, usable request in its content handler.
unsafe fn fall(
    r: *mut ngx_http_request_t,
    talk: Option<Box<Talk>>,
    live: Option<Box<Live>>,
) -> Option<Parked> {
    // SAFETY: the caller's promise.
    unsafe {
        let realip = MODULES.with_borrow(|modules| modules.realip);
        let keeps_address = realip.is_some_and(|index| !(*(*r).ctx.add(index)).is_null());
        let c = (*r).connection;
        let sleeper = Box::into_raw(Box::new(Sleeper {
            connection: c,
            number: (*c).number,
            http: (*r).http_connection,
            snapshot: Snapshot::take(r, keeps_address),
            key: Key::NONE,
            talk,
            live,
            state: State::Falling,
            is_stream: false,
            coded: (*r).chunked() != 0,
        }));
        let parked = Parked(NonNull::new(sleeper)?);
        (*r).set_count((*r).count() + 1);
        let falling = Falling { parked, request: r, early: None };
        FALLING.with_borrow_mut(|all| all.push(falling));
        (*r).write_event_handler = Some(fall_asleep);
        // Without memory for that, the end of the turn does it.
        ngx_http_post_request(r, ptr::null_mut());
        FALL.with_borrow(|fall| fall.as_ref().map(Timer::post_now));
        Some(parked)
    }
}

/// Whether what follows a stream's head goes over the connection as it is.
///
/// # Safety
///
/// `r` must be a living request whose head has been sent.
unsafe fn is_streamable(r: *mut ngx_http_request_t) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let c = (*r).connection;
        let sent = (*r).header_sent() != 0
            && (*r).out.is_null()
            && (*r).buffered() == 0
            && (*c).buffered() == 0;
        // Without chunks a reply ends with its connection, unless it has become a WebSocket.
        let framed = (*r).chunked() != 0
            || (*r).headers_out.status == NGX_HTTP_SWITCHING_PROTOCOLS as ngx_uint_t;
        sent && framed
            && (*r).limit_rate == 0
            && (*r).headers_out.content_encoding.is_null()
            && (*r).expect_trailers() == 0
    }
}

/// Whether a request can be made again from what a snapshot keeps, and its connection goes to sleep.
///
/// # Safety
///
/// `r` must be a living request in its content handler.
unsafe fn is_usable(r: *mut ngx_http_request_t) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let http_1 =
            (NGX_HTTP_VERSION_10..NGX_HTTP_VERSION_20).contains(&((*r).http_version as u32));
        if !http_1 || !ptr::eq(r, (*r).main) || (*r).count() != 1 || process::is_exiting() {
            return false;
        }
        let core = core_location((*r).loc_conf);
        let c = (*r).connection;
        // The keep-alive path takes only connections that it may keep, with nothing more to read.
        let keeps = (*core).keepalive_timeout > 0
            && (*(*r).header_in).pos == (*(*r).header_in).last
            && (*(*c).read).eof() == 0
            && (*c).error() == 0;
        // Internal redirects and changes of the URI would have to be put back.
        let as_asked = (*r).internal() == 0
            && (*r).uri_changed() == 0
            && (*r).uri_changes() == NGX_HTTP_MAX_URI_CHANGES + 1
            && (*r).valid_location() != 0
            && (*r).valid_unparsed_uri() != 0
            && (*r).err_status == 0
            && (*r).error_page() == 0;
        // limit_conn counts requests, and upstreams have left variables.
        let unattached = (*r).limit_conn_status() == 0
            && (*r).upstream_states.is_null()
            && (*r).postponed.is_null()
            && (*r).posted_requests.is_null()
            && (*r).request_body.is_null();
        keeps && as_asked && unattached && has_only_harmless_contexts(r)
    }
}

/// # Safety
///
/// `r` must be a living request.
unsafe fn has_only_harmless_contexts(r: *mut ngx_http_request_t) -> bool {
    MODULES.with_borrow(|modules| {
        modules.harmless.iter().enumerate().all(|(index, harmless)| {
            // SAFETY: a request has a context, maybe null, for each HTTP module.
            *harmless || unsafe { (*(*r).ctx.add(index)).is_null() }
        })
    })
}

impl Parked {
    /// Says under which key the worker knows the request.
    pub fn set_key(&self, key: Key) {
        // SAFETY: a sleeper lives until it is answered or found to have gone.
        unsafe { (*self.0.as_ptr()).key = key };
    }

    /// Wakes the request to be answered.
    pub fn answer(self, answer: Answer) {
        // SAFETY: as above.
        unsafe {
            (*self.0.as_ptr()).key = Key::NONE;
            self.wake(Awakening::Answer(answer));
        }
    }

    /// # Safety
    ///
    /// The sleeper must live; it may be gone afterwards.
    pub(super) unsafe fn wake(self, awakening: Awakening) {
        // SAFETY: the caller's promise. In the state `Asleep` the connection is open and ours, for only our own read
        // handler could close it. Once the new request has taken the sleeper, it may be gone with it.
        unsafe {
            let sleeper = self.0.as_ptr();
            if (*sleeper).state == State::Falling {
                return self.wake_later(awakening);
            }
            let (c, number) = ((*sleeper).connection, (*sleeper).number);
            let read = (*c).read;
            let mut head = HEAD.take();
            head.clear();
            (*sleeper).snapshot.write_head(&mut head);
            let waking = Waking {
                sleeper,
                connection: c,
                recv: (*c).recv,
                was_ready: (*read).ready() != 0,
                head,
                replayed: 0,
                sent: (*c).sent,
                awakening: Some(awakening),
            };
            (*c).data = (*sleeper).http.cast();
            (*read).handler = KEPT_HANDLER.get();
            (*(*c).write).handler = Some(ngx_http_empty_handler);
            (*c).recv = Some(replay);
            // At the end of `worker_shutdown_timeout` too the log is to tell of the request.
            (*c).set_close(0);
            (*read).set_ready(1);
            (*read).set_timedout(0);
            if (*(*c).write).timer_set() != 0 {
                ngx_del_timer((*c).write);
            }
            // nginx's keep-alive handler stops a timer without asking whether it runs.
            ngx_add_timer(read, 60_000);
            let before = WAKING.replace(Some(waking));
            if let Some(handler) = (*read).handler {
                handler(read);
            }
            let Some(mut waking) = WAKING.replace(before) else { return };
            HEAD.set(std::mem::take(&mut waking.head));
            if waking.awakening.is_some() {
                // The head was not taken: the connection has failed, and nginx has closed it or will do so.
                drop(Box::from_raw(sleeper));
                if (*c).fd != -1 && (*c).number == number {
                    waking.stop_replay();
                }
            }
        }
    }
}

impl Parked {
    /// Notes an awakening of somebody who is not asleep yet.
    fn wake_later(self, awakening: Awakening) {
        FALLING.with_borrow_mut(|all| {
            if let Some(falling) = all.iter_mut().find(|falling| falling.parked == self) {
                falling.early = Some(awakening);
            }
        });
    }
}

/// Sends a request to sleep as soon as its handlers have returned (`ngx_http_run_posted_requests`): its memory is still in
/// the processor's caches then, and serves the next one.
unsafe extern "C" fn fall_asleep(r: *mut ngx_http_request_t) {
    let falling = FALLING.with_borrow_mut(|all| {
        let place = all.iter().rposition(|falling| falling.request == r)?;
        Some(all.swap_remove(place))
    });
    if let Some(falling) = falling {
        // SAFETY: it was just taken off the list.
        unsafe { settle(falling) };
    }
}

/// Does so at the end of this turn of the event loop, should nobody have called the above.
fn fall_asleep_all() {
    // One by one: ending one may bring about something for another that has not fallen asleep yet.
    while let Some(falling) = FALLING.with_borrow_mut(Vec::pop) {
        // SAFETY: as above.
        unsafe { settle(falling) };
    }
}

/// Ends a request in silence and takes over its connection, before anything new can come in.
///
/// # Safety
///
/// Once for each that falls asleep.
unsafe fn settle(falling: Falling) {
    let Falling { parked, request: r, early } = falling;
    // SAFETY: a sleeper lives until it is answered or found to have gone, and only this function ends `Falling`. Until then
    // nothing else ends the request: it is counted, its read event handler does nothing (`ngx_http_block_reading`), and its
    // connection is neither idle nor reusable. Whoever calls run_posted_requests looks at `destroyed` before anything else.
    unsafe {
        let sleeper = parked.0.as_ptr();
        let c = (*sleeper).connection;
        (*r).write_event_handler = Some(ngx_http_request_empty_handler);
        (*r).set_keepalive(1);
        (*r).set_logged(1);
        ngx_http_finalize_request(r, NGX_DONE as ngx_int_t);
        let ours = (*c).fd != -1
            && (*c).number == (*sleeper).number
            && ptr::eq((*c).data, (*sleeper).http.cast());
        if !ours {
            return forget(sleeper);
        }
        take_connection(sleeper, c);
        if let Some(awakening) = early {
            parked.wake(awakening);
        } else if (*sleeper).is_stream {
            parked.go_live();
        } else if peek(c) == Peek::Gone {
            leave(parked);
        }
    }
}

/// The connection was closed instead of being kept.
///
/// # Safety
///
/// The sleeper must live; it is gone afterwards.
unsafe fn forget(sleeper: *mut Sleeper) {
    // SAFETY: the caller's promise.
    let key = unsafe { Box::from_raw(sleeper) }.key;
    if key != Key::NONE {
        worker::gone(key);
    }
}

/// # Safety
///
/// The connection must be the sleeper's, as the keep-alive path has left it.
unsafe fn take_connection(sleeper: *mut Sleeper, c: *mut ngx_connection_t) {
    // SAFETY: the caller's promise. Without `idle`, a graceful shutdown leaves the connection to the worker, which wakes it.
    unsafe {
        let read = (*c).read;
        if (*read).timer_set() != 0 {
            ngx_del_timer(read);
        }
        ngx_reusable_connection(c, 0);
        (*c).set_idle(0);
        KEPT_HANDLER.set((*read).handler);
        if (*sleeper).is_stream {
            (*read).handler = Some(live::can_read);
            (*(*c).write).handler = Some(live::can_write);
        } else {
            (*read).handler = Some(something_came);
        }
        (*c).data = sleeper.cast();
        (*sleeper).state = State::Asleep;
    }
}

/// Something has come from a client that sleeps: its next request, which stays where it is, or its end.
unsafe extern "C" fn something_came(read: *mut ngx_event_t) {
    // SAFETY: nginx passes the read event of a connection of ours, whose data is the sleeper.
    unsafe {
        let c: *mut ngx_connection_t = (*read).data.cast();
        if let (true, Some(sleeper)) = (has_left(c), NonNull::new((*c).data.cast())) {
            leave(Parked(sleeper));
        }
    }
}

/// Whether a client has gone whose read event has come. What it has sent instead stays where it is, and some of nginx's
/// event methods (`poll`, `select`) would tell of it again and again: they are not to tell any more.
///
/// # Safety
///
/// `c` must be an open connection.
pub(super) unsafe fn has_left(c: *mut ngx_connection_t) -> bool {
    // SAFETY: the caller's promise.
    match unsafe { peek(c) } {
        Peek::Gone => true,
        Peek::Nothing => false,
        // SAFETY: as above.
        Peek::Bytes => unsafe { !hush(c) },
    }
}

/// Has no more be told of what a client has sent, until its event is asked for again. Does nothing where that is told only
/// once. False if that fails.
///
/// # Safety
///
/// `c` must be an open connection.
pub(super) unsafe fn hush(c: *mut ngx_connection_t) -> bool {
    // SAFETY: the caller's promise; an event that is both ready and active is taken out by that (`ngx_event.c`).
    unsafe { ngx_handle_read_event((*c).read, 0) == NGX_OK as ngx_int_t }
}

/// What a connection has for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peek {
    /// Its end.
    Gone,
    Nothing,
    Bytes,
}

/// # Safety
///
/// `c` must be an open connection.
unsafe fn peek(c: *mut ngx_connection_t) -> Peek {
    let mut byte = 0u8;
    // SAFETY: the caller's promise; there is room for the byte.
    unsafe {
        // `close` is set when nginx's patience with a shutdown is over (`worker_shutdown_timeout`).
        if (*(*c).read).pending_eof() != 0 || (*c).close() != 0 {
            return Peek::Gone;
        }
        match libc::recv((*c).fd, (&raw mut byte).cast(), 1, libc::MSG_PEEK) {
            0 => Peek::Gone,
            // The read event stays ready: TLS may hold more than the socket does.
            -1 => match std::io::Error::last_os_error().kind() {
                std::io::ErrorKind::WouldBlock => Peek::Nothing,
                _ => Peek::Gone,
            },
            _ => Peek::Bytes,
        }
    }
}

/// The client of a sleeper has gone: off the books, and into the access log.
///
/// # Safety
///
/// The sleeper must be asleep; it is gone afterwards.
pub(super) unsafe fn leave(parked: Parked) {
    // SAFETY: the caller's promise.
    unsafe {
        let key = std::mem::replace(&mut (*parked.0.as_ptr()).key, Key::NONE);
        if key != Key::NONE {
            worker::gone(key);
        }
        parked.wake(Awakening::ClientGone);
    }
}

/// `recv` of a connection that wakes: gives nginx the head again.
unsafe extern "C" fn replay(c: *mut ngx_connection_t, buffer: *mut u_char, size: usize) -> isize {
    let len = WAKING.with_borrow_mut(|waking| {
        let Some(waking) = waking.as_mut().filter(|waking| ptr::eq(waking.connection, c)) else {
            return 0;
        };
        // SAFETY: this hook is only there while the sleeper is being woken and has not been taken; nginx passes room for
        // `size` bytes.
        unsafe {
            let rest = waking.head.get(waking.replayed..).unwrap_or_default();
            let len = rest.len().min(size);
            ptr::copy_nonoverlapping(rest.as_ptr(), buffer, len);
            waking.replayed += len;
            if len == rest.len() {
                waking.stop_replay();
            }
            len
        }
    });
    if len == 0 {
        NGX_AGAIN as isize
    } else {
        len as isize
    }
}

impl Waking {
    /// Gives the connection its own `recv` back.
    ///
    /// # Safety
    ///
    /// The connection must be open.
    unsafe fn stop_replay(&mut self) {
        let Some(recv) = self.recv.take() else { return };
        // SAFETY: the caller's promise. With `ready` left set, nginx would read once in vain after the reply.
        unsafe {
            (*self.connection).recv = Some(recv);
            (*(*self.connection).read).set_ready(self.was_ready.into());
        }
    }
}

/// The last handler of the post-read phase: answers requests that have been woken.
unsafe extern "C" fn post_read(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: nginx passes a living request; the one that is being woken is recognised by its connection, on which nothing
    // else can be read meanwhile. The sleeper goes over to the request's pool, as its strings are now part of the request.
    unsafe {
        let taken = WAKING.with_borrow_mut(|waking| {
            let waking = waking.as_mut()?;
            if !ptr::eq(waking.connection, (*r).connection) {
                return None;
            }
            Some((waking.awakening.take()?, waking.sleeper, waking.sent))
        });
        let Some((awakening, sleeper, sent)) = taken else { return NGX_DECLINED as ngx_int_t };
        // nginx has counted the request again.
        (*(*r).connection).requests -= 1;
        let sleeper = pool::own((*r).pool, Box::from_raw(sleeper)).as_ref();
        let restored = sleeper.is_some_and(|sleeper| sleeper.snapshot.restore(r));
        let status = match awakening {
            _ if !restored => NGX_ERROR as ngx_int_t,
            Awakening::Answer(answer) => answer.send(&Request(r)).0,
            Awakening::ClientGone => {
                (*(*r).connection).sent = sent;
                (*(*r).connection).set_error(1);
                NGX_HTTP_CLIENT_CLOSED_REQUEST as ngx_int_t
            }
            Awakening::Ended { keep } => {
                (*(*r).connection).sent = sent;
                (*r).set_request_complete(1);
                if keep {
                    NGX_DONE as ngx_int_t
                } else {
                    NGX_ERROR as ngx_int_t
                }
            }
        };
        ngx_http_finalize_request(r, status);
        NGX_DONE as ngx_int_t
    }
}
