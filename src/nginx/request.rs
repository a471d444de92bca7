//! A request: what it says, its body, and its reply.

use std::fs::{File, Metadata};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};
use std::rc::Rc;
use std::{ptr, slice};

use comet::config::{Settings, Valued};
use comet::message::Body;
use comet::poll;
use comet::reply::{Reply, ReplyBody};
use nginx_sys::{
    ngx_alloc_chain_link, ngx_buf_t, ngx_chain_t, ngx_file_t, ngx_http_core_loc_conf_t,
    ngx_http_discard_request_body, ngx_http_finalize_request, ngx_http_get_indexed_variable,
    ngx_http_handler_pt, ngx_http_output_filter, ngx_http_read_client_request_body,
    ngx_http_request_t, ngx_http_send_header, ngx_http_send_special, ngx_int_t, ngx_list_part_t,
    ngx_list_push, ngx_pcalloc, ngx_str_t, ngx_table_elt_t, ngx_tcp_nodelay, ngx_uint_t, off_t,
    NGX_AGAIN, NGX_DONE, NGX_ERROR, NGX_HTTP_FLUSH, NGX_HTTP_INTERNAL_SERVER_ERROR,
    NGX_HTTP_SPECIAL_RESPONSE, NGX_HTTP_VERSION_11, NGX_HTTP_VERSION_20, NGX_OK,
};

use super::conf::{core_location, Location, Main};
use super::log::{self, Level, Topic};
use super::module::ngx_http_push_module;
use super::{pool, socket, text};
use crate::copies::Copied;
use crate::prepared::Prepared;
use crate::stream::Role;
use crate::{publisher, stream, subscriber};

/// Seconds of silence after which the kernel asks whether a stream's client is there, where there are no pings.
const NO_PINGS: u64 = 7200;

/// What a content handler tells nginx: a code of nginx's, or an HTTP status for nginx's own error page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub(super) ngx_int_t);

impl Status {
    /// The request goes on later: with its body, or when it is answered.
    pub const LATER: Status = Status(NGX_DONE as ngx_int_t);
    /// Something that should not happen.
    pub const INTERNAL_ERROR: Status = Status(NGX_HTTP_INTERNAL_SERVER_ERROR as ngx_int_t);

    /// What was begun cannot go on: the connection is closed, and the log says what was sent.
    pub const BROKEN: Status = Status(NGX_ERROR as ngx_int_t);

    /// nginx's own error page.
    fn error_page(status: u16) -> Self {
        Status(status as ngx_int_t)
    }

    fn is_failure(self) -> bool {
        self.0 == NGX_ERROR as ngx_int_t || self.0 > NGX_OK as ngx_int_t
    }
}

/// A request that a handler was called for, until the handler returns or the request is ended.
#[derive(Debug)]
pub struct Request(pub(super) *mut ngx_http_request_t);

/// A request's body.
pub enum RequestBody<'a> {
    /// In memory, in pieces.
    Pieces(Vec<&'a [u8]>),
    /// In a temporary file of nginx's, which nginx removes with the request unless it was moved.
    File(TemporaryFile<'a>),
}

/// A temporary file of nginx's.
#[derive(Clone, Copy, Debug)]
pub struct TemporaryFile<'a> {
    /// Where it is, or was: if something else had the body read (`mirror`, or a location before this one), nginx has
    /// removed the name at once.
    pub path: &'a [u8],
    /// The open file, if it still is.
    pub descriptor: Option<BorrowedFd<'a>>,
    /// Whether nobody but this request needs it where it is.
    pub may_move: bool,
    /// Bytes.
    pub len: u64,
    /// The directory for temporary files of this location (`client_body_temp_path`).
    pub directory: &'a [u8],
}

impl TemporaryFile<'_> {
    /// What the system says of the open file.
    pub fn metadata(&self) -> io::Result<Metadata> {
        let descriptor = self.descriptor.ok_or(io::ErrorKind::NotFound)?;
        // SAFETY: it is open for as long as it is borrowed, and is not closed here.
        let file = ManuallyDrop::new(unsafe { File::from_raw_fd(descriptor.as_raw_fd()) });
        file.metadata()
    }
}

/// The content handler of publisher locations.
pub(super) const fn publisher_handler() -> ngx_http_handler_pt {
    extern "C" fn handler(request: *mut ngx_http_request_t) -> ngx_int_t {
        publisher::handle(&Request::begin(request)).0
    }
    Some(handler)
}

/// The content handler of subscriber locations.
pub(super) const fn subscriber_handler() -> ngx_http_handler_pt {
    extern "C" fn handler(request: *mut ngx_http_request_t) -> ngx_int_t {
        subscriber::handle(&Request::begin(request)).0
    }
    Some(handler)
}

/// The content handler of locations that are both.
pub(super) const fn pubsub_handler() -> ngx_http_handler_pt {
    Some(pubsub)
}

extern "C" fn pubsub(request: *mut ngx_http_request_t) -> ngx_int_t {
    subscriber::handle_both(&Request::begin(request)).0
}

impl Request {
    /// A request that nginx has just handed over.
    fn begin(request: *mut ngx_http_request_t) -> Self {
        let begun = Request(request);
        if begun.is_part() {
            // A part takes this over from its page when it is made. nginx would then skip the page's body for each part anew,
            // count the page as ended once for each, and take the next request for what is left of the body.
            // SAFETY: a plain flag of a living request.
            unsafe { (*request).set_discard_body(0) };
        }
        begun
    }

    /// The method, as the client wrote it.
    pub fn method(&self) -> &[u8] {
        // SAFETY: a request's method lives as long as the request.
        unsafe { text::bytes((*self.0).method_name) }
    }

    /// The settings of the location that serves this request.
    pub fn settings(&self) -> &Settings {
        &self.location().settings
    }

    /// Whether the location that serves this request is a publisher location too.
    pub fn is_pubsub(&self) -> bool {
        self.is_served_by(pubsub_handler())
    }

    /// Whether the location that serves this request is a subscriber location, whatever else it is.
    pub fn is_for_subscribers(&self) -> bool {
        self.is_served_by(subscriber_handler()) || self.is_pubsub()
    }

    /// Whether the location that serves this request is one of ours.
    pub(super) fn is_ours(&self) -> bool {
        [publisher_handler(), subscriber_handler(), pubsub_handler()]
            .into_iter()
            .any(|ours| self.is_served_by(ours))
    }

    fn is_served_by(&self, ours: ngx_http_handler_pt) -> bool {
        // SAFETY: a plain field of a living request, which nginx sets from the location (`ngx_http_core_find_config_phase`).
        let handler = unsafe { (*self.0).content_handler };
        handler.zip(ours).is_some_and(|(handler, ours)| handler as usize == ours as usize)
    }

    /// Whether the request is a part of another one's reply (a sub-request).
    pub fn is_part(&self) -> bool {
        // SAFETY: a plain field of a living request.
        unsafe { !ptr::eq(self.0, (*self.0).main) }
    }

    /// Whether the request is one of HTTP/1.1.
    pub fn is_http_1_1(&self) -> bool {
        // SAFETY: a plain field of a living request.
        unsafe { (*self.0).http_version == NGX_HTTP_VERSION_11 as ngx_uint_t }
    }

    /// The query string.
    pub fn args(&self) -> &[u8] {
        // SAFETY: a request's strings live as long as the request.
        unsafe { text::bytes((*self.0).args) }
    }

    /// Bytes that a body may have (`client_max_body_size`); 0 for no limit.
    pub fn max_body(&self) -> u64 {
        u64::try_from(self.core_location().client_max_body_size).unwrap_or(0)
    }

    /// Takes what the client has sent after the head.
    pub fn take_early(&self) -> Vec<u8> {
        // SAFETY: a living request has a buffer with its head, and maybe more (`ngx_http_request_t.header_in`).
        unsafe {
            let Some(buffer) = (*self.0).header_in.as_mut() else { return Vec::new() };
            let len = usize::try_from(buffer.last.offset_from(buffer.pos)).unwrap_or(0);
            let early = text::bytes(ngx_str_t { len, data: buffer.pos }).to_vec();
            buffer.pos = buffer.last;
            early
        }
    }

    pub(super) fn location(&self) -> &Location {
        // SAFETY: every location has what `create_location` returned, for the life of the cycle, which outlives its
        // requests; nothing writes to it after the configuration was read.
        unsafe { &*(*(*self.0).loc_conf.add(ngx_http_push_module.ctx_index)).cast::<Location>() }
    }

    fn core_location(&self) -> &ngx_http_core_loc_conf_t {
        // SAFETY: as above, for nginx's own module.
        unsafe { &*core_location((*self.0).loc_conf) }
    }

    /// Whether somebody who may send this request may send a POST as well, as far as the location's methods go
    /// (`limit_except`).
    pub fn may_post(&self) -> bool {
        !self.location().limits_post
    }

    /// The values of a directive that may contain variables.
    pub fn values(&self, which: Valued) -> Vec<&[u8]> {
        // SAFETY: a living request of this configuration.
        unsafe { self.location().values.get(which).of(self.0) }
    }

    /// The values of `push_channel_id`, or that of `$push_channel_id` where there is none.
    pub fn channel_values(&self) -> Vec<&[u8]> {
        if !self.location().values.get(Valued::ChannelId).is_none() {
            return self.values(Valued::ChannelId);
        }
        // SAFETY: the index of a variable that every request has; the bytes live in the request's pool or in its variables.
        unsafe {
            let main = *(*self.0).main_conf.add(ngx_http_push_module.ctx_index);
            let index = (*main.cast::<Main>()).channel_id;
            let variable = ngx_http_get_indexed_variable(self.0, index as ngx_uint_t);
            match variable.as_ref() {
                Some(variable) if variable.valid() != 0 && variable.not_found() == 0 => {
                    vec![variable.as_bytes()]
                }
                _ => Vec::new(),
            }
        }
    }

    /// The values of all request headers with this name, in any case.
    pub fn headers<'a>(&'a self, name: &str) -> Vec<&'a [u8]> {
        let mut values = Vec::new();
        self.each_header(|key, value| {
            if key.eq_ignore_ascii_case(name.as_bytes()) {
                values.push(value);
            }
        });
        values
    }

    /// Shows all request headers, by name and value.
    pub fn each_header<'a>(&'a self, mut each: impl FnMut(&'a [u8], &'a [u8])) {
        // SAFETY: the list of request headers is complete and does not change any more; its parts hold `nelts` elements and
        // are linked by pointers to others of the list, or null. Names and values live as long as the request.
        unsafe {
            let mut part: *const ngx_list_part_t = &raw const (*self.0).headers_in.headers.part;
            while let Some(here) = part.as_ref() {
                let headers: *const ngx_table_elt_t = here.elts.cast();
                for index in 0..here.nelts {
                    let header = &*headers.add(index);
                    each(text::bytes(header.key), text::bytes(header.value));
                }
                part = here.next;
            }
        }
    }

    /// The value of the first request header with this name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let mut first = None;
        self.each_header(|key, value| {
            if first.is_none() && key.eq_ignore_ascii_case(name.as_bytes()) {
                first = Some(value);
            }
        });
        first
    }

    /// The host and the port that the client has asked for (RFC 9110, section 7.2).
    pub fn host(&self) -> Option<&[u8]> {
        self.header("Host").or_else(|| self.authority())
    }

    /// The pseudo-header `:authority`. With HTTP/2 nginx makes a field `Host` of it, with HTTP/3 it does not.
    fn authority(&self) -> Option<&[u8]> {
        // SAFETY: plain fields of a living request. With HTTP/3 both point to the value's ends, which lives in the pool of the
        // request's own stream, or are null.
        unsafe {
            let (begin, end) = ((*self.0).host_start, (*self.0).host_end);
            let is_there = (*self.0).http_version > NGX_HTTP_VERSION_20 as ngx_uint_t
                && !begin.is_null()
                && begin < end;
            is_there.then(|| slice::from_raw_parts(begin, end.offset_from_unsigned(begin)))
        }
    }

    /// Whether the request has a body, of whatever length.
    pub fn has_body(&self) -> bool {
        // SAFETY: plain fields of a living request.
        unsafe { (*self.0).headers_in.content_length_n > 0 || (*self.0).headers_in.chunked() != 0 }
    }

    /// Has nginx skip the body.
    pub fn discard_body(&self) {
        // SAFETY: called from a content handler, before the body was read. What it returns is of no interest: a client
        // that breaks off its body is noticed when the reply is sent.
        unsafe { ngx_http_discard_request_body(self.0) };
    }

    /// Reads the whole body, then calls `publisher::publish` or `subscriber::subscribe`.
    fn read_body(&self, then: unsafe extern "C" fn(*mut ngx_http_request_t)) -> Status {
        // SAFETY: called from a content handler; the body's file is kept until the request ends, so that it can be moved.
        let code = unsafe {
            (*self.0).set_request_body_in_single_buf(1);
            (*self.0).set_request_body_in_persistent_file(1);
            (*self.0).set_request_body_in_clean_file(1);
            ngx_http_read_client_request_body(self.0, Some(then))
        };
        if code >= NGX_HTTP_SPECIAL_RESPONSE as ngx_int_t {
            Status(code)
        } else {
            Status::LATER
        }
    }

    /// Reads the whole body, then publishes.
    pub fn publish_body(&self) -> Status {
        unsafe extern "C" fn then(request: *mut ngx_http_request_t) {
            let status = publisher::publish(&Request(request));
            // SAFETY: nginx calls this once, with the request that it counts as busy for it.
            unsafe { ngx_http_finalize_request(request, status.0) };
        }
        self.read_body(then)
    }

    /// Reads and ignores the whole body, then subscribes: while a body is being skipped, a client that goes away would
    /// not be noticed.
    pub fn subscribe_after_body(&self) -> Status {
        unsafe extern "C" fn then(request: *mut ngx_http_request_t) {
            let status = subscriber::subscribe(&Request(request));
            // SAFETY: as in `publish_body`.
            unsafe { ngx_http_finalize_request(request, status.0) };
        }
        self.read_body(then)
    }

    /// Reads and ignores the whole body, then opens a WebSocket for a publisher: what nginx skips later, it would take from the
    /// WebSocket's frames.
    pub fn open_websocket_after_body(&self) -> Status {
        unsafe extern "C" fn then(request: *mut ngx_http_request_t) {
            let status = stream::open_websocket(&Request(request), Role::Publisher);
            // SAFETY: as in `publish_body`.
            unsafe { ngx_http_finalize_request(request, status.0) };
        }
        self.read_body(then)
    }

    /// The body, once it was read.
    pub fn body(&self) -> RequestBody<'_> {
        // SAFETY: once the body was read, `request_body` is null or complete: a chain of buffers in memory, or one in the
        // temporary file (`ngx_http_request_body.c`). All live as long as the request, and so does the file's descriptor,
        // unless nginx has closed it and says so with -1 (`ngx_http_upstream_send_response`).
        unsafe {
            let Some(body) = (*self.0).request_body.as_ref() else {
                return RequestBody::Pieces(Vec::new());
            };
            if let Some(file) = body.temp_file.as_ref().filter(|file| file.file.offset > 0) {
                let path = self.core_location().client_body_temp_path;
                // The file's own offset also counts what others have read of it.
                let part = body.bufs.as_ref().map(|chain| &*chain.buf);
                let len = part.map_or(0, |part| part.file_last - part.file_pos);
                return RequestBody::File(TemporaryFile {
                    path: text::bytes(file.file.name),
                    descriptor: (file.file.fd >= 0).then(|| BorrowedFd::borrow_raw(file.file.fd)),
                    may_move: ptr::eq(self.0, (*self.0).main),
                    len: u64::try_from(len).unwrap_or(0),
                    directory: text::bytes((*path).name),
                });
            }
            let mut pieces = Vec::new();
            let mut link: *const ngx_chain_t = body.bufs;
            while let Some(chain) = link.as_ref() {
                let buffer = &*chain.buf;
                let len = usize::try_from(buffer.last.offset_from(buffer.pos)).unwrap_or(0);
                pieces.push(text::bytes(ngx_str_t { len, data: buffer.pos }));
                link = chain.next;
            }
            RequestBody::Pieces(pieces)
        }
    }

    /// Closes the connection after the reply, as a worker that leaves must.
    pub fn close_afterwards(&self) {
        // SAFETY: a plain flag of a living request.
        unsafe { (*self.0).set_keepalive(0) };
    }

    /// Sends a reply of its own.
    pub fn reply(&self, reply: Reply) -> Status {
        self.send(Prepared::without_message(reply))
    }

    /// Sends a reply that others may get too. The request's pool holds a share of it, so nothing of it is copied.
    pub fn send(&self, prepared: Rc<Prepared>) -> Status {
        // SAFETY: a living request that has not been answered. The share is dropped before the pool is freed, after nginx
        // has stopped sending. The cursor headers are ours to interpret: nginx must not turn a message into "304 Not
        // Modified" because of them.
        let prepared = unsafe {
            (*self.0).set_disable_not_modified(1);
            pool::share((*self.0).pool, prepared)
        };
        let Some(Prepared { reply, message, is_script }) = prepared else {
            return Status::INTERNAL_ERROR;
        };
        if !self.set_headers(reply) {
            return Status::INTERNAL_ERROR;
        }
        let chain = match (&reply.body, message) {
            // `error_page` may lead to another location, whose replies say nothing of origins.
            (ReplyBody::ErrorPage, _) if !self.add_origin_fields() => {
                return Status::INTERNAL_ERROR
            }
            (ReplyBody::ErrorPage, _) => return Status::error_page(reply.status),
            (ReplyBody::Bytes(array), _) if *is_script => self.script(array),
            (ReplyBody::Bytes(bytes), _) => self.memory(bytes),
            (ReplyBody::Message, Some(copied)) => self.message(copied),
            (ReplyBody::Empty, _) | (ReplyBody::Message, None) => return self.send_head(reply),
        };
        let Some((chain, len)) = chain else { return Status::INTERNAL_ERROR };
        if len == 0 {
            return self.send_head(reply);
        }
        // SAFETY: a living request that has not been answered, and a chain that lives in its pool.
        unsafe {
            (*self.0).headers_out.content_length_n = len as off_t;
            let status = Status(ngx_http_send_header(self.0));
            if status.is_failure() || (*self.0).header_only() != 0 {
                return status;
            }
            Status(ngx_http_output_filter(self.0, chain))
        }
    }

    /// Sends the head of a reply whose body goes on, and the first bytes of that.
    pub fn send_stream(&self, head: Reply, opening: &[u8]) -> Result<(), Status> {
        // SAFETY: a living request that has not been answered. What the head points to and the first bytes live as long as
        // the request. Without this flag nginx might answer 304.
        unsafe {
            (*self.0).set_disable_not_modified(1);
            let kept = pool::keep((*self.0).pool, (head, opening.to_vec())).as_ref();
            let Some((head, opening)) = kept else { return Err(Status::INTERNAL_ERROR) };
            if !self.set_headers(head) {
                return Err(Status::INTERNAL_ERROR);
            }
            (*self.0).headers_out.content_length_n = -1;
            if head.status == 101 {
                // nginx has no words for this status.
                (*self.0).headers_out.status_line = text::borrowed(b"101 Switching Protocols");
            }
            let status = Status(ngx_http_send_header(self.0));
            if status.is_failure() || (*self.0).header_only() != 0 {
                return Err(status);
            }
            if self.is_http_1() {
                self.prepare_connection();
            }
            let status = if opening.is_empty() {
                Status(ngx_http_send_special(self.0, NGX_HTTP_FLUSH as ngx_uint_t))
            } else {
                let Some((chain, _)) = self.memory(opening) else {
                    return Err(Status(NGX_ERROR as ngx_int_t));
                };
                (*(*chain).buf).set_last_buf(0);
                (*(*chain).buf).set_flush(1);
                Status(ngx_http_output_filter(self.0, chain))
            };
            if status.0 == NGX_ERROR as ngx_int_t {
                return Err(status);
            }
            Ok(())
        }
    }

    /// Has the kernel send at once, and ask whether the client is there where nothing is sent: a stream without pings may have
    /// nothing to send for hours, and nobody would notice. (Where something was sent, `Parked::is_heard` tells.) But not where
    /// `listen` says when.
    fn prepare_connection(&self) {
        let core = self.core_location();
        // SAFETY: a living request has a connection.
        let connection = unsafe { (*self.0).connection };
        // SAFETY: as above, an open one.
        let (descriptor, is_decided) = unsafe {
            if core.tcp_nodelay != 0 {
                ngx_tcp_nodelay(connection);
            }
            ((*connection).fd, socket::is_keepalive_decided(connection))
        };
        if is_decided {
            return;
        }
        let pings = self.settings().ping_interval_ms / 1000;
        let idle = if pings == 0 { NO_PINGS } else { pings.min(NO_PINGS) };
        socket::set(descriptor, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1);
        socket::set(descriptor, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, idle as libc::c_int);
        // Without pings nobody else asks: once the client is silent, the system's own interval is short.
        if pings > 0 {
            socket::set(descriptor, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, idle as libc::c_int);
        }
    }

    fn is_http_1(&self) -> bool {
        // SAFETY: a plain field of a living request.
        unsafe { (*self.0).http_version < NGX_HTTP_VERSION_20 as ngx_uint_t }
    }

    /// Sends a reply without a body. All but a 304 say so by their length.
    fn send_head(&self, reply: &Reply) -> Status {
        // SAFETY: a living request that has not been answered.
        unsafe {
            if reply.status != 304 {
                (*self.0).headers_out.content_length_n = 0;
            }
            (*self.0).set_header_only(1);
            Status(ngx_http_send_header(self.0))
        }
    }

    /// The reply must be shared with the request's pool.
    fn set_headers(&self, reply: &Reply) -> bool {
        // SAFETY: a living request that has not been answered. Nobody writes to what the headers point to.
        unsafe {
            let out = &raw mut (*self.0).headers_out;
            (*out).status = reply.status as ngx_uint_t;
            if let Some(content_type) = &reply.content_type {
                // Filters that look at the type (gzip_types) want it without parameters; the client gets all of it.
                let plain = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
                (*out).content_type = text::borrowed(content_type);
                (*out).content_type_len = plain.trim_ascii_end().len();
                (*out).content_type_lowcase = ptr::null_mut();
            }
        }
        // HTTP/2 and HTTP/3 have no such fields: a reply with one is malformed (RFC 9113, section 8.2.2).
        let is_said = |name: &str| self.is_http_1() || !["Connection", "Upgrade"].contains(&name);
        let mut headers = reply.headers.iter().filter(|(name, _)| is_said(name));
        headers.all(|(name, value)| self.add_header(name, value))
    }

    /// The value must live as long as the request.
    pub(super) fn add_header(&self, name: &'static str, value: &[u8]) -> bool {
        // SAFETY: a living request whose list of reply headers is initialised; all zeros is a valid element.
        unsafe {
            let header: *mut ngx_table_elt_t =
                ngx_list_push(&raw mut (*self.0).headers_out.headers).cast();
            if header.is_null() {
                return false;
            }
            ptr::write_bytes(header, 0, 1);
            (*header).hash = 1;
            (*header).key = text::borrowed(name.as_bytes());
            (*header).value = text::borrowed(value);
            (*header).lowcase_key = (*header).key.data;
        }
        true
    }

    /// Bytes that live as long as the request.
    fn memory(&self, bytes: &[u8]) -> Option<(*mut ngx_chain_t, u64)> {
        let buffer = self.buffer()?;
        // SAFETY: a new buffer; nginx does not write to one with the flag `memory`.
        unsafe {
            (*buffer).pos = bytes.as_ptr().cast_mut();
            (*buffer).last = bytes.as_ptr().add(bytes.len()).cast_mut();
            (*buffer).set_memory(1);
        }
        Some((self.chain(buffer)?, bytes.len() as u64))
    }

    /// A script that calls the function which the request names with an array.
    fn script(&self, array: &[u8]) -> Option<(*mut ngx_chain_t, u64)> {
        // What is parked was asked for its name before.
        let callback = poll::callback(self.args()).ok()?;
        // SAFETY: the pool of a living request, with which the script goes.
        let script =
            unsafe { pool::keep((*self.0).pool, poll::script(&callback, array)).as_ref::<'_>()? };
        self.memory(script)
    }

    /// The body of a message that lives as long as the request.
    fn message(&self, copied: &Copied) -> Option<(*mut ngx_chain_t, u64)> {
        let (path, len) = match &copied.message.body {
            Body::Bytes(bytes) => return self.memory(bytes),
            Body::File { path, len } => (path, *len),
        };
        let descriptor = copied.file.as_ref()?.as_raw_fd();
        let buffer = self.buffer()?;
        // SAFETY: a new buffer of a living request; all zeros is how nginx makes a file (`ngx_pcalloc`).
        unsafe {
            let file: *mut ngx_file_t = ngx_pcalloc((*self.0).pool, size_of::<ngx_file_t>()).cast();
            if file.is_null() {
                return None;
            }
            (*file).fd = descriptor;
            (*file).name = text::borrowed(path);
            (*file).log = (*(*self.0).connection).log;
            (*buffer).file = file;
            (*buffer).file_last = len as off_t;
            (*buffer).set_in_file(1);
        }
        Some((self.chain(buffer)?, len))
    }

    /// A new buffer, the last of the reply.
    fn buffer(&self) -> Option<*mut ngx_buf_t> {
        // SAFETY: the pool of a living request; all zeros is how nginx makes a buffer (`ngx_calloc_buf`).
        unsafe {
            let buffer: *mut ngx_buf_t = ngx_pcalloc((*self.0).pool, size_of::<ngx_buf_t>()).cast();
            if buffer.is_null() {
                return None;
            }
            (*buffer).set_last_buf(u32::from(ptr::eq(self.0, (*self.0).main)));
            (*buffer).set_last_in_chain(1);
            Some(buffer)
        }
    }

    fn chain(&self, buffer: *mut ngx_buf_t) -> Option<*mut ngx_chain_t> {
        // SAFETY: the pool of a living request.
        unsafe {
            let chain = ngx_alloc_chain_link((*self.0).pool);
            let link = chain.as_mut()?;
            link.buf = buffer;
            link.next = ptr::null_mut();
            Some(chain)
        }
    }

    /// Writes to the error log, with the request's client, server and line: at that level once a minute, else as
    /// information.
    pub fn log(&self, topic: Topic, level: Level, line: &str) {
        // SAFETY: a living request has a connection with a log.
        unsafe { log::write((*(*self.0).connection).log, topic.level(level), line) };
    }
}

const _: () = {
    // `read_body` tells apart by size: codes of nginx's are negative or below any HTTP status that it may return.
    assert!(NGX_AGAIN < 0 && NGX_HTTP_SPECIAL_RESPONSE == 300);
};
