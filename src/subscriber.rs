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
        (None, _) => request.send(&replies::no_channel_id(), None),
        (_, Action::Preflight) => request.send(&replies::preflight(), None),
        _ => request.send(&replies::not_allowed(), None),
    }
}

/// Serves a subscriber: with a message, now or later.
pub fn subscribe(request: &Request) -> Status {
    let settings = request.settings();
    let Some(id) = channel::id_of(request) else {
        return request.send(&replies::no_channel_id(), None);
    };
    let hold = settings.mechanism == Mechanism::LongPoll;
    let position = position(request, hold);
    if hold && process::is_exiting() {
        return send_away(request, position);
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
        Some(Err(Refusal::Closing)) => send_away(request, position),
        Some(Err(refusal)) => request.send(&refusal.reply(), None),
        Some(Ok(Served::Message(copied, missed))) => {
            request.send(&worker::reply_with(&copied, missed, position), Some(&copied))
        }
        Some(Ok(Served::Waiting(_))) if !hold => request.send(&unmodified(request), None),
        Some(Ok(Served::Waiting(place))) => match parking::park(request) {
            Some((parked, status)) => {
                worker::wait(place, parked, position, settings.subscriber_timeout_ms);
                status
            }
            None => {
                worker::give_up(&place);
                Status::INTERNAL_ERROR
            }
        },
    }
}

/// Has the client come back to another worker.
fn send_away(request: &Request, position: Position) -> Status {
    request.close_afterwards();
    request.send(&replies::released(position), None)
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
