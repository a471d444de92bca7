//! The content handler of subscriber locations, and of those that are publisher locations too.

use comet::channel_id::ChannelId;
use comet::config::{Settings, Valued};
use comet::faults;
use comet::message::{Missed, Position};
use comet::poll::PollForm;
use comet::reply::Reply;
use comet::subscriber::{self as replies, Action, Refusal};
use comet::transport::{self, Asked, Transport, Unserved};
use comet::websocket;
use comet::wire::http;
use comet::wire::id::Cursors;
use comet::zone::Subscription;

use crate::channel::{self, Channels};
use crate::copies::Unreadable;
use crate::cors;
use crate::nginx::request::{Request, Status};
use crate::nginx::{parking, process};
use crate::prepared::Prepared;
use crate::publisher;
use crate::stream::{self, Role};
use crate::worker::{self, Served};

/// What of a subscriber's headers counts, read in one go: a poll may come many times a second.
#[derive(Default)]
pub struct Wishes<'a> {
    upgrade: Vec<&'a [u8]>,
    connection: Vec<&'a [u8]>,
    accept: Vec<&'a [u8]>,
    last_id: Option<&'a [u8]>,
    since: Option<&'a [u8]>,
    tag: Option<&'a [u8]>,
    cache_control: Vec<&'a [u8]>,
    pragma: Vec<&'a [u8]>,
}

impl<'a> Wishes<'a> {
    /// Reads a request's.
    pub fn of(request: &'a Request) -> Self {
        let mut wishes = Wishes::default();
        request.each_header(|key, value| {
            let is = |name: &str| key.eq_ignore_ascii_case(name.as_bytes());
            match key.len() {
                6 if is("Accept") => wishes.accept.push(value),
                6 if is("Pragma") => wishes.pragma.push(value),
                7 if is("Upgrade") => wishes.upgrade.push(value),
                10 if is("Connection") => wishes.connection.push(value),
                13 if is("Last-Event-ID") => wishes.last_id = wishes.last_id.or(Some(value)),
                13 if is("If-None-Match") => wishes.tag = wishes.tag.or(Some(value)),
                13 if is("Cache-Control") => wishes.cache_control.push(value),
                17 if is("If-Modified-Since") => wishes.since = wishes.since.or(Some(value)),
                _ => {}
            }
        });
        wishes
    }

    /// Where the subscriber wants to begin: after what it names by whichever means, or where the location says.
    fn position(&self, request: &Request, hold: bool) -> Result<Position, Reply> {
        let named = http::position_of(self.last_id, request.args(), None, None);
        if named != Position::Oldest {
            return Ok(named);
        }
        if self.wants_fresh(request, hold) {
            return Ok(Position::Newest);
        }
        match http::position(self.since, self.tag) {
            Position::Oldest => first(request),
            position => Ok(position),
        }
    }

    /// The same for a subscriber of several channels.
    fn cursors(&self, request: &Request, hold: bool, channels: usize) -> Result<Cursors, Reply> {
        let args = request.args();
        let fresh = self.wants_fresh(request, hold);
        let (since, tag) = if fresh { (None, None) } else { (self.since, self.tag) };
        match http::cursors_of(self.last_id, args, since, tag, channels) {
            Some(cursors) => Ok(cursors),
            None if fresh => Ok(Cursors::all(Position::Newest, channels)),
            None => Ok(Cursors::all(first(request)?, channels)),
        }
    }

    /// `push_ignore_queue_on_no_cache` is for those who can wait and name no message: browsers send `no-cache` with every
    /// EventSource, also when it goes on after a message.
    fn wants_fresh(&self, request: &Request, hold: bool) -> bool {
        hold && request.settings().ignore_queue_on_no_cache
            && http::wants_fresh(self.cache_control.iter().copied(), self.pragma.iter().copied())
    }
}

/// Where a subscriber begins that does not say where.
pub fn first(request: &Request) -> Result<Position, Reply> {
    comet::first::first(request.values(Valued::FirstMessage)).map_err(|error| error.reply())
}

/// Serves a request to a subscriber location.
pub fn handle(request: &Request) -> Status {
    if let Some(status) = cors::answer(request, replies::ACCESS) {
        return status;
    }
    let action = replies::action(request.method());
    if action == Action::Subscribe {
        return subscribe_when_read(request);
    }
    request.discard_body();
    request.reply(match (channel::channels_of(request), action) {
        (Err(reply), _) => reply,
        (_, Action::Preflight) => replies::preflight(),
        _ => replies::not_allowed(),
    })
}

/// Serves a request to a location that is a publisher location as well.
pub fn handle_both(request: &Request) -> Status {
    if let Some(status) = cors::answer(request, replies::ACCESS_TO_BOTH) {
        return status;
    }
    match request.method() {
        b"GET" => subscribe_when_read(request),
        b"OPTIONS" => {
            request.discard_body();
            request.reply(replies::preflight_of_both())
        }
        _ => publisher::serve(request),
    }
}

fn subscribe_when_read(request: &Request) -> Status {
    if request.has_body() {
        return request.subscribe_after_body();
    }
    request.discard_body();
    subscribe(request)
}

/// Serves a subscriber by the transport that it asks for.
pub fn subscribe(request: &Request) -> Status {
    let wishes = Wishes::of(request);
    // A WebSocket begins with a GET: who may not POST listens only.
    let publishes = request.is_pubsub() && request.may_post();
    let role = if publishes { Role::Both } else { Role::Subscriber };
    match choose(request, &wishes) {
        Ok(transport) if transport.is_poll() => poll(request, &wishes, transport),
        Ok(transport) => stream::open(request, transport, role),
        Err(unserved) => request.reply(unserved.reply()),
    }
}

fn choose(request: &Request, wishes: &Wishes<'_>) -> Result<Transport, Unserved> {
    let handshake =
        websocket::is_handshake(wishes.upgrade.iter().copied(), wishes.connection.iter().copied());
    let callback = comet::poll::has_callback(request.args());
    let allowed = request.settings().transports;
    if request.is_part() {
        // The headers are those of the page's request.
        let asked = Asked { callback, ..Asked::default() };
        return transport::choose(allowed, &asked)
            .ok()
            .filter(|transport| transport.is_poll())
            .ok_or(Unserved::Part { allowed });
    }
    let asked = Asked { handshake, callback, accept: wishes.accept.clone() };
    transport::choose(allowed, &asked)
}

/// Whether the request gets a script (JSONP), or would if it could be served.
pub fn is_script(request: &Request) -> bool {
    request.method() == b"GET"
        && request.is_for_subscribers()
        && request.settings().transports.contains(Transport::Jsonp)
        && choose(request, &Wishes::of(request)) == Ok(Transport::Jsonp)
}

/// What the replies to a poll look like.
fn form_of(request: &Request, transport: Transport) -> PollForm {
    match transport {
        Transport::Jsonp => PollForm::Jsonp,
        _ => request.settings().poll_form,
    }
}

/// Serves a poll: with a message, now or, if it may be held, later.
fn poll(request: &Request, wishes: &Wishes<'_>, transport: Transport) -> Status {
    let settings = request.settings();
    let form = form_of(request, transport);
    if form == PollForm::Jsonp {
        if let Err(error) = comet::poll::callback(request.args()) {
            return request.reply(error.reply());
        }
    }
    let tell = |reply| request.send(Prepared::in_form(form, reply));
    let hold = transport != Transport::IntervalPoll;
    let channels = match channel::channels_of(request) {
        Ok(channels) => channels,
        Err(reply) => return tell(reply),
    };
    if hold && process::is_exiting() {
        return send_away(request);
    }
    let served = match &channels {
        Channels::One(id) => match ask(request, wishes, id, hold) {
            Ok(subscription) => worker::subscribe(subscription, form, hold),
            Err(reply) => return tell(reply),
        },
        Channels::Many(ids) => match ask_for_many(request, wishes, ids, hold) {
            Ok(Several { subscriptions, names, is_vague }) => {
                worker::subscribe_to_many(&subscriptions, &names, is_vague, form, hold)
            }
            Err(reply) => return tell(reply),
        },
    };
    match served {
        None => Status::INTERNAL_ERROR,
        // A worker of the next cycle will have the channel.
        Some(Err(Refusal::Closing)) => send_away(request),
        Some(Err(refusal)) => {
            channel::complain(refusal);
            tell(match form {
                PollForm::Jsonp => refusal.explained(),
                _ => refusal.reply(),
            })
        }
        Some(Ok(Served::Messages(steps))) => {
            match Prepared::with_messages(form, &steps, settings) {
                Ok(prepared) => request.send(prepared),
                // It is to come back, and will be told what it has missed.
                Err(Unreadable::Gone) => send_away(request),
                Err(Unreadable::NotNow) => tell(Refusal::Exhausted.reply()),
            }
        }
        Some(Ok(Served::Waiting(place))) if !hold => match place.told() {
            Some(id) => request.send(Prepared::at_place(form, &id, Missed::default())),
            None => tell(replies::unmodified(wishes.since, wishes.tag)),
        },
        Some(Ok(Served::Waiting(place))) => match parking::park(request) {
            Some((parked, status)) => {
                faults::point("parked");
                worker::wait(place, parked, form, settings.subscriber_timeout_ms);
                status
            }
            None => {
                worker::give_up(&place);
                Status::INTERNAL_ERROR
            }
        },
    }
}

/// What a subscriber asks for. `hold` says whether it can wait.
///
/// # Errors
///
/// What to answer if `push_first_message` makes no sense of the request.
pub fn ask<'a>(
    request: &Request,
    wishes: &Wishes<'_>,
    id: &'a ChannelId,
    hold: bool,
) -> Result<Subscription<'a>, Reply> {
    Ok(subscription(request.settings(), id, wishes.position(request, hold)?))
}

/// What a subscriber of several channels asks for.
pub struct Several<'a> {
    /// Of each channel.
    pub subscriptions: Vec<Subscription<'a>>,
    /// What it calls them.
    pub names: Vec<&'a [u8]>,
    /// It may have missed more than its positions say.
    pub is_vague: bool,
}

/// The same as [`ask`] for a subscriber of several channels.
pub fn ask_for_many<'a>(
    request: &Request,
    wishes: &Wishes<'_>,
    ids: &'a [ChannelId],
    hold: bool,
) -> Result<Several<'a>, Reply> {
    let cursors = wishes.cursors(request, hold, ids.len())?;
    let ids = in_order(ids);
    let subscriptions = ids.iter().zip(cursors.positions);
    Ok(Several {
        subscriptions: subscriptions
            .map(|(id, at)| subscription(request.settings(), id, at))
            .collect(),
        names: ids.iter().map(|id| id.name()).collect(),
        is_vague: cursors.is_foreign,
    })
}

/// A subscription at a location.
pub fn subscription<'a>(
    settings: &Settings,
    id: &'a ChannelId,
    position: Position,
) -> Subscription<'a> {
    Subscription {
        id: id.as_bytes(),
        position,
        hold: None,
        authorized_only: settings.authorized_only,
        max_subscribers: channel::saturate(settings.max_subscribers),
        concurrency: settings.concurrency,
        channel_timeout: channel::saturate(settings.channel_timeout_ms / 1000),
    }
}

/// Has the client come back with the position that it came with, to another worker if this one leaves. Who came for what
/// is new gets the place of now, so that it comes back for the same.
pub fn send_away(request: &Request) -> Status {
    request.close_afterwards();
    let wishes = Wishes::of(request);
    let transport = choose(request, &wishes).ok();
    let form = transport.map_or(PollForm::default(), |transport| form_of(request, transport));
    let hold = transport != Some(Transport::IntervalPoll);
    let channels = channel::channels_of(request);
    let (positions, ids) = match &channels {
        Ok(Channels::Many(ids)) => {
            let cursors = wishes.cursors(request, hold, ids.len());
            (cursors.map(|cursors| cursors.positions), in_order(ids))
        }
        Ok(Channels::One(id)) => (wishes.position(request, hold).map(|at| vec![at]), vec![id]),
        Err(_) => (Ok(Vec::new()), Vec::new()),
    };
    let positions = positions.unwrap_or_default();
    if let [Position::Newest, ..] = *positions {
        if let Some(id) = worker::newest(&ids) {
            return request.send(Prepared::at_place(form, &id, Missed::default()));
        }
    }
    let reply = match (&channels, &*positions) {
        // Its cursor is as good in the headers as where it came from.
        (Ok(Channels::Many(_)), _) | (_, [Position::Past(_)]) => {
            replies::unmodified(wishes.since, wishes.tag)
        }
        (_, [position]) => replies::released(*position),
        _ => replies::released(Position::Oldest),
    };
    request.send(Prepared::in_form(form, reply))
}

/// Channels in the order of the tags in a cursor: it stays good if the client names them in another one.
fn in_order(ids: &[ChannelId]) -> Vec<&ChannelId> {
    let mut ids: Vec<_> = ids.iter().collect();
    ids.sort_unstable_by(|one, other| one.as_bytes().cmp(other.as_bytes()));
    ids
}
