//! Waking other workers: an eventfd for each place in nginx's process table.
//!
//! The master makes them before it forks, so that every worker of every generation has them all under the same numbers.
//! They are never closed, for a worker that was forked earlier goes on using them; a reload adds what is missing. The list
//! is an ordinary static: what a worker inherits at fork is exactly what it can write to.

use std::os::fd::RawFd;
use std::sync::{Mutex, PoisonError};

use nginx_sys::{
    ngx_connection_t, ngx_cycle, ngx_event_t, ngx_get_connection, ngx_handle_read_event, ngx_int_t,
    NGX_OK,
};

use super::log::{self, Level};

/// A mutex only because a static needs one: nothing else runs while it is held.
static DESCRIPTORS: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());

fn descriptor(slot: usize) -> Option<RawFd> {
    DESCRIPTORS.lock().unwrap_or_else(PoisonError::into_inner).get(slot).copied()
}

/// Makes eventfds for so many places. In the master, before it forks.
///
/// # Errors
///
/// The system's error.
pub fn prepare(slots: usize) -> std::io::Result<()> {
    let mut descriptors = DESCRIPTORS.lock().unwrap_or_else(PoisonError::into_inner);
    while descriptors.len() < slots {
        // SAFETY: a system call without pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(std::io::Error::last_os_error());
        }
        descriptors.push(fd);
    }
    Ok(())
}

/// Wakes the worker in this place. A wake-up that fails is made good by that worker's tick.
pub fn signal(slot: u32) {
    let Some(fd) = descriptor(slot as usize) else { return };
    let one = 1u64.to_ne_bytes();
    // SAFETY: eight bytes are there; the descriptor is an eventfd of ours, which is never closed.
    unsafe { libc::write(fd, one.as_ptr().cast(), one.len()) };
}

/// Why a worker's wake-up handler is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// There is mail.
    Mail,
    /// A graceful shutdown begins.
    Shutdown,
}

/// The one function that this worker calls when it is woken.
static CALLBACK: Mutex<Option<fn(Wake)>> = Mutex::new(None);

/// Has `callback` called whenever this worker is woken, and at the beginning of a graceful shutdown.
///
/// Returns whether that worked; if not, the worker is told of messages by its tick alone.
pub fn listen(slot: u32, callback: fn(Wake)) -> bool {
    let Some(fd) = descriptor(slot as usize) else {
        log::cycle(Level::Warn, "push: this worker has no eventfd, and will notice messages late");
        return false;
    };
    *CALLBACK.lock().unwrap_or_else(PoisonError::into_inner) = Some(callback);
    // SAFETY: called in init_process, when the cycle's connections exist.
    let connection = unsafe { ngx_get_connection(fd, (*ngx_cycle).log) };
    if connection.is_null() {
        return false;
    }
    // SAFETY: the connection was just taken, with its read event.
    unsafe {
        let read = (*connection).read;
        (*read).handler = Some(woken);
        (*read).log = (*ngx_cycle).log;
        // "Not a client": nginx does not complain at exit that it is open (`ngx_worker_process_exit`).
        (*read).set_channel(1);
        // Have the handler called when a graceful shutdown begins (`ngx_close_idle_connections`).
        (*connection).set_idle(1);
        ngx_handle_read_event(read, 0) == NGX_OK as ngx_int_t
    }
}

unsafe extern "C" fn woken(event: *mut ngx_event_t) {
    // SAFETY: nginx passes the read event of the connection that `listen` has set up.
    let wake = unsafe {
        let connection: *mut ngx_connection_t = (*event).data.cast();
        if (*connection).close() != 0 {
            (*connection).set_close(0);
            (*connection).set_idle(0);
            Wake::Shutdown
        } else {
            let mut count = [0u8; 8];
            libc::read((*connection).fd, count.as_mut_ptr().cast(), count.len());
            Wake::Mail
        }
    };
    let callback = *CALLBACK.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(callback) = callback {
        callback(wake);
    }
}
