//! Tests of the zone, by topic, and the instruments that they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod carry;
mod check;
mod crash;
mod files;
mod follow;
mod hints;
mod ids;
mod limit;
mod mail;
mod many;
mod missed;
mod model;
mod news;
mod reading;
mod scarce;
mod snapshot;
mod tight;
mod timers;
mod turns;

use super::log::id_of;
use super::memory::{At, MemoryError};
use super::record::{ChannelHead, MessageHead, SlotHead};
use super::*;
use crate::clock::Now;
use crate::config::Concurrency;
use crate::message::{Body, Cursor, Message, MessageId, Missed, Position};
use crate::subscriber::Refusal;

/// What a burnt fuse throws.
struct Death;

/// Dies if the fuse has burnt down.
pub(super) fn burn(fuse: &mut Option<u32>) {
    if let Some(left) = fuse.as_mut() {
        if *left == 0 {
            // No message: it is thrown thousands of times.
            std::panic::resume_unwind(Box::new(Death));
        }
        *left -= 1;
    }
}

/// Which requests for blocks a zone refuses, counted from 0.
#[derive(Clone, Debug)]
pub(crate) struct Scarcity {
    requests: u32,
    refused: std::ops::Range<u32>,
}

/// Whether this request is refused.
pub(super) fn refuses(scarcity: &mut Option<Scarcity>) -> bool {
    scarcity.as_mut().is_some_and(|scarcity| {
        scarcity.requests += 1;
        scarcity.refused.contains(&(scarcity.requests - 1))
    })
}

impl Zone<'_> {
    /// The memory as it is.
    fn image(&self) -> Vec<u64> {
        let mut words: Vec<u64> = Vec::new();
        words.extend(bytemuck::cast_slice::<_, u64>(std::slice::from_ref(&*self.header)));
        words.extend(bytemuck::cast_slice::<At, u64>(self.buckets));
        words.extend(bytemuck::cast_slice::<Block, u64>(self.blocks));
        words
    }

    /// Adds the memory to the tape.
    pub(super) fn record_tape(&mut self) {
        if let Some(mut tape) = self.tape.take() {
            tape.push(self.image());
            self.tape = Some(tape);
        }
    }

    fn channel(&self, id: &[u8]) -> ChannelHead {
        *self.get(self.find(id).unwrap())
    }

    fn channel_mut(&mut self, id: &[u8]) -> &mut ChannelHead {
        let at = self.find(id).unwrap();
        self.get_mut(at)
    }

    fn first_mut(&mut self, id: &[u8]) -> &mut MessageHead {
        let first = self.channel(id).first;
        self.get_mut(first)
    }

    /// All channels, those that are leaving included.
    fn channels(&self) -> Vec<At> {
        let mut channels: Vec<At> =
            (0..self.buckets.len()).flat_map(|bucket| self.bucket_channels(bucket)).collect();
        let mut at = self.header.leaving;
        while at.is_some() {
            channels.push(at);
            at = self.get::<ChannelHead>(at).bucket_next;
        }
        channels
    }

    /// Every message of a channel that is in its log, expired or not.
    fn log_of(&self, id: &[u8]) -> Vec<Message> {
        self.find(id).map_or(Vec::new(), |channel| self.messages_of(channel))
    }

    /// The same of a channel that may have been deleted.
    fn messages_of(&self, channel: At) -> Vec<Message> {
        let mut log = Vec::new();
        let life = crate::message::Life(self.get::<ChannelHead>(channel).life);
        let mut at = self.get::<ChannelHead>(channel).first;
        while at.is_some() {
            let message = self.get::<MessageHead>(at);
            let cursor = Cursor { life, seq: message.seq };
            let (id, stamp, next) = (id_of(message), message.stamp, message.next);
            log.push(self.copy(&Next { at, cursor, missed: Missed::default(), id, stamp }));
            at = next;
        }
        log
    }

    fn seqs_of(&self, id: &[u8]) -> Vec<u64> {
        self.log_of(id).iter().map(|message| message.cursor.seq).collect()
    }
}

/// What the workers' slots hold.
fn slot_blocks(zone: &Zone<'_>) -> u32 {
    let blocks = |slot| {
        let mail = zone.get::<SlotHead>(slot).mail;
        1 + mail.iter().filter(|at| at.is_some()).count() as u32
    };
    zone.slots().into_iter().map(blocks).sum()
}

/// So many cases of a property, unless `PROPTEST_CASES` says otherwise; few under Miri, which is slow.
fn config(cases: u32) -> proptest::test_runner::Config {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let cases = asked.unwrap_or(if cfg!(miri) { 2 } else { cases });
    proptest::test_runner::Config { cases, failure_persistence: None, ..Default::default() }
}

/// 2023-11-14, in seconds.
const WALL: u64 = 1_700_000_000;
/// The monotonic clock's reading at the beginning of a test.
const MONO: u64 = 5_000_000;

/// Words of memory for a zone of so many blocks (a multiple of 8, 64 at least).
fn words(blocks: usize) -> usize {
    let group = 8 * BLOCK_SIZE / 8 + 1;
    let Err(MemoryError::TooSmall { needed }) = Zone::format(&mut [], [1, 2], now_at(0)).map(drop)
    else {
        panic!("no memory is enough");
    };
    needed / 8 + (blocks - 64) / 8 * group
}

fn now_at(ms: u64) -> Now {
    Now { wall: WALL + ms / 1000, mono: MONO + ms }
}

/// A zone's memory and a clock.
#[derive(Clone)]
struct World {
    memory: Vec<u64>,
    now: Now,
}

impl World {
    fn new(blocks: usize) -> Self {
        let mut memory = vec![0; words(blocks)];
        let now = now_at(0);
        // Since a second ago: now it may give ids of this one.
        let begun = Now { wall: now.wall - 1, ..now };
        let zone = Zone::format(&mut memory, [1, 2], begun).unwrap();
        assert_eq!(zone.check(), Ok(()));
        // Block 0 is none.
        assert_eq!(zone.usage().blocks as usize, blocks - 1);
        drop(zone);
        World { memory, now }
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono += ms;
        self.now.wall = self.now.wall + (self.now.mono / 1000) - ((self.now.mono - ms) / 1000);
    }

    /// Enters the zone as a worker does, and verifies it before leaving; but not under Miri, for which that is too much.
    fn with<R>(&mut self, act: impl FnOnce(&mut Zone<'_>, Now) -> R) -> R {
        let mut zone = Zone::enter(&mut self.memory, self.now).unwrap();
        let result = act(&mut zone, self.now);
        if !cfg!(miri) {
            assert_eq!(zone.check(), Ok(()));
        }
        result
    }

    fn publish(&mut self, publication: Publication<'_>) -> MessageId {
        self.with(|zone, now| zone.publish(&publication, now)).unwrap().id
    }

    fn subscribe(&mut self, subscription: Subscription<'_>) -> Result<Subscribed, Refusal> {
        self.with(|zone, now| zone.subscribe(&subscription, now))
    }

    /// Subscribes and copies the message, if there is one.
    fn read(&mut self, id: &[u8], position: Position) -> Option<(Message, Missed)> {
        self.with(|zone, now| match zone.subscribe(&ask(id, position), now).unwrap() {
            Subscribed::Message(next) => Some((zone.copy(&next), next.missed)),
            Subscribed::Waiting { .. } => None,
        })
    }

    fn wait(&mut self, id: &[u8], slot: SlotRef) -> (ChannelRef, Cursor, u32) {
        let wish = Subscription { hold: Some(slot), ..ask(id, Position::Newest) };
        match self.subscribe(wish).unwrap() {
            Subscribed::Waiting { channel, cursor, reign, .. } => (channel, cursor, reign),
            other => panic!("{other:?}"),
        }
    }

    fn join(&mut self, index: u32) -> SlotRef {
        self.with(|zone, now| zone.join(index, 1000 + index, now)).unwrap()
    }

    fn sweep(&mut self) {
        self.with(|zone, now| zone.sweep(now, |_| true));
    }

    fn used(&mut self) -> u32 {
        self.with(|zone, _| zone.usage().used_blocks)
    }

    fn trash(&mut self, act: impl FnOnce(&mut Zone<'_>, Now)) -> Vec<Vec<u8>> {
        self.with(|zone, now| {
            act(zone, now);
            let trash = zone.take_trash();
            assert_eq!(zone.take_trash(), Vec::<Vec<u8>>::new());
            trash
        })
    }
}

/// A publication of one piece, kept for ever.
fn say<'a>(id: &'a [u8], pieces: &'a [&'a [u8]]) -> Publication<'a> {
    Publication {
        id,
        content_type: b"text/plain",
        event: b"",
        content: Content::Pieces(pieces),
        max_messages: 1000,
        min_messages: 0,
        message_timeout: 0,
        channel_timeout: 5,
        delete_when_received: false,
    }
}

fn ask(id: &[u8], position: Position) -> Subscription<'_> {
    Subscription {
        id,
        position,
        hold: None,
        authorized_only: false,
        max_subscribers: 0,
        concurrency: Concurrency::Broadcast,
        channel_timeout: 5,
    }
}

fn bytes(message: &Message) -> &[u8] {
    match &message.body {
        Body::Bytes(bytes) => bytes,
        Body::File { path, .. } => path,
    }
}
