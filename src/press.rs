//! Renders what streams get: once for each format, and shared by all who get the same.

use std::fmt;
use std::rc::Rc;

use comet::many::Standing;
use comet::message::{Envelope, ManyId, Missed, WrittenId};
use comet::transport::{End, Format, Framing};
use comet::wire::chunk::Chunk;

use crate::copies::{Copied, Unreadable};
use crate::formats::{FormatId, Formats};
use crate::memory;
use crate::stream::come_back_later;

/// What was found in the log for those at one place in it.
pub struct Look {
    /// Messages.
    pub steps: Vec<Step>,
    /// The names of channels that were deleted, of several.
    pub left: Vec<Rc<[u8]>>,
    /// Where they are after that.
    pub place: Reached,
}

/// A message for somebody.
#[derive(Clone, Debug)]
pub struct Step {
    /// What was missed before it.
    pub missed: Missed,
    /// The message.
    pub copied: Rc<Copied>,
    /// For a subscriber of several channels.
    pub label: Option<Label>,
}

/// What a message is to subscribers of several channels.
#[derive(Clone, Debug)]
pub struct Label {
    /// Its id.
    pub id: ManyId,
    /// The name of its channel.
    pub channel: Rc<[u8]>,
}

/// How far a subscriber has come.
#[derive(Clone, Debug)]
pub enum Reached {
    /// In its channel: the sequence number of the last message.
    Seq(u64),
    /// In its channels.
    Standing(Rc<Standing>),
}

impl Step {
    /// Bytes of its body.
    pub fn len(&self) -> u64 {
        self.copied.message.body.len()
    }

    /// What the subscriber is told beside the body.
    pub fn envelope(&self) -> Envelope<'_> {
        let envelope = self.copied.message.envelope();
        match &self.label {
            Some(Label { id, channel }) => {
                Envelope { id: WrittenId::Many(id), channel: Some(channel), ..envelope }
            }
            None => envelope,
        }
    }
}

impl fmt::Debug for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} messages up to {:?}", self.steps.len(), self.place)
    }
}

/// What a stream gets.
#[derive(Clone, Debug, Default)]
pub struct Printed {
    /// To be sent.
    pub frames: Option<Rc<Chunk>>,
    /// How the stream ends after that: something was missed that the format cannot tell, or cannot be had now.
    pub cut: Option<End>,
}

/// What was rendered, while others may want the same.
#[derive(Debug, Default)]
pub struct Press {
    /// Looks are kept with what was made of them, so that none gets the place of another.
    printed: Vec<(Rc<Look>, FormatId, Printed)>,
    pings: Vec<(FormatId, Option<Rc<Chunk>>)>,
}

impl Press {
    /// The frames of a look in a format.
    pub fn print(&mut self, formats: &Formats, look: &Rc<Look>, format: FormatId) -> Printed {
        // Those who come next are at the same place, nearly always.
        let known = self
            .printed
            .iter()
            .rev()
            .find(|(known, id, _)| *id == format && Rc::ptr_eq(known, look));
        if let Some((_, _, printed)) = known {
            return printed.clone();
        }
        if self.printed.len() >= MAX_PRINTED {
            self.printed.clear();
        }
        let printed = match formats.get(format) {
            Some(id) => render(&id, format, look),
            None => Printed::default(),
        };
        self.printed.push((Rc::clone(look), format, printed.clone()));
        printed
    }

    /// The ping of a format, if it has one.
    pub fn ping(&mut self, formats: &Formats, format: FormatId) -> Option<Rc<Chunk>> {
        if let Some((_, ping)) = self.pings.iter().find(|(id, _)| *id == format) {
            return ping.clone();
        }
        let ping = formats.get(format)?.ping().map(|ping| Rc::new(Chunk::new(&ping)));
        self.pings.push((format, ping.clone()));
        ping
    }

    /// Forgets what was rendered, when nobody waits for it.
    pub fn clear(&mut self) {
        self.printed.clear();
    }
}

/// Looks kept at most: those of one slice, whose streams may all be at different places, share few.
const MAX_PRINTED: usize = 16;

fn render(format: &Format, id: FormatId, look: &Look) -> Printed {
    // Nearly always: one message, nothing missed.
    if let ([step], []) = (look.steps.as_slice(), look.left.as_slice()) {
        if step.missed.is_none() {
            if let Ok(frames) = frames_of(format, id, step) {
                return Printed { frames: Some(frames), cut: None };
            }
        }
    }
    let mut bytes = Vec::new();
    let mut lost = Missed::default();
    for step in &look.steps {
        lost = lost.and(step.missed);
        let frames = match frames_of(format, id, step) {
            Ok(frames) => frames,
            Err(Unreadable::Gone) => {
                lost.count += 1;
                continue;
            }
            Err(Unreadable::NotNow) => {
                return Printed { frames: print(&bytes), cut: Some(come_back_later()) }
            }
        };
        if !lost.is_none() {
            match format.missed(lost) {
                Some(gap) => bytes.extend(gap),
                None => {
                    return Printed { frames: print(&bytes), cut: Some(End::Missed(lost)) };
                }
            }
            lost = Missed::default();
        }
        bytes.extend_from_slice(frames.payload());
    }
    for channel in &look.left {
        bytes.extend(format.left(channel));
    }
    if lost.is_none() {
        return Printed { frames: print(&bytes), cut: None };
    }
    match format.missed(lost) {
        Some(gap) => {
            bytes.extend(gap);
            Printed { frames: print(&bytes), cut: None }
        }
        None => Printed { frames: print(&bytes), cut: Some(End::Missed(lost)) },
    }
}

fn print(bytes: &[u8]) -> Option<Rc<Chunk>> {
    (!bytes.is_empty()).then(|| Rc::new(Chunk::new(bytes)))
}

/// One message's frames, which are kept with its copy if they are the same for all.
fn frames_of(format: &Format, id: FormatId, step: &Step) -> Result<Rc<Chunk>, Unreadable> {
    let make = || {
        if !memory::has_room_to_render(step.len()) {
            return Err(Unreadable::NotNow);
        }
        let body = step.copied.read_body()?;
        Ok(Rc::new(Chunk::new(&format.message(&step.envelope(), &body))))
    };
    match &step.label {
        None => step.copied.frames(id, make),
        Some(_) => make(),
    }
}
