//! The module's configuration structures, as nginx makes, merges and finds them.

use std::ffi::{c_char, c_void};
use std::ptr::{self, NonNull};

use comet::config::{LocationConf, MainConf, Settings};
use nginx_sys::{
    ngx_conf_t, ngx_http_conf_ctx_t, ngx_http_core_loc_conf_t, ngx_http_core_module, ngx_int_t,
    ngx_shm_zone_t,
};

use super::directive;
use super::log::{self, Level};
use super::module::ngx_http_push_module;
use super::pool;
use super::text;
use super::values::AllValues;

/// What nginx wants for "this configuration is wrong" (`NGX_CONF_ERROR`).
pub(super) const CONF_ERROR: *mut c_char = ptr::without_provenance_mut(usize::MAX);
/// What nginx wants for "this configuration is fine" (`NGX_CONF_OK`).
pub(super) const CONF_OK: *mut c_char = ptr::null_mut();

/// One for all of nginx.
#[derive(Default)]
pub(super) struct Main {
    pub said: MainConf,
    /// Some location publishes or subscribes. If not, the module does nothing at all (invariant I9).
    pub used: bool,
    /// Some block has `push_cors_origin`.
    pub has_origins: bool,
    pub zone: Option<NonNull<ngx_shm_zone_t>>,
    /// Index of the variable `$push_channel_id`.
    pub channel_id: ngx_int_t,
}

/// One for each `http`, `server`, `location` and `if`.
pub(super) struct Location {
    pub said: LocationConf,
    /// What may contain variables, compiled.
    pub values: AllValues,
    /// What holds for requests.
    pub settings: Settings,
    /// Who may send this request may still not send a POST.
    pub limits_post: bool,
}

pub(super) unsafe extern "C" fn create_main(cf: *mut ngx_conf_t) -> *mut c_void {
    // SAFETY: nginx passes the configuration that it is about to read; its pool is the cycle's.
    unsafe { pool::keep((*cf).pool, Main::default()).cast() }
}

pub(super) unsafe extern "C" fn create_location(cf: *mut ngx_conf_t) -> *mut c_void {
    let location = Location {
        said: LocationConf::default(),
        values: AllValues::default(),
        settings: Settings::default(),
        limits_post: false,
    };
    // SAFETY: as in `create_main`.
    unsafe { pool::keep((*cf).pool, location).cast() }
}

pub(super) unsafe extern "C" fn merge_location(
    cf: *mut ngx_conf_t,
    parent: *mut c_void,
    child: *mut c_void,
) -> *mut c_char {
    // SAFETY: nginx passes what `create_location` has returned, for a block and the block in it, and nobody else
    // has a reference to either.
    let (parent, child) = unsafe { (&*parent.cast::<Location>(), &mut *child.cast::<Location>()) };
    child.values.inherit(&parent.values);
    // SAFETY: nginx is merging this block, after the one around it.
    unsafe {
        directive::serve_limited(cf, parent.said.role);
        child.limits_post = directive::limits_post(cf, parent.limits_post);
    }
    match child.said.merge(&parent.said) {
        Ok(warnings) => {
            for warning in warnings {
                // SAFETY: nginx's own configuration.
                unsafe {
                    log::configuration(cf, Level::Warn, &format!("{warning}, {}", place(cf)))
                };
            }
            child.settings = child.said.settings();
            CONF_OK
        }
        Err(error) => {
            // SAFETY: nginx's own configuration.
            unsafe { log::configuration(cf, Level::Emergency, &format!("{error}, {}", place(cf))) };
            CONF_ERROR
        }
    }
}

/// Where the block is that is being merged: all lines about it have the number of the one that ends `http`.
///
/// # Safety
///
/// `cf` must be nginx's, merging a block.
unsafe fn place(cf: *mut ngx_conf_t) -> String {
    // SAFETY: the caller's promise: then the context is the block's own (`ngx_http_merge_servers`,
    // `ngx_http_merge_locations`), and a name, if it has one, lives in the configuration.
    let name = unsafe {
        let context: *mut ngx_http_conf_ctx_t = (*cf).ctx.cast();
        text::bytes((*core_location((*context).loc_conf)).name)
    };
    match name {
        [] => "in a server".into(),
        name => format!("in location \"{}\"", String::from_utf8_lossy(name)),
    }
}

/// The main configuration while the configuration is read.
///
/// # Safety
///
/// `cf` must be nginx's, inside `http`; the reference must not outlive the handler, nor be taken twice.
pub(super) unsafe fn main_of<'a>(cf: *mut ngx_conf_t) -> Option<&'a mut Main> {
    // SAFETY: inside `http`, `ctx` is nginx's context (`ngx_http.c`), which has what `create_main` has returned.
    unsafe {
        let context: *mut ngx_http_conf_ctx_t = (*cf).ctx.cast();
        let conf = *(*context).main_conf.add(ngx_http_push_module.ctx_index);
        conf.cast::<Main>().as_mut()
    }
}

/// The configuration of the block that is being read.
///
/// # Safety
///
/// As for [`main_of`].
pub(super) unsafe fn location_of<'a>(cf: *mut ngx_conf_t) -> Option<&'a mut Location> {
    // SAFETY: as in `main_of`; while `http` and `server` are read there is a location configuration too.
    unsafe {
        let context: *mut ngx_http_conf_ctx_t = (*cf).ctx.cast();
        let conf = *(*context).loc_conf.add(ngx_http_push_module.ctx_index);
        conf.cast::<Location>().as_mut()
    }
}

/// nginx's own settings of a location.
///
/// # Safety
///
/// `loc_conf` must be a location's array of settings.
pub unsafe fn core_location(loc_conf: *mut *mut c_void) -> *const ngx_http_core_loc_conf_t {
    // SAFETY: the caller's promise: then the settings of all HTTP modules are in it.
    unsafe { (*loc_conf.add(ngx_http_core_module.ctx_index)).cast() }
}
