//! Which files messages are in.

use super::memory::At;
use super::record::{ChannelHead, MessageHead, IN_FILE};
use super::Zone;

/// Buckets that are looked through under one lock, and messages after which no further bucket is begun.
const BUCKETS: usize = 4096;
const MESSAGES: usize = 4096;

impl Zone<'_> {
    /// Visits the paths of messages in files, a part of all channels at a time: those from bucket `from` on. Tells where to go
    /// on, or nothing at the end.
    ///
    /// Who begins with 0 and goes on to the end has visited each path whose message was there all the time, whatever else
    /// has happened in between. Nothing if the messages have moved to another zone.
    pub fn visit_files(&self, from: usize, mut visit: impl FnMut(&[u8])) -> Option<usize> {
        let mut messages = 0;
        let to = from.saturating_add(BUCKETS).min(self.buckets.len());
        for bucket in from..to {
            for channel in self.bucket_channels(bucket) {
                messages += self.visit_files_of(channel, &mut visit);
            }
            if messages >= MESSAGES {
                return Some(bucket + 1);
            }
        }
        if to < self.buckets.len() {
            return Some(to);
        }
        // Channels that were deleted meanwhile have left the table, and not yet the zone.
        let mut channel = self.header.leaving;
        while channel.is_some() {
            self.visit_files_of(channel, &mut visit);
            channel = self.get::<ChannelHead>(channel).bucket_next;
        }
        None
    }

    fn visit_files_of(&self, channel: At, visit: &mut impl FnMut(&[u8])) -> usize {
        let mut count = 0;
        let mut at = self.get::<ChannelHead>(channel).first;
        while at.is_some() {
            let message = self.get::<MessageHead>(at);
            if message.flags & IN_FILE != 0 {
                visit(&self.path_of(message));
            }
            count += 1;
            at = message.next;
        }
        count
    }
}
