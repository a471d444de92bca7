//! A worker's own copies of messages, made once and shared by all subscribers that it serves (invariant I4).

use std::borrow::Cow;
use std::cell::RefCell;
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::rc::{Rc, Weak};

use comet::message::{Body, Cursor, Message};
use comet::wire::chunk::Chunk;
use lru::LruCache;

use crate::formats::FormatId;
use crate::spool;

/// Copies kept at most.
const MAX_COPIES: NonZeroUsize = NonZeroUsize::new(256).unwrap();
/// Bytes in kept copies at most, rendered ones included, but for the newest one. What requests still send is not counted.
const MAX_BYTES: usize = 8 << 20;

/// A message outside the zone.
#[derive(Debug)]
pub struct Copied {
    /// The message.
    pub message: Message,
    /// Its file, if its body is in one and was there when the copy was made.
    pub file: Option<File>,
    /// What was rendered of it for streams.
    frames: RefCell<Vec<(FormatId, Rc<Chunk>)>>,
}

impl Copied {
    /// Opens the message's file, if it has one.
    pub fn new(message: Message) -> Self {
        let file = match &message.body {
            Body::Bytes(_) => None,
            Body::File { path, .. } => spool::open(path),
        };
        Copied { message, file, frames: RefCell::default() }
    }

    /// Whether the message can be sent: its file may have gone between the look into the log and the opening.
    pub fn is_complete(&self) -> bool {
        self.file.is_some() || matches!(self.message.body, Body::Bytes(_))
    }

    /// The body, read from its file if it is in one: streams render it as a whole. Nothing if it cannot be read.
    pub fn read_body(&self) -> Option<Cow<'_, [u8]>> {
        match &self.message.body {
            Body::Bytes(bytes) => Some(Cow::Borrowed(bytes)),
            Body::File { len, .. } => {
                let mut bytes = vec![0; usize::try_from(*len).ok()?];
                self.file.as_ref()?.read_exact_at(&mut bytes, 0).ok()?;
                Some(Cow::Owned(bytes))
            }
        }
    }

    /// The message's frames in a format, made now if there are none.
    pub fn frames(
        &self,
        format: FormatId,
        make: impl FnOnce() -> Option<Rc<Chunk>>,
    ) -> Option<Rc<Chunk>> {
        let known =
            self.frames.borrow().iter().find(|(id, _)| *id == format).map(|(_, f)| f.clone());
        if known.is_some() {
            return known;
        }
        let frames = make()?;
        self.frames.borrow_mut().push((format, Rc::clone(&frames)));
        Some(frames)
    }
}

/// The copies that this worker may need again.
#[derive(Debug)]
pub struct Copies {
    cache: LruCache<Cursor, Kept>,
    bytes: usize,
}

#[derive(Debug)]
enum Kept {
    /// A message in memory.
    Copy(Rc<Copied>),
    /// A message in a file, open only while somebody is being sent it: an open file keeps its place on the disk.
    InUse(Weak<Copied>),
}

impl Kept {
    fn new(copied: &Rc<Copied>) -> Self {
        match copied.message.body {
            Body::Bytes(_) => Kept::Copy(Rc::clone(copied)),
            Body::File { .. } => Kept::InUse(Rc::downgrade(copied)),
        }
    }

    fn get(&self) -> Option<Rc<Copied>> {
        match self {
            Kept::Copy(copied) => Some(Rc::clone(copied)),
            Kept::InUse(copied) => copied.upgrade(),
        }
    }

    /// Bytes that are kept.
    fn len(&self) -> usize {
        match self {
            // Streams render it at about the same size.
            Kept::Copy(copied) => 2 * copied.message.body.len() as usize,
            Kept::InUse(_) => 0,
        }
    }
}

impl Default for Copies {
    fn default() -> Self {
        Copies { cache: LruCache::new(MAX_COPIES), bytes: 0 }
    }
}

impl Copies {
    /// The copy of the message at this place, made now if there is none.
    pub fn get_or_make(&mut self, cursor: Cursor, make: impl FnOnce() -> Message) -> Rc<Copied> {
        if let Some(copied) = self.cache.get(&cursor).and_then(Kept::get) {
            return copied;
        }
        let copied = Rc::new(Copied::new(make()));
        let kept = Kept::new(&copied);
        self.bytes += kept.len();
        if let Some((_, old)) = self.cache.push(cursor, kept) {
            self.bytes -= old.len();
        }
        while self.bytes > MAX_BYTES && self.cache.len() > 1 {
            let Some((_, old)) = self.cache.pop_lru() else { break };
            self.bytes -= old.len();
        }
        copied
    }
}
