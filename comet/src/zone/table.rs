//! From a channel's id to the channel.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::memory::At;
use super::record::{ChannelHead, ChannelTail, DataBlock, DATA_INLINE, ID_INLINE};
use super::Zone;

impl Zone<'_> {
    /// The hash of an id, keyed so that clients cannot choose ids that collide.
    pub(super) fn hash(&self, id: &[u8]) -> u64 {
        let [a, b] = self.header.hash_key;
        let mut hasher = SipHasher13::new_with_keys(a, b);
        hasher.write(id);
        hasher.finish()
    }

    fn bucket(&self, hash: u64) -> usize {
        (hash % u64::from(self.header.bucket_count.max(1))) as usize
    }

    /// The first channel of the bucket that this hash belongs to.
    pub(super) fn bucket_head(&self, hash: u64) -> At {
        self.buckets.get(self.bucket(hash)).copied().unwrap_or(At::NONE)
    }

    /// The channel of this id. The cost does not depend on the number of channels.
    pub(super) fn find(&self, id: &[u8]) -> Option<At> {
        let hash = self.hash(id);
        let mut at = self.bucket_head(hash);
        while at.is_some() {
            let channel = self.get::<ChannelHead>(at);
            if channel.hash == hash && self.has_id(channel, id) {
                return Some(at);
            }
            at = channel.bucket_next;
        }
        None
    }

    fn has_id(&self, channel: &ChannelHead, id: &[u8]) -> bool {
        if usize::from(channel.id_len) != id.len() {
            return false;
        }
        let tail = self.get::<ChannelTail>(channel.tail);
        let (inline, mut rest) = id.split_at(id.len().min(ID_INLINE));
        if !tail.id.starts_with(inline) {
            return false;
        }
        let mut at = tail.id_rest;
        while !rest.is_empty() && at.is_some() {
            let block = self.get::<DataBlock>(at);
            let (here, later) = rest.split_at(rest.len().min(DATA_INLINE));
            if !block.bytes.starts_with(here) {
                return false;
            }
            rest = later;
            at = block.next;
        }
        rest.is_empty()
    }

    /// A channel's id.
    pub(super) fn id_of(&self, channel: At) -> Vec<u8> {
        let head = self.get::<ChannelHead>(channel);
        let tail = self.get::<ChannelTail>(head.tail);
        let len = usize::from(head.id_len);
        let mut id: Vec<u8> = tail.id.iter().take(len).copied().collect();
        self.read_chain(tail.id_rest, len - id.len(), &mut id);
        id
    }

    /// Puts a channel, complete but for its `bucket_next`, into the table: from here on it exists.
    pub(super) fn link_channel(&mut self, at: At) {
        let bucket = self.bucket(self.get::<ChannelHead>(at).hash);
        let next = self.buckets.get(bucket).copied().unwrap_or(At::NONE);
        self.get_mut::<ChannelHead>(at).bucket_next = next;
        self.commit();
        if let Some(head) = self.buckets.get_mut(bucket) {
            *head = at;
        }
        self.commit();
    }

    /// Takes a channel out of the table: from here on it does not exist.
    pub(super) fn unlink_channel(&mut self, at: At) {
        let channel = *self.get::<ChannelHead>(at);
        let bucket = self.bucket(channel.hash);
        let mut before = self.buckets.get(bucket).copied().unwrap_or(At::NONE);
        self.commit();
        if before == at {
            if let Some(head) = self.buckets.get_mut(bucket) {
                *head = channel.bucket_next;
            }
        } else {
            while before.is_some() && self.get::<ChannelHead>(before).bucket_next != at {
                before = self.get::<ChannelHead>(before).bucket_next;
            }
            self.get_mut::<ChannelHead>(before).bucket_next = channel.bucket_next;
        }
        self.commit();
    }

    /// The channels of one bucket, for walks over the whole table.
    pub(super) fn bucket_channels(&self, bucket: usize) -> Vec<At> {
        let mut channels = Vec::new();
        let mut at = self.buckets.get(bucket).copied().unwrap_or(At::NONE);
        while at.is_some() && channels.len() <= self.blocks.len() {
            channels.push(at);
            at = self.get::<ChannelHead>(at).bucket_next;
        }
        channels
    }
}
