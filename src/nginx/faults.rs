//! The test build (feature `faults`): what a test and all workers of its nginx share, in the file `push-faults` in nginx's
//! prefix, if there is one when a configuration is loaded.
//!
//! The file is an array of 64-bit numbers in the machine's byte order: first the [`Register`]'s words, then its points. The
//! test writes orders and reads results with ordinary file operations; `t/faults.rs` knows the same places. In other
//! builds this module does not exist.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::panic::Location;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;

use comet::clock::Now;
use comet::faults;
use comet::zone::Zone;
use nginx_sys::{ngx_cycle_t, ngx_process, NGX_PROCESS_WORKER};

use super::log::{self, Level};
use super::text;

/// Points that there is room for.
const POINTS: usize = 2048;
/// Words of a point's name.
const NAME_WORDS: usize = 10;

/// Nothing happens; points are only counted.
const ORDER_NONE: u64 = 0;
/// The worker that comes to the point dies.
const ORDER_DIE: u64 = 1;
/// It stops until somebody continues it.
const ORDER_STOP: u64 = 2;

/// What the file begins with.
#[repr(C)]
struct Register {
    /// What is to happen at the point.
    order: AtomicU64,
    /// The point's number.
    point: AtomicU64,
    /// How many times a worker comes there until it happens.
    countdown: AtomicU64,
    /// The worker that it has happened to.
    victim: AtomicU64,
    /// Not 0 if the zone is to be verified whenever its lock is released.
    is_checking: AtomicU64,
    /// How many times it was verified.
    checks: AtomicU64,
    /// How many times something was wrong with it; the error log tells what.
    damages: AtomicU64,
    /// What is added to the wall clock, in seconds; a signed number.
    wall: AtomicU64,
    /// What is added to the monotonic clock, in milliseconds.
    mono: AtomicU64,
    /// Not 0: once it has happened at the point, it is to happen at the point with the number that is one less, too.
    then: AtomicU64,
    spare: [AtomicU64; 6],
    points: [Point; POINTS],
}

/// A point that a worker has come to.
#[repr(C)]
struct Point {
    /// A number made of its name; 0 for a place that is free.
    id: AtomicU64,
    /// How many times a worker has come there.
    passes: AtomicU64,
    /// In UTF-8, filled up with zeros.
    name: [AtomicU64; NAME_WORDS],
}

/// The register, once it is mapped into this process.
static REGISTER: OnceLock<&'static Register> = OnceLock::new();

/// Maps the register, if there is one. In the master, before it forks.
///
/// # Safety
///
/// Only from `init_module`, with its cycle.
pub unsafe fn start(cycle: *mut ngx_cycle_t) {
    // SAFETY: a cycle's prefix is set before its configuration is read, and lives in its pool.
    let prefix = unsafe { text::bytes((*cycle).prefix) };
    if REGISTER.get().is_some() {
        return;
    }
    if let Some(register) = map(&Path::new(OsStr::from_bytes(prefix)).join("push-faults")) {
        let _ = REGISTER.set(register);
        faults::at_each_point(pass);
        log::cycle(Level::Notice, "push: faults can be ordered");
    }
}

fn map(path: &Path) -> Option<&'static Register> {
    let file = OpenOptions::new().read(true).write(true).open(path).ok()?;
    let len = size_of::<Register>();
    if file.metadata().ok()?.len() < len as u64 {
        return None;
    }
    // SAFETY: a new mapping of a whole file that is long enough; it stays for the life of the process.
    let at = unsafe {
        libc::mmap(
            ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    if at == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: mapped above, aligned to a page, and made of atomic words, for which all values are valid, whoever else
    // writes them.
    NonNull::new(at).map(|at| unsafe { at.cast::<Register>().as_ref() })
}

/// A process comes to a point. Only workers can be replaced, so nothing happens to others.
fn pass(what: &'static str, place: &'static Location<'static>) {
    // SAFETY: a plain word that nginx sets at fork.
    let is_worker = unsafe { ngx_process as u32 == NGX_PROCESS_WORKER };
    let Some(register) = REGISTER.get().filter(|_| is_worker) else { return };
    let Some((number, point)) = register.find(what, place) else { return };
    point.passes.fetch_add(1, Ordering::Relaxed);
    let order = register.order.load(Ordering::Acquire);
    if order == ORDER_NONE || register.point.load(Ordering::Relaxed) != number {
        return;
    }
    if register.countdown.fetch_sub(1, Ordering::AcqRel) != 1 {
        return;
    }
    match register.then.swap(0, Ordering::AcqRel) {
        0 => register.order.store(ORDER_NONE, Ordering::Release),
        then => {
            register.countdown.store(1, Ordering::Relaxed);
            register.point.store(then - 1, Ordering::Release);
        }
    }
    register.victim.store(u64::from(std::process::id()), Ordering::Release);
    let signal = if order == ORDER_STOP { libc::SIGSTOP } else { libc::SIGKILL };
    debug_assert!(order == ORDER_STOP || order == ORDER_DIE);
    // SAFETY: a system call without pointers, to this process.
    unsafe { libc::kill(libc::getpid(), signal) };
}

impl Register {
    /// Finds the point in the table, or gives it a place there.
    fn find(&self, what: &str, place: &Location<'_>) -> Option<(u64, &Point)> {
        let id = identify(what, place);
        let first = usize::try_from(id).unwrap_or(0) % POINTS;
        for number in (first..POINTS).chain(0..first) {
            let point = self.points.get(number)?;
            match point.id.compare_exchange(0, id, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => point.call(&format!("{}:{} {what}", place.file(), place.line())),
                Err(known) if known == id => {}
                Err(_) => continue,
            }
            return Some((number as u64, point));
        }
        None
    }
}

impl Point {
    fn call(&self, name: &str) {
        let mut bytes = name.bytes();
        for word in &self.name {
            let mut eight = [0; 8];
            eight.iter_mut().zip(bytes.by_ref()).for_each(|(to, from)| *to = from);
            word.store(u64::from_ne_bytes(eight), Ordering::Relaxed);
        }
    }
}

/// FNV-1a.
fn identify(what: &str, place: &Location<'_>) -> u64 {
    let numbers = [place.line().to_ne_bytes(), place.column().to_ne_bytes()];
    let bytes = what.bytes().chain(place.file().bytes()).chain(numbers.into_iter().flatten());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.max(1)
}

/// Verifies a zone, if that was ordered.
pub fn check(zone: &Zone<'_>) {
    let Some(register) = REGISTER.get() else { return };
    if register.is_checking.load(Ordering::Relaxed) == 0 {
        return;
    }
    register.checks.fetch_add(1, Ordering::Relaxed);
    if let Err(damage) = zone.check() {
        register.damages.fetch_add(1, Ordering::Relaxed);
        log::cycle(Level::Alert, &format!("push: {damage}"));
    }
}

/// The time as the test wants it.
pub fn shift(now: Now) -> Now {
    let Some(register) = REGISTER.get() else { return now };
    let wall = register.wall.load(Ordering::Relaxed) as i64;
    let mono = register.mono.load(Ordering::Relaxed);
    Now { wall: now.wall.saturating_add_signed(wall), mono: now.mono.saturating_add(mono) }
}
