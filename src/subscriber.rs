//! The content handler of subscriber locations, and of those that are publisher locations too.

use comet::channel_id::ChannelId;
use comet::message::Position;
use comet::subscriber::{self as replies, Action, Refusal};
use comet::transport::{self, Asked, Transport};
use comet::websocket;
use comet::wire::http;
use comet::zone::Subscription;

use crate::nginx::request::{Request, Status};
use crate::nginx::{parking, process};
use crate::stream::{self, Role};
use crate::worker::{self, Served};
use crate::{channel, publisher};

/// What of a subscriber's headers counts, read in one go: a poll may come many times a second.
#[derive(Default)]
struct Wishes<'a> {
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
    fn of(request: &'a Request) -> Self {
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

    /// Where the subscriber wants to begin. `push_ignore_queue_on_no_cache` is for those who can wait and name no message:
    /// browsers send `no-cache` with every EventSource, also when it goes on after a message.
    fn position(&self, request: &Request, hold: bool) -> Position {
        let named = http::position_of(self.last_id, request.args(), None, None);
        if named != Position::Oldest {
            return named;
        }
        let fresh = hold
            && request.settings().ignore_queue_on_no_cache
            && http::wants_fresh(self.cache_control.iter().copied(), self.pragma.iter().copied());
        if fresh {
            return Position::Newest;
        }
        http::position(self.since, self.tag)
    }
}

/// Serves a request to a subscriber location.
pub fn handle(request: &Request) -> Status {
    let action = replies::action(request.method());
    if action == Action::Subscribe {
        return subscribe_when_read(request);
    }
    request.discard_body();
    match (channel::id_of(request), action) {
        (None, _) => request.reply(replies::no_channel_id()),
        (_, Action::Preflight) => request.reply(replies::preflight()),
        _ => request.reply(replies::not_allowed()),
    }
}

/// Serves a request to a location that is a publisher location as well.
pub fn handle_both(request: &Request) -> Status {
    match request.method() {
        b"GET" => subscribe_when_read(request),
        b"OPTIONS" => {
            request.discard_body();
            request.reply(replies::preflight_of_both())
        }
        _ => publisher::handle(request),
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
    let handshake =
        websocket::is_handshake(wishes.upgrade.iter().copied(), wishes.connection.iter().copied());
    let asked = Asked { handshake, accept: wishes.accept.clone() };
    let role = if request.is_pubsub() { Role::Both } else { Role::Subscriber };
    match transport::choose(request.settings().transports, &asked) {
        Ok(Transport::LongPoll) => poll(request, &wishes, true),
        Ok(Transport::IntervalPoll) => poll(request, &wishes, false),
        Ok(transport) => stream::open(request, transport, role),
        Err(unserved) => request.reply(unserved.reply()),
    }
}

/// Serves a poll: with a message, now or, if it may be held, later.
fn poll(request: &Request, wishes: &Wishes<'_>, hold: bool) -> Status {
    let settings = request.settings();
    let Some(id) = channel::id_of(request) else {
        return request.reply(replies::no_channel_id());
    };
    if hold && process::is_exiting() {
        return send_away(request);
    }
    match worker::subscribe(ask(request, wishes, &id, hold), hold) {
        None => Status::INTERNAL_ERROR,
        // A worker of the next cycle will have the channel.
        Some(Err(Refusal::Closing)) => send_away(request),
        Some(Err(refusal)) => request.reply(refusal.reply()),
        Some(Ok(Served::Message(copied, missed))) => match worker::prepare(copied, missed) {
            Some(prepared) => request.send(prepared),
            None => send_away(request),
        },
        Some(Ok(Served::Waiting(_))) if !hold => {
            request.reply(replies::unmodified(wishes.since, wishes.tag))
        }
        Some(Ok(Served::Waiting(place))) => match parking::park(request) {
            Some((parked, status)) => {
                worker::wait(place, parked, settings.subscriber_timeout_ms);
                status
            }
            None => {
                worker::give_up(&place);
                Status::INTERNAL_ERROR
            }
        },
    }
}

/// What a subscriber that stays asks for.
pub fn subscription<'a>(request: &Request, id: &'a ChannelId) -> Subscription<'a> {
    ask(request, &Wishes::of(request), id, true)
}

/// What a subscriber asks for. `hold` says whether it can wait.
fn ask<'a>(
    request: &Request,
    wishes: &Wishes<'_>,
    id: &'a ChannelId,
    hold: bool,
) -> Subscription<'a> {
    let settings = request.settings();
    Subscription {
        id: id.as_bytes(),
        position: wishes.position(request, hold),
        hold: None,
        authorized_only: settings.authorized_only,
        max_subscribers: channel::saturate(settings.max_subscribers),
        concurrency: settings.concurrency,
        channel_timeout: channel::saturate(settings.channel_timeout_ms / 1000),
    }
}

/// Has the client come back with the position that it came with, to another worker if this one leaves.
pub fn send_away(request: &Request) -> Status {
    request.close_afterwards();
    request.reply(replies::released(Wishes::of(request).position(request, true)))
}
