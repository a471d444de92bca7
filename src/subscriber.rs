//! The subscriber location's content handler.

use comet::config::Mechanism;
use comet::message::Position;
use comet::reply::Reply;
use comet::subscriber::{self as replies, Action, Refusal};
use comet::wire::http;
use comet::zone::Subscription;

use crate::channel;
use crate::nginx::request::{Request, Status};
use crate::nginx::{parking, process};
use crate::worker::{self, Served};

const SINCE: &str = "If-Modified-Since";
const TAG: &str = "If-None-Match";

/// Serves a request to a subscriber location.
pub fn handle(request: &Request) -> Status {
    let action = replies::action(request.method());
    if action == Action::Subscribe && request.has_body() {
        return request.subscribe_after_body();
    }
    request.discard_body();
    if action == Action::Subscribe {
        return subscribe(request);
    }
    match (channel::id_of(request), action) {
        (None, _) => request.reply(replies::no_channel_id()),
        (_, Action::Preflight) => request.reply(replies::preflight()),
        _ => request.reply(replies::not_allowed()),
    }
}

/// Serves a subscriber: with a message, now or later.
pub fn subscribe(request: &Request) -> Status {
    let settings = request.settings();
    let Some(id) = channel::id_of(request) else {
        return request.reply(replies::no_channel_id());
    };
    let hold = settings.mechanism == Mechanism::LongPoll;
    let position = position(request, hold);
    if hold && process::is_exiting() {
        return send_away(request);
    }
    let subscription = Subscription {
        id: id.as_bytes(),
        position,
        hold: None,
        authorized_only: settings.authorized_only,
        max_subscribers: channel::saturate(settings.max_subscribers),
        concurrency: settings.concurrency,
        channel_timeout: channel::saturate(settings.channel_timeout_ms / 1000),
    };
    match worker::subscribe(subscription, hold) {
        None => Status::INTERNAL_ERROR,
        // A worker of the next cycle will have the channel.
        Some(Err(Refusal::Closing)) => send_away(request),
        Some(Err(refusal)) => request.reply(refusal.reply()),
        Some(Ok(Served::Message(copied, missed))) => match worker::prepare(copied, missed) {
            Some(prepared) => request.send(prepared),
            None => send_away(request),
        },
        Some(Ok(Served::Waiting(_))) if !hold => request.reply(unmodified(request)),
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

/// Has the client come back with the position that it came with, to another worker if this one leaves.
pub fn send_away(request: &Request) -> Status {
    request.close_afterwards();
    request.reply(replies::released(position(request, true)))
}

/// Where the subscriber wants to begin. `push_ignore_queue_on_no_cache` is for those who can wait.
fn position(request: &Request, hold: bool) -> Position {
    let fresh = hold
        && request.settings().ignore_queue_on_no_cache
        && http::wants_fresh(request.headers("Cache-Control"), request.headers("Pragma"));
    if fresh {
        return Position::Newest;
    }
    http::position(request.header(SINCE), request.header(TAG))
}

fn unmodified(request: &Request) -> Reply {
    replies::unmodified(request.header(SINCE), request.header(TAG))
}
