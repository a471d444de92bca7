//! The timing wheel: when messages expire and idle channels are collected, at a cost that does not depend on how many
//! there are. Four levels of 64 slots of a second, 64 seconds, … ; a timer moves down a level as its time comes near.

use super::memory::{At, WHEEL_LEVELS, WHEEL_SLOTS};
use super::record::{kind, TimedHead};
use super::Zone;
use crate::clock::Now;

/// Timers handled by one sweep at most: the lock is held for bounded work (I7).
pub(super) const SWEEP_BUDGET: u32 = 4096;
/// Timers handled at the beginning of an ordinary operation.
pub(super) const TURN_BUDGET: u32 = 64;
/// Seconds turned at once: after a long sleep the rest follows with the next operations.
const MAX_SECONDS: u32 = 1 << 16;

const SLOT_BITS: u32 = WHEEL_SLOTS.trailing_zeros();
/// Seconds that the wheel spans; what lies further ahead waits in its last slot and is placed again.
const SPAN: u64 = 1 << (SLOT_BITS * WHEEL_LEVELS as u32);

impl Zone<'_> {
    /// Starts or moves the timer of a channel or message. `deadline` in milliseconds, `u64::MAX` for never.
    pub(super) fn arm(&mut self, at: At, deadline: u64) {
        self.disarm(at);
        self.get_mut::<TimedHead>(at).deadline = deadline;
        if deadline != u64::MAX {
            let next = self.header.wheel_now + 1;
            self.place(at, next);
        }
    }

    /// Stops the timer of a channel or message.
    pub(super) fn disarm(&mut self, at: At) {
        let TimedHead { wheel_next: next, wheel_prev: prev, wheel_slot: slot, .. } =
            *self.get::<TimedHead>(at);
        if slot == 0 {
            return;
        }
        if prev.is_some() {
            self.get_mut::<TimedHead>(prev).wheel_next = next;
        } else if let Some(head) = self.header.wheel.get_mut(slot as usize - 1) {
            *head = next;
        }
        if next.is_some() {
            self.get_mut::<TimedHead>(next).wheel_prev = prev;
        }
        let timer = self.get_mut::<TimedHead>(at);
        timer.wheel_slot = 0;
        timer.wheel_next = At::NONE;
        timer.wheel_prev = At::NONE;
    }

    /// Puts a timer into the slot for its deadline, seen from `second`: the next one that is fired, or the one that is just
    /// being fired. The higher slots that begin with it may have been moved down already, and what is put into them now
    /// would be seen only a whole turn later; seen from it, none of them is chosen.
    fn place(&mut self, at: At, second: u64) {
        let due = self.get::<TimedHead>(at).deadline.div_ceil(1000);
        let due = due.clamp(second, second + SPAN - 1);
        let slot = slot_for(due, due - second);
        let next = self.header.wheel.get(slot).copied().unwrap_or(At::NONE);
        let timer = self.get_mut::<TimedHead>(at);
        timer.wheel_slot = slot as u32 + 1;
        timer.wheel_next = next;
        timer.wheel_prev = At::NONE;
        if next.is_some() {
            self.get_mut::<TimedHead>(next).wheel_prev = at;
        }
        if let Some(head) = self.header.wheel.get_mut(slot) {
            *head = at;
        }
    }

    /// Turns the wheel to the present and fires what is due, `budget` timers at most; the rest waits for the next call.
    pub(super) fn turn_wheel(&mut self, now: Now, mut budget: u32) {
        let target = now.mono / 1000;
        for _ in 0..MAX_SECONDS {
            if self.header.wheel_now >= target {
                return;
            }
            let second = self.header.wheel_now + 1;
            if !self.move_down(second, &mut budget) || !self.fire_due(second, now, &mut budget) {
                return;
            }
            self.header.wheel_now = second;
        }
    }

    /// Moves the timers of higher levels whose slot begins at this second into lower ones.
    fn move_down(&mut self, second: u64, budget: &mut u32) -> bool {
        for level in (1..WHEEL_LEVELS as u32).rev() {
            if !second.is_multiple_of(1 << (SLOT_BITS * level)) {
                continue;
            }
            let slot = slot_at(level, second);
            while let Some(at) = self.first_in(slot) {
                if *budget == 0 {
                    return false;
                }
                *budget -= 1;
                self.disarm(at);
                self.place(at, second);
            }
        }
        true
    }

    /// Fires the timers of one second.
    fn fire_due(&mut self, second: u64, now: Now, budget: &mut u32) -> bool {
        let slot = slot_at(0, second);
        while let Some(at) = self.first_in(slot) {
            if *budget == 0 {
                return false;
            }
            *budget -= 1;
            self.disarm(at);
            let timer = self.get::<TimedHead>(at);
            if timer.deadline.div_ceil(1000) > second {
                // It lies beyond the span of the wheel.
                self.place(at, second);
                continue;
            }
            match timer.kind {
                kind::MESSAGE => self.expire_message(at, now),
                kind::CHANNEL => self.collect_channel(at, now),
                _ => {}
            }
        }
        true
    }

    fn first_in(&self, slot: usize) -> Option<At> {
        self.header.wheel.get(slot).copied().filter(|at| at.is_some())
    }
}

/// The first second after `now` in which what is in a slot is looked at: fired, or moved down.
pub(super) fn visited_after(slot: usize, now: u64) -> u64 {
    let step = 1 << (SLOT_BITS * (slot / WHEEL_SLOTS) as u32);
    let next = now / step + 1;
    let turns = ((slot % WHEEL_SLOTS) as u64).wrapping_sub(next) % WHEEL_SLOTS as u64;
    next.saturating_add(turns).saturating_mul(step)
}

/// The slot for a second that lies `ahead` seconds ahead.
fn slot_for(second: u64, ahead: u64) -> usize {
    let mut level = 0;
    while level + 1 < WHEEL_LEVELS as u32 && ahead >= 1 << (SLOT_BITS * (level + 1)) {
        level += 1;
    }
    slot_at(level, second)
}

/// The slot of a level that a second falls into.
fn slot_at(level: u32, second: u64) -> usize {
    level as usize * WHEEL_SLOTS + ((second >> (SLOT_BITS * level)) as usize & (WHEEL_SLOTS - 1))
}
