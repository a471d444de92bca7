//! What one worker keeps: its place in the zone, its waiting subscribers, and its copies of messages.
//!
//! Everything that others do reaches a worker as a hint ("this channel moved"), through its eventfd or, should that be lost,
//! with its next tick. It then looks into the log on behalf of all who wait on the channel, a slice at a time: under one
//! lock it decides for the whole slice, and takes those that will be answered off the books; then it answers them.
//!
//! Streams stay on the books, with the place in the log that they have come to. What a slice's streams get is copied out
//! of the zone once, rendered once for each format, and then sent. A client whose connection is full gets nothing until
//! it can take something again; then the worker looks into the log for it alone.

mod outlook;
mod reader;

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use comet::channel_id::ChannelId;
use comet::clock::Now;
use comet::control::CommandError;
use comet::faults;
use comet::hub::{Hub, Key, Waiter};
use comet::many::{self, Member, Stand, Standing, MAX_CHANNELS};
use comet::message::{Cursor, Life, ManyId, MessageId, Missed};
use comet::outbox::Sent;
use comet::poll::PollForm;
use comet::publisher::PublishError;
use comet::subscriber::{self as replies, Refusal};
use comet::surplus::Surplus;
use comet::transport::{End, Format, Framing};
use comet::wire::chunk::Chunk;
use comet::wire::info::ChannelInfo;
use comet::zone::{
    ChannelRef, Followed, Mail, News, Publication, Published, SlotRef, Subscribed, Subscription,
    Zone,
};

use self::reader::Reader;
use crate::copies::{Copies, Unreadable};
use crate::formats::{FormatId, Formats};
use crate::leftovers::Leftovers;
use crate::memory;
use crate::nginx::clock::now;
use crate::nginx::log::{self, Level, Topic};
use crate::nginx::parking::{self, Answer, Ending, Parked};
use crate::nginx::process;
use crate::nginx::timer::Timer;
use crate::nginx::wake::{self, Wake};
use crate::nginx::zone::SharedZone;
use crate::prepared::Prepared;
use crate::press::{Look, Press, Printed, Step};
use crate::stream::come_back;

/// Subscribers served before the event loop gets its turn: what it can read in one turn (`epoll_events`), so that those
/// who ask again at once do not queue up behind those who wait.
const SLICE: usize = 256;
/// And for how long they are served at most: one of many channels may take as long as a hundred of one.
const TURN: Duration = Duration::from_millis(10);
/// Milliseconds between two ticks: how late a lost hint, an expired message or a dead worker is noticed at most.
const TICK: u64 = 1_000;
/// Subscribers whose memory is worth giving back when half of them have left.
const CROWD: usize = 256;
/// At a shutdown, streams end in so many steps of so many milliseconds each: not all clients are to come back at once.
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
    /// Who is to be sent away at a shutdown, a few at a time.
    leaving: Leaving,
    /// For that. It keeps the process alive.
    release: Timer,
    /// How many have waited at once since memory was last given back.
    crowd: usize,
    /// When to ask for it again, whoever took it.
    surplus: Option<Surplus>,
    leftovers: Leftovers,
}

/// Who is still to be sent away at a shutdown.
#[derive(Debug, Default)]
struct Leaving {
    polls: Vec<Key>,
    streams: Vec<Key>,
    /// How many streams go at once.
    step: usize,
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
    /// For a poll: it has named no position, and would not begin here again ([`comet::message::Position::moves`]).
    moves: bool,
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
                .filter(|(_, stand)| !stand.has_left())
                .for_each(|(member, _)| act(member.channel)),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Flow {
    format: FormatId,
    /// It can take nothing at the moment.
    blocked: bool,
    /// It gets messages, or may ask for them. Otherwise it only publishes.
    listens: bool,
}

/// When something is to be done about a stream although there is no message. In milliseconds; 0 for never.
#[derive(Clone, Copy, Debug)]
struct Rhythm {
    /// After so much silence it is looked at.
    look: u64,
    /// And pinged.
    pings: bool,
    /// After so much silence it ends. Who only publishes waits for nothing, and has no such time.
    timeout: u64,
}

impl Rhythm {
    fn new(parked: Parked, format: &Format, listens: bool) -> Self {
        let settings = parked.settings();
        let pings = format.ping().is_some() && settings.ping_interval_ms > 0;
        let look = if pings { settings.ping_interval_ms } else { parked.send_timeout() };
        let timeout = if listens { settings.subscriber_timeout_ms } else { 0 };
        Rhythm { look, pings, timeout }
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

/// What the last one was told who has waited in vain, and where it stood: nearly all stand at the same place.
type Farewells = Option<((ChannelRef, u64, PollForm), Rc<Prepared>)>;

/// What a poll is told that has waited in vain, of where it goes on ([`Zone::place_of`]).
fn farewell(form: PollForm, place: Option<(MessageId, Missed)>) -> Rc<Prepared> {
    match place {
        Some((id, missed)) => Prepared::at_place(form, &many::place([id]), missed),
        None => Prepared::in_form(form, replies::gone()),
    }
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
    /// It waits where it would not begin again ([`comet::message::Position::moves`]).
    moves: bool,
    /// Its cursor as an id, if that is so and it has one channel.
    id: MessageId,
    /// A channel of it has moved, and this worker was told, but has not looked ([`Zone::is_told`]).
    has_moved: bool,
    /// Of a subscriber of several channels.
    many: Option<(Rc<[Member]>, Rc<Standing>)>,
}

/// The place in no channel.
const NOWHERE: Cursor = Cursor { life: Life(0), seq: 0 };

impl Place {
    fn one(channel: ChannelRef, cursor: Cursor, reign: u32) -> Self {
        let id = MessageId::default();
        let (is_vague, moves, has_moved) = (false, false, false);
        Place { channel, cursor, reign, is_vague, moves, id, has_moved, many: None }
    }

    /// What a subscriber without a cursor is told to go on after; nothing where it would begin again anyway.
    pub fn told(&self) -> Option<ManyId> {
        self.moves.then(|| match &self.many {
            Some((_, standing)) => standing.place(),
            None => many::place([self.id]),
        })
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
        leaving: Leaving::default(),
        release: Timer::holding(release),
        crowd: 0,
        surplus: None,
        leftovers: Leftovers::default(),
    };
    parking::start();
    let now = now();
    worker.join(now);
    // What those before it have left, also where they do not live long enough to tick.
    worker.sweep(now);
    worker.tick.set(TICK);
    WORKER.set(Some(worker));
    wake::listen(process::slot(), woken);
}

/// At the end of a worker process.
pub fn stop() {
    if let Some(worker) = WORKER.take() {
        parking::stop();
        let now = now();
        worker.part(now);
        worker.zone.with(now, |zone| zone.take_last_news(now)).flatten().into_iter().for_each(tell);
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

/// The cursor after which the next message of these channels comes.
pub fn newest(ids: &[&ChannelId]) -> Option<ManyId> {
    let now = now();
    with(|worker| {
        worker.zone.with(now, |zone| many::place(ids.iter().map(|id| zone.newest(id.as_bytes()))))
    })?
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
        let answer = zone.with(now, |zone| loop {
            let next = match zone.subscribe(&subscription, now)? {
                Subscribed::Message(next) => next,
                Subscribed::Waiting { channel, cursor, reign, is_vague } => {
                    let moves = subscription.position.moves();
                    // Only who does not wait is told now.
                    let id = match moves && !hold {
                        true => zone.newest(subscription.id),
                        false => MessageId::default(),
                    };
                    let has_moved = slot.is_some_and(|slot| zone.is_told(channel, slot));
                    let place = Place::one(channel, cursor, reign);
                    let place = Place { is_vague, moves, id, has_moved, ..place };
                    return Ok(Served::Waiting(place));
                }
            };
            match (Reader { zone, copies, received, now }).take_for_poll(&next, form) {
                Ok(steps) => return Ok(Served::Messages(steps)),
                Err(Unreadable::Gone) => {}
                Err(Unreadable::NotNow) => return Err(Refusal::Exhausted),
            }
        })?;
        // Not where it is counted and not among those who wait yet: what the mail says would pass it by.
        if !matches!(answer, Ok(Served::Waiting(_))) {
            worker.remove_received(now);
        }
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
        let places = match worker.enter_all(subscriptions, hold, now, |_, places| places)? {
            Ok(places) => places,
            Err(refusal) => return Some(Err(refusal)),
        };
        let members = members_of(&places, names);
        let mut standing = Standing::new(&places);
        if is_vague {
            standing.blur();
        }
        let Worker { zone, copies, received, slot, .. } = worker;
        let slot = slot.filter(|_| hold);
        let (found, has_moved) = zone.with(now, |zone| {
            let mut reader = Reader { zone, copies, received, now };
            let found = reader.gather(&members, &standing, form != PollForm::One);
            let leaves = !found.steps.is_empty() || found.fails;
            let told = |slot| members.iter().any(|member| zone.is_told(member.channel, slot));
            let has_moved = slot.is_some_and(told);
            if let Some(slot) = slot.filter(|_| leaves) {
                members.iter().for_each(|member| zone.leave(member.channel, slot, 1, now));
            }
            (found, has_moved)
        })?;
        if found.steps.is_empty() && !found.fails {
            let moves = subscriptions.iter().any(|one| one.position.moves());
            let place = Place::many(members, standing);
            return Some(Ok(Served::Waiting(Place { moves, has_moved, ..place })));
        }
        // Not where it waits, as in `subscribe`.
        worker.remove_received(now);
        Some(match found.fails && found.steps.is_empty() {
            true => Err(Refusal::Exhausted),
            false => Ok(Served::Messages(found.steps)),
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
///
/// Who has no words for gaps ([`Framing::has_words_for_gaps`]) is also told of what is gone when there is no message yet.
pub fn follow(
    subscription: Subscription<'_>,
    has_words: bool,
) -> Option<Result<(Place, Missed), Refusal>> {
    let now = now();
    with(|worker| {
        let slot = match worker.slot_to_wait(true) {
            Ok(slot) => slot,
            Err(refusal) => return Some(Err(refusal)),
        };
        let subscription = Subscription { hold: slot, ..subscription };
        let followed = worker.zone.with(now, |zone| {
            let place = zone.follow(&subscription, now)?;
            Ok(if has_words { place } else { zone.past_gap(&place, now) })
        })?;
        let moves = subscription.position.moves();
        Some(followed.map(|Followed { channel, cursor, reign, missed, id, waits, .. }| {
            (Place { moves: moves && waits, id, ..Place::one(channel, cursor, reign) }, missed)
        }))
    })?
}

/// Gives a subscriber that stays a place on several channels, as [`follow`] does.
pub fn follow_many(
    subscriptions: &[Subscription<'_>],
    names: &[&[u8]],
    has_words: bool,
) -> Option<Result<(Place, Missed), Refusal>> {
    let now = now();
    with(|worker| {
        let followed = worker.enter_all(subscriptions, true, now, |zone, mut places| {
            let waits = places.iter().all(|place| place.waits);
            if !has_words {
                places = places.iter().map(|place| zone.past_gap(place, now)).collect();
            }
            let told = zone.tell_at_once(&places, now);
            (places, waits, told)
        })?;
        Some(followed.map(|(places, waits, (standing, missed))| {
            let moves = waits && subscriptions.iter().any(|one| one.position.moves());
            (Place { moves, ..Place::many(members_of(&places, names), standing) }, missed)
        }))
    })?
}

/// Puts a stream on the books; it can take nothing before [`can_take`]. Without a place, its client only publishes.
pub fn stay(place: Option<Place>, parked: Parked, format: Format) {
    let now = now();
    let nowhere = || Place::one(ChannelRef::NOWHERE, NOWHERE, 0);
    with(|worker| {
        let listens = place.is_some();
        let deadline = Rhythm::new(parked, &format, listens).deadline(now.mono, 0);
        let flow = Flow { format: worker.formats.id_of(format), blocked: true, listens };
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
            .enter_all(&[*subscription], true, now, |_, places| places)
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
        worker.remove_received(now);
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
    let (mut left, begin) = (SLICE, Instant::now());
    while left > 0 && begin.elapsed() < TURN {
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
        // Of those that it waited for, some may have left before they were looked at.
        worker.remove_received(now);
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
    // With something on its way, the connection is being tested already, and what the client says is not read.
    if flow.blocked {
        return;
    }
    if let Some(mut talk) = seat.parked.take_talk() {
        let is_alive = talk.ask();
        seat.parked.put_talk(talk);
        if !is_alive {
            return seat.parked.lose();
        }
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
/// worker and go on there: polls as fast as others get their turn, then streams over a second.
fn release_all() {
    with(|worker| {
        let is_stream =
            |key: &Key| worker.hub.get(*key).is_some_and(|waiter| waiter.connection.flow.is_some());
        let (streams, polls): (Vec<_>, Vec<_>) = worker.hub.keys().into_iter().partition(is_stream);
        let step = streams.len().div_ceil(RELEASE_STEPS).max(16);
        worker.leaving = Leaving { polls, streams, step };
    });
    release();
}

/// Sends some of them away.
fn release() {
    let now = now();
    let deliveries = with(|worker| {
        let Leaving { polls, streams, step } = &mut worker.leaving;
        let (some, are_polls) = match polls.is_empty() {
            false => (polls.split_off(polls.len().saturating_sub(SLICE)), true),
            true => (streams.split_off(streams.len().saturating_sub(*step)), false),
        };
        match (polls.is_empty(), streams.is_empty()) {
            (false, _) => worker.release.set(1),
            (true, false) => worker.release.set(RELEASE_STEP),
            (true, true) => {}
        }
        let sent_away =
            if are_polls { worker.send_away(&some, now) } else { worker.end_streams(&some, now) };
        if worker.leaving.polls.is_empty() && worker.leaving.streams.is_empty() {
            worker.part(now);
            worker.slot = None;
        }
        sent_away
    });
    deliver(deliveries.unwrap_or_default());
}

/// Writes to the error log what an operator should know.
fn tell(News { evicted, recovered }: News) {
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

impl Worker {
    fn join(&mut self, now: Now) {
        let (index, pid) = (process::slot(), std::process::id());
        self.slot = self.zone.with(now, |zone| zone.join(index, pid, now)).flatten();
        if self.slot.is_none() {
            log::cycle(
                Topic::Worker.level(Level::Error),
                "push: the shared memory zone has no room for this worker; raise push_shared_memory_size",
            );
        }
    }

    fn sweep(&self, now: Now) {
        let news = self.zone.with(now, |zone| {
            zone.sweep(now, process::is_alive);
            zone.take_news(now)
        });
        news.flatten().into_iter().for_each(tell);
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

    /// Gives a subscriber a place on each of several channels, and says what `then` makes of them, before the zone can
    /// have changed.
    fn enter_all<R>(
        &mut self,
        subscriptions: &[Subscription<'_>],
        hold: bool,
        now: Now,
        then: impl FnOnce(&Zone<'_>, Vec<Followed>) -> R,
    ) -> Option<Result<R, Refusal>> {
        let hold = match self.slot_to_wait(hold) {
            Ok(slot) => slot,
            Err(refusal) => return Some(Err(refusal)),
        };
        let subscriptions: Vec<_> =
            subscriptions.iter().map(|one| Subscription { hold, ..*one }).collect();
        self.zone.with(now, |zone| {
            let places = zone.follow_all(&subscriptions, now)?;
            Ok(then(zone, places))
        })
    }

    /// Puts somebody on the books.
    fn sit(
        &mut self,
        place: Place,
        (parked, flow, form): (Parked, Option<Flow>, PollForm),
        deadline: u64,
        now: Now,
    ) -> Key {
        let Place { channel, cursor, reign, is_vague, moves, has_moved, many, .. } = place;
        let (members, standing) = many.unzip();
        let connection = Seat { parked, flow, form, standing, is_vague, moves };
        let waiter =
            Waiter { channel, seq: cursor.seq, since: now.mono, reign, deadline, connection };
        let key = match members {
            Some(members) => self.hub.add_to_bundle(&members, waiter),
            None => self.hub.add(waiter),
        };
        parked.set_key(key);
        if has_moved {
            self.hub.fell_behind(key);
            self.work.post();
        }
        self.arm(now);
        key
    }

    /// The channels of a stream that may change them, without those that were deleted, and how far it has come.
    fn channels_of(&self, key: Key) -> Option<(Vec<Member>, Vec<Stand>)> {
        let waiter = self.hub.get(key)?;
        waiter.connection.flow?;
        let members = self.hub.members(waiter.channel).into_iter().flat_map(|all| all.iter());
        let stands = waiter.connection.standing.iter().flat_map(|standing| &standing.0);
        let here = members.zip(stands).filter(|(_, stand)| !stand.has_left());
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
            let mut reader = Reader { zone, copies, received, now };
            let deliveries = match hub.members(slice.channel).cloned() {
                Some(members) => {
                    let deliveries =
                        outlook::decide_for_many(&mut reader, hub, &slice, &members, slot);
                    members.iter().for_each(|member| note(zone, hub, &mail, member.channel));
                    deliveries
                }
                None => {
                    let deliveries = outlook::decide(&mut reader, hub, &slice, slot);
                    note(zone, hub, &mail, slice.channel);
                    deliveries
                }
            };
            (deliveries, mail)
        });
        let (deliveries, mail) = served.unwrap_or_default();
        // To note that everything has moved takes as long as there are channels.
        let looked_at = if mail.look_at_all { max } else { slice.keys.len() };
        self.note_mail(mail);
        Some((looked_at, deliveries))
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
            let farewell = self.farewell(self.hub.get(key)?, &mut Farewells::default(), now);
            self.take_off(&[key], now);
            let timed_out = || Prepared::in_form(seat.form, replies::timed_out());
            let answer = Answer::Reply(farewell.unwrap_or_else(timed_out));
            return Some((key, seat, Delivery::Answer(answer)));
        };
        let rhythm = Rhythm::new(seat.parked, &*self.formats.get(flow.format)?, flow.listens);
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

    /// What a poll is told that ends without a message, if it has no cursor and would not begin here again: where it goes on.
    fn farewell(
        &self,
        waiter: &Waiter<Seat>,
        last: &mut Farewells,
        now: Now,
    ) -> Option<Rc<Prepared>> {
        let Seat { form, moves, standing, .. } = &waiter.connection;
        if !moves {
            return None;
        }
        if let Some(standing) = standing {
            return Some(Prepared::at_place(*form, &standing.place(), Missed::default()));
        }
        let place = (waiter.channel, waiter.seq, *form);
        if let Some((_, prepared)) = last.as_ref().filter(|(known, _)| *known == place) {
            return Some(Rc::clone(prepared));
        }
        let zone = &self.zone;
        let found = zone.with(now, |zone| zone.place_of(waiter.channel, waiter.cursor(), now))?;
        let prepared = farewell(*form, found);
        *last = Some((place, Rc::clone(&prepared)));
        Some(prepared)
    }

    /// Takes polls off the books that are to come back to another worker. Who has a message waiting gets it with the next one.
    fn send_away(&mut self, keys: &[Key], now: Now) -> Deliveries {
        let mut last = Farewells::default();
        // While they are counted still, so that their channels are there.
        let farewells: Vec<_> = keys
            .iter()
            .filter_map(|key| Some(self.farewell(self.hub.get(*key)?, &mut last, now)))
            .collect();
        let gone = self.take_off(keys, now).into_iter().zip(farewells);
        gone.map(|((key, waiter), farewell)| {
            (key, waiter.connection, Delivery::Answer(Answer::SentAway(farewell)))
        })
        .collect()
    }

    /// Takes streams off the books that are to come back to another worker.
    fn end_streams(&mut self, keys: &[Key], now: Now) -> Deliveries {
        let end = |(key, waiter): (Key, Waiter<Seat>)| {
            let reason = come_back(waiter.connection.parked.settings());
            (key, waiter.connection, Delivery::End(reason))
        };
        self.take_off(keys, now).into_iter().map(end).collect()
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

fn members_of(places: &[Followed], names: &[&[u8]]) -> Rc<[Member]> {
    let member = |(place, name): (&Followed, &&[u8])| Member {
        channel: place.channel,
        name: (*name).into(),
    };
    places.iter().zip(names).map(member).collect()
}
