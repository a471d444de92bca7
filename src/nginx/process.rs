//! What process this is.

use std::time::Duration;
use std::{fs, thread};

use comet::process;
use nginx_sys::{
    ngx_core_conf_t, ngx_core_module, ngx_cycle_t, ngx_exiting, ngx_inherited, ngx_last_process,
    ngx_new_binary, ngx_parent, ngx_path_t, ngx_pid, ngx_process, ngx_process_slot, ngx_processes,
    ngx_time_update, NGX_PROCESS_HELPER, NGX_PROCESS_SINGLE,
};

use super::text;

/// Whether this process serves requests: a worker, or the only process with `master_process off`. Cache managers do not.
pub fn serves_requests() -> bool {
    // SAFETY: a plain word that nginx sets at fork.
    unsafe { ngx_process as u32 != NGX_PROCESS_HELPER }
}

/// Whether this process was forked by a master: a worker, or one that looks after caches. In `init_process`.
pub fn has_master() -> bool {
    // SAFETY: a plain word that nginx sets at fork, before it calls `init_process`.
    unsafe { ngx_process as u32 != NGX_PROCESS_SINGLE }
}

/// The process that keeps the zone: the master, or the only process. In one that serves requests.
pub fn keeper() -> u32 {
    // SAFETY: plain words that nginx sets at fork.
    let pid = unsafe {
        match ngx_process as u32 {
            NGX_PROCESS_SINGLE => ngx_pid,
            _ => ngx_parent,
        }
    };
    u32::try_from(pid).unwrap_or(0)
}

/// This process's place in nginx's process table: unique among all living workers, old ones included.
pub fn slot() -> u32 {
    // SAFETY: plain words that nginx sets at fork; with `master_process off` there is one process and no slot.
    unsafe {
        if ngx_process as u32 == NGX_PROCESS_SINGLE {
            return 0;
        }
        u32::try_from(ngx_process_slot).unwrap_or(0)
    }
}

/// Whether this worker is in a graceful shutdown.
pub fn is_exiting() -> bool {
    // SAFETY: a plain word that nginx sets between handlers.
    unsafe { ngx_exiting != 0 }
}

/// Whether this master has started another one with a new binary, which runs.
pub fn has_successor() -> bool {
    // SAFETY: a plain word that nginx sets at the start of the new binary and clears at its end (`ngx_process_cycle.c`).
    unsafe { ngx_new_binary > 0 }
}

/// Whether this nginx was started by another one, with a new binary, and has its sockets.
pub fn is_upgrade() -> bool {
    // SAFETY: a plain word that nginx sets at its start, before it reads a configuration (`ngx_add_inherited_sockets`).
    unsafe { ngx_inherited != 0 }
}

/// Does nothing for a while. Only where no events are waited for: in the master.
pub fn pause(time: Duration) {
    thread::sleep(time);
    // SAFETY: nginx calls it between handlers too; a handler of a signal that comes meanwhile leaves the time alone (`ngx_times.c`).
    unsafe { ngx_time_update() };
}

/// Whether a process exists.
pub fn is_alive(pid: u32) -> bool {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return false };
    // SAFETY: signal 0 only asks.
    let gone = unsafe { libc::kill(pid, 0) } != 0;
    !gone || std::io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

/// Whether a process has ended, even if nobody has taken note of that yet: then it still exists, and does nothing any more.
pub fn has_ended(pid: u32) -> bool {
    !is_alive(pid) || process::has_ended(&stat(pid))
}

/// When a process has started ([`process::started`]), if the kernel tells.
pub fn started(pid: u32) -> Option<u64> {
    process::started(&stat(pid))
}

fn stat(pid: u32) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/stat")).unwrap_or_default()
}

/// nginx's directories for temporary files, wherever a cycle's configuration has them.
///
/// # Safety
///
/// `cycle` must be one whose configuration was read, and live as long as what is returned.
pub unsafe fn temporary_directories<'a>(cycle: *mut ngx_cycle_t) -> Vec<&'a [u8]> {
    // SAFETY: the caller's promise: then `paths` is an array of pointers to them.
    unsafe {
        let paths: &[*mut ngx_path_t] = (*cycle).paths.as_slice();
        paths.iter().map(|path| text::bytes((**path).name)).collect()
    }
}

/// Has the allocator give back what it keeps. It looks at all that is free: some milliseconds after a large crowd.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: touches only memory that is not in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// How many bytes of memory this process has for itself: what it shares, and files, are not counted. 0 without `/proc`.
pub fn private_memory() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = statm.split(' ').skip(1).map_while(|figure| figure.parse::<u64>().ok());
    let (resident, shared) = (pages.next().unwrap_or(0), pages.next().unwrap_or(0));
    // SAFETY: only asks.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    resident.saturating_sub(shared).saturating_mul(u64::try_from(page).unwrap_or(0))
}

/// Whether this process can get so many bytes at once, with so many more to spare.
pub fn has_room_for(bytes: usize, spare: usize) -> bool {
    let len = bytes.saturating_add(spare);
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: new memory that nobody uses, and that is given back at once. Nothing of it is written, so it costs two system
    // calls; and the allocator, which learns from what it gives out, does not see it.
    unsafe {
        let place = libc::mmap(std::ptr::null_mut(), len, access, flags, -1, 0);
        if place != libc::MAP_FAILED {
            libc::munmap(place, len);
            return true;
        }
    }
    // The allocator may keep what others have given back, and that in pieces.
    let mut large: Vec<u8> = Vec::new();
    let mut pieces: [Vec<u8>; 16] = Default::default();
    let piece = spare / pieces.len();
    let is_kept = large.try_reserve_exact(bytes).is_ok()
        && pieces.iter_mut().all(|kept| kept.try_reserve_exact(piece).is_ok());
    std::hint::black_box((&large, &pieces));
    is_kept
}

/// Has writes beyond the limit for files (`ulimit -f`) fail, rather than end the process. Processes that are forked later
/// inherit it.
pub fn outlive_file_limits() {
    // SAFETY: nginx has no handler for this signal, and is single-threaded.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// Places in the process table that workers may take until the next reload: those in use, those of a new generation, and
/// some to spare.
///
/// # Safety
///
/// Only from `init_module`, with its cycle.
pub unsafe fn slots_needed(cycle: *mut ngx_cycle_t) -> usize {
    // SAFETY: the core module's configuration exists once a cycle's configuration was read.
    let workers = unsafe {
        let conf = *(*cycle).conf_ctx.add(ngx_core_module.index);
        let core: *mut ngx_core_conf_t = conf.cast();
        usize::try_from((*core).worker_processes).unwrap_or(1).max(1)
    };
    // SAFETY: the master's own table; this runs in the master.
    let in_use = unsafe {
        let last = usize::try_from(ngx_last_process).unwrap_or(0);
        let table = &raw const ngx_processes;
        (0..last).rev().find(|slot| (*table).get(*slot).is_some_and(|process| process.pid > 0))
    };
    (in_use.map_or(0, |slot| slot + 1) + workers + 2).max(3 * workers + 2)
}
