//! `push_cors_origin` for requests: who asks, and what every reply of a location says about it.
//!
//! The headers are added by a header filter, for they belong to the request and not to a reply that many share; and so that
//! they are also in replies that nginx makes itself, such as 413 or those of `auth_basic`, for else a script could not tell
//! these from a broken connection.

use std::ptr;

use comet::config::Valued;
use comet::cors::{self, Policy, Verdict};
use nginx_sys::{
    ngx_http_output_header_filter_pt, ngx_http_request_t, ngx_http_top_header_filter, ngx_int_t,
    ngx_list_part_t, ngx_table_elt_t, NGX_ERROR, NGX_OK,
};

use super::request::Request;
use super::text;
use crate::subscriber;

/// The filter after ours. Written by the master while it reads a configuration.
static mut NEXT: ngx_http_output_header_filter_pt = None;

/// Puts our filter before all that are there.
///
/// # Safety
///
/// Only from postconfiguration, once.
pub(super) unsafe fn install() {
    // SAFETY: the caller's promise; nginx begins each configuration with an empty chain (`ngx_http_header_filter_init`).
    unsafe {
        NEXT = ngx_http_top_header_filter;
        ngx_http_top_header_filter = Some(filter);
    }
}

unsafe extern "C" fn filter(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: nginx passes a living request whose head is about to be sent. Nobody writes to NEXT in a worker.
    let (is_main, next) = unsafe { (ptr::eq(r, (*r).main), NEXT) };
    let request = Request(r);
    if is_main && request.is_ours() && !request.add_origin_fields() {
        return NGX_ERROR as ngx_int_t;
    }
    // SAFETY: as above.
    next.map_or(NGX_OK as ngx_int_t, |next| unsafe { next(r) })
}

impl Request {
    /// Judges who asks, where there is a `push_cors_origin`.
    pub fn judge_origin(&self) -> Option<(Policy<'_>, Verdict<'_>)> {
        if self.location().values.get(Valued::CorsOrigin).is_none() {
            return None;
        }
        // Any page may load a script, and mostly does so without saying where it is from: that it says so is no reason to
        // refuse it, nor may the browser keep from it what it gets.
        let origins = match subscriber::is_script(self) {
            true => vec![cors::ANY],
            false => self.values(Valued::CorsOrigin),
        };
        let policy = Policy { origins, credentials: self.settings().cors_credentials };
        let origin = match self.headers("Origin").as_slice() {
            [] => None,
            [origin] => Some(*origin),
            // No browser sends two.
            _ => Some(&b""[..]),
        };
        let verdict = policy.judge(origin, self.host());
        Some((policy, verdict))
    }

    /// Adds what the reply says to browsers and caches, unless it is there.
    pub(super) fn add_origin_fields(&self) -> bool {
        let Some((policy, verdict)) = self.judge_origin() else { return true };
        let fields = policy.fields(verdict);
        fields
            .iter()
            .all(|(name, value)| self.has_reply_field(name, value) || self.add_header(name, value))
    }

    /// Whether the reply has this header field.
    fn has_reply_field(&self, name: &str, value: &[u8]) -> bool {
        // SAFETY: the parts of a list hold `nelts` elements and are linked by pointers to others of it, or null
        // (`ngx_list.h`).
        unsafe {
            let mut part: *const ngx_list_part_t = &raw const (*self.0).headers_out.headers.part;
            while let Some(here) = part.as_ref() {
                let headers: *const ngx_table_elt_t = here.elts.cast();
                for index in 0..here.nelts {
                    let header = &*headers.add(index);
                    let same = text::bytes(header.key) == name.as_bytes()
                        && text::bytes(header.value) == value;
                    if header.hash != 0 && same {
                        return true;
                    }
                }
                part = here.next;
            }
        }
        false
    }
}
