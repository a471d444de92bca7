//! The publisher location's content handler.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use comet::channel_id::ChannelId;
use comet::config::Settings;
use comet::faults;
use comet::publisher::{self as replies, Action, PublishError};
use comet::wire::info::ChannelInfo;
use comet::zone::{Content, Publication, Published};

use crate::channel::{self, Channels};
use crate::nginx::log::{self, Level, Topic};
use crate::nginx::request::{Request, RequestBody, Status};
use crate::stream::{self, Role};
use crate::{cors, spool, worker};

/// The headers that name the kind of event that a message is: ours, and Nchan's.
const EVENT: [&str; 2] = ["Push-Event", "X-EventSource-Event"];

/// Serves a request to a publisher location.
pub fn handle(request: &Request) -> Status {
    cors::answer(request, replies::ACCESS).unwrap_or_else(|| serve(request))
}

/// Serves a request that may come from where it comes from.
pub fn serve(request: &Request) -> Status {
    let action = replies::action(request.method());
    // It publishes, though it is a GET.
    if action == Action::Info && stream::is_handshake(request) {
        if !(request.settings().publisher_websocket && request.may_post()) {
            request.discard_body();
            return request.reply(replies::no_websocket());
        }
        if request.has_body() {
            return request.open_websocket_after_body();
        }
        return stream::open_websocket(request, Role::Publisher);
    }
    if action != Action::Publish {
        request.discard_body();
    }
    let channels = match channel::channels_of(request) {
        Ok(channels) => channels,
        Err(reply) => {
            request.discard_body();
            return request.reply(reply);
        }
    };
    match action {
        Action::Publish => request.publish_body(),
        Action::Preflight => request.reply(replies::preflight()),
        Action::NotAllowed => request.reply(replies::not_allowed()),
        Action::Info => tell(request, &channels, |id| Some(Ok(worker::info(id)))),
        Action::Delete => tell(request, &channels, worker::delete),
    }
}

/// Asks about each channel, and tells of those that there are, or were.
fn tell(
    request: &Request,
    channels: &Channels,
    ask: impl Fn(&[u8]) -> Option<Result<Option<ChannelInfo>, PublishError>>,
) -> Status {
    let mut found = Vec::new();
    for id in channels.as_slice() {
        match ask(id.as_bytes()) {
            Some(Ok(info)) => found.extend(info.map(|info| (id.name(), info))),
            Some(Err(error)) => return refuse(request, &error),
            None => return Status::INTERNAL_ERROR,
        }
    }
    let accept = request.header("Accept");
    request.reply(match (channels, found.as_slice()) {
        (_, []) => replies::not_found(),
        (Channels::One(_), [(_, info), ..]) => replies::info(200, info, accept),
        (Channels::Many(_), found) => replies::infos(200, found, accept),
    })
}

fn refuse(request: &Request, error: &PublishError) -> Status {
    request.log(topic_of(error), Level::Error, &format!("push: {error}"));
    request.reply(error.reply())
}

/// Tells the operator of a message that came by a WebSocket and was not published.
pub fn complain(error: &PublishError) {
    log::cycle(topic_of(error).level(Level::Error), &format!("push: {error}"));
}

fn topic_of(error: &PublishError) -> Topic {
    match error {
        PublishError::NoSpace { .. } | PublishError::TooLarge { .. } => Topic::Full,
        PublishError::TooManyChannels => Topic::Limit,
        PublishError::Closing => Topic::Closing,
        PublishError::NotKept => Topic::NoFile,
        PublishError::Exhausted => Topic::Memory,
    }
}

/// Publishes the body of a request that was read.
pub fn publish(request: &Request) -> Status {
    let channels = match channel::channels_of(request) {
        Ok(channels) => channels,
        Err(reply) => return request.reply(reply),
    };
    let published = match request.body() {
        RequestBody::Pieces(pieces) => append(request, &channels, &[Content::Pieces(&pieces)]),
        RequestBody::File(file) => {
            let count = channels.as_slice().len();
            match worker::token().map(|token| spool::claim(&file, token, count)) {
                Some(Ok(paths)) => append_files(request, &channels, &paths, file.len),
                Some(Err(error)) => {
                    let line = format!(
                        "push: cannot keep a message's file in {} (client_body_temp_path): {error}",
                        String::from_utf8_lossy(file.directory)
                    );
                    request.log(Topic::NoFile, Level::Error, &line);
                    Some(Err(PublishError::NotKept))
                }
                None => None,
            }
        }
    };
    faults::point("acknowledge");
    let accept = request.header("Accept");
    match published {
        Some(Ok(published)) => {
            let is_awaited = published.iter().any(|published| published.info.subscribers > 0);
            let status = if is_awaited { 201 } else { 202 };
            let infos: Vec<_> = channels
                .as_slice()
                .iter()
                .map(ChannelId::name)
                .zip(published.iter().map(|published| published.info))
                .collect();
            request.reply(match (&channels, infos.as_slice()) {
                (Channels::One(_), [(_, info)]) => replies::info(status, info, accept),
                (_, infos) => replies::infos(status, infos, accept),
            })
        }
        Some(Err(error)) => refuse(request, &error),
        None => Status::INTERNAL_ERROR,
    }
}

/// Publishes a message whose body is in files of ours, one for each channel. If that fails, the files go.
fn append_files(
    request: &Request,
    channels: &Channels,
    paths: &[PathBuf],
    len: u64,
) -> Option<Result<Vec<Published>, PublishError>> {
    let contents: Vec<_> =
        paths.iter().map(|path| Content::File { path: path.as_os_str().as_bytes(), len }).collect();
    let published = append(request, channels, &contents);
    if !matches!(published, Some(Ok(_))) {
        paths.iter().for_each(|path| spool::remove(path.as_os_str().as_bytes()));
    }
    published
}

/// Publishes to all channels; `contents` is one for each, or one for all.
fn append(
    request: &Request,
    channels: &Channels,
    contents: &[Content<'_>],
) -> Option<Result<Vec<Published>, PublishError>> {
    let event = EVENT.iter().find_map(|name| request.header(name)).unwrap_or_default();
    let content_type = request.header("Content-Type").unwrap_or_default();
    let publications: Vec<_> = channels
        .as_slice()
        .iter()
        .zip(contents.iter().cycle())
        .map(|(id, content)| {
            publication(request.settings(), id.as_bytes(), content_type, event, *content)
        })
        .collect();
    worker::publish(&publications)
}

/// A message as a location publishes it.
pub fn publication<'a>(
    settings: &Settings,
    id: &'a [u8],
    content_type: &'a [u8],
    event: &'a [u8],
    content: Content<'a>,
) -> Publication<'a> {
    Publication {
        id,
        content_type,
        event,
        content,
        max_messages: channel::saturate(settings.max_messages),
        min_messages: channel::saturate(settings.min_messages),
        message_timeout: settings.message_timeout_ms,
        channel_timeout: channel::saturate(settings.channel_timeout_ms / 1000),
        delete_when_received: settings.delete_oldest_received,
    }
}
