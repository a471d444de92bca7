//! Subscribers that stay: EventSource, WebSocket and the streams; and WebSockets of publishers.

use std::rc::Rc;

use comet::config::{Settings, Valued};
use comet::control::Pattern;
use comet::message::{Missed, WrittenId};
use comet::reply::Reply;
use comet::subscriber::Refusal;
use comet::transport::{
    End, EventSource, Format, Framing, Iframe, JsonLines, Lines, Multipart, Transport,
};
use comet::websocket::{self, Accepted, Form, Offer};

use crate::channel::{self, Channels};
use crate::control::Control;
use crate::nginx::parking;
use crate::nginx::process;
use crate::nginx::request::{Request, Status};
use crate::subscriber::{self, Wishes};
use crate::talk::{self, Publisher, Talk};
use crate::worker::{self, random_below, Place};

/// Bytes that a message through a WebSocket may have at most, whatever `client_max_body_size` says: it is collected in
/// memory.
const MAX_MESSAGE: u64 = 64 << 20;
/// Bytes that a control frame may have at most, unless it publishes.
const MAX_COMMAND: u64 = 64 << 10;
/// Milliseconds within which clients come back after a shutdown.
const RETRY_SPREAD: u64 = 1_000;
/// Milliseconds after which browsers connect an EventSource again that nobody has told when: in most of them.
const BROWSERS_RETRY: u64 = 3_000;

/// Whether a request is a WebSocket handshake. A part of a page only shows the headers of the page's request.
pub fn is_handshake(request: &Request) -> bool {
    !request.is_part()
        && websocket::is_handshake(request.headers("Upgrade"), request.headers("Connection"))
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
        Transport::Multipart => {
            Format::Multipart(Multipart { boundary: boundary(), replace: false })
        }
        Transport::MixedReplace => {
            Format::Multipart(Multipart { boundary: boundary(), replace: true })
        }
        Transport::Iframe => Format::Iframe(Iframe),
        _ => return open_websocket(request, role),
    };
    let channels = match channel::channels_of(request) {
        Ok(channels) => channels,
        Err(reply) => return request.reply(reply),
    };
    match follow(request, &channels, &format) {
        Ok((place, missed)) => {
            let mut opening = format.opening(retry(settings.retry_ms), missed);
            if let Some(id) = place.told() {
                opening.extend(format.place(WrittenId::Many(&id)));
            }
            begin(request, format.head(missed), &opening, format, None, Some(place))
        }
        // An EventSource that is refused does not come back.
        Err(Refused::ForNow(refusal)) => {
            let mut body = format.opening(0, Missed::default());
            body.extend(format.end(match refusal {
                Refusal::Exhausted => come_back_later(),
                _ => come_back(settings),
            }));
            request.close_afterwards();
            request.reply(format.head(Missed::default()).bytes(body))
        }
        Err(Refused::Reply(reply)) => request.reply(reply),
        Err(Refused::NotHere) => Status::INTERNAL_ERROR,
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
    let channels = match channel::channels_of(request) {
        Ok(channels) => channels,
        Err(reply) => return request.reply(reply),
    };
    let Accepted { protocol, deflate, .. } = accepted;
    let form = Form { protocol, deflate };
    let max_message = match request.max_body() {
        0 => MAX_MESSAGE,
        max => max.min(MAX_MESSAGE),
    };
    // Who may change its channels has a list of them, also of one.
    let channels = match channels {
        Channels::One(id) if form.is_json() => Channels::Many(vec![id]),
        channels => channels,
    };
    let said = if form.is_json() {
        let first = match subscriber::first(request) {
            Ok(first) => first,
            Err(reply) => return request.reply(reply),
        };
        let values = request.values(Valued::WebSocketChannels);
        let stars = settings.websocket_stars.iter();
        let publishes = role != Role::Subscriber;
        Some(talk::Role::Control(Control {
            channels: channels.clone(),
            patterns: values
                .into_iter()
                .zip(stars)
                .map(|(value, has_star)| Pattern::new(value, *has_star))
                .collect(),
            first,
            subscribes: role != Role::Publisher,
            publishes,
            max_message: if publishes { max_message.max(MAX_COMMAND) } else { MAX_COMMAND },
        }))
    } else {
        (role != Role::Subscriber).then(|| {
            talk::Role::Publisher(Publisher {
                content_type: request.header("Content-Type").unwrap_or_default().to_vec(),
                accept: request.header("Accept").map(<[u8]>::to_vec),
                info: settings.websocket_info.unwrap_or(role == Role::Publisher),
                max_message,
                channels: channels.clone(),
            })
        })
    };
    let format = Format::WebSocket(form);
    let (place, missed) = match role {
        Role::Publisher if process::is_exiting() => return request.reply(Refusal::Closing.reply()),
        Role::Publisher if !worker::has_room() => return request.reply(Refusal::Exhausted.reply()),
        Role::Publisher => (None, Missed::default()),
        _ => match follow(request, &channels, &format) {
            Ok((place, missed)) => (Some(place), missed),
            Err(Refused::Reply(reply)) => return request.reply(reply),
            Err(Refused::ForNow(refusal)) => return request.reply(refusal.reply()),
            Err(Refused::NotHere) => return Status::INTERNAL_ERROR,
        },
    };
    let talk = Talk::new(deflate.is_some(), said);
    let head = accepted.reply().missed(missed);
    let opening = format.opening(0, missed);
    begin(request, head, &opening, format, Some(talk), place)
}

/// Why a stream does not begin.
enum Refused {
    /// This is to be answered.
    Reply(Reply),
    /// The worker leaves, and one of the next cycle will have the channel; or it is short of something.
    ForNow(Refusal),
    /// This process serves no requests.
    NotHere,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Closing | Refusal::Exhausted => Refused::ForNow(refusal),
            refusal => Refused::Reply(refusal.reply()),
        }
    }
}

/// Gives the subscriber a place on its channels.
fn follow(
    request: &Request,
    channels: &Channels,
    format: &Format,
) -> Result<(Place, Missed), Refused> {
    if process::is_exiting() {
        return Err(Refused::ForNow(Refusal::Closing));
    }
    let wishes = Wishes::of(request);
    let has_words = format.has_words_for_gaps();
    let followed = match channels {
        Channels::One(id) => {
            let subscription =
                subscriber::ask(request, &wishes, id, true).map_err(Refused::Reply)?;
            worker::follow(subscription, has_words)
        }
        Channels::Many(ids) => {
            let all =
                subscriber::ask_for_many(request, &wishes, ids, true).map_err(Refused::Reply)?;
            let vague = Missed { count: 0, at_least: all.is_vague };
            worker::follow_many(&all.subscriptions, &all.names, has_words)
                .map(|followed| followed.map(|(place, missed)| (place, missed.and(vague))))
        }
    };
    Ok(followed.ok_or(Refused::NotHere)?.inspect_err(|refusal| channel::complain(*refusal))?)
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
        Ok(()) => parking::park_stream(request, talk).ok_or(Status::BROKEN),
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

/// What divides the parts of this worker's multipart bodies: the same in all, so that they are rendered once.
pub fn boundary() -> Rc<str> {
    thread_local! {
        static BOUNDARY: Rc<str> =
            format!("{:016x}{:016x}", random_below(u64::MAX), random_below(u64::MAX)).into();
    }
    BOUNDARY.with(Rc::clone)
}

/// The end of a stream that is to go on where it was, in another connection and after a moment.
pub fn come_back(settings: &Settings) -> End {
    let least = match settings.retry_ms {
        // The next connection will not say another time, and a browser keeps the last one for good.
        0 => BROWSERS_RETRY,
        _ => 0,
    };
    End::Shutdown { retry: least + random_below(RETRY_SPREAD) }
}

/// The same where something is short, of which they would take the more the sooner they come.
pub fn come_back_later() -> End {
    End::Shutdown { retry: RETRY_SPREAD + random_below(4 * RETRY_SPREAD) }
}

/// How long a client is to wait before it connects again, in milliseconds: about `mean`, and not all the same, so that the
/// clients of a worker that died do not come back at once.
fn retry(mean: u64) -> u64 {
    mean / 2 + random_below(mean)
}
