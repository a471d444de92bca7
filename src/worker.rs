//! What one worker keeps: its place in the zone, its waiting subscribers, and its copies of messages.
//!
//! Everything that others do reaches a worker as a hint ("this channel moved"), through its eventfd or, should that be lost,
//! with its next tick. It then looks into the log on behalf of all who wait on the channel, a slice at a time: under one
//! lock it decides for the whole slice, and takes those that will be answered off the books; then it answers them.
//!
//! Streams stay on the books, with the place in the log that they have come to. What a slice's streams get is copied out
//! of the zone once, rendered once for each format, and then sent. A client whose connection is full gets nothing until
//! it can take something again; then the worker looks into the log for it alone.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

use comet::clock::Now;
use comet::control::CommandError;
use comet::faults;
use comet::hub::{Hub, Key, Slice, Waiter};
use comet::many::{Member, Stand, Standing, MAX_CHANNELS};
use comet::message::{Cursor, Life, Missed};
use comet::outbox::Sent;
use comet::poll::PollForm;
use comet::publisher::PublishError;
use comet::subscriber::{self as replies, Refusal};
use comet::surplus::Surplus;
use comet::transport::{End, Format, Framing};
use comet::wire::chunk::Chunk;
use comet::wire::info::ChannelInfo;
use comet::zone::{
    self, ChannelRef, Followed, Mail, ManyAnswer, News, Next, Publication, Published, SlotRef,
    Subscribed, Subscription, Zone,
};

use crate::copies::{Copied, Copies, Unreadable};
use crate::formats::{FormatId, Formats};
use crate::leftovers::Leftovers;
use crate::memory;
use crate::nginx::clock::now;
use crate::nginx::log::{self, Level};
use crate::nginx::parking::{self, Answer, Ending, Parked};
use crate::nginx::process;
use crate::nginx::timer::Timer;
use crate::nginx::wake::{self, Wake};
use crate::nginx::zone::SharedZone;
use crate::prepared::Prepared;
use crate::press::{Label, Look, Press, Printed, Reached, Step};
use crate::stream::{come_back, come_back_later};

/// Subscribers served before the event loop gets its turn: what it can read in one turn (`epoll_events`), so that those
/// who ask again at once do not queue up behind those who wait.
const SLICE: usize = 256;
/// Milliseconds between two ticks: how late a lost hint, an expired message or a dead worker is noticed at most.
const TICK: u64 = 1_000;
/// Subscribers whose memory is worth giving back when half of them have left.
const CROWD: usize = 256;
/// Messages that a stream gets at once, and their bytes: what is rendered together.
const BATCH: usize = 32;
const BATCH_BYTES: u64 = 64 << 10;
/// At a shutdown, streams end in so many steps, of so many milliseconds: not all clients are to come back at once.
const RELEASE_STEPS: usize = 50;
const RELEASE_STEP: u64 = 20;

thread_local! {
    /// nginx's worker is one thread. The worker is never borrowed while requests are being answered: ending a request may
    /// call back ([`gone`]).
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
}

struct Worker {
    zone: SharedZone,
    /// Nothing if the zone had no room for it; the tick tries again.
    slot: Option<SlotRef>,
    hub: Hub<Seat>,
    copies: Copies,
    formats: Formats,
    press: Press,
    /// Messages to be removed once all of this worker's subscribers have been looked at.
    received: Vec<(ChannelRef, Cursor)>,
    /// Channels that the zone believes this worker to be in the middle of.
    looking: HashSet<ChannelRef>,
    tick: Timer,
    /// For those whose time is over.
    deadline: Timer,
    /// For slices.
    work: Timer,
    /// When `deadline` fires, in milliseconds.
    armed: Option<u64>,
    /// What was decided is being delivered.
    is_delivering: bool,
    /// Requests that have ended meanwhile: what was decided for them is not for them any more.
    ended: Vec<Parked>,
    /// Streams to be ended at a shutdown, a few at a time.
    leaving: Vec<Key>,
    /// For that. It keeps the process alive.
    release: Timer,
    /// How many have waited at once since memory was last given back.
    crowd: usize,
    /// When to ask for it again, whoever took it.
    surplus: Option<Surplus>,
    leftovers: Leftovers,
}

/// Who waits.
#[derive(Clone, Debug)]
struct Seat {
    parked: Parked,
    /// For a stream; a poll has none.
    flow: Option<Flow>,
    /// For a poll: what its reply looks like.
    form: PollForm,
    /// How far it has come in its channels, if they are several.
    standing: Option<Rc<Standing>>,
    /// For a poll of one channel: it may have missed more than its place says.
    is_vague: bool,
}

/// The channels in which somebody is counted.
enum Counted {
    One(ChannelRef),
    Many(Rc<[Member]>, Rc<Standing>),
}

impl Counted {
    fn each(&self, mut act: impl FnMut(ChannelRef)) {
        match self {
            Counted::One(channel) => act(*channel),
            Counted::Many(members, standing) => members
                .iter()
                .zip(&standing.0)
                .filter(|(_, stand)| !stand.has_left)
                .for_each(|(member, _)| act(member.channel)),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Flow {
    format: FormatId,
    /// It can take nothing at the moment.
    blocked: bool,
}

/// When something is to be done about a stream although there is no message. In milliseconds; 0 for never.
#[derive(Clone, Copy, Debug)]
struct Rhythm {
    /// After so much silence it is looked at.
    look: u64,
    /// And pinged.
    pings: bool,
    /// After so much silence it ends.
    timeout: u64,
}

impl Rhythm {
    fn new(parked: Parked, format: &Format) -> Self {
        let settings = parked.settings();
        let pings = format.ping().is_some() && settings.ping_interval_ms > 0;
        let look = if pings { settings.ping_interval_ms } else { parked.send_timeout() };
        Rhythm { look, pings, timeout: settings.subscriber_timeout_ms }
    }

    /// When something is to be done about a stream that has been silent since `since`, and was looked at
    /// at `looked`, or never.
    fn deadline(&self, since: u64, looked: u64) -> u64 {
        let after = |delay: u64, begin: u64| match delay {
            0 => u64::MAX,
            delay => begin.saturating_add(delay),
        };
        after(self.look, looked.max(since)).min(after(self.timeout, since))
    }
}

/// What somebody gets.
#[derive(Clone, Debug)]
enum Delivery {
    /// A poll's answer. It is off the books.
    Answer(Answer),
    /// A stream's messages.
    Messages(Rc<Look>),
    /// A stream's ping.
    Ping,
    /// A stream whose client is not there.
    Lost,
    /// The end of a stream. It is off the books.
    End(End),
}

/// What was decided for some, in their order.
type Deliveries = Vec<(Key, Seat, Delivery)>;

/// What a subscriber gets at once.
pub enum Served {
    /// Messages: one, unless the form takes more.
    Messages(Vec<Step>),
    /// Nothing; it may wait.
    Waiting(Place),
}

/// A place among those who wait, which the zone already counts.
pub struct Place {
    channel: ChannelRef,
    cursor: Cursor,
    reign: u32,
    is_vague: bool,
    /// Of a subscriber of several channels.
    many: Option<(Rc<[Member]>, Rc<Standing>)>,
}

/// The place in no channel.
const NOWHERE: Cursor = Cursor { life: Life(0), seq: 0 };

impl Place {
    fn one(channel: ChannelRef, cursor: Cursor, reign: u32) -> Self {
        Place { channel, cursor, reign, is_vague: false, many: None }
    }

    fn many(members: Rc<[Member]>, standing: Standing) -> Self {
        let many = Some((members, Rc::new(standing)));
        Place { many, ..Place::one(ChannelRef::NOWHERE, NOWHERE, 0) }
    }

    fn counted(&self) -> Counted {
        match &self.many {
            Some((members, standing)) => Counted::Many(Rc::clone(members), Rc::clone(standing)),
            None => Counted::One(self.channel),
        }
    }
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
        looking: HashSet::new(),
        tick: Timer::new(tick),
        deadline: Timer::new(time_is_over),
        work: Timer::new(serve),
        armed: None,
        formats: Formats::default(),
        press: Press::default(),
        ended: Vec::new(),
        is_delivering: false,
        leaving: Vec::new(),
        release: Timer::holding(release),
        crowd: 0,
        surplus: None,
        leftovers: Leftovers::default(),
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

/// Publishes a message to one or several channels. Nothing if this process serves no requests.
pub fn publish(publications: &[Publication<'_>]) -> Option<Result<Vec<Published>, PublishError>> {
    let now = now();
    with(|worker| worker.zone.with(now, |zone| zone.publish_all(publications, now)))?
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
pub fn subscribe(
    subscription: Subscription<'_>,
    form: PollForm,
    hold: bool,
) -> Option<Result<Served, Refusal>> {
    let now = now();
    with(|worker| {
        let slot = match worker.slot_to_wait(hold) {
            Ok(slot) => slot,
            Err(refusal) => return Some(Err(refusal)),
        };
        let subscription = Subscription { hold: slot, ..subscription };
        let Worker { zone, copies, received, .. } = worker;
        let is_rendered = form != PollForm::One;
        let answer = zone.with(now, |zone| loop {
            let next = match zone.subscribe(&subscription, now)? {
                Subscribed::Message(next) => next,
                Subscribed::Waiting { channel, cursor, reign, is_vague } => {
                    let place = Place { is_vague, ..Place::one(channel, cursor, reign) };
                    return Ok(Served::Waiting(place));
                }
            };
            let mut steps = match take(zone, copies, received, &next, None, is_rendered, now) {
                Ok(step) => vec![step],
                Err(Unreadable::Gone) => continue,
                Err(Unreadable::NotNow) => return Err(Refusal::Exhausted),
            };
            if is_rendered {
                let channel = zone.channel_of(&next);
                let size = steps.iter().map(Step::len).sum();
                take_more(zone, copies, received, channel, next.cursor, &mut steps, size, now);
            }
            return Ok(Served::Messages(steps));
        })?;
        worker.remove_received(now);
        Some(answer)
    })?
}

/// Serves a subscriber of several channels, as [`subscribe`] does. With `is_vague` it may have missed more than its
/// positions say.
pub fn subscribe_to_many(
    subscriptions: &[Subscription<'_>],
    names: &[&[u8]],
    is_vague: bool,
    form: PollForm,
    hold: bool,
) -> Option<Result<Served, Refusal>> {
    let now = now();
    with(|worker| {
        let places = match worker.enter_all(subscriptions, hold, now)? {
            Ok(places) => places,
            Err(refusal) => return Some(Err(refusal)),
        };
        let members = members_of(&places, names);
        let mut standing = Standing::new(&places);
        if is_vague {
            standing.blur();
        }
        let Worker { zone, copies, received, slot, .. } = worker;
        let found = zone.with(now, |zone| {
            let max = if form == PollForm::One { 1 } else { BATCH };
            let rendered = form != PollForm::One;
            let found = gather(zone, copies, received, &members, &standing, max, rendered, now);
            let leaves = !found.steps.is_empty() || found.fails;
            if let Some(slot) = slot.filter(|_| hold && leaves) {
                members.iter().for_each(|member| zone.leave(member.channel, slot, 1, now));
            }
            found
        })?;
        worker.remove_received(now);
        Some(match found.steps.is_empty() {
            false => Ok(Served::Messages(found.steps)),
            true if found.fails => Err(Refusal::Exhausted),
            true => Ok(Served::Waiting(Place::many(members, standing))),
        })
    })?
}

/// Puts a parked request among those who wait, until the time `timeout` milliseconds from now (0 for no limit).
pub fn wait(place: Place, parked: Parked, form: PollForm, timeout: u64) {
    let now = now();
    let deadline = if timeout == 0 { u64::MAX } else { now.mono.saturating_add(timeout) };
    with(|worker| worker.sit(place, (parked, None, form), deadline, now));
}

/// Gives a subscriber that stays a place, which the zone counts, and tells what it has missed before its first message.
/// It must be taken ([`stay`]) or given up ([`give_up`]) at once.
pub fn follow(subscription: Subscription<'_>) -> Option<Result<(Place, Missed), Refusal>> {
    let now = now();
    with(|worker| {
        let slot = match worker.slot_to_wait(true) {
            Ok(slot) => slot,
            Err(refusal) => return Some(Err(refusal)),
        };
        let subscription = Subscription { hold: slot, ..subscription };
        let followed = worker.zone.with(now, |zone| zone.follow(&subscription, now))?;
        Some(followed.map(|Followed { channel, cursor, reign, missed, .. }| {
            (Place::one(channel, cursor, reign), missed)
        }))
    })?
}

/// Gives a subscriber that stays a place on several channels, as [`follow`] does.
pub fn follow_many(
    subscriptions: &[Subscription<'_>],
    names: &[&[u8]],
) -> Option<Result<(Place, Missed), Refusal>> {
    let now = now();
    with(|worker| {
        let places = worker.enter_all(subscriptions, true, now)?;
        Some(places.map(|places| {
            let (standing, missed) = Standing::told(&places);
            (Place::many(members_of(&places, names), standing), missed)
        }))
    })?
}

/// Puts a stream on the books; it can take nothing before [`can_take`]. Without a place, its client only publishes.
pub fn stay(place: Option<Place>, parked: Parked, format: Format) {
    let now = now();
    let nowhere = || Place::one(ChannelRef::NOWHERE, NOWHERE, 0);
    with(|worker| {
        let deadline = Rhythm::new(parked, &format).deadline(now.mono, 0);
        let flow = Flow { format: worker.formats.id_of(format), blocked: true };
        worker.sit(
            place.unwrap_or_else(nowhere),
            (parked, Some(flow), PollForm::One),
            deadline,
            now,
        );
    });
}

/// A stream's connection can take messages.
pub fn can_take(key: Key) {
    with(|worker| {
        let Some(seat) = worker.hub.connection_mut(key) else { return };
        let Some(flow) = &mut seat.flow else { return };
        if std::mem::replace(&mut flow.blocked, false) {
            worker.hub.fell_behind(key);
            worker.work.post();
        }
    });
}

/// A stream's connection can take nothing before it says so with [`can_take`].
pub fn cannot_take(key: Key) {
    with(|worker| worker.block(key));
}

/// Whether there is memory for one more stream.
pub fn has_room() -> bool {
    with(|worker| memory::has_room_to_wait(worker.hub.len())) == Some(true)
}

/// Why a subscription is not changed.
pub enum Unchanged {
    /// The client asks for what cannot be.
    Command(CommandError),
    /// The channel refuses it.
    Refused(Refusal),
    /// This process serves no requests, or knows no such stream.
    NotHere,
}

/// Adds a channel to those that a stream follows. Tells what it has missed there.
pub fn add_channel(
    key: Key,
    subscription: &Subscription<'_>,
    name: &[u8],
) -> Result<Missed, Unchanged> {
    let now = now();
    let change = |worker: &mut Worker| {
        let (members, stands) = worker.channels_of(key).ok_or(Unchanged::NotHere)?;
        if members.iter().any(|member| *member.name == *name) {
            return Err(Unchanged::Command(CommandError::Twice));
        }
        if members.len() >= MAX_CHANNELS {
            return Err(Unchanged::Command(CommandError::TooMany));
        }
        let places = worker
            .enter_all(&[*subscription], true, now)
            .ok_or(Unchanged::NotHere)?
            .map_err(Unchanged::Refused)?;
        let (more, missed) = Standing::told(&places);
        let added = members_of(&places, &[name]);
        let members = members.iter().chain(added.iter()).cloned().collect();
        let stands = stands.iter().chain(&more.0).copied().collect();
        worker.move_to(key, members, Standing(stands), now);
        Ok(missed)
    };
    with(change).unwrap_or(Err(Unchanged::NotHere))
}

/// Takes a channel from those that a stream follows.
pub fn remove_channel(key: Key, name: &[u8]) -> Result<(), Unchanged> {
    let now = now();
    let change = |worker: &mut Worker| {
        let (mut members, mut stands) = worker.channels_of(key).ok_or(Unchanged::NotHere)?;
        let Some(place) = members.iter().position(|member| *member.name == *name) else {
            return Err(Unchanged::Command(CommandError::NotSubscribed));
        };
        members.remove(place);
        stands.remove(place);
        worker.move_to(key, members.into(), Standing(stands.into()), now);
        Ok(())
    };
    with(change).unwrap_or(Err(Unchanged::NotHere))
}

/// Takes a stream off the books, because it will end otherwise.
pub fn dismiss(key: Key) {
    gone(key);
}

/// A random number of at most `max`.
pub fn random_below(max: u64) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let random = std::hash::RandomState::new().build_hasher().finish();
    random % max.saturating_add(1).max(1)
}

/// Gives up a place that could not be used.
pub fn give_up(place: &Place) {
    let now = now();
    with(|worker| worker.leave(&place.counted(), now));
}

/// A waiting client has gone away.
pub fn gone(key: Key) {
    let now = now();
    with(|worker| {
        worker.take_off(&[key], now);
    });
}

/// A request that was suspended has ended, maybe together with another one of the same client that is just being served.
pub fn ended(key: Key, parked: Parked) {
    let now = now();
    with(|worker| {
        let waits = worker.hub.get(key).is_some_and(|waiter| waiter.connection.parked == parked);
        if waits {
            worker.take_off(&[key], now);
        }
        if worker.is_delivering {
            worker.ended.push(parked);
        }
    });
}

fn woken(wake: Wake) {
    match wake {
        Wake::Mail => {
            faults::point("woken");
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
        worker.give_memory_back(now);
        worker.leftovers.search(&worker.zone, now);
        worker.tick.set(TICK);
        worker.hub.has_work()
    });
    if delayed == Some(true) {
        serve();
    }
}

/// Serves a slice of those who have something to get, or several small ones.
fn serve() {
    let now = now();
    let mut left = SLICE;
    while left > 0 {
        faults::point("serve");
        let served = with(|worker| {
            let (looked_at, deliveries) = worker.serve_slice(left, now)?;
            worker.remove_received(now);
            Some((looked_at, deliveries))
        });
        let Some((looked_at, deliveries)) = served.flatten() else { break };
        deliver(deliveries);
        left -= looked_at.clamp(1, left);
    }
    with(|worker| {
        if worker.hub.has_work() {
            worker.work.post();
        } else {
            worker.press.clear();
            worker.stop_looking(now);
        }
    });
}

/// Sends what was decided.
fn deliver(deliveries: Deliveries) {
    with(|worker| worker.is_delivering = true);
    for (key, seat, delivery) in deliveries {
        faults::point("deliver");
        // Serving one part of a page may end the others.
        if with(|worker| worker.ended.contains(&seat.parked)) == Some(true) {
            continue;
        }
        match (delivery, seat.flow) {
            (Delivery::Answer(answer), _) => seat.parked.answer(answer),
            (Delivery::Messages(look), Some(flow)) => {
                let Some(printed) = with(|worker| worker.print(key, &seat, &look, flow)).flatten()
                else {
                    continue;
                };
                let is_there = match &printed.frames {
                    Some(frames) => send(key, &seat, frames),
                    None => true,
                };
                if let (true, Some(reason)) = (is_there, printed.cut) {
                    dismiss(key);
                    end(&seat, flow, reason);
                }
            }
            (Delivery::Ping, Some(flow)) => ping(key, &seat, flow),
            (Delivery::Lost, _) => seat.parked.lose(),
            (Delivery::End(reason), Some(flow)) => end(&seat, flow, reason),
            (_, None) => {}
        }
    }
    with(|worker| {
        worker.is_delivering = false;
        worker.ended.clear();
    });
}

/// Sends frames to a stream; tells whether it is still there.
fn send(key: Key, seat: &Seat, frames: &Rc<Chunk>) -> bool {
    match seat.parked.send(frames) {
        Sent::All => true,
        Sent::Partly => {
            with(|worker| worker.block(key));
            true
        }
        Sent::Broken => false,
    }
}

/// Asks a silent client for a sign of life, or drops it if it has not answered the last time.
fn ping(key: Key, seat: &Seat, flow: Flow) {
    if let Some(mut talk) = seat.parked.take_talk() {
        let is_alive = talk.ask();
        seat.parked.put_talk(talk);
        if !is_alive {
            return seat.parked.lose();
        }
    }
    // With something on its way, the connection is being tested already.
    if flow.blocked {
        return;
    }
    if let Some(frames) = with(|worker| worker.press.ping(&worker.formats, flow.format)).flatten() {
        send(key, seat, &frames);
    }
}

/// Ends a stream that is off the books.
fn end(seat: &Seat, flow: Flow, reason: End) {
    let Some(format) = with(|worker| worker.formats.get(flow.format)).flatten() else { return };
    let ending = match reason {
        _ if format.is_websocket() => Ending::Closing,
        End::Missed(_) => Ending::Cut,
        _ => Ending::Complete,
    };
    if let Some(mut talk) = seat.parked.take_talk() {
        talk.close();
        seat.parked.put_talk(talk);
    }
    seat.parked.end(&format.end(reason), ending);
}

/// Does what is to be done about those who have got nothing for so long.
fn time_is_over() {
    let now = now();
    let deliveries = with(|worker| {
        worker.armed = None;
        let keys = worker.hub.overdue(now.mono, SLICE);
        let deliveries = keys.into_iter().filter_map(|key| worker.look_after(key, now)).collect();
        worker.arm(now);
        deliveries
    });
    deliver(deliveries.unwrap_or_default());
}

/// Sends everybody away at the beginning of a graceful shutdown, with their position, so that they come back to another
/// worker and go on there: polls at once, streams over a second.
fn release_all() {
    let now = now();
    let polls = with(|worker| {
        // Who has a message waiting gets it with the next poll.
        let (streams, polls): (Vec<_>, Vec<_>) = worker.hub.keys().into_iter().partition(|key| {
            worker.hub.get(*key).is_some_and(|waiter| waiter.connection.flow.is_some())
        });
        worker.leaving = streams;
        worker.take_off(&polls, now)
    });
    let send_away = |(key, waiter): (Key, Waiter<Seat>)| {
        (key, waiter.connection, Delivery::Answer(Answer::SentAway))
    };
    deliver(polls.into_iter().flatten().map(send_away).collect());
    release();
}

/// Ends some of the streams at a shutdown.
fn release() {
    let now = now();
    let streams = with(|worker| {
        let count = (worker.hub.len() / RELEASE_STEPS).max(16).min(worker.leaving.len());
        let keys: Vec<_> = worker.leaving.drain(..count).collect();
        if !worker.leaving.is_empty() {
            worker.release.set(RELEASE_STEP);
        }
        let streams = worker.take_off(&keys, now);
        if worker.leaving.is_empty() {
            worker.part(now);
            worker.slot = None;
        }
        streams
    });
    let end =
        |(key, waiter): (Key, Waiter<Seat>)| (key, waiter.connection, Delivery::End(come_back()));
    deliver(streams.into_iter().flatten().map(end).collect());
}

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
                Level::Error,
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

    fn leave(&mut self, counted: &Counted, now: Now) {
        if let Some(slot) = self.slot {
            self.zone.with(now, |zone| {
                counted.each(|channel| zone.leave(channel, slot, 1, now));
            });
        }
    }

    /// By which slot a subscriber is counted that may wait; nothing if it may not.
    fn slot_to_wait(&self, hold: bool) -> Result<Option<SlotRef>, Refusal> {
        match self.slot.filter(|_| hold) {
            None if hold => Err(Refusal::NoSpace),
            Some(_) if !memory::has_room_to_wait(self.hub.len()) => Err(Refusal::Exhausted),
            slot => Ok(slot),
        }
    }

    /// Gives a subscriber a place on each of several channels.
    fn enter_all(
        &mut self,
        subscriptions: &[Subscription<'_>],
        hold: bool,
        now: Now,
    ) -> Option<Result<Vec<Followed>, Refusal>> {
        let hold = match self.slot_to_wait(hold) {
            Ok(slot) => slot,
            Err(refusal) => return Some(Err(refusal)),
        };
        let subscriptions: Vec<_> =
            subscriptions.iter().map(|one| Subscription { hold, ..*one }).collect();
        self.zone.with(now, |zone| zone.follow_all(&subscriptions, now))
    }

    /// Puts somebody on the books.
    fn sit(
        &mut self,
        place: Place,
        (parked, flow, form): (Parked, Option<Flow>, PollForm),
        deadline: u64,
        now: Now,
    ) -> Key {
        let Place { channel, cursor, reign, is_vague, many } = place;
        let (members, standing) = many.unzip();
        let connection = Seat { parked, flow, form, standing, is_vague };
        let waiter =
            Waiter { channel, seq: cursor.seq, since: now.mono, reign, deadline, connection };
        let key = match members {
            Some(members) => self.hub.add_to_bundle(&members, waiter),
            None => self.hub.add(waiter),
        };
        parked.set_key(key);
        self.arm(now);
        key
    }

    /// The channels of a stream that may change them, without those that were deleted, and how far it has come.
    fn channels_of(&self, key: Key) -> Option<(Vec<Member>, Vec<Stand>)> {
        let waiter = self.hub.get(key)?;
        waiter.connection.flow?;
        let members = self.hub.members(waiter.channel).into_iter().flat_map(|all| all.iter());
        let stands = waiter.connection.standing.iter().flat_map(|standing| &standing.0);
        let here = members.zip(stands).filter(|(_, stand)| !stand.has_left);
        Some(here.map(|(member, stand)| (member.clone(), *stand)).unzip())
    }

    /// Gives a stream other channels, of which the new ones count it already. Those that it has no longer do not count it
    /// any more.
    fn move_to(&mut self, key: Key, members: Rc<[Member]>, standing: Standing, now: Now) {
        let Some(waiter) = self.hub.get(key).cloned() else { return };
        if let Some(slot) = self.slot {
            let counted = self.counted(&waiter);
            let kept: HashSet<Life> = members.iter().map(|member| member.channel.life).collect();
            self.zone.with(now, |zone| {
                counted.each(|channel| {
                    if !kept.contains(&{ channel.life }) {
                        zone.leave(channel, slot, 1, now);
                    }
                });
            });
        }
        let members = Some(&members).filter(|members| !members.is_empty());
        let connection =
            Seat { standing: members.map(|_| Rc::new(standing)), ..waiter.connection.clone() };
        let waiter = Waiter {
            channel: ChannelRef::NOWHERE,
            seq: NOWHERE.seq,
            since: now.mono,
            reign: 0,
            connection,
            ..waiter
        };
        self.hub.change(key, members, waiter);
        self.hub.fell_behind(key);
        self.work.post();
    }

    /// Takes somebody off the books of this worker; the zone still counts them.
    fn rise(&mut self, key: Key) -> Option<(Waiter<Seat>, Counted)> {
        let counted = self.counted(self.hub.get(key)?);
        Some((self.hub.remove(key)?, counted))
    }

    fn counted(&self, waiter: &Waiter<Seat>) -> Counted {
        let members = self.hub.members(waiter.channel).cloned();
        match members.zip(waiter.connection.standing.clone()) {
            Some((members, standing)) => Counted::Many(members, standing),
            None => Counted::One(waiter.channel),
        }
    }

    fn read_mail(&mut self) {
        let Some(slot) = self.slot else { return };
        let Some(mail) = self.zone.with(now(), |zone| zone.take_mail(slot)) else { return };
        self.note_mail(mail);
    }

    fn note_mail(&mut self, mail: Mail) {
        if mail.look_at_all {
            self.hub.moved_all();
        }
        mail.moved.into_iter().for_each(|life| self.hub.moved(life));
    }

    /// Decides for the next slice of `max` at most, and takes those that will be answered off the books. Also tells how many
    /// they are; nothing if nobody is to be looked at.
    fn serve_slice(&mut self, max: usize, now: Now) -> Option<(usize, Deliveries)> {
        // Without a slot nobody waits any more, and what is left to be done falls away.
        let slice = self.hub.next_slice(max)?;
        let slot = self.slot?;
        let Worker { zone, hub, copies, received, looking, .. } = self;
        let mut note = |zone: &mut Zone<'_>, hub: &Hub<Seat>, mail: &Mail, channel: ChannelRef| {
            let is_due = hub.is_due(channel.life) || mail.names(channel.life);
            zone.is_looking(channel, slot, is_due);
            match is_due {
                true => looking.insert(channel),
                false => looking.remove(&channel),
            };
        };
        let served = zone.with(now, |zone| {
            // To look takes back what this worker was told; so that must be known, or others would think it has looked.
            let mail = zone.take_mail(slot);
            let deliveries = match hub.members(slice.channel).cloned() {
                Some(members) => {
                    let deliveries =
                        decide_for_many(zone, hub, copies, received, &slice, &members, slot, now);
                    members.iter().for_each(|member| note(zone, hub, &mail, member.channel));
                    deliveries
                }
                None => {
                    // Whatever is published from here on comes with a new hint.
                    zone.look(slice.channel, slot);
                    let (deliveries, left) = decide(zone, hub, copies, received, &slice, now);
                    zone.leave(slice.channel, slot, left, now);
                    note(zone, hub, &mail, slice.channel);
                    deliveries
                }
            };
            (deliveries, mail)
        });
        let (deliveries, mail) = served.unwrap_or_default();
        self.note_mail(mail);
        Some((slice.keys.len(), deliveries))
    }

    /// Tells the zone that nobody is left to be looked at: who was may have left before it was done.
    fn stop_looking(&mut self, now: Now) {
        let Worker { zone, slot: Some(slot), looking, .. } = self else { return };
        if !looking.is_empty() {
            zone.with(now, |zone| {
                looking.drain().for_each(|channel| zone.is_looking(channel, *slot, false));
            });
        }
    }

    /// What a stream gets, if it is still there: rendered now, or when another one got the same.
    fn print(&mut self, key: Key, seat: &Seat, look: &Rc<Look>, flow: Flow) -> Option<Printed> {
        let Worker { hub, press, formats, .. } = self;
        let is_there = hub.get(key).is_some_and(|waiter| waiter.connection.parked == seat.parked);
        is_there.then(|| press.print(formats, look, flow.format))
    }

    /// Notes that a stream can take nothing at the moment.
    fn block(&mut self, key: Key) {
        if let Some(flow) = self.hub.connection_mut(key).and_then(|seat| seat.flow.as_mut()) {
            flow.blocked = true;
        }
    }

    /// Gives memory back to the system, once a crowd has left or much else was freed: the allocator would keep it for the next.
    fn give_memory_back(&mut self, now: Now) {
        let here = self.hub.len();
        let has_left = self.crowd >= CROWD && here < self.crowd / 2;
        if has_left {
            self.crowd = here;
            self.hub.shrink();
        }
        let resident = process::private_memory();
        let surplus = self.surplus.get_or_insert(Surplus::new(resident, now.mono));
        if has_left || surplus.is_due(resident, now.mono) {
            process::give_memory_back();
            surplus.asked(resident, process::private_memory(), now.mono);
        }
    }

    /// Decides what to do about somebody who has got nothing for so long.
    fn look_after(&mut self, key: Key, now: Now) -> Option<(Key, Seat, Delivery)> {
        let waiter = self.hub.get(key)?;
        let (seat, since) = (waiter.connection.clone(), waiter.since);
        let Some(flow) = seat.flow else {
            self.take_off(&[key], now);
            let answer = Answer::Reply(Prepared::in_form(seat.form, replies::timed_out()));
            return Some((key, seat, Delivery::Answer(answer)));
        };
        let rhythm = Rhythm::new(seat.parked, &*self.formats.get(flow.format)?);
        let silent = now.mono.saturating_sub(since);
        if rhythm.timeout > 0 && silent >= rhythm.timeout {
            self.take_off(&[key], now);
            return Some((key, seat, Delivery::End(End::TimedOut)));
        }
        // Otherwise it has got something since the time was set.
        let is_silent = rhythm.look > 0 && silent >= rhythm.look;
        let looked = if is_silent { now.mono } else { 0 };
        self.hub.set_deadline(key, rhythm.deadline(since, looked));
        if !seat.parked.is_heard() {
            return Some((key, seat, Delivery::Lost));
        }
        (is_silent && rhythm.pings).then_some((key, seat, Delivery::Ping))
    }

    /// Takes subscribers off the books.
    fn take_off(&mut self, keys: &[Key], now: Now) -> Vec<(Key, Waiter<Seat>)> {
        let risen: Vec<_> = keys.iter().filter_map(|key| Some((*key, self.rise(*key)?))).collect();
        if let (Some(slot), false) = (self.slot, risen.is_empty()) {
            self.zone.with(now, |zone| {
                risen.iter().for_each(|(_, (_, counted))| {
                    counted.each(|channel| zone.leave(channel, slot, 1, now));
                });
            });
        }
        risen.into_iter().map(|(key, (waiter, _))| (key, waiter)).collect()
    }

    /// Removes messages that were to go when received, once no subscriber of this worker has still to be looked at.
    fn remove_received(&mut self, now: Now) {
        let Some(slot) = self.slot else { return };
        if self.received.is_empty() {
            return;
        }
        // Who waits may be due, and the mail that says so unread.
        self.read_mail();
        if self.hub.has_work() {
            self.work.post();
        }
        let Worker { zone, hub, received, .. } = self;
        let (later, done) = received.drain(..).partition(|(channel, _)| hub.is_due(channel.life));
        *received = later;
        let done: Vec<_> = done;
        zone.with(now, |zone| {
            done.iter().for_each(|(channel, cursor)| zone.received(*channel, *cursor, slot, now));
        });
    }

    /// Sets the timer for the next subscriber whose time will be over, after some have come or gone.
    fn arm(&mut self, now: Now) {
        self.crowd = self.crowd.max(self.hub.len());
        let Some(next) = self.hub.next_deadline() else { return };
        if self.armed.is_none_or(|armed| next < armed) {
            self.armed = Some(next);
            self.deadline.set(next.saturating_sub(now.mono));
        }
    }
}

/// What those at the same place in the log get.
#[derive(Clone)]
enum Outlook {
    /// Nothing yet.
    Nothing,
    /// A poll's answer.
    Answer(Answer),
    /// A stream's messages, and whether there are more.
    Messages(Rc<Look>, bool),
    /// The end of a stream.
    End(End),
}

/// Decides what a slice's subscribers get. Also tells how many of them leave.
fn decide(
    zone: &mut Zone<'_>,
    hub: &mut Hub<Seat>,
    copies: &mut Copies,
    received: &mut Vec<(ChannelRef, Cursor)>,
    slice: &Slice,
    now: Now,
) -> (Deliveries, u32) {
    let mut deliveries = Vec::with_capacity(slice.keys.len());
    let mut left = 0;
    // Nearly all are at the same place: the log is asked once for all of them.
    let mut last: Option<(_, Outlook)> = None;
    for key in &slice.keys {
        let Some(waiter) = hub.get(*key) else { continue };
        let seat = waiter.connection.clone();
        let stays = seat.flow.is_some();
        if seat.flow.is_some_and(|flow| flow.blocked) || slice.channel == ChannelRef::NOWHERE {
            continue;
        }
        let place = (waiter.seq, waiter.reign, stays, seat.form, seat.is_vague);
        let outlook = match &last {
            Some((known, outlook)) if *known == place => outlook.clone(),
            _ => {
                let outlook = if stays {
                    read_on(zone, copies, received, waiter, now)
                } else {
                    answer(zone, copies, received, waiter, now)
                };
                last = Some((place, outlook.clone()));
                outlook
            }
        };
        let delivery = match outlook {
            Outlook::Nothing => continue,
            Outlook::Messages(look, more) => {
                reach(hub, *key, &look, more, now);
                deliveries.push((*key, seat, Delivery::Messages(look)));
                continue;
            }
            Outlook::Answer(answer) => Delivery::Answer(answer),
            Outlook::End(end) => Delivery::End(end),
        };
        hub.remove(*key);
        left += 1;
        deliveries.push((*key, seat, delivery));
    }
    hub.pass(slice);
    received.dedup();
    (deliveries, left)
}

/// What a poll gets.
fn answer(
    zone: &mut Zone<'_>,
    copies: &mut Copies,
    received: &mut Vec<(ChannelRef, Cursor)>,
    waiter: &Waiter<Seat>,
    now: Now,
) -> Outlook {
    let seat = &waiter.connection;
    let is_rendered = seat.form != PollForm::One;
    let end = loop {
        let mut next = match zone.next(waiter.channel, waiter.cursor(), waiter.reign, now) {
            zone::Answer::UpToDate => return Outlook::Nothing,
            zone::Answer::Message(next) => next,
            zone::Answer::Conflict => break replies::conflict(),
            zone::Answer::Gone => break replies::gone(),
        };
        next.missed.at_least |= seat.is_vague;
        let mut steps = match take(zone, copies, received, &next, None, is_rendered, now) {
            Ok(step) => vec![step],
            Err(Unreadable::Gone) => continue,
            Err(why) => return Outlook::Answer(unanswered(seat, why)),
        };
        if is_rendered {
            let size = steps.iter().map(Step::len).sum();
            let channel = waiter.channel;
            take_more(zone, copies, received, channel, next.cursor, &mut steps, size, now);
        }
        return answer_with(seat, &steps);
    };
    Outlook::Answer(Answer::Reply(Prepared::in_form(seat.form, end)))
}

/// A poll's answer.
fn answer_with(seat: &Seat, steps: &[Step]) -> Outlook {
    let prepared = Prepared::with_messages(seat.form, steps, seat.parked.settings());
    Outlook::Answer(match prepared {
        Ok(prepared) => Answer::Reply(prepared),
        Err(why) => unanswered(seat, why),
    })
}

/// The answer to a poll whose message cannot be sent.
fn unanswered(seat: &Seat, why: Unreadable) -> Answer {
    match why {
        // The client is to come back, and will be told what it has missed.
        Unreadable::Gone => Answer::SentAway,
        Unreadable::NotNow => {
            Answer::Reply(Prepared::in_form(seat.form, Refusal::Exhausted.reply()))
        }
    }
}

/// Takes what there is after a poll's first message, as far as it goes into one reply.
#[expect(clippy::too_many_arguments, reason = "the parts of a worker, which are borrowed apart")]
fn take_more(
    zone: &mut Zone<'_>,
    copies: &mut Copies,
    received: &mut Vec<(ChannelRef, Cursor)>,
    channel: ChannelRef,
    mut cursor: Cursor,
    steps: &mut Vec<Step>,
    mut size: u64,
    now: Now,
) {
    while steps.len() < BATCH && size < BATCH_BYTES {
        // What ends a subscription comes with the next request.
        let zone::Answer::Message(next) = zone.next(channel, cursor, 0, now) else { return };
        let step = match take(zone, copies, received, &next, None, true, now) {
            Ok(step) => step,
            Err(Unreadable::Gone) => continue,
            Err(Unreadable::NotNow) => return,
        };
        size += step.len();
        cursor = next.cursor;
        steps.push(step);
    }
}

/// What a stream gets: some messages, or its end.
fn read_on(
    zone: &mut Zone<'_>,
    copies: &mut Copies,
    received: &mut Vec<(ChannelRef, Cursor)>,
    waiter: &Waiter<Seat>,
    now: Now,
) -> Outlook {
    let mut cursor = waiter.cursor();
    let mut steps = Vec::new();
    let mut bytes = 0;
    let more = loop {
        let end = match zone.next(waiter.channel, cursor, waiter.reign, now) {
            zone::Answer::UpToDate => break false,
            zone::Answer::Message(next) => {
                match take(zone, copies, received, &next, None, true, now) {
                    Ok(step) => {
                        cursor = next.cursor;
                        bytes += step.len();
                        steps.push(step);
                        if steps.len() == BATCH || bytes >= BATCH_BYTES {
                            break true;
                        }
                        continue;
                    }
                    Err(Unreadable::Gone) => continue,
                    Err(Unreadable::NotNow) => come_back_later(),
                }
            }
            zone::Answer::Conflict => End::Conflict,
            zone::Answer::Gone => End::Deleted,
        };
        // The end comes after what there was before it.
        match steps.is_empty() {
            true => return Outlook::End(end),
            false => break true,
        }
    };
    match steps.is_empty() {
        true => Outlook::Nothing,
        false => {
            let place = Reached::Seq(cursor.seq);
            Outlook::Messages(Rc::new(Look { steps, left: Vec::new(), place }), more)
        }
    }
}

/// Notes what a stream gets.
fn reach(hub: &mut Hub<Seat>, key: Key, look: &Look, more: bool, now: Now) {
    match &look.place {
        Reached::Seq(seq) => hub.advance(key, *seq, now.mono),
        Reached::Standing(standing) => {
            hub.advance(key, 0, now.mono);
            if let Some(seat) = hub.connection_mut(key) {
                seat.standing = Some(Rc::clone(standing));
            }
        }
    }
    if more {
        hub.fell_behind(key);
    }
}

/// Decides what a slice's subscribers of several channels get, and takes those who leave off the zone's books.
#[expect(clippy::too_many_arguments, reason = "the parts of a worker, which are borrowed apart")]
fn decide_for_many(
    zone: &mut Zone<'_>,
    hub: &mut Hub<Seat>,
    copies: &mut Copies,
    received: &mut Vec<(ChannelRef, Cursor)>,
    slice: &Slice,
    members: &Rc<[Member]>,
    slot: SlotRef,
    now: Now,
) -> Deliveries {
    for member in members.iter() {
        zone.look(member.channel, slot);
    }
    let mut deliveries = Vec::with_capacity(slice.keys.len());
    /// Who stands so and gets its messages in such a way gets this, and stands so afterwards.
    type Known = (Rc<Standing>, (bool, PollForm), (Outlook, Rc<Standing>));
    // Nearly all stand at the same places.
    let mut last: Option<Known> = None;
    for key in &slice.keys {
        let Some(waiter) = hub.get(*key) else { continue };
        let seat = waiter.connection.clone();
        let Some(standing) = seat.standing.clone() else { continue };
        if seat.flow.is_some_and(|flow| flow.blocked) {
            continue;
        }
        let kind = (seat.flow.is_some(), seat.form);
        let (outlook, come) = match &last {
            Some((known, known_kind, (outlook, come)))
                if *known_kind == kind && (Rc::ptr_eq(known, &standing) || *known == standing) =>
            {
                (outlook.clone(), Rc::clone(come))
            }
            _ => {
                let (outlook, come) =
                    look_into_many(zone, copies, received, members, &standing, &seat, now);
                let come = Rc::new(come);
                let of_known = (outlook.clone(), Rc::clone(&come));
                last = Some((Rc::clone(&standing), kind, of_known));
                (outlook, come)
            }
        };
        // Channels that were deleted take only themselves out.
        for ((member, before), after) in members.iter().zip(&standing.0).zip(&come.0) {
            if after.has_left && !before.has_left {
                zone.leave(member.channel, slot, 1, now);
            }
        }
        let delivery = match outlook {
            Outlook::Nothing => {
                if let Some(seat) = hub.connection_mut(*key) {
                    seat.standing = Some(come);
                }
                continue;
            }
            Outlook::Messages(look, more) => {
                reach(hub, *key, &look, more, now);
                deliveries.push((*key, seat, Delivery::Messages(look)));
                continue;
            }
            Outlook::Answer(answer) => Delivery::Answer(answer),
            Outlook::End(end) => Delivery::End(end),
        };
        hub.remove(*key);
        let counted = Counted::Many(Rc::clone(members), come);
        counted.each(|channel| zone.leave(channel, slot, 1, now));
        deliveries.push((*key, seat, delivery));
    }
    hub.pass(slice);
    received.dedup();
    deliveries
}

/// What there is for a subscriber of several channels.
struct Found {
    steps: Vec<Step>,
    /// The names of channels that were deleted.
    left: Vec<Rc<[u8]>>,
    /// How far it has come with that.
    standing: Standing,
    end: Option<End>,
    /// There is a message that cannot be had now.
    fails: bool,
    /// There may be more.
    more: bool,
}

/// Takes what there is in several channels, `max` messages at most.
#[expect(clippy::too_many_arguments, reason = "the parts of a worker, which are borrowed apart")]
fn gather(
    zone: &mut Zone<'_>,
    copies: &mut Copies,
    received: &mut Vec<(ChannelRef, Cursor)>,
    members: &[Member],
    standing: &Standing,
    max: usize,
    is_rendered: bool,
    now: Now,
) -> Found {
    let channels: Vec<_> = members.iter().map(|member| member.channel).collect();
    let standing = standing.clone();
    let (steps, left) = (Vec::new(), Vec::new());
    let mut found = Found { steps, left, standing, end: None, fails: false, more: true };
    let mut size = 0;
    while found.steps.len() < max && size < BATCH_BYTES {
        match zone.next_of_many(&channels, &found.standing, now) {
            ManyAnswer::UpToDate => {
                found.more = false;
                break;
            }
            ManyAnswer::Message { from, next, standing } => {
                let label = label(members, &standing, from);
                let step = match take(zone, copies, received, &next, label, is_rendered, now) {
                    Ok(step) => step,
                    Err(Unreadable::Gone) => continue,
                    Err(Unreadable::NotNow) => {
                        found.fails = true;
                        break;
                    }
                };
                found.standing = standing;
                size += step.len();
                found.steps.push(step);
            }
            ManyAnswer::Conflict => {
                found.end = Some(End::Conflict);
                break;
            }
            ManyAnswer::Gone { from } => {
                let rest = found.standing.without(from);
                if rest.is_over() {
                    found.end = Some(End::Deleted);
                    // What comes before the end comes first: then the last channel is found to have gone again.
                    if found.steps.is_empty() && found.left.is_empty() {
                        found.standing = rest;
                    }
                    break;
                }
                found.standing = rest;
                found.left.extend(members.get(from).map(|member| Rc::clone(&member.name)));
            }
        }
    }
    found
}

/// What a subscriber of several channels gets, and where it stands then.
fn look_into_many(
    zone: &mut Zone<'_>,
    copies: &mut Copies,
    received: &mut Vec<(ChannelRef, Cursor)>,
    members: &[Member],
    standing: &Standing,
    seat: &Seat,
    now: Now,
) -> (Outlook, Standing) {
    let stays = seat.flow.is_some();
    let is_rendered = stays || seat.form != PollForm::One;
    let max = if is_rendered { BATCH } else { 1 };
    let Found { steps, left, standing, end, fails, more } =
        gather(zone, copies, received, members, standing, max, is_rendered, now);
    let end = end.or_else(|| fails.then(come_back_later));
    if stays {
        // The end comes after what there was before it.
        if !(steps.is_empty() && left.is_empty()) {
            let place = Reached::Standing(Rc::new(standing.clone()));
            return (Outlook::Messages(Rc::new(Look { steps, left, place }), more), standing);
        }
        return (end.map_or(Outlook::Nothing, Outlook::End), standing);
    }
    let reply = match end {
        _ if !steps.is_empty() => return (answer_with(seat, &steps), standing),
        None => return (Outlook::Nothing, standing),
        Some(_) if fails => {
            return (Outlook::Answer(unanswered(seat, Unreadable::NotNow)), standing)
        }
        Some(End::Conflict) => replies::conflict(),
        Some(_) => replies::gone(),
    };
    (Outlook::Answer(Answer::Reply(Prepared::in_form(seat.form, reply))), standing)
}

/// A message, copied out of the zone. `is_rendered` says whether more than that will be made of it.
fn take(
    zone: &mut Zone<'_>,
    copies: &mut Copies,
    received: &mut Vec<(ChannelRef, Cursor)>,
    next: &Next,
    label: Option<Label>,
    is_rendered: bool,
    now: Now,
) -> Result<Step, Unreadable> {
    let size = zone.size_of(next);
    // Before it counts as received.
    if is_rendered && !memory::has_room_to_render(size.here.saturating_add(size.in_file)) {
        return Err(Unreadable::NotNow);
    }
    let copied = copies.get_or_make(next.cursor, || match memory::has_room(size.here) {
        true => Ok(zone.copy(next)),
        false => Err(Unreadable::NotNow),
    });
    if matches!(copied, Err(Unreadable::Gone)) {
        // Found under the lock: nobody has removed it but somebody from outside, and it would be found again and again.
        zone.lose(next, now);
    }
    let copied = copied?;
    received.extend(to_be_received(zone.channel_of(next), &copied));
    Ok(Step { missed: next.missed, copied, label })
}

/// What a message of the channel at place `from` is to a subscriber that stands so after it.
fn label(members: &[Member], standing: &Standing, from: usize) -> Option<Label> {
    let channel = Rc::clone(&members.get(from)?.name);
    Some(Label { id: standing.id(from), channel })
}

fn members_of(places: &[Followed], names: &[&[u8]]) -> Rc<[Member]> {
    let member = |(place, name): (&Followed, &&[u8])| Member {
        channel: place.channel,
        name: (*name).into(),
    };
    places.iter().zip(names).map(member).collect()
}

fn to_be_received(channel: ChannelRef, copied: &Copied) -> Option<(ChannelRef, Cursor)> {
    copied.message.delete_when_received.then_some((channel, copied.message.cursor))
}
