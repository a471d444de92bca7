//! The shared memory zone: made with the configuration, kept across reloads, locked by its slab mutex (invariant I7).

use std::ffi::c_void;
use std::ptr::{self, NonNull};

use comet::clock::Now;
use comet::faults;
use comet::zone::{Carried, Zone};
use nginx_sys::{
    ngx_conf_t, ngx_cycle_t, ngx_int_t, ngx_list_part_t, ngx_pagesize, ngx_shared_memory_add,
    ngx_shm_zone_t, ngx_slab_alloc, ngx_slab_pool_t, ngx_str_t, NGX_ERROR, NGX_OK,
};

use super::log::{self, Level};
use super::mutex::Mutex;
use super::{clock, text, wake};
use crate::spool;

/// The zone's name, in nginx's messages and for finding the zone of the cycle before.
const NAME: &[u8] = b"ngx_http_push_module";
/// What the first word of [`Root`] says, in all versions of the module.
const ROOT_MAGIC: u64 = u64::from_le_bytes(*b"pushroot");

/// What the slab pool's `data` points to: where in the zone the channels are.
#[repr(C)]
struct Root {
    magic: u64,
    /// Random: names this zone's life, also on disk.
    token: u64,
    memory: *mut u64,
    words: usize,
}

/// The zone, mapped into this process.
#[derive(Clone, Copy, Debug)]
pub struct SharedZone {
    pool: NonNull<ngx_slab_pool_t>,
    memory: NonNull<u64>,
    words: usize,
    /// Names this zone's life: the same in all workers, also after a reload with another size.
    pub token: u64,
    /// How many channels this process lets there be; 0 for any number.
    max_channels: u32,
}

impl SharedZone {
    /// Does bounded work under the zone's lock; afterwards, removes the files of messages that went and wakes the workers
    /// that got hints.
    ///
    /// Nothing if the memory was made by another version of the module, which `init_zone` has ruled out.
    #[cfg_attr(feature = "faults", track_caller)]
    pub fn with<R>(&self, now: Now, work: impl FnOnce(&mut Zone<'_>) -> R) -> Option<R> {
        let (result, trash, wake) = self.locked(now, |zone| {
            zone.limit_channels(self.max_channels);
            let result = work(zone);
            (result, zone.take_trash(), zone.take_wake())
        })?;
        for slot in wake {
            faults::point("wake");
            wake::signal(slot);
        }
        for path in trash {
            faults::point("remove file");
            spool::remove(&path);
        }
        Some(result)
    }

    #[cfg_attr(feature = "faults", track_caller)]
    fn locked<R>(&self, now: Now, work: impl FnOnce(&mut Zone<'_>) -> R) -> Option<R> {
        // SAFETY: the pool was initialised by `ngx_init_zone_pool` and stays mapped as long as this process may use the
        // zone.
        let mutex = unsafe { Mutex::of(&raw mut (*self.pool.as_ptr()).mutex) };
        mutex.lock();
        faults::point("locked");
        // SAFETY: `words` words were allocated for us in the zone, and the lock makes this the only reference to them in
        // any process. It ends before the lock is released. All bit patterns are valid.
        let memory = unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.words) };
        let result = match Zone::enter(memory, now) {
            Ok(mut zone) => {
                let result = work(&mut zone);
                faults::point("worked");
                #[cfg(feature = "faults")]
                super::faults::check(&zone);
                Some(result)
            }
            Err(_) => None,
        };
        faults::point("unlock");
        mutex.unlock();
        faults::point("unlocked");
        result
    }

    /// Finds what an initialised zone holds.
    ///
    /// # Safety
    ///
    /// `zone` must be mapped, and its pool initialised.
    unsafe fn of(zone: *const ngx_shm_zone_t) -> Option<Self> {
        // SAFETY: a mapped zone begins with its pool, whose `data` is null or a Root of this module: the zone's name is ours.
        unsafe {
            let pool = NonNull::new((*zone).shm.addr.cast::<ngx_slab_pool_t>())?;
            let root = NonNull::new((*pool.as_ptr()).data.cast::<Root>())?;
            let root = root.as_ref();
            let memory = NonNull::new(root.memory).filter(|_| root.magic == ROOT_MAGIC)?;
            Some(SharedZone { pool, memory, words: root.words, token: root.token, max_channels: 0 })
        }
    }
}

/// Asks nginx for a zone. While the configuration is read.
///
/// # Safety
///
/// `cf` must be the configuration that nginx is reading.
pub unsafe fn add(
    cf: *mut ngx_conf_t,
    size: u64,
    tag: *mut c_void,
) -> Option<NonNull<ngx_shm_zone_t>> {
    let mut name: ngx_str_t = text::borrowed(NAME);
    // SAFETY: the caller's promise; nginx copies the name's pointer and length, and NAME is static.
    let zone = unsafe { ngx_shared_memory_add(cf, &mut name, size as usize, tag) };
    let zone = NonNull::new(zone)?;
    // SAFETY: just made by nginx.
    unsafe { (*zone.as_ptr()).init = Some(init) };
    Some(zone)
}

/// The zone of a running cycle, in which this process lets there be so many channels (0 for any number).
///
/// # Safety
///
/// `zone` must have come from [`add`], and nginx must have initialised it.
pub unsafe fn attach(zone: NonNull<ngx_shm_zone_t>, max_channels: u32) -> Option<SharedZone> {
    // SAFETY: the caller's promise.
    let zone = unsafe { SharedZone::of(zone.as_ptr()) };
    zone.map(|zone| SharedZone { max_channels, ..zone })
}

extern "C" fn init(zone: *mut ngx_shm_zone_t, old_data: *mut c_void) -> ngx_int_t {
    // SAFETY: nginx passes a mapped zone whose pool is initialised: the one of the cycle before (then `old_data` is not
    // null) or a new one.
    let done = unsafe {
        if SharedZone::of(zone).is_some() {
            (*zone).data = old_data;
            true
        } else {
            format(zone)
        }
    };
    (if done { NGX_OK as ngx_int_t } else { NGX_ERROR as ngx_int_t }) as ngx_int_t
}

/// Makes a zone out of new memory.
///
/// # Safety
///
/// `zone` must be mapped, and its pool initialised.
unsafe fn format(zone: *mut ngx_shm_zone_t) -> bool {
    let mut random = [0u64; 3];
    // SAFETY: the buffer has that many bytes.
    let filled = unsafe { libc::getrandom(random.as_mut_ptr().cast(), size_of_val(&random), 0) };
    if filled != size_of_val(&random) as isize {
        log::cycle(Level::Emergency, "push: the system gives no random numbers");
        return false;
    }
    let [token, key @ ..] = random;
    // SAFETY: the pool is ours alone until nginx starts workers.
    unsafe {
        let pool: *mut ngx_slab_pool_t = (*zone).shm.addr.cast();
        let root: *mut Root = ngx_slab_alloc(pool, size_of::<Root>()).cast();
        let size = (*pool).pfree * ngx_pagesize;
        let memory: *mut u64 = ngx_slab_alloc(pool, size).cast();
        if root.is_null() || memory.is_null() {
            return false;
        }
        let words = size / size_of::<u64>();
        if let Err(error) =
            Zone::format(std::slice::from_raw_parts_mut(memory, words), key, clock::now())
        {
            log::cycle(Level::Emergency, &format!("push: {error}"));
            return false;
        }
        ptr::write(root, Root { magic: ROOT_MAGIC, token, memory, words });
        // A mutex that is held for bounded work is worth spinning for, but a message about a full pool is not: this pool
        // is full by design.
        (*pool).set_log_nomem(0);
        (*pool).data = root.cast();
        (*zone).data = root.cast();
    }
    true
}

/// If a reload has changed the zone's size, moves the channels from the zone of the cycle before.
///
/// At this point the new cycle can no longer fail (`ngx_init_cycle`), and the old one's zone is still mapped.
///
/// # Safety
///
/// Only from `init_module`, with its cycle.
pub unsafe fn carry_over(cycle: *mut ngx_cycle_t, zone: NonNull<ngx_shm_zone_t>) {
    // SAFETY: the caller's promise; zones of both cycles are mapped.
    let (new, old) = unsafe {
        let Some(new) = SharedZone::of(zone.as_ptr()) else { return };
        let Some(before) = find((*cycle).old_cycle) else { return };
        if (*before.as_ptr()).shm.addr == (*zone.as_ptr()).shm.addr {
            return;
        }
        let Some(old) = SharedZone::of(before.as_ptr()) else {
            log::cycle(
                Level::Error,
                "push: the zone before was of another kind; its messages are lost",
            );
            return;
        };
        (new, old)
    };
    // SAFETY: the root of a zone that was just made and that no worker knows yet.
    unsafe { adopt_token(new.pool, old.token) };
    let now = clock::now();
    let carried = old.locked(now, |old| {
        new.locked(now, |new| {
            let carried = new.carry_from(old, now);
            // In the old one, time may have brought something too.
            let trash = [old.take_trash(), new.take_trash()].concat();
            (carried, trash, old.take_wake())
        })
    });
    match carried.flatten() {
        Some((carried, trash, wake)) => {
            wake.into_iter().for_each(wake::signal);
            trash.iter().for_each(|path| spool::remove(path));
            report(&carried);
        }
        None => log::cycle(
            Level::Error,
            "push: the zone before was made by another version of the module; its messages are lost",
        ),
    }
}

/// The zone of a cycle, if there was none in the cycle before: it is new, and nobody uses it yet.
///
/// # Safety
///
/// Only from `init_module`, with its cycle.
pub unsafe fn begun_in(cycle: *mut ngx_cycle_t, zone: NonNull<ngx_shm_zone_t>) -> Option<NewZone> {
    // SAFETY: the caller's promise.
    unsafe {
        let is_new = find((*cycle).old_cycle).is_none();
        // What is restored was there before, however many channels there may be now.
        attach(zone, 0).filter(|_| is_new).map(NewZone)
    }
}

/// A zone that no worker knows yet.
pub struct NewZone(SharedZone);

impl NewZone {
    /// Has the zone begin at this time: it was made, and then waited.
    pub fn begin_at(&self, now: Now) {
        self.0.with(now, |zone| zone.begin_now(now));
    }

    /// Has the zone continue the life with this name.
    pub fn continuing(self, token: u64) -> SharedZone {
        // SAFETY: the type's promise, which only `begun_in` gives.
        unsafe { adopt_token(self.0.pool, token) };
        SharedZone { token, ..self.0 }
    }
}

fn report(carried: &Carried) {
    let Carried { channels, messages, dropped } = carried;
    let level = if *dropped > 0 { Level::Error } else { Level::Notice };
    let lost = match dropped {
        0 => String::new(),
        dropped => {
            format!("; {dropped} messages, the oldest of the largest channels, found no room")
        }
    };
    log::cycle(
        level,
        &format!("push: moved {messages} messages of {channels} channels to a zone of another size{lost}"),
    );
}

/// # Safety
///
/// `pool` must be that of a formatted zone that no worker uses yet.
unsafe fn adopt_token(pool: NonNull<ngx_slab_pool_t>, token: u64) {
    // SAFETY: the caller's promise: `data` is the Root.
    unsafe { (*(*pool.as_ptr()).data.cast::<Root>()).token = token };
}

/// Finds our zone in a cycle.
///
/// # Safety
///
/// `cycle` must be null or a living cycle.
unsafe fn find(cycle: *mut ngx_cycle_t) -> Option<NonNull<ngx_shm_zone_t>> {
    if cycle.is_null() {
        return None;
    }
    // SAFETY: a cycle's list of zones consists of parts with `nelts` elements each (`ngx_list.h`); the first cycle of
    // all has an empty one.
    unsafe {
        let mut part: *mut ngx_list_part_t = &raw mut (*cycle).shared_memory.part;
        while !part.is_null() {
            let zones: *mut ngx_shm_zone_t = (*part).elts.cast();
            for index in 0..(*part).nelts {
                let zone = zones.add(index);
                if text::bytes((*zone).shm.name) == NAME {
                    return NonNull::new(zone);
                }
            }
            part = (*part).next;
        }
    }
    None
}
