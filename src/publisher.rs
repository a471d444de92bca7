//! The publisher location's content handler.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use comet::channel_id::ChannelId;
use comet::config::Settings;
use comet::publisher::{self as replies, Action, PublishError};
use comet::zone::{Content, Publication, Published};

use crate::channel;
use crate::nginx::log::Level;
use crate::nginx::request::{Request, RequestBody, Status};
use crate::stream::{self, Role};
use crate::{spool, worker};

/// The headers that name the kind of event that a message is: ours, and Nchan's.
const EVENT: [&str; 2] = ["Push-Event", "X-EventSource-Event"];

/// Serves a request to a publisher location.
pub fn handle(request: &Request) -> Status {
    let action = replies::action(request.method());
    // A message without a body to wait for: no old client sends such a request.
    if action == Action::Info && stream::is_handshake(request) {
        request.discard_body();
        return stream::open_websocket(request, Role::Publisher);
    }
    if action != Action::Publish {
        request.discard_body();
    }
    let Some(id) = channel::id_of(request) else {
        request.discard_body();
        return request.reply(replies::no_channel_id());
    };
    let found = match action {
        Action::Publish => return request.publish_body(),
        Action::Preflight => return request.reply(replies::preflight()),
        Action::NotAllowed => return request.reply(replies::not_allowed()),
        Action::Info => Ok(worker::info(id.as_bytes())),
        Action::Delete => match worker::delete(id.as_bytes()) {
            Some(deleted) => deleted,
            None => return Status::INTERNAL_ERROR,
        },
    };
    match found {
        Ok(Some(info)) => request.reply(replies::info(200, &info, request.header("Accept"))),
        Ok(None) => request.reply(replies::not_found()),
        Err(error) => refuse(request, &error),
    }
}

fn refuse(request: &Request, error: &PublishError) -> Status {
    request.log(Level::Error, &format!("push: {error}"));
    request.reply(error.reply())
}

/// Publishes the body of a request that was read.
pub fn publish(request: &Request) -> Status {
    let Some(id) = channel::id_of(request) else {
        return request.reply(replies::no_channel_id());
    };
    let published = match request.body() {
        RequestBody::Pieces(pieces) => append(request, &id, Content::Pieces(&pieces)),
        RequestBody::File { path, len, directory } => {
            match worker::token().map(|token| spool::claim(path, directory, token)) {
                Some(Ok(path)) => append_file(request, &id, &path, len),
                Some(Err(error)) => {
                    request
                        .log(Level::Error, &format!("push: cannot keep a message's file: {error}"));
                    Some(Err(PublishError::NoSpace { needed: len }))
                }
                None => None,
            }
        }
    };
    match published {
        Some(Ok(Published { info, .. })) => {
            let status = if info.subscribers > 0 { 201 } else { 202 };
            request.reply(replies::info(status, &info, request.header("Accept")))
        }
        Some(Err(error)) => refuse(request, &error),
        None => Status::INTERNAL_ERROR,
    }
}

/// Publishes a message whose body is in a file of ours. If that fails, the file goes.
fn append_file(
    request: &Request,
    id: &ChannelId,
    path: &Path,
    len: u64,
) -> Option<Result<Published, PublishError>> {
    let path = path.as_os_str().as_bytes();
    let published = append(request, id, Content::File { path, len });
    if !matches!(published, Some(Ok(_))) {
        spool::remove(path);
    }
    published
}

fn append(
    request: &Request,
    id: &ChannelId,
    content: Content<'_>,
) -> Option<Result<Published, PublishError>> {
    let event = EVENT.iter().find_map(|name| request.header(name)).unwrap_or_default();
    let content_type = request.header("Content-Type").unwrap_or_default();
    worker::publish(&publication(request.settings(), id.as_bytes(), content_type, event, content))
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
