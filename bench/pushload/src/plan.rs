//! Who gets what: subscribers and messages are dealt to channels in turn.

/// Subscribers, channels and messages of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub run: u16,
    pub subs: u32,
    pub channels: u32,
    /// All messages of the run, over all channels.
    pub messages: u64,
    /// The first ones, that are delivered and checked but not measured.
    pub warmup: u64,
    pub size: usize,
}

impl Plan {
    /// The channel of a subscriber.
    pub fn channel_of(&self, sub: u32) -> u32 {
        sub % self.channels
    }

    /// Place of a message in the order of publishing.
    pub fn index(&self, chan: u32, seq: u32) -> u64 {
        seq as u64 * self.channels as u64 + chan as u64
    }

    /// Channel and sequence number of the message at `index`.
    pub fn at(&self, index: u64) -> (u32, u32) {
        let c = self.channels as u64;
        ((index % c) as u32, (index / c) as u32)
    }

    /// How many subscribers a channel has.
    pub fn subs_of(&self, chan: u32) -> u64 {
        (self.subs / self.channels + u32::from(chan < self.subs % self.channels)) as u64
    }

    /// How many messages a channel gets.
    pub fn messages_of(&self, chan: u32) -> u32 {
        let c = self.channels as u64;
        (self.messages / c + u64::from((chan as u64) < self.messages % c)) as u32
    }

    /// Deliveries due for the first `k` messages.
    pub fn deliveries(&self, k: u64) -> u64 {
        let (n, c) = (self.subs as u64, self.channels as u64);
        let r = k % c;
        (k / c) * n + r * (n / c) + r.min(n % c)
    }

    /// Deliveries due for all messages.
    pub fn expected(&self) -> u64 {
        self.deliveries(self.messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_agree() {
        for (subs, channels, messages) in
            [(10, 3, 7), (5, 5, 5), (3, 7, 20), (100, 1, 9), (1, 4, 2)]
        {
            let p = Plan { run: 0, subs, channels, messages, warmup: 0, size: 64 };
            let by_sub: u64 = (0..subs).map(|s| p.messages_of(p.channel_of(s)) as u64).sum();
            assert_eq!(p.expected(), by_sub);
            let mut sum = 0;
            for k in 0..messages {
                assert_eq!(p.deliveries(k), sum);
                let (chan, seq) = p.at(k);
                assert_eq!(p.index(chan, seq), k);
                assert!(seq < p.messages_of(chan));
                let of_chan = (0..subs).filter(|&s| p.channel_of(s) == chan).count() as u64;
                assert_eq!(p.subs_of(chan), of_chan);
                sum += of_chan;
            }
        }
    }
}
