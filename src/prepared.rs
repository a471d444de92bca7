//! Replies ready to be sent: one for all subscribers that get the same.

use std::borrow::Cow;
use std::rc::Rc;

use comet::config::Settings;
use comet::message::{ManyId, Missed, WrittenId};
use comet::poll::{self, PollForm};
use comet::reply::Reply;
use comet::subscriber as replies;

use crate::copies::{Copied, Unreadable};
use crate::memory;
use crate::press::Step;
use crate::stream::boundary;

/// A reply, and the message that it carries.
#[derive(Debug)]
pub struct Prepared {
    /// The reply.
    pub reply: Reply,
    /// Its message, for `ReplyBody::Message`.
    pub message: Option<Rc<Copied>>,
    /// Its body is an array, and becomes a script that calls the function which the request names (JSONP).
    pub is_script: bool,
}

impl Prepared {
    /// A reply without a message.
    pub fn without_message(reply: Reply) -> Rc<Self> {
        Rc::new(Prepared { reply, message: None, is_script: false })
    }

    /// A poll's reply without a message.
    pub fn in_form(form: PollForm, reply: Reply) -> Rc<Self> {
        match form {
            PollForm::Jsonp => Rc::new(Prepared {
                reply: poll::jsonp(poll::array_of(&reply)),
                message: None,
                is_script: true,
            }),
            _ => Self::without_message(reply),
        }
    }

    /// The reply to a poll without a cursor that ends without a message: where to go on, and what went meanwhile.
    pub fn at_place(form: PollForm, id: &ManyId, missed: Missed) -> Rc<Self> {
        let id = WrittenId::Many(id);
        match form {
            PollForm::Jsonp => Rc::new(Prepared {
                reply: poll::jsonp(poll::array_of_place(id, missed)),
                message: None,
                is_script: true,
            }),
            _ => Self::without_message(replies::placed(id, missed)),
        }
    }

    /// A poll's reply with messages, of which there is at least one.
    ///
    /// # Errors
    ///
    /// [`Unreadable`], if one of them is.
    pub fn with_messages(
        form: PollForm,
        steps: &[Step],
        settings: &Settings,
    ) -> Result<Rc<Self>, Unreadable> {
        if let (PollForm::One, [step, ..]) = (form, steps) {
            let message = Some(Rc::clone(&step.copied));
            let reply = replies::message(&step.envelope(), step.missed);
            return Ok(Rc::new(Prepared { reply, message, is_script: false }));
        }
        if !memory::has_room_to_render(steps.iter().map(Step::len).sum()) {
            return Err(Unreadable::NotNow);
        }
        let bodies: Vec<Cow<'_, [u8]>> =
            steps.iter().map(|step| step.copied.read_body()).collect::<Result<_, _>>()?;
        let steps: Vec<_> = steps
            .iter()
            .zip(&bodies)
            .map(|(step, body)| poll::Step { missed: step.missed, envelope: step.envelope(), body })
            .collect();
        Ok(Rc::new(Prepared {
            reply: poll::reply(form, &steps, &settings.separator, &boundary()),
            message: None,
            is_script: form == PollForm::Jsonp,
        }))
    }
}
