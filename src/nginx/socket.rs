//! What the kernel knows of a connection.

use std::cell::RefCell;
use std::ffi::c_void;

use comet::silence::Silence;
use nginx_sys::{ngx_connection_t, ngx_http_core_loc_conf_t};

/// Seconds after which the kernel asks a client that waits whether it is there.
const IDLE: libc::c_int = 300;

thread_local! {
    /// By descriptor: the number of the last connection for which it was told to.
    static ASKED: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// Has the kernel ask now and then whether the client of a poll is there: nothing is sent to one that waits, so that without
/// its end nobody would notice that it has gone. Once for each connection, for this costs two system calls; and not where
/// `listen` says `so_keepalive`.
///
/// # Safety
///
/// `connection` must be an open one.
pub unsafe fn ask_now_and_then(connection: *const ngx_connection_t) {
    // SAFETY: the caller's promise.
    let (descriptor, number, is_decided) = unsafe {
        ((*connection).fd, (*connection).number as usize, is_keepalive_decided(connection))
    };
    let Ok(place) = usize::try_from(descriptor) else { return };
    let is_new = ASKED.with_borrow_mut(|asked| {
        if asked.len() <= place {
            asked.resize(place + 1, usize::MAX);
        }
        asked.get_mut(place).is_some_and(|known| std::mem::replace(known, number) != number)
    });
    if is_new && !is_decided {
        set(descriptor, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1);
        set(descriptor, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, IDLE);
    }
}

/// Whether `listen` says when the kernel asks whether a client is there (`so_keepalive`).
///
/// # Safety
///
/// `connection` must be an open one.
pub unsafe fn is_keepalive_decided(connection: *const ngx_connection_t) -> bool {
    // SAFETY: the caller's promise; a connection's listening socket, if it has one, lives as long as its cycle.
    let listening = unsafe { (*connection).listening.as_ref() };
    listening.is_some_and(|listening| listening.keepalive() != 0)
}

/// Sets an option of a socket. What is no TCP socket does not know some, and that does no harm.
pub fn set(descriptor: libc::c_int, level: libc::c_int, name: libc::c_int, value: libc::c_int) {
    // SAFETY: an integer of this size; a descriptor that is none is refused.
    unsafe {
        let len = size_of_val(&value) as libc::socklen_t;
        libc::setsockopt(descriptor, level, name, (&raw const value).cast(), len);
    }
}

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
