//! Subscribers that stay: EventSource, WebSocket and the streams; and WebSockets of publishers.

use comet::channel_id::ChannelId;
use comet::message::Missed;
use comet::reply::Reply;
use comet::subscriber::{self as replies, Refusal};
use comet::transport::{EventSource, Format, Framing, JsonLines, Lines, Transport};
use comet::websocket::{self, Accepted, Form, Offer};

use crate::nginx::parking;
use crate::nginx::process;
use crate::nginx::request::{Request, Status};
use crate::talk::{Publisher, Talk};
use crate::worker::{self, random_below, Place};
use crate::{channel, subscriber};

/// Bytes that a message through a WebSocket may have at most, whatever `client_max_body_size` says: it is collected in
/// memory.
const MAX_MESSAGE: u64 = 64 << 20;
/// Milliseconds within which clients come back after a shutdown.
pub const RETRY_SPREAD: u64 = 1_000;

/// Whether a request is a WebSocket handshake.
pub fn is_handshake(request: &Request) -> bool {
    websocket::is_handshake(request.headers("Upgrade"), request.headers("Connection"))
}

/// What a WebSocket's client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It gets messages.
    Subscriber,
    /// It sends messages.
    Publisher,
    /// Both.
    Both,
}

/// Serves a subscriber that stays, by a transport that is not a poll.
pub fn open(request: &Request, transport: Transport, role: Role) -> Status {
    let settings = request.settings();
    let format = match transport {
        Transport::EventSource => Format::EventSource(EventSource),
        Transport::JsonLines => Format::JsonLines(JsonLines),
        Transport::Stream => {
            Format::Lines(Lines { separator: settings.separator.as_slice().into() })
        }
        _ => return open_websocket(request, role),
    };
    let Some(id) = channel::id_of(request) else {
        return request.reply(replies::no_channel_id());
    };
    match follow(request, &id) {
        Ok((place, missed)) => {
            let opening = format.opening(retry(settings.retry_ms), missed);
            begin(request, format.head(missed), &opening, format, None, Some(place))
        }
        Err(Some(Refusal::Closing)) => {
            // A worker of the next cycle will have the channel.
            let end =
                format.end(comet::transport::End::Shutdown { retry: random_below(RETRY_SPREAD) });
            request.close_afterwards();
            request.reply(format.head(Missed::default()).bytes(end))
        }
        Err(Some(refusal)) => request.reply(refusal.reply()),
        Err(None) => Status::INTERNAL_ERROR,
    }
}

/// Serves a WebSocket.
pub fn open_websocket(request: &Request, role: Role) -> Status {
    let settings = request.settings();
    let offer = Offer {
        version: request.header("Sec-WebSocket-Version"),
        key: request.header("Sec-WebSocket-Key"),
        protocols: request.headers("Sec-WebSocket-Protocol"),
        extensions: request.headers("Sec-WebSocket-Extensions"),
        http_1_1: request.is_http_1_1(),
    };
    let accepted = match websocket::accept(&offer, settings.websocket_deflate) {
        Ok(accepted) => accepted,
        Err(error) => return request.reply(error.reply()),
    };
    let Some(id) = channel::id_of(request) else {
        return request.reply(replies::no_channel_id());
    };
    let Accepted { protocol, deflate, .. } = accepted;
    let publisher = (role != Role::Subscriber).then(|| Publisher {
        content_type: request.header("Content-Type").unwrap_or_default().to_vec(),
        accept: request.header("Accept").map(<[u8]>::to_vec),
        info: settings.websocket_info.unwrap_or(role == Role::Publisher),
        max_message: match request.max_body() {
            0 => MAX_MESSAGE,
            max => max.min(MAX_MESSAGE),
        },
        id: id.clone(),
    });
    let (place, missed) = match role {
        Role::Publisher if process::is_exiting() => return request.reply(Refusal::Closing.reply()),
        Role::Publisher => (None, Missed::default()),
        _ => match follow(request, &id) {
            Ok((place, missed)) => (Some(place), missed),
            Err(Some(refusal)) => return request.reply(refusal.reply()),
            Err(None) => return Status::INTERNAL_ERROR,
        },
    };
    let talk = Talk::new(deflate.is_some(), publisher);
    let head = accepted.reply().missed(missed);
    begin(request, head, &[], Format::WebSocket(Form { protocol, deflate }), Some(talk), place)
}

/// Gives the subscriber a place on its channel.
fn follow(request: &Request, id: &ChannelId) -> Result<(Place, Missed), Option<Refusal>> {
    if process::is_exiting() {
        return Err(Some(Refusal::Closing));
    }
    let subscription = subscriber::subscription(request, id);
    worker::follow(subscription).map_or(Err(None), |followed| followed.map_err(Some))
}

/// Sends the head, and parks the request. Without a place, the client only publishes.
fn begin(
    request: &Request,
    head: Reply,
    opening: &[u8],
    format: Format,
    talk: Option<Talk>,
    place: Option<Place>,
) -> Status {
    let parked = match request.send_stream(head, opening) {
        Ok(()) => parking::park_stream(request, talk).ok_or(Status::INTERNAL_ERROR),
        Err(status) => Err(status),
    };
    match parked {
        Ok((parked, status)) => {
            worker::stay(place, parked, format);
            status
        }
        Err(status) => {
            if let Some(place) = place {
                worker::give_up(&place);
            }
            status
        }
    }
}

/// How long a client is to wait before it connects again, in milliseconds: about `mean`, and not all the same, so that the
/// clients of a worker that died do not come back at once.
fn retry(mean: u64) -> u64 {
    match mean {
        0 => 0,
        mean => mean / 2 + random_below(mean) + 1,
    }
}
