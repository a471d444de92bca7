//! Reading several channels as one.

use super::channel::{just_before, ChannelRef, Followed};
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
        let (from, next) = match self.first_of_many(channels, standing, now) {
            Ok(first) => first,
            Err(end) => return end,
        };
        let is_vague = standing.0.get(from).is_some_and(|stand| stand.is_vague);
        let own = Missed { at_least: next.missed.at_least || is_vague, ..next.missed };
        let (standing, others) = self.gaps_beside(channels, standing, (from, &next), now);
        let standing = standing.after(from, next.cursor.seq, next.id);
        ManyAnswer::Message { from, next: Next { missed: own.and(others), ..next }, standing }
    }

    /// Where a subscriber of several channels stands that is told now of all that it has missed, and how much that is: before
    /// the first message for it in each of them, and what is gone from those that have none for it, as far as the first
    /// message over all would tell. As long as there is no message, nothing is told: there would be no cursor after it, and
    /// it would be told again. Who cannot be told later gives places [past all gaps](Zone::past_gap).
    pub fn tell_at_once(&self, places: &[Followed], now: Now) -> (Standing, Missed) {
        let channels: Vec<_> = places.iter().map(|place| place.channel).collect();
        let (standing, missed) = Standing::told(places);
        match self.first_of_many(&channels, &standing, now) {
            Ok((from, next)) => {
                let (standing, others) = self.gaps_beside(&channels, &standing, (from, &next), now);
                (standing, missed.and(others))
            }
            Err(_) => (standing, missed),
        }
    }

    /// The oldest message over all that a subscriber has not seen, and the place of its channel, or what there is instead.
    fn first_of_many(
        &self,
        channels: &[ChannelRef],
        standing: &Standing,
        now: Now,
    ) -> Result<(usize, Next), ManyAnswer> {
        let mut first: Option<(usize, Next)> = None;
        let mut end = ManyAnswer::UpToDate;
        for (from, (channel, stand)) in channels.iter().zip(&standing.0).enumerate() {
            if stand.has_left() {
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
        first.ok_or(end)
    }

    /// What is gone from the other channels, as far as the cursor of this message says that it has been seen, and where the
    /// subscriber stands there after that.
    fn gaps_beside(
        &self,
        channels: &[ChannelRef],
        standing: &Standing,
        (from, next): (usize, &Next),
        now: Now,
    ) -> (Standing, Missed) {
        let mut missed = Missed::default();
        let mut come = standing.clone();
        for (place, (channel, stand)) in channels.iter().zip(&standing.0).enumerate() {
            if place == from || stand.has_left() {
                continue;
            }
            let answer = self.next_in(*channel, stand, now);
            if answer == Answer::Gone {
                come = come.gone(place);
            }
            if let Some((stand, gap)) = self.gap_in(*channel, stand, &answer, next.id.time) {
                missed = missed.and(gap);
                come = come.after(place, stand.seq, stand.id);
            } else if stand.is_vague {
                // The message's cursor will say nothing of it any more.
                missed.at_least = true;
                come = come.after(place, stand.seq, stand.id);
            }
        }
        (come, missed)
    }

    fn next_in(&self, channel: ChannelRef, stand: &Stand, now: Now) -> Answer {
        self.next(channel, Cursor { life: channel.life, seq: stand.seq }, stand.reign, now)
    }

    /// What of a gap right after a subscriber's position lies before the end of a second, and where it stands after that, if
    /// this is what there is for it in the channel.
    fn gap_in(
        &self,
        channel: ChannelRef,
        stand: &Stand,
        answer: &Answer,
        time: u64,
    ) -> Option<(Stand, Missed)> {
        let at = self.resolve(channel)?;
        let (end, id) = match answer {
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
