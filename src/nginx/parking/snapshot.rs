//! What a request knows that its head does not say: kept while it is parked, and put back when it is woken.
//!
//! What was decided once is not decided again: the location and its settings (also those of an `if`), variables that were
//! set or evaluated, captures, headers that earlier steps have added, limits, and when it all began.

use std::ffi::{c_int, c_void};
use std::ptr;

use comet::wire::head;
use nginx_sys::{
    ngx_http_core_main_conf_t, ngx_http_core_module, ngx_http_get_indexed_variable,
    ngx_http_request_empty_handler, ngx_http_request_t, ngx_http_update_location_config,
    ngx_http_variable_t, ngx_list_part_t, ngx_list_push, ngx_palloc, ngx_pool_cleanup_add,
    ngx_str_t, ngx_table_elt_t, ngx_uint_t, sockaddr, socklen_t, time_t,
};

use super::blob::{Reader, Writer};
use crate::nginx::request::{pubsub_handler, subscriber_handler, Request};
use crate::nginx::text;

const CONTENT_TYPE: &[u8] = b"Content-Type";
/// In place of a field's code: the field itself follows. No field has this code.
const RAW: u32 = 1;

/// A parked request. Small: there may be a million of them.
#[derive(Debug)]
pub struct Snapshot {
    loc_conf: *mut *mut c_void,
    start_sec: time_t,
    /// The head, then what else was written.
    blob: Box<[u8]>,
    /// Length of the head, which is packed.
    head: u32,
    request_length: u32,
    method: u32,
    start_msec: u16,
    /// [`KEEPALIVE`], [`PIPELINE`] and [`PUBSUB`].
    flags: u8,
    limit_req_status: u8,
}

const KEEPALIVE: u8 = 1;
const PIPELINE: u8 = 2;
/// The location publishes too.
const PUBSUB: u8 = 4;

impl Snapshot {
    /// Takes what a request knows.
    ///
    /// # Safety
    ///
    /// `r` must be a living main request of HTTP/1 in its content handler.
    pub unsafe fn take(r: *mut ngx_http_request_t, keeps_address: bool) -> Self {
        let mut writer = Writer::new();
        // SAFETY: the caller's promise; all strings of a request live as long as it.
        unsafe {
            let head = write_head(r, &mut writer) as u32;
            write_limits(r, &mut writer);
            write_variables(r, &mut writer, keeps_address);
            write_headers_out(r, &mut writer);
            write_captures(r, &mut writer);
            write_address(r, &mut writer, keeps_address);
            write_reply(r, &mut writer);
            Snapshot {
                loc_conf: (*r).loc_conf,
                start_sec: (*r).start_sec,
                blob: writer.finish(),
                head,
                request_length: (*r).request_length as u32,
                method: (*r).method as u32,
                start_msec: (*r).start_msec as u16,
                flags: flag((*r).keepalive(), KEEPALIVE)
                    | flag((*r).pipeline(), PIPELINE)
                    | flag(Request(r).is_pubsub().into(), PUBSUB),
                limit_req_status: (*r).limit_req_status() as u8,
            }
        }
    }

    /// The configurations of the request's location.
    pub fn loc_conf(&self) -> *mut *mut c_void {
        self.loc_conf
    }

    /// Writes the request's head, as a client could have sent it.
    pub fn write_head(&self, out: &mut Vec<u8>) {
        head::unpack(self.blob.get(..self.head as usize).unwrap_or_default(), out);
    }

    /// Puts back into a request, which was made of the same head, what it knew.
    ///
    /// # Safety
    ///
    /// `r` must be a living main request of HTTP/1 in its post-read phase, and the snapshot must live as long as it.
    pub unsafe fn restore(&self, r: *mut ngx_http_request_t) -> bool {
        let mut reader = Reader::new(self.blob.get(self.head as usize..).unwrap_or_default());
        // SAFETY: the caller's promise. The location belongs to the same cycle as the connection.
        unsafe {
            (*r).loc_conf = self.loc_conf;
            (*r).start_sec = self.start_sec;
            (*r).start_msec = self.start_msec.into();
            (*r).request_length = self.request_length.into();
            (*r).method = self.method as ngx_uint_t;
            (*r).set_limit_req_status(self.limit_req_status.into());
            restore_limits(r, &mut reader);
            restore_variables(r, &mut reader);
            let done = restore_headers_out(r, &mut reader);
            restore_captures(r, &mut reader);
            restore_address(r, &mut reader);
            restore_reply(r, &mut reader);
            ngx_http_update_location_config(r);
            // An `if` that has matched has none: its location had told nginx which before.
            if (*r).content_handler.is_none() {
                (*r).content_handler = match self.flags & PUBSUB {
                    0 => subscriber_handler(),
                    _ => pubsub_handler(),
                };
            }
            (*r).set_keepalive((self.flags & KEEPALIVE != 0).into());
            (*r).set_pipeline((self.flags & PIPELINE != 0).into());
            (*r).write_event_handler = Some(ngx_http_request_empty_handler);
            done
        }
    }
}

/// What of a stream's reply the log may ask for, if its head has been sent.
///
/// # Safety
///
/// As for [`Snapshot::take`].
unsafe fn write_reply(r: *mut ngx_http_request_t, writer: &mut Writer) {
    // SAFETY: the caller's promise.
    unsafe {
        if (*r).header_sent() == 0 {
            return;
        }
        writer.number((*r).headers_out.status as u32);
        writer.number((*r).header_size as u32);
        writer.number((*r).chunked());
        let content_type = text::bytes((*r).headers_out.content_type);
        match head::code_of(CONTENT_TYPE, content_type) {
            Some(code) => writer.number(code.into()),
            None => {
                writer.number(RAW);
                writer.bytes(content_type);
            }
        }
    }
}

/// # Safety
///
/// As for [`Snapshot::restore`].
unsafe fn restore_reply(r: *mut ngx_http_request_t, reader: &mut Reader<'_>) {
    let (status, header_size, chunked) = (reader.number(), reader.number(), reader.number());
    if status == 0 {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        (*r).headers_out.status = status as ngx_uint_t;
        (*r).headers_out.content_type = text::borrowed(match reader.number() {
            RAW => reader.bytes(),
            code => known(code).1,
        });
        (*r).header_size = header_size as usize;
        (*r).set_chunked(chunked);
        (*r).set_header_sent(1);
    }
}

fn flag(is_set: u32, flag: u8) -> u8 {
    if is_set != 0 {
        flag
    } else {
        0
    }
}

/// Writes the request line and headers; returns their length.
///
/// # Safety
///
/// As for [`Snapshot::take`].
unsafe fn write_head(r: *mut ngx_http_request_t, writer: &mut Writer) -> usize {
    // SAFETY: the caller's promise.
    unsafe {
        let out = writer.buffer();
        head::pack_line(text::bytes((*r).request_line), out);
        for_each_header(&raw const (*r).headers_in.headers.part, |header| {
            head::pack_field(text::bytes(header.key), text::bytes(header.value), out);
        });
        out.len()
    }
}

/// # Safety
///
/// `part` must be the first of a complete list of headers.
unsafe fn for_each_header(
    mut part: *const ngx_list_part_t,
    mut each: impl FnMut(&ngx_table_elt_t),
) {
    // SAFETY: a list's parts hold `nelts` elements each, and are linked by pointers or null (`ngx_list.h`).
    unsafe {
        while let Some(here) = part.as_ref() {
            let headers: *const ngx_table_elt_t = here.elts.cast();
            for index in 0..here.nelts {
                each(&*headers.add(index));
            }
            part = here.next;
        }
    }
}

/// `limit_rate` and `limit_rate_after`, if something other than the location has set them.
///
/// # Safety
///
/// As for [`Snapshot::take`].
unsafe fn write_limits(r: *mut ngx_http_request_t, writer: &mut Writer) {
    // SAFETY: the caller's promise.
    let limits = unsafe {
        [
            ((*r).limit_rate_set() != 0, (*r).limit_rate),
            ((*r).limit_rate_after_set() != 0, (*r).limit_rate_after),
        ]
    };
    for (is_set, limit) in limits {
        let bytes = limit.to_ne_bytes();
        writer.bytes(if is_set { &bytes } else { &[] });
    }
}

/// # Safety
///
/// As for [`Snapshot::restore`].
unsafe fn restore_limits(r: *mut ngx_http_request_t, reader: &mut Reader<'_>) {
    let mut limit = || reader.bytes().try_into().ok().map(usize::from_ne_bytes);
    let (rate, after) = (limit(), limit());
    // SAFETY: the caller's promise.
    unsafe {
        if let Some(rate) = rate {
            (*r).limit_rate = rate;
            (*r).set_limit_rate_set(1);
        }
        if let Some(after) = after {
            (*r).limit_rate_after = after;
            (*r).set_limit_rate_after_set(1);
        }
    }
}

/// Writes the variables that have a value and keep it. Those that only show a part of the head are evaluated again.
///
/// # Safety
///
/// As for [`Snapshot::take`].
unsafe fn write_variables(r: *mut ngx_http_request_t, writer: &mut Writer, keeps_address: bool) {
    // SAFETY: the caller's promise; a request has one value for each indexed variable.
    unsafe {
        let main = *(*r).main_conf.add(ngx_http_core_module.ctx_index);
        let main: *mut ngx_http_core_main_conf_t = main.cast();
        let known: &[ngx_http_variable_t] = (*main).variables.as_slice();
        for (index, variable) in known.iter().enumerate() {
            let name = text::bytes(variable.name);
            if keeps_address && REALIP.contains(&name) {
                ngx_http_get_indexed_variable(r, index as ngx_uint_t);
            }
            let value = &*(*r).variables.add(index);
            let keeps = value.valid() != 0 && value.no_cacheable() == 0 && value.not_found() == 0;
            let again = shows_the_head(name) && is_in_head(r, value.as_bytes());
            if keeps && !again {
                writer.number(index as u32 + 1);
                writer.bytes(value.as_bytes());
            }
        }
        writer.number(0);
    }
}

/// What realip tells only as long as it knows the request itself.
const REALIP: [&[u8]; 2] = [b"realip_remote_addr", b"realip_remote_port"];

fn shows_the_head(name: &[u8]) -> bool {
    [&b"http_"[..], b"arg_", b"cookie_"].iter().any(|prefix| name.starts_with(prefix))
}

/// Whether a value is a piece of the request line or of a header, and not one that `set` has given to the variable.
///
/// # Safety
///
/// As for [`Snapshot::take`].
unsafe fn is_in_head(r: *mut ngx_http_request_t, value: &[u8]) -> bool {
    let is_in = |head: &[u8]| {
        let (head, value) = (head.as_ptr_range(), value.as_ptr_range());
        head.start <= value.start && value.end <= head.end
    };
    // SAFETY: the caller's promise.
    unsafe {
        let mut found = is_in(text::bytes((*r).request_line));
        for_each_header(&raw const (*r).headers_in.headers.part, |header| {
            found = found || is_in(text::bytes(header.value));
        });
        found
    }
}

/// # Safety
///
/// As for [`Snapshot::restore`].
unsafe fn restore_variables(r: *mut ngx_http_request_t, reader: &mut Reader<'_>) {
    loop {
        let index = reader.number();
        if index == 0 {
            return;
        }
        let bytes = reader.bytes();
        // SAFETY: the index was written for a request of the same cycle; the bytes live as long as the request, and nginx
        // does not write to a variable's value.
        unsafe {
            let value = &mut *(*r).variables.add(index as usize - 1);
            value.set_len(bytes.len() as u32);
            value.data = bytes.as_ptr().cast_mut();
            value.set_valid(1);
            value.set_no_cacheable(0);
            value.set_not_found(0);
        }
    }
}

/// # Safety
///
/// As for [`Snapshot::take`].
unsafe fn write_headers_out(r: *mut ngx_http_request_t, writer: &mut Writer) {
    // SAFETY: the caller's promise.
    unsafe {
        for_each_header(&raw const (*r).headers_out.headers.part, |header| {
            if header.hash == 0 {
                return;
            }
            let (key, value) = (text::bytes(header.key), text::bytes(header.value));
            match head::code_of(key, value) {
                Some(code) => writer.number(code.into()),
                None => {
                    writer.number(RAW);
                    writer.bytes(key);
                    writer.bytes(value);
                }
            }
        });
    }
    writer.number(0);
}

/// # Safety
///
/// As for [`Snapshot::restore`].
unsafe fn restore_headers_out(r: *mut ngx_http_request_t, reader: &mut Reader<'_>) -> bool {
    loop {
        let (key, value) = match reader.number() {
            0 => return true,
            RAW => (reader.bytes(), reader.bytes()),
            code => known(code),
        };
        // SAFETY: a new element of an initialised list; all zeros is valid; the bytes live as long as the request.
        unsafe {
            let header: *mut ngx_table_elt_t =
                ngx_list_push(&raw mut (*r).headers_out.headers).cast();
            if header.is_null() {
                return false;
            }
            ptr::write_bytes(header, 0, 1);
            (*header).hash = 1;
            (*header).key = text::borrowed(key);
            (*header).value = text::borrowed(value);
            (*header).lowcase_key = (*header).key.data;
        }
    }
}

/// A field that was written as a number.
fn known(code: u32) -> (&'static [u8], &'static [u8]) {
    let (name, value) = u8::try_from(code).ok().and_then(head::decode).unwrap_or_default();
    (name.as_bytes(), value.unwrap_or_default().as_bytes())
}

/// `$1` and so on, as the last regular expression has left them.
///
/// # Safety
///
/// As for [`Snapshot::take`].
unsafe fn write_captures(r: *mut ngx_http_request_t, writer: &mut Writer) {
    // SAFETY: the caller's promise; there are `ncaptures` offsets into `captures_data`, or none.
    unsafe {
        let count = if (*r).captures.is_null() { 0 } else { (*r).ncaptures };
        writer.number(count as u32);
        let mut end = 0;
        for index in 0..count {
            let offset = *(*r).captures.add(index);
            end = end.max(offset);
            writer.number(offset as u32);
        }
        let len = usize::try_from(end).unwrap_or(0);
        writer.bytes(text::bytes(ngx_str_t { len, data: (*r).captures_data }));
    }
}

/// # Safety
///
/// As for [`Snapshot::restore`].
unsafe fn restore_captures(r: *mut ngx_http_request_t, reader: &mut Reader<'_>) {
    let count = reader.number() as usize;
    // SAFETY: the pool of a living request has room for the offsets; the data live as long as the request. The next regular
    // expression may write as many as any of the configuration has (`ngx_http_regex_exec` uses the array that it finds).
    unsafe {
        let main = *(*r).main_conf.add(ngx_http_core_module.ctx_index);
        let main: *const ngx_http_core_main_conf_t = main.cast();
        let room = count.max((*main).ncaptures);
        let captures: *mut c_int = match count {
            0 => ptr::null_mut(),
            _ => ngx_palloc((*r).pool, room * size_of::<c_int>()).cast(),
        };
        for index in 0..count {
            let offset = reader.number() as c_int;
            if !captures.is_null() {
                *captures.add(index) = offset;
            }
        }
        let data = reader.bytes();
        if !captures.is_null() {
            (*r).captures = captures;
            (*r).ncaptures = count;
            (*r).captures_data = data.as_ptr().cast_mut();
        }
    }
}

/// The client's address, as realip has found it out.
///
/// # Safety
///
/// As for [`Snapshot::take`].
unsafe fn write_address(r: *mut ngx_http_request_t, writer: &mut Writer, keeps_address: bool) {
    // SAFETY: the caller's promise; a connection has an address of `socklen` bytes.
    unsafe {
        let c = (*r).connection;
        let data = if keeps_address { (*c).sockaddr.cast() } else { ptr::null_mut() };
        writer.bytes(text::bytes(ngx_str_t { len: (*c).socklen as usize, data }));
        writer.bytes(if keeps_address { text::bytes((*c).addr_text) } else { &[] });
    }
}

/// The address to put back when the request ends, as realip does.
struct Address {
    connection: *mut nginx_sys::ngx_connection_t,
    sockaddr: *mut sockaddr,
    socklen: socklen_t,
    addr_text: ngx_str_t,
}

/// # Safety
///
/// As for [`Snapshot::restore`].
unsafe fn restore_address(r: *mut ngx_http_request_t, reader: &mut Reader<'_>) {
    let (sockaddr, addr_text) = (reader.bytes(), reader.bytes());
    // SAFETY: the caller's promise. The connection's own address is put back before the snapshot goes: cleanup handlers
    // run before their pool is freed.
    unsafe {
        let c = (*r).connection;
        if sockaddr.is_empty() || text::bytes((*c).addr_text) == addr_text {
            return;
        }
        let cleanup = ngx_pool_cleanup_add((*r).pool, size_of::<Address>());
        // Aligned, unlike what is in the blob.
        let copy: *mut u8 = ngx_palloc((*r).pool, sockaddr.len()).cast();
        let (Some(cleanup), false) = (cleanup.as_mut(), copy.is_null()) else { return };
        ptr::copy_nonoverlapping(sockaddr.as_ptr(), copy, sockaddr.len());
        cleanup.data.cast::<Address>().write(Address {
            connection: c,
            sockaddr: (*c).sockaddr,
            socklen: (*c).socklen,
            addr_text: (*c).addr_text,
        });
        cleanup.handler = Some(put_address_back);
        (*c).sockaddr = copy.cast();
        (*c).socklen = sockaddr.len() as socklen_t;
        (*c).addr_text = text::borrowed(addr_text);
    }
}

unsafe extern "C" fn put_address_back(data: *mut c_void) {
    // SAFETY: nginx passes what `restore_address` has written; the connection outlives its request.
    unsafe {
        let address = &*data.cast::<Address>();
        (*address.connection).sockaddr = address.sockaddr;
        (*address.connection).socklen = address.socklen;
        (*address.connection).addr_text = address.addr_text;
    }
}
