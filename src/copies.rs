//! A worker's own copies of messages, made once and shared by all subscribers that it serves (invariant I4).

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::rc::{Rc, Weak};

use comet::message::{Body, Cursor, Message};
use comet::wire::chunk::Chunk;
use comet::zone::{At, Next};
use lru::LruCache;

use crate::formats::FormatId;
use crate::{memory, spool};

/// Copies kept at most.
const MAX_COPIES: NonZeroUsize = NonZeroUsize::new(256).unwrap();
/// Bytes in kept copies at most, rendered ones included, but for the newest one. What requests still send is not counted.
const MAX_BYTES: usize = 8 << 20;

/// Why a message that was found in the log cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Its file has gone: who comes back will be told.
    Gone,
    /// There is no memory for it, or no descriptor for its file: it is there, and may be had later.
    NotNow,
}

/// A message outside the zone.
#[derive(Debug)]
pub struct Copied {
    /// The message.
    pub message: Message,
    /// Its file, if its body is in one.
    pub file: Option<File>,
    /// Where in the zone it was found.
    found_at: At,
    /// What was rendered of it for streams, in each format that somebody has asked for.
    frames: RefCell<Vec<(FormatId, Rc<Chunk>)>>,
    /// Where its bytes are counted, while they are.
    counted: RefCell<Option<Rc<Cell<usize>>>>,
}

impl Copied {
    /// Opens the message's file, if it has one.
    fn new(message: Message, found_at: At) -> Result<Self, Unreadable> {
        let file = match &message.body {
            Body::Bytes(_) => None,
            Body::File { path, .. } => Some(open(path)?),
        };
        let (frames, counted) = (RefCell::default(), RefCell::default());
        Ok(Copied { message, file, found_at, frames, counted })
    }

    /// The body, read from its file if it is in one: streams render it as a whole.
    ///
    /// # Errors
    ///
    /// [`Unreadable`].
    pub fn read_body(&self) -> Result<Cow<'_, [u8]>, Unreadable> {
        match &self.message.body {
            Body::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
            Body::File { len, .. } => {
                let file = self.file.as_ref().ok_or(Unreadable::Gone)?;
                let len = usize::try_from(*len).map_err(|_| Unreadable::Gone)?;
                let mut bytes = Vec::new();
                bytes.try_reserve_exact(len).map_err(|_| Unreadable::NotNow)?;
                bytes.resize(len, 0);
                file.read_exact_at(&mut bytes, 0).map_err(|_| Unreadable::Gone)?;
                Ok(Cow::Owned(bytes))
            }
        }
    }

    /// The message's frames in a format, made now if there are none.
    pub fn frames(
        &self,
        format: FormatId,
        make: impl FnOnce() -> Result<Rc<Chunk>, Unreadable>,
    ) -> Result<Rc<Chunk>, Unreadable> {
        let known =
            self.frames.borrow().iter().find(|(id, _)| *id == format).map(|(_, f)| f.clone());
        if let Some(known) = known {
            return Ok(known);
        }
        let frames = make()?;
        if let Some(total) = self.counted.borrow().as_ref() {
            total.set(total.get() + frames.payload().len());
        }
        self.frames.borrow_mut().push((format, Rc::clone(&frames)));
        Ok(frames)
    }

    /// Bytes of the body and of all that was rendered of it.
    fn bytes(&self) -> usize {
        let frames: usize = self.frames.borrow().iter().map(|(_, f)| f.payload().len()).sum();
        self.message.body.len() as usize + frames
    }
}

fn open(path: &[u8]) -> Result<File, Unreadable> {
    match spool::open(path) {
        Ok(Some(file)) => Ok(file),
        Ok(None) => Err(Unreadable::Gone),
        Err(error) => {
            memory::complain(&format!("the file of a message cannot be opened: {error}"));
            Err(Unreadable::NotNow)
        }
    }
}

/// The copies that this worker may need again.
#[derive(Debug)]
pub struct Copies {
    cache: LruCache<Cursor, Kept>,
    /// Bytes that are kept.
    total: Rc<Cell<usize>>,
}

#[derive(Debug)]
enum Kept {
    /// A message in memory.
    Copy(Rc<Copied>),
    /// A message in a file, open only while somebody is being sent it: an open file keeps its place on the disk.
    InUse(Weak<Copied>),
}

impl Kept {
    /// Keeps a copy, and counts its bytes from now on.
    fn new(copied: &Rc<Copied>, total: &Rc<Cell<usize>>) -> Self {
        match copied.message.body {
            Body::Bytes(_) => {
                total.set(total.get() + copied.bytes());
                copied.counted.replace(Some(Rc::clone(total)));
                Kept::Copy(Rc::clone(copied))
            }
            Body::File { .. } => Kept::InUse(Rc::downgrade(copied)),
        }
    }

    fn get(&self) -> Option<Rc<Copied>> {
        match self {
            Kept::Copy(copied) => Some(Rc::clone(copied)),
            Kept::InUse(copied) => copied.upgrade(),
        }
    }

    /// Lets the copy go: what requests still send is not counted.
    fn release(self) {
        let Kept::Copy(copied) = self else { return };
        if let Some(total) = copied.counted.take() {
            total.set(total.get().saturating_sub(copied.bytes()));
        }
    }
}

impl Default for Copies {
    fn default() -> Self {
        Copies { cache: LruCache::new(MAX_COPIES), total: Rc::default() }
    }
}

impl Copies {
    /// Where in the zone the message at this place was found, if there is a copy of it.
    pub fn found_at(&self, cursor: Cursor) -> Option<At> {
        Some(self.cache.peek(&cursor)?.get()?.found_at)
    }

    /// The copy of a message that was found in the zone, made now if there is none.
    ///
    /// # Errors
    ///
    /// [`Unreadable`].
    pub fn get_or_make(
        &mut self,
        next: &Next,
        make: impl FnOnce() -> Result<Message, Unreadable>,
    ) -> Result<Rc<Copied>, Unreadable> {
        if let Some(copied) = self.cache.get(&next.cursor).and_then(Kept::get) {
            return Ok(copied);
        }
        let copied = Rc::new(Copied::new(make()?, next.at)?);
        let kept = Kept::new(&copied, &self.total);
        if let Some((_, old)) = self.cache.push(next.cursor, kept) {
            old.release();
        }
        while self.total.get() > MAX_BYTES && self.cache.len() > 1 {
            let Some((_, old)) = self.cache.pop_lru() else { break };
            old.release();
        }
        Ok(copied)
    }
}
