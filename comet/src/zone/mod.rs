//! The log of every channel, in one region of memory that all workers share.
//!
//! ```text
//! header ── free list, idle channels, size classes, timing wheel, counters
//! buckets ─ hash of the channel id ──► channel ──► channel …
//!                                        ├─ tail: workers with subscribers (slot, generation, count), the id
//!                                        ├─ ledger: sequence numbers of dropped messages, by second
//!                                        └─ message ⇄ message ⇄ message      (oldest to newest)
//! slots ─── worker: pid, generation, hints ("this channel moved")
//! ```
//!
//! **Death.** A process may be killed at any instruction while it holds the lock. The lock's owner sets a flag; who finds
//! it set rebuilds everything that can be derived ([`recover`]) from what cannot: the chains from the buckets to the
//! channels and from those to their messages. These chains are the only places where the order of writes matters, and
//! there a record is filled before it is linked, and unlinked before it is taken apart ([`Zone::commit`]).
//!
//! **Time.** Every operation is told the time and begins by turning the timing wheel, so that nothing expired is seen.
//!
//! **Memory.** Blocks of one size. When they are used up: expired messages, then channels that never had one and that nobody waits
//! on, then the oldest messages of the channels that hold most, in turn, then idle channels, then an error ([`budget`]).
//!
//! **Moving.** Everything can go to a zone of another size ([`carry`]), or through a file to another run of nginx
//! ([`snapshot`]).

mod arena;
mod budget;
mod carry;
mod channel;
mod check;
mod files;
mod ledger;
mod log;
mod many;
mod memory;
mod record;
mod recover;
mod slots;
mod snapshot;
mod table;
mod wheel;

#[cfg(test)]
mod tests;

pub use carry::Carried;
pub use channel::{ChannelRef, Followed, Subscribed, Subscription};
pub use check::Fault;
pub use log::{
    Answer, Content, Next, Publication, Published, Size, TRANSIENT_MAX, TRANSIENT_TIMEOUT,
};
pub use many::ManyAnswer;
pub use memory::{At, Block, Counters, MemoryError, BLOCK_SIZE};
pub use slots::{Mail, SlotRef};
pub use snapshot::{Remaining, Restored, Saved, Snapshot, SnapshotError};

use std::cell::Cell;
use std::sync::atomic::{compiler_fence, Ordering};

use memory::{Header, Parts};

use crate::clock::Now;
use crate::faults;

/// The zone, while its lock is held.
///
/// Made by [`Zone::enter`] after locking and dropped before unlocking.
pub struct Zone<'m> {
    header: &'m mut Header,
    buckets: &'m mut [At],
    blocks: &'m mut [Block],
    /// Where writes to a block that does not exist go.
    spill: Block,
    /// Files whose messages have gone: to be unlinked after unlocking.
    trash: Vec<Vec<u8>>,
    /// Indices of worker slots that have got hints: to be woken after unlocking.
    wake: Vec<u32>,
    /// A channel that an operation is about to use: it is not collected meanwhile.
    pinned: At,
    /// How many channels there may be; 0 for any number.
    max_channels: u32,
    /// Blocks that eviction is making room for: new ledgers must not eat into them.
    wanted: u32,
    /// Messages that were found last, of some channels: who reads on is near them.
    bookmarks: [Cell<At>; BOOKMARKS],
    /// For tests: how many blocks were looked at.
    #[cfg(test)]
    pub(crate) looks: Cell<u64>,
    /// For tests: dies after so many commit points.
    #[cfg(test)]
    pub(crate) fuse: Option<u32>,
    /// For tests: dies after so many writes to blocks.
    #[cfg(test)]
    pub(crate) write_fuse: Option<u32>,
    /// For tests: which requests for blocks are refused.
    #[cfg(test)]
    pub(crate) scarcity: Option<tests::Scarcity>,
    /// For tests: a copy of the memory at each commit point.
    #[cfg(test)]
    pub(crate) tape: Option<Vec<Vec<u64>>>,
}

/// What an operator should be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News {
    /// Messages that went before their time because the zone was full.
    pub evicted: u64,
    /// Times that the zone was put in order after a worker's death.
    pub recovered: u64,
}

/// Channels that have a bookmark at once, at most: some of those that a subscriber of several reads.
const BOOKMARKS: usize = 16;

/// Milliseconds between two [`News`].
const NEWS_INTERVAL: u64 = 60_000;

/// A summary of what the zone holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Channels, deleted ones that are still being served included.
    pub channels: u32,
    /// Messages, transient ones included.
    pub messages: u32,
    /// Blocks in use.
    pub used_blocks: u32,
    /// All blocks.
    pub blocks: u32,
    /// Counters since the zone was made.
    pub counters: Counters,
}

impl<'m> Zone<'m> {
    /// Makes an empty zone of this memory. `hash_key` must be unpredictable to clients.
    ///
    /// # Errors
    ///
    /// [`MemoryError::TooSmall`].
    pub fn format(
        memory: &'m mut [u64],
        hash_key: [u64; 2],
        now: Now,
    ) -> Result<Self, MemoryError> {
        let mut zone = Self::over(Parts::format(memory, hash_key)?);
        zone.header.wheel_now = now.mono / 1000;
        zone.begin_now(now);
        Ok(zone)
    }

    /// Enters a zone whose lock was just taken, and puts it in order if the process that held the lock before has died
    /// in the middle of a change.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Foreign`] if this is not a zone of this version of the module.
    pub fn enter(memory: &'m mut [u64], now: Now) -> Result<Self, MemoryError> {
        let mut zone = Self::over(Parts::attach(memory)?);
        if zone.header.dirty != 0 {
            zone.recover(now);
        }
        zone.header.dirty = 1;
        // Before anything else is written.
        zone.commit();
        Ok(zone)
    }

    fn over(parts: Parts<'m>) -> Self {
        Zone {
            header: parts.header,
            buckets: parts.buckets,
            blocks: parts.blocks,
            spill: bytemuck::Zeroable::zeroed(),
            trash: Vec::new(),
            wake: Vec::new(),
            pinned: At::NONE,
            max_channels: 0,
            wanted: 0,
            bookmarks: [const { Cell::new(At::NONE) }; BOOKMARKS],
            #[cfg(test)]
            looks: Cell::new(0),
            #[cfg(test)]
            fuse: None,
            #[cfg(test)]
            write_fuse: None,
            #[cfg(test)]
            scarcity: None,
            #[cfg(test)]
            tape: None,
        }
    }

    /// Files to unlink once the lock is released. Forgetting them would leave them on disk until the next start.
    #[must_use]
    pub fn take_trash(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.trash)
    }

    /// Slot indices of the workers to wake once the lock is released. A lost wake-up is healed by the worker's tick (I3).
    #[must_use]
    pub fn take_wake(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.wake)
    }

    /// Sets how many channels subscribers and publishers may make, together with those that there are; 0 for any number.
    pub fn limit_channels(&mut self, max: u32) {
        self.max_channels = max;
    }

    /// Whether the messages have moved to another zone.
    pub fn is_closed(&self) -> bool {
        self.header.closed != 0
    }

    /// What the zone holds.
    pub fn usage(&self) -> Usage {
        let blocks = self.header.block_count.saturating_sub(1);
        Usage {
            channels: self.header.channel_count,
            messages: self.header.message_count,
            used_blocks: blocks - self.header.free_count.min(blocks),
            blocks,
            counters: self.header.counters,
        }
    }

    /// What an operator should be told and has not been: by whichever worker asks first, and not more often than once a
    /// minute.
    pub fn take_news(&mut self, now: Now) -> Option<News> {
        let told_at = self.header.told_at;
        let is_early = told_at != 0 && now.mono < told_at + NEWS_INTERVAL;
        if is_early {
            None
        } else {
            self.take_last_news(now)
        }
    }

    /// As [`take_news`](Self::take_news), but at any time: for a worker that ends and may be the last one.
    pub fn take_last_news(&mut self, now: Now) -> Option<News> {
        let (counters, told) = (self.header.counters, self.header.told);
        let news = News {
            evicted: counters.evicted.saturating_sub(told.evicted),
            recovered: counters.recovered.saturating_sub(told.recovered),
        };
        if news.evicted == 0 && news.recovered == 0 {
            return None;
        }
        self.header.told = counters;
        self.header.told_at = now.mono;
        Some(news)
    }

    /// Does what time brings, for workers' ticks: expires messages, collects idle channels, and removes what dead workers
    /// have left. Bounded work per call.
    pub fn sweep(&mut self, now: Now, is_alive: impl Fn(u32) -> bool) {
        self.turn_wheel(now, wheel::SWEEP_BUDGET);
        self.release_dead_slots(is_alive);
        self.release_leaving(now);
        self.scan_for_stale_entries(now);
    }

    /// What was written so far is written before what follows: death between the two leaves the first.
    ///
    /// Other processes see a dead process's stores in program order, so only the compiler has to be held back.
    #[cfg_attr(feature = "faults", track_caller)]
    fn commit(&mut self) {
        compiler_fence(Ordering::SeqCst);
        faults::point("commit");
        #[cfg(test)]
        {
            self.record_tape();
            tests::burn(&mut self.fuse);
        }
    }
}

impl Drop for Zone<'_> {
    fn drop(&mut self) {
        // The release profile aborts on a panic; in tests, a panic stands for the death of the process.
        if !std::thread::panicking() {
            compiler_fence(Ordering::SeqCst);
            self.header.dirty = 0;
        }
    }
}
