//! Replies ready to be sent: one for all subscribers that get the same.

use std::rc::Rc;

use comet::reply::Reply;

use crate::copies::Copied;

/// A reply, and the message that it carries.
#[derive(Debug)]
pub struct Prepared {
    /// The reply.
    pub reply: Reply,
    /// Its message, for `ReplyBody::Message`.
    pub message: Option<Rc<Copied>>,
}

impl Prepared {
    /// A reply without a message.
    pub fn without_message(reply: Reply) -> Rc<Self> {
        Rc::new(Prepared { reply, message: None })
    }

    /// A reply with a message.
    pub fn new(reply: Reply, message: Rc<Copied>) -> Rc<Self> {
        Rc::new(Prepared { reply, message: Some(message) })
    }
}
