//! Reading the log on behalf of subscribers: messages are copied out of the zone while its lock is held, once for all of this
//! worker's subscribers, and as many together as are worth rendering together.

use std::rc::Rc;

use comet::clock::Now;
use comet::many::{Member, Standing};
use comet::message::Cursor;
use comet::poll::PollForm;
use comet::transport::End;
use comet::zone::{Answer, ChannelRef, ManyAnswer, Next, Zone};

use crate::copies::{Copies, Unreadable};
use crate::memory;
use crate::press::{Label, Step};
use crate::stream::come_back_later;

/// Messages that somebody gets at once, and their bytes: what is rendered together.
const BATCH: usize = 32;
const BATCH_BYTES: u64 = 64 << 10;

/// The zone, while its lock is held, and what the worker keeps of it.
pub(super) struct Reader<'w, 'z> {
    pub zone: &'w mut Zone<'z>,
    pub copies: &'w mut Copies,
    /// Messages that are to go once they were received by all.
    pub received: &'w mut Vec<(ChannelRef, Cursor)>,
    pub now: Now,
}

/// What there is for a stream of one channel.
pub(super) struct Read {
    pub steps: Vec<Step>,
    /// How far it has come with that.
    pub cursor: Cursor,
    /// It comes after the messages.
    pub end: Option<End>,
    /// There may be more.
    pub more: bool,
}

/// What there is for a subscriber of several channels.
pub(super) struct Found {
    pub steps: Vec<Step>,
    /// The names of channels that were deleted.
    pub left: Vec<Rc<[u8]>>,
    /// How far it has come with that.
    pub standing: Standing,
    pub end: Option<End>,
    /// There is a message that cannot be had now.
    pub fails: bool,
    /// There may be more.
    pub more: bool,
}

impl Reader<'_, '_> {
    /// A message, copied out of the zone. `is_rendered` says whether more than that will be made of it.
    ///
    /// # Errors
    ///
    /// [`Unreadable`]. If it is gone, the log does not have it any more.
    fn take(
        &mut self,
        next: &Next,
        label: Option<Label>,
        is_rendered: bool,
    ) -> Result<Step, Unreadable> {
        let Reader { zone, copies, received, now } = self;
        let size = zone.size_of(next);
        // Before it counts as received.
        if is_rendered && !memory::has_room_to_render(size.here.saturating_add(size.in_file)) {
            return Err(Unreadable::NotNow);
        }
        let copied = copies.get_or_make(next, || match memory::has_room(size.here) {
            true => Ok(zone.copy(next)),
            false => Err(Unreadable::NotNow),
        });
        if matches!(copied, Err(Unreadable::Gone)) {
            // Found under the lock: nobody has removed it but somebody from outside, and it would be found again and again.
            zone.lose(next, *now);
        }
        let copied = copied?;
        if copied.message.delete_when_received {
            received.push((zone.channel_of(next), copied.message.cursor));
        }
        Ok(Step { missed: next.missed, copied, label })
    }

    /// What a poll gets that begins with this message: with it those after it, as far as they go into one reply, unless it
    /// takes only one.
    ///
    /// # Errors
    ///
    /// [`Unreadable`], of the first one.
    pub fn take_for_poll(&mut self, next: &Next, form: PollForm) -> Result<Vec<Step>, Unreadable> {
        let takes_more = form != PollForm::One;
        let mut steps = vec![self.take(next, None, takes_more)?];
        if !takes_more {
            return Ok(steps);
        }
        let channel = self.zone.channel_of(next);
        let mut cursor = next.cursor;
        let mut size = steps.iter().map(Step::len).sum::<u64>();
        while steps.len() < BATCH && size < BATCH_BYTES {
            // What ends a subscription comes with the next request.
            let Answer::Message(next) = self.zone.next(channel, cursor, 0, self.now) else { break };
            match self.take(&next, None, true) {
                Ok(step) => {
                    size += step.len();
                    cursor = next.cursor;
                    steps.push(step);
                }
                Err(Unreadable::Gone) => {}
                Err(Unreadable::NotNow) => break,
            }
        }
        Ok(steps)
    }

    /// What a stream of one channel gets.
    pub fn read_on(&mut self, channel: ChannelRef, mut cursor: Cursor, reign: u32) -> Read {
        let mut steps = Vec::new();
        let mut size = 0;
        if let Some(at) = self.copies.found_at(cursor) {
            self.zone.begin_at(channel, at);
        }
        let (end, more) = loop {
            if steps.len() == BATCH || size >= BATCH_BYTES {
                break (None, true);
            }
            let next = match self.zone.next(channel, cursor, reign, self.now) {
                Answer::UpToDate => break (None, false),
                Answer::Message(next) => next,
                Answer::Conflict => break (Some(End::Conflict), true),
                Answer::Gone => break (Some(End::Deleted), true),
            };
            match self.take(&next, None, true) {
                Ok(step) => {
                    cursor = next.cursor;
                    size += step.len();
                    steps.push(step);
                }
                Err(Unreadable::Gone) => {}
                Err(Unreadable::NotNow) => break (Some(come_back_later()), true),
            }
        };
        Read { steps, cursor, end, more }
    }

    /// What there is in several channels: one message, unless more are taken.
    pub fn gather(&mut self, members: &[Member], standing: &Standing, takes_more: bool) -> Found {
        let channels: Vec<_> = members.iter().map(|member| member.channel).collect();
        let max = if takes_more { BATCH } else { 1 };
        let standing = standing.clone();
        let (steps, left) = (Vec::new(), Vec::new());
        let mut found = Found { steps, left, standing, end: None, fails: false, more: true };
        let mut size = 0;
        while found.steps.len() < max && size < BATCH_BYTES {
            match self.zone.next_of_many(&channels, &found.standing, self.now) {
                ManyAnswer::UpToDate => {
                    found.more = false;
                    break;
                }
                ManyAnswer::Message { from, next, standing } => {
                    let label = label(members, &standing, from);
                    let step = match self.take(&next, label, takes_more) {
                        Ok(step) => step,
                        Err(Unreadable::Gone) => continue,
                        Err(Unreadable::NotNow) => {
                            found.fails = true;
                            break;
                        }
                    };
                    found.standing = standing;
                    size += step.len();
                    found.steps.push(step);
                }
                ManyAnswer::Conflict => {
                    found.end = Some(End::Conflict);
                    break;
                }
                ManyAnswer::Gone { from } => {
                    let rest = found.standing.without(from);
                    if rest.is_over() {
                        found.end = Some(End::Deleted);
                        // What comes before the end comes first: then the last channel is found to have gone again.
                        if found.steps.is_empty() && found.left.is_empty() {
                            found.standing = rest;
                        }
                        break;
                    }
                    found.standing = rest;
                    found.left.extend(members.get(from).map(|member| Rc::clone(&member.name)));
                }
            }
        }
        found
    }
}

/// What a message of the channel at place `from` is to a subscriber that stands so after it.
fn label(members: &[Member], standing: &Standing, from: usize) -> Option<Label> {
    let channel = Rc::clone(&members.get(from)?.name);
    Some(Label { id: standing.id(from), channel })
}
