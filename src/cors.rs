//! Requests of pages of other origins: refused, or answered where a browser only asks whether it may.

use comet::cors::{self, Access, Verdict};

use crate::nginx::log::{Level, Topic};
use crate::nginx::request::{Request, Status};

/// Answers a request to a location with `push_cors_origin` that goes no further.
pub fn answer(request: &Request, access: Access) -> Option<Status> {
    let reply = match request.judge_origin()? {
        (_, Verdict::Refused) => {
            request.log(
                Topic::Origin,
                Level::Notice,
                "push: the request comes from an origin that is not in push_cors_origin",
            );
            cors::refused()
        }
        // A browser that asks knows nothing yet of what may make up the channel's id.
        _ if request.method() == b"OPTIONS" => cors::preflight(access),
        _ => return None,
    };
    request.discard_body();
    Some(request.reply(reply))
}
