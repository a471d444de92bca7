//! What the processes of one run share: phases, counters, histograms.

use crate::hist::SharedHist;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicU8, Ordering::*};

/// Phases, set by the coordinator only, in this order.
pub const INIT: u32 = 0;
/// Subscribers connect, and stay.
pub const CONNECT: u32 = 1;
/// Messages are published.
pub const RUN: u32 = 2;
/// Everything is counted.
pub const FINISH: u32 = 3;
/// Processes end.
pub const EXIT: u32 = 4;

/// What the coordinator tells all processes.
#[repr(C)]
pub struct Control {
    phase: AtomicU32,
    /// The coordinator has taken its readings after the warm-up messages.
    pub go: AtomicU32,
}

impl Control {
    /// The phase now.
    pub fn phase(&self) -> u32 {
        self.phase.load(Acquire)
    }
    /// Begins a phase.
    pub fn set_phase(&self, p: u32) {
        self.phase.store(p, Release)
    }
}

macro_rules! counters {
    ($($name:ident),* $(,)?) => {
        /// The counters: names in the JSON, indices in [`Counters`].
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum C { $($name),* }
        /// Their names, in the same order.
        pub const COUNTER_NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

counters! {
    // Subscribers.
    connected, established, connect_failed,
    received, delivered, duplicates, late, gaps, lost, corrupt, foreign,
    responses, poll_timeouts, empty_replies, http_errors, protocol_errors, disconnects, reconnects,
    dead, pings, sse_events_without_id, bytes_in, last_recv_ns,
    // Publisher.
    published, acked, ack_errors, pub_errors, pub_reconnects, first_pub_ns, last_pub_ns, last_ack_ns, bytes_out,
    // Probe.
    probe_errors,
}

/// How far one message got in one process.
#[derive(Default)]
#[repr(C)]
pub struct Receipt {
    last_ns: AtomicU64,
    count: AtomicU64,
}

impl Receipt {
    /// One more subscriber has it (only the owning process writes).
    #[inline]
    pub fn add(&self, now: u64) {
        self.last_ns.store(now, Relaxed);
        self.count.store(self.count.load(Relaxed) + 1, Release);
    }

    /// How many subscribers of the process have it.
    pub fn count(&self) -> u64 {
        self.count.load(Acquire)
    }

    /// When the last of them got it (CLOCK_MONOTONIC).
    pub fn last_ns(&self) -> u64 {
        self.last_ns.load(Acquire)
    }
}

/// The receipts of all subscriber processes, one slice each.
pub type Receipts = Vec<&'static [Receipt]>;

/// How many counters there are.
pub const N_COUNTERS: usize = COUNTER_NAMES.len();
const NOTE: usize = 240;

/// One per process; written by that process only, read by the coordinator.
#[repr(C)]
pub struct Slot {
    pub pid: AtomicI32,
    pub ready: AtomicU32,
    pub finished: AtomicU32,
    counters: [AtomicU64; N_COUNTERS],
    pub latency: SharedHist,
    pub arrival: SharedHist,
    note: [AtomicU8; NOTE],
}

impl Slot {
    /// The process's counter as last published.
    pub fn get(&self, c: C) -> u64 {
        self.counters[c as usize].load(Acquire)
    }

    /// The same, by index.
    pub fn get_at(&self, index: usize) -> u64 {
        self.counters[index].load(Acquire)
    }

    /// Keeps the first remark (an error text) only.
    pub fn note(&self, text: &str) {
        if self.note[0].load(Relaxed) != 0 {
            return;
        }
        for (a, b) in self.note.iter().zip(text.bytes()).rev() {
            a.store(b, Relaxed);
        }
    }

    /// The remark, or nothing.
    pub fn note_text(&self) -> String {
        let b: Vec<u8> =
            self.note.iter().map(|a| a.load(Relaxed)).take_while(|&b| b != 0).collect();
        String::from_utf8_lossy(&b).into_owned()
    }
}

/// A process's own copy of its counters.
pub struct Counters([u64; N_COUNTERS]);

impl Default for Counters {
    fn default() -> Self {
        Counters([0; N_COUNTERS])
    }
}

impl Counters {
    /// Adds `n`.
    #[inline]
    pub fn add(&mut self, c: C, n: u64) {
        self.0[c as usize] += n;
    }
    /// Adds one.
    #[inline]
    pub fn inc(&mut self, c: C) {
        self.0[c as usize] += 1;
    }
    /// Sets a counter that is a time.
    pub fn set(&mut self, c: C, v: u64) {
        self.0[c as usize] = v;
    }
    /// The counter now.
    pub fn get(&self, c: C) -> u64 {
        self.0[c as usize]
    }
    /// Lets the coordinator see the counters.
    pub fn publish(&self, slot: &Slot) {
        for (s, &v) in slot.counters.iter().zip(&self.0) {
            s.store(v, Release);
        }
    }
}

/// A counter's sum over processes.
pub fn total(slots: &[Slot], c: C) -> u64 {
    slots.iter().map(|s| s.get(c)).sum()
}
