//! The plain way to park: nginx's own suspension of a request.

use std::ffi::c_void;
use std::ptr::NonNull;

use comet::hub::Key;
use nginx_sys::{
    ngx_handle_read_event, ngx_http_cleanup_add, ngx_http_finalize_request,
    ngx_http_request_empty_handler, ngx_http_request_t, ngx_http_run_posted_requests,
    ngx_http_test_reading, ngx_int_t, ngx_uint_t, NGX_HTTP_VERSION_20, NGX_OK,
};

use super::{Answer, Request};
use crate::worker;

/// A suspended request.
#[derive(Clone, Copy, Debug)]
pub struct Parked(NonNull<Place>);

/// In the request's pool.
#[derive(Debug)]
struct Place {
    request: *mut ngx_http_request_t,
    /// Under which the worker knows it; nothing before it waits and after it was answered.
    key: Option<Key>,
}

/// Suspends a request: its content handler must return `Status::LATER`.
pub fn park(request: &Request) -> Option<Parked> {
    let r = request.0;
    // SAFETY: a living request, in its content handler or the handler of its body. The cleanup handler is called before
    // the request's pool, where the place lives, is freed. `count` keeps the request until it is finalized.
    unsafe {
        let cleanup = ngx_http_cleanup_add(r, size_of::<Place>());
        let cleanup = cleanup.as_mut()?;
        let place = NonNull::new(cleanup.data.cast::<Place>())?;
        place.write(Place { request: r, key: None });
        cleanup.handler = Some(gone);
        (*r).read_event_handler = Some(ngx_http_test_reading);
        (*r).write_event_handler = Some(ngx_http_request_empty_handler);
        let read = (*(*r).connection).read;
        // HTTP/2 and 3 have no event for a stream of their own: nginx tells us through the request's read handler.
        let own_connection = (*r).http_version < NGX_HTTP_VERSION_20 as ngx_uint_t;
        if own_connection && ngx_handle_read_event(read, 0) != NGX_OK as ngx_int_t {
            return None;
        }
        let main = (*r).main;
        (*main).set_count((*main).count() + 1);
        Some(Parked(place))
    }
}

impl Parked {
    /// Says under which key the worker knows the request.
    pub fn set_key(&self, key: Key) {
        // SAFETY: a parked request's place lives.
        unsafe { (*self.0.as_ptr()).key = Some(key) };
    }

    /// Sends the reply and ends the request.
    pub fn answer(self, answer: Answer) {
        // SAFETY: a parked request lives, and so does its place. Its connection may be closed by the finalization, but its
        // memory is not given back before the next turn of the event loop.
        unsafe {
            let place = self.0.as_ptr();
            (*place).key = None;
            let request = Request((*place).request);
            let connection = (*request.0).connection;
            let status = answer.send(&request);
            ngx_http_finalize_request(request.0, status.0);
            ngx_http_run_posted_requests(connection);
        }
    }
}

unsafe extern "C" fn gone(data: *mut c_void) {
    // SAFETY: nginx passes the data of the cleanup that `park` has added; its pool is still there.
    let key = unsafe { (*data.cast::<Place>()).key.take() };
    if let Some(key) = key {
        worker::gone(key);
    }
}
