//! What one worker keeps: its place in the zone, its waiting subscribers, and its copies of messages.
//!
//! Everything that others do reaches a worker as a hint ("this channel moved"), through its eventfd or, should that be lost,
//! with its next tick. It then looks into the log on behalf of all who wait on the channel, a slice at a time: under one
//! lock it decides for the whole slice, and takes those that will be answered off the books; then it answers them.

use std::cell::RefCell;
use std::rc::Rc;

use comet::clock::Now;
use comet::hub::{Hub, Key, Slice, Waiter};
use comet::message::{Cursor, Missed};
use comet::publisher::PublishError;
use comet::reply::Reply;
use comet::subscriber::{self as replies, Refusal};
use comet::wire::info::ChannelInfo;
use comet::zone::{
    self, ChannelRef, News, Publication, Published, SlotRef, Subscribed, Subscription, Zone,
};

use crate::copies::{Copied, Copies};
use crate::nginx::clock::now;
use crate::nginx::log::{self, Level};
use crate::nginx::parking::{self, Answer, Parked};
use crate::nginx::process;
use crate::nginx::timer::Timer;
use crate::nginx::wake::{self, Wake};
use crate::nginx::zone::SharedZone;
use crate::prepared::Prepared;

/// Subscribers served before the event loop gets its turn: what it can read in one turn (`epoll_events`), so that those
/// who ask again at once do not queue up behind those who wait.
const SLICE: usize = 256;
/// Milliseconds between two ticks: how late a lost hint, an expired message or a dead worker is noticed at most.
const TICK: u64 = 1_000;

thread_local! {
    /// nginx's worker is one thread. The worker is never borrowed while requests are being answered: ending a request may
    /// call back ([`gone`]).
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
}

struct Worker {
    zone: SharedZone,
    /// Nothing if the zone had no room for it; the tick tries again.
    slot: Option<SlotRef>,
    hub: Hub<Parked>,
    copies: Copies,
    /// Messages to be removed once all of this worker's subscribers have been looked at.
    received: Vec<(ChannelRef, Cursor)>,
    tick: Timer,
    /// For those whose time is over.
    deadline: Timer,
    /// For slices.
    work: Timer,
    /// When `deadline` fires, in milliseconds.
    armed: Option<u64>,
}

/// What a subscriber gets at once.
pub enum Served {
    /// A message, and what was missed before it.
    Message(Rc<Copied>, Missed),
    /// Nothing; it may wait.
    Waiting(Place),
}

/// A place among those who wait, which the zone already counts.
pub struct Place {
    channel: ChannelRef,
    cursor: Cursor,
    reign: u32,
}

fn with<R>(work: impl FnOnce(&mut Worker) -> R) -> Option<R> {
    WORKER.with_borrow_mut(|worker| worker.as_mut().map(work))
}

/// At the start of a worker process.
pub fn start(zone: SharedZone) {
    let mut worker = Worker {
        zone,
        slot: None,
        hub: Hub::default(),
        copies: Copies::default(),
        received: Vec::new(),
        tick: Timer::new(tick),
        deadline: Timer::new(time_is_over),
        work: Timer::new(serve),
        armed: None,
    };
    parking::start();
    worker.join(now());
    worker.tick.set(TICK);
    WORKER.set(Some(worker));
    wake::listen(process::slot(), woken);
}

/// At the end of a worker process.
pub fn stop() {
    if let Some(worker) = WORKER.take() {
        parking::stop();
        worker.part(now());
    }
}

/// Publishes a message. Nothing if this process serves no requests.
pub fn publish(publication: &Publication<'_>) -> Option<Result<Published, PublishError>> {
    let now = now();
    with(|worker| worker.zone.with(now, |zone| zone.publish(publication, now)))?
}

/// Tells of a channel.
pub fn info(id: &[u8]) -> Option<ChannelInfo> {
    let now = now();
    with(|worker| worker.zone.with(now, |zone| zone.info(id, now)))??
}

/// Deletes a channel, and tells what there was.
pub fn delete(id: &[u8]) -> Option<Result<Option<ChannelInfo>, PublishError>> {
    let now = now();
    with(|worker| {
        worker.zone.with(now, |zone| {
            // The channel is in another zone already; deleting it here would leave it there.
            if zone.is_closed() {
                Err(PublishError::Closing)
            } else {
                Ok(zone.delete(id, now))
            }
        })
    })?
}

/// The name of the zone's life, for files.
pub fn token() -> Option<u64> {
    with(|worker| worker.zone.token)
}

/// Serves a subscriber, or counts it among those who wait: then it must be parked ([`wait`]) or given up
/// ([`give_up`]) at once. `hold` says whether it may wait.
pub fn subscribe(subscription: Subscription<'_>, hold: bool) -> Option<Result<Served, Refusal>> {
    let now = now();
    with(|worker| {
        let slot = match (hold, worker.slot) {
            (true, None) => return Some(Err(Refusal::NoSpace)),
            (hold, slot) => slot.filter(|_| hold),
        };
        let subscription = Subscription { hold: slot, ..subscription };
        let Worker { zone, copies, received, .. } = worker;
        let answer = zone.with(now, |zone| {
            zone.subscribe(&subscription, now).map(|subscribed| match subscribed {
                Subscribed::Waiting { channel, cursor, reign } => {
                    Served::Waiting(Place { channel, cursor, reign })
                }
                Subscribed::Message(next) => {
                    let copied = copies.get_or_make(next.cursor, || zone.copy(&next));
                    received.extend(to_be_received(zone.channel_of(&next), &copied));
                    Served::Message(copied, next.missed)
                }
            })
        })?;
        worker.remove_received(now);
        Some(answer)
    })?
}

/// Puts a parked request among those who wait, until the time `timeout` milliseconds from now (0 for no limit).
pub fn wait(place: Place, parked: Parked, timeout: u64) {
    let now = now();
    let Place { channel, cursor, reign } = place;
    let deadline = if timeout == 0 { u64::MAX } else { now.mono.saturating_add(timeout) };
    with(|worker| {
        let waiter = Waiter { channel, seq: cursor.seq, reign, deadline, connection: parked };
        let key = worker.hub.add(waiter);
        parked.set_key(key);
        worker.arm(now);
    });
}

/// Gives up a place that could not be used.
pub fn give_up(place: &Place) {
    let now = now();
    with(|worker| worker.leave(place.channel, 1, now));
}

/// A waiting client has gone away.
pub fn gone(key: Key) {
    let now = now();
    with(|worker| {
        if let Some(waiter) = worker.hub.remove(key) {
            worker.leave(waiter.channel, 1, now);
        }
    });
}

fn woken(wake: Wake) {
    match wake {
        Wake::Mail => {
            with(Worker::read_mail);
            serve();
        }
        Wake::Shutdown => release_all(),
    }
}

fn tick() {
    let now = now();
    let delayed = with(|worker| {
        worker.sweep(now);
        if worker.slot.is_none() && !process::is_exiting() {
            worker.join(now);
        }
        worker.read_mail();
        worker.tick.set(TICK);
        worker.hub.has_work()
    });
    if delayed == Some(true) {
        serve();
    }
}

/// Serves a slice of those who have something to get.
fn serve() {
    let now = now();
    let answers = with(|worker| {
        let answers = worker.serve_slice(now);
        worker.remove_received(now);
        if worker.hub.has_work() {
            worker.work.post();
        }
        answers
    });
    for (parked, answer) in answers.into_iter().flatten() {
        parked.answer(answer);
    }
}

/// Sends those away whose time is over.
fn time_is_over() {
    let now = now();
    let parked = with(|worker| {
        worker.armed = None;
        let keys = worker.hub.overdue(now.mono, SLICE);
        let parked = worker.take_off(&keys, now);
        worker.arm(now);
        parked
    });
    let reply = without_message(replies::timed_out());
    for waiter in parked.into_iter().flatten() {
        waiter.connection.answer(reply.clone());
    }
}

/// Sends everybody away at the beginning of a graceful shutdown, with their position, so that they come back to another
/// worker and go on there.
fn release_all() {
    let now = now();
    let parked = with(|worker| {
        // Who has a message waiting gets it with the next poll.
        let keys = worker.hub.keys();
        let parked = worker.take_off(&keys, now);
        worker.part(now);
        worker.slot = None;
        parked
    });
    for waiter in parked.into_iter().flatten() {
        waiter.connection.answer(Answer::SentAway);
    }
}

/// A subscriber that is off the books, and what it is to be told.
type Answered = (Parked, Answer);

impl Worker {
    fn join(&mut self, now: Now) {
        let (index, pid) = (process::slot(), std::process::id());
        self.slot = self.zone.with(now, |zone| zone.join(index, pid, now)).flatten();
        if self.slot.is_none() {
            log::cycle(
                Level::Error,
                "push: the shared memory zone has no room for this worker; raise push_shared_memory_size",
            );
        }
    }

    fn sweep(&self, now: Now) {
        let news = self.zone.with(now, |zone| {
            zone.sweep(now, process::is_alive);
            zone.take_news(now)
        });
        let Some(News { evicted, recovered }) = news.flatten() else { return };
        if evicted > 0 {
            log::cycle(
                Level::Warn,
                &format!(
                    "push: the shared memory zone is full: {evicted} messages went before their time; raise \
                     push_shared_memory_size, or lower push_max_message_buffer_length or push_message_timeout"
                ),
            );
        }
        if recovered > 0 {
            log::cycle(
                Level::Notice,
                "push: a process died while it changed the shared memory zone; the zone was put in order",
            );
        }
    }

    fn part(&self, now: Now) {
        if let Some(slot) = self.slot {
            self.zone.with(now, |zone| zone.part(slot));
        }
    }

    fn leave(&mut self, channel: ChannelRef, count: u32, now: Now) {
        if let Some(slot) = self.slot {
            self.zone.with(now, |zone| zone.leave(channel, slot, count, now));
        }
    }

    fn read_mail(&mut self) {
        let Some(slot) = self.slot else { return };
        let Some(mail) = self.zone.with(now(), |zone| zone.take_mail(slot)) else { return };
        if mail.look_at_all {
            self.hub.moved_all();
        }
        mail.moved.into_iter().for_each(|life| self.hub.moved(life));
    }

    /// Decides for the next slice, and takes those that will be answered off the books.
    fn serve_slice(&mut self, now: Now) -> Vec<Answered> {
        let Some((slice, slot)) = self.hub.next_slice(SLICE).zip(self.slot) else {
            return Vec::new();
        };
        let Worker { zone, hub, copies, received, .. } = self;
        let answers = zone.with(now, |zone| {
            // Whatever is published from here on comes with a new hint.
            zone.look(slice.channel, slot);
            let answers = decide(zone, hub, copies, received, &slice, now);
            zone.leave(slice.channel, slot, answers.len() as u32, now);
            answers
        });
        answers.unwrap_or_default()
    }

    /// Takes subscribers off the books.
    fn take_off(&mut self, keys: &[Key], now: Now) -> Vec<Waiter<Parked>> {
        let waiters: Vec<_> = keys.iter().filter_map(|key| self.hub.remove(*key)).collect();
        if let Some(slot) = self.slot {
            self.zone.with(now, |zone| {
                waiters.iter().for_each(|waiter| zone.leave(waiter.channel, slot, 1, now));
            });
        }
        waiters
    }

    /// Removes messages that were to go when received, once no subscriber of this worker has still to be looked at.
    fn remove_received(&mut self, now: Now) {
        let Some(slot) = self.slot else { return };
        let Worker { zone, hub, received, .. } = self;
        if received.is_empty() {
            return;
        }
        let (later, done) = received.drain(..).partition(|(channel, _)| hub.is_due(channel.life));
        *received = later;
        let done: Vec<_> = done;
        zone.with(now, |zone| {
            done.iter().for_each(|(channel, cursor)| zone.received(*channel, *cursor, slot, now));
        });
    }

    /// Sets the timer for the next subscriber whose time will be over.
    fn arm(&mut self, now: Now) {
        let Some(next) = self.hub.next_deadline() else { return };
        if self.armed.is_none_or(|armed| next < armed) {
            self.armed = Some(next);
            self.deadline.set(next.saturating_sub(now.mono));
        }
    }
}

fn decide(
    zone: &Zone<'_>,
    hub: &mut Hub<Parked>,
    copies: &mut Copies,
    received: &mut Vec<(ChannelRef, Cursor)>,
    slice: &Slice,
    now: Now,
) -> Vec<Answered> {
    let mut answers = Vec::with_capacity(slice.keys.len());
    // Nearly all get the same message: its reply is made once.
    let mut last: Option<(Cursor, Missed, Answer)> = None;
    for key in &slice.keys {
        let Some(waiter) = hub.get(*key) else { continue };
        let answer = match zone.next(waiter.channel, waiter.cursor(), waiter.reign, now) {
            zone::Answer::UpToDate => {
                hub.defer(*key);
                continue;
            }
            zone::Answer::Message(next) => match &last {
                Some((cursor, missed, answer))
                    if (*cursor, *missed) == (next.cursor, next.missed) =>
                {
                    answer.clone()
                }
                _ => {
                    let copied = copies.get_or_make(next.cursor, || zone.copy(&next));
                    received.extend(to_be_received(waiter.channel, &copied));
                    let answer =
                        prepare(copied, next.missed).map_or(Answer::SentAway, Answer::Reply);
                    last = Some((next.cursor, next.missed, answer.clone()));
                    answer
                }
            },
            zone::Answer::Conflict => without_message(replies::conflict()),
            zone::Answer::Gone => without_message(replies::gone()),
        };
        if let Some(waiter) = hub.remove(*key) {
            answers.push((waiter.connection, answer));
        }
    }
    received.dedup();
    answers
}

/// The reply that carries a message. Nothing if its file has gone since the look into the log: then the client is to come
/// back, and will be told what it has missed.
pub fn prepare(copied: Rc<Copied>, missed: Missed) -> Option<Rc<Prepared>> {
    let complete = copied.is_complete();
    complete.then(|| Prepared::new(replies::message(&copied.message, missed), copied))
}

fn without_message(reply: Reply) -> Answer {
    Answer::Reply(Prepared::without_message(reply))
}

fn to_be_received(channel: ChannelRef, copied: &Copied) -> Option<(ChannelRef, Cursor)> {
    copied.message.delete_when_received.then_some((channel, copied.message.cursor))
}
