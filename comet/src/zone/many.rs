//! Reading several channels as one.

use super::channel::{just_before, ChannelRef};
use super::log::{Answer, Next};
use super::record::ChannelHead;
use super::Zone;
use crate::clock::Now;
use crate::many::{Stand, Standing};
use crate::message::{Cursor, MessageId, Missed};

/// What a subscriber of several channels gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManyAnswer {
    /// A message of one of them: the oldest that it has not seen, over all.
    Message {
        /// The channel's place in the subscription.
        from: usize,
        /// The message. What was missed is that of all channels.
        next: Next,
        /// How far the subscriber has come with it.
        standing: Standing,
    },
    /// Nothing yet.
    UpToDate,
    /// A newer subscriber has taken its place in one of them.
    Conflict,
    /// One of them was deleted; the others may have more.
    Gone {
        /// The channel's place in the subscription.
        from: usize,
    },
}

impl Zone<'_> {
    /// What a subscriber gets that has come so far in these channels. Ends come after messages.
    ///
    /// What is gone from one channel is told with the next message of any that is not of an earlier second: that message's
    /// cursor says of all channels that everything before its second has been seen.
    pub fn next_of_many(
        &self,
        channels: &[ChannelRef],
        standing: &Standing,
        now: Now,
    ) -> ManyAnswer {
        let mut first: Option<(usize, Next)> = None;
        let mut end = ManyAnswer::UpToDate;
        for (from, (channel, stand)) in channels.iter().zip(&standing.0).enumerate() {
            if stand.has_left {
                continue;
            }
            match self.next_in(*channel, stand, now) {
                Answer::UpToDate => {}
                Answer::Message(next) => {
                    if first.is_none_or(|(_, known)| next.stamp < known.stamp) {
                        first = Some((from, next));
                    }
                }
                Answer::Conflict => end = ManyAnswer::Conflict,
                Answer::Gone if end == ManyAnswer::UpToDate => end = ManyAnswer::Gone { from },
                Answer::Gone => {}
            }
        }
        let Some((from, next)) = first else { return end };
        let mut missed = Missed::default();
        let mut come = standing.after(from, next.cursor.seq, next.id);
        for (place, (channel, stand)) in channels.iter().zip(&standing.0).enumerate() {
            if place == from {
                missed = missed.and(Missed {
                    at_least: next.missed.at_least || stand.is_vague,
                    ..next.missed
                });
            } else if let Some((stand, gap)) = self.gap_in(*channel, stand, next.id.time, now) {
                missed = missed.and(gap);
                come = come.after(place, stand.seq, stand.id);
            } else if stand.is_vague && !stand.has_left {
                // The message's cursor will say nothing of it any more.
                missed.at_least = true;
                come = come.after(place, stand.seq, stand.id);
            }
        }
        ManyAnswer::Message { from, next: Next { missed, ..next }, standing: come }
    }

    fn next_in(&self, channel: ChannelRef, stand: &Stand, now: Now) -> Answer {
        self.next(channel, Cursor { life: channel.life, seq: stand.seq }, stand.reign, now)
    }

    /// What of a gap right after a subscriber's position lies before the end of a second, and where it stands after that.
    fn gap_in(
        &self,
        channel: ChannelRef,
        stand: &Stand,
        time: u64,
        now: Now,
    ) -> Option<(Stand, Missed)> {
        if stand.has_left {
            return None;
        }
        let at = self.resolve(channel)?;
        let (end, id) = match self.next_in(channel, stand, now) {
            Answer::Message(next) => (next.cursor.seq - 1, just_before(next.id)),
            Answer::UpToDate | Answer::Conflict => {
                let head = self.get::<ChannelHead>(at);
                (head.next_seq - 1, MessageId { time: head.last_time, tag: head.last_tag })
            }
            Answer::Gone => return None,
        };
        if end <= stand.seq {
            return None;
        }
        let upto = MessageId { time, tag: u32::MAX };
        let (seen, is_exact) = self.seen_at(at, upto, self.oldest_after(at, upto));
        let seq = seen.min(end);
        let missed =
            Missed { count: seq.checked_sub(stand.seq)?, at_least: !is_exact || stand.is_vague };
        (missed.count > 0).then_some((Stand { seq, id: id.min(upto), ..*stand }, missed))
    }
}
