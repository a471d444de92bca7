//! What the kernel knows of a connection.

use comet::silence::Silence;
use nginx_sys::{ngx_connection_t, ngx_http_core_loc_conf_t, ngx_http_core_module};
use std::ffi::c_void;

/// Whether a connection's other end may still be there. What is no TCP connection says nothing of that.
///
/// # Safety
///
/// `connection` must be an open one, and `core` the settings of a location.
pub unsafe fn is_heard(
    connection: *const ngx_connection_t,
    core: *const ngx_http_core_loc_conf_t,
) -> bool {
    // SAFETY: the caller's promise. The kernel writes no more than `len` bytes; all of them are plain numbers, for which 0
    // will do.
    let (info, known, patience) = unsafe {
        let mut info: libc::tcp_info = std::mem::zeroed();
        let mut len = size_of_val(&info) as libc::socklen_t;
        let place = (&raw mut info).cast::<c_void>();
        let descriptor = (*connection).fd;
        let code =
            libc::getsockopt(descriptor, libc::IPPROTO_TCP, libc::TCP_INFO, place, &raw mut len);
        (info, code == 0, (*core).send_timeout as u64)
    };
    let silence = Silence {
        unacknowledged: info.tcpi_unacked,
        retransmits: info.tcpi_retransmits,
        probes: info.tcpi_probes,
        since: info.tcpi_last_ack_recv,
    };
    !(known && silence.is_the_end(patience))
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
