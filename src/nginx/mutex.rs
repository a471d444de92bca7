//! The mutex of a zone's slab pool (invariant I7): nginx's own words in shared memory, taken and released by nginx's own
//! rules (`ngx_shmtx.c`), so that its master can release what a dead worker held (`ngx_unlock_mutexes`).
//!
//! One thing differs: nobody waits for ever. There are three deaths after which nginx leaves others waiting: after the mutex was
//! released, and before the one who waits for it was woken; while the mutex is that of a zone that the master does not
//! know any more, because a reload has replaced it; and while the master waits for the mutex itself, to replace the zone. So who
//! has waited for a while looks for itself.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{hint, io, thread};

use comet::faults;
use nginx_sys::{ngx_ncpu, ngx_pid, ngx_shmtx_t, sem_post, sem_t, sem_timedwait, time_t, timespec};

use super::log::{self, Level};
use super::process;

/// For how long somebody waits to be woken until it looks for itself. The mutex is held for microseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// A mutex of nginx, mapped into this process.
pub struct Mutex<'a> {
    /// The process that holds it, or 0.
    holder: &'a AtomicUsize,
    /// How many wait to be woken; those that have died meanwhile count until somebody would have woken them.
    waiting: &'a AtomicUsize,
    /// Where they wait, unless the system has none.
    semaphore: Option<*mut sem_t>,
    /// Up to how many turns at once somebody tries again before it waits.
    spin: usize,
}

impl<'a> Mutex<'a> {
    /// # Safety
    ///
    /// nginx must have made it (`ngx_shmtx_create`), and it must stay mapped for the lifetime.
    pub unsafe fn of(mutex: *mut ngx_shmtx_t) -> Self {
        // SAFETY: the caller's promise. Both words are aligned, and no process uses them but by atomic operations.
        unsafe {
            Mutex {
                holder: AtomicUsize::from_ptr((*mutex).lock.cast()),
                waiting: AtomicUsize::from_ptr((*mutex).wait.cast()),
                semaphore: ((*mutex).semaphore != 0).then_some(&raw mut (*mutex).sem),
                spin: (*mutex).spin,
            }
        }
    }

    /// Takes it, however long that takes.
    pub fn lock(&self) {
        while !self.try_for_a_moment() {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            // Who has just released it may not have seen that somebody waits.
            if self.try_lock() {
                self.withdraw();
                break;
            }
            faults::point("waiting for the lock");
            if !self.wait() {
                self.withdraw();
                self.release_for_the_dead();
            }
        }
        faults::point("lock taken");
    }

    /// Releases it, and wakes one of those who wait. Nothing if this process does not hold it.
    pub fn unlock(&self) {
        if self.change(self_id(), 0) {
            faults::point("lock released");
            self.wake();
        }
    }

    fn try_for_a_moment(&self) -> bool {
        // SAFETY: a plain word that nginx sets at its start.
        let rounds = if unsafe { ngx_ncpu } > 1 { self.spin.max(1).ilog2() } else { 0 };
        self.try_lock()
            || (0..rounds).any(|round| {
                (0..1 << round).for_each(|_| hint::spin_loop());
                self.try_lock()
            })
    }

    fn try_lock(&self) -> bool {
        self.holder.load(Ordering::Relaxed) == 0 && self.change(0, self_id())
    }

    fn change(&self, from: usize, to: usize) -> bool {
        self.holder.compare_exchange(from, to, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// Waits to be woken; nothing came of it if that takes too long.
    fn wait(&self) -> bool {
        let Some(semaphore) = self.semaphore else {
            thread::yield_now();
            return false;
        };
        let until = SystemTime::now() + PATIENCE;
        let until = until.duration_since(UNIX_EPOCH).unwrap_or(PATIENCE);
        let until = timespec {
            tv_sec: until.as_secs() as time_t,
            tv_nsec: i64::from(until.subsec_nanos()) as _,
        };
        loop {
            // SAFETY: the type's promise: an initialised semaphore that processes share.
            if unsafe { sem_timedwait(semaphore, &until) } == 0 {
                return true;
            }
            if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                return false;
            }
        }
    }

    /// Waits no longer. If somebody has counted us as woken, what it posts, or has posted, wakes another for nothing.
    fn withdraw(&self) {
        let _ = self.uncount();
    }

    fn wake(&self) {
        if self.uncount() {
            faults::point("about to wake who waits");
            if let Some(semaphore) = self.semaphore {
                // SAFETY: as in `wait`.
                unsafe { sem_post(semaphore) };
            }
        }
    }

    /// Takes one off those who wait, if there are any.
    fn uncount(&self) -> bool {
        let less = |waiting: usize| waiting.checked_sub(1);
        self.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok()
    }

    /// Does what the master does when a worker dies, if it has not: if it is the master that waits here, it takes no note of any
    /// death until it has the mutex.
    fn release_for_the_dead(&self) {
        let holder = self.holder.load(Ordering::Relaxed);
        let is_gone = u32::try_from(holder).is_ok_and(|pid| pid != 0 && process::has_ended(pid));
        if is_gone && self.change(holder, 0) {
            let line =
                format!("push: the shared memory zone was locked by {holder}, which is gone");
            log::cycle(Level::Notice, &line);
            self.wake();
        }
    }
}

/// What this process writes into the words of mutexes.
fn self_id() -> usize {
    // SAFETY: a plain word that nginx sets at fork.
    unsafe { ngx_pid as usize }
}
