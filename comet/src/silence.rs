//! Whether a client that sends nothing is still there.

/// What the kernel knows of a connection's other end (`tcp_info` of Linux).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Silence {
    /// Segments that were sent and not acknowledged.
    pub unacknowledged: u32,
    /// How many times in a row they were sent again.
    pub retransmits: u8,
    /// How many times in a row the other end was asked whether it is there, or has room, and said nothing.
    pub probes: u8,
    /// Milliseconds since something was acknowledged.
    pub since: u32,
}

/// How many times in a row the other end has to say nothing: one or two may have been lost.
const TIMES: u8 = 3;

impl Silence {
    /// Whether the other end is given up after so many milliseconds.
    ///
    /// One that takes nothing and says so is there: it is slow. `TCP_USER_TIMEOUT` would end its connection as well, and
    /// without a word, so that who only reads might wait for ever.
    pub fn is_the_end(&self, patience: u64) -> bool {
        let resent = self.unacknowledged > 0 && self.retransmits >= TIMES;
        u64::from(self.since) >= patience && (resent || self.probes >= TIMES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_does_not_answer_for_long_is_given_up() {
        let gone = Silence { unacknowledged: 1, retransmits: 3, probes: 0, since: 60_000 };
        let full = Silence { unacknowledged: 0, retransmits: 0, probes: 3, since: 60_000 };
        for silence in [gone, full] {
            assert!(silence.is_the_end(60_000));
            assert!(!Silence { since: 59_999, ..silence }.is_the_end(60_000));
        }
        for alive in [
            // Nothing was sent for hours.
            Silence { since: u32::MAX, ..Silence::default() },
            // It was sent just now, or got lost on its way once or twice.
            Silence { retransmits: 0, ..gone },
            Silence { retransmits: 2, ..gone },
            // What was sent again has arrived.
            Silence { unacknowledged: 0, ..gone },
            // A slow one answers each time that it has no room.
            Silence { probes: 1, ..full },
        ] {
            assert!(!alive.is_the_end(60_000), "{alive:?}");
        }
    }
}
