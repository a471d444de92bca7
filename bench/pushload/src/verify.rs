//! Exactly-once, in-order check of one subscriber's messages.

/// What one subscriber has seen: sequence numbers 0, 1, 2 ... are due.
#[derive(Default)]
pub struct SeqCheck {
    next: u32,
    /// Ranges (from, to) that were skipped and have not come since.
    missing: Vec<(u32, u32)>,
}

/// What a message is to its subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    InOrder,
    /// New, but earlier ones are missing so far.
    Ahead,
    /// New, but later ones came before it.
    Late,
    Duplicate,
}

impl SeqCheck {
    /// Judges the next message.
    #[inline]
    pub fn see(&mut self, seq: u32) -> Verdict {
        if seq == self.next {
            self.next += 1;
            return Verdict::InOrder;
        }
        self.see_other(seq)
    }

    #[cold]
    fn see_other(&mut self, seq: u32) -> Verdict {
        let missing = &mut self.missing;
        if seq > self.next {
            missing.push((self.next, seq));
            self.next = seq + 1;
            return Verdict::Ahead;
        }
        let Some(i) = missing.iter().position(|&(a, b)| a <= seq && seq < b) else {
            return Verdict::Duplicate;
        };
        let (a, b) = missing.swap_remove(i);
        if a < seq {
            missing.push((a, seq));
        }
        if seq + 1 < b {
            missing.push((seq + 1, b));
        }
        Verdict::Late
    }

    /// How many of the first `total` messages never came.
    pub fn lost(&self, total: u32) -> u64 {
        let holes: u64 = self.missing.iter().map(|&(a, b)| (b - a) as u64).sum();
        holes + total.saturating_sub(self.next) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::*;

    #[test]
    fn verdicts() {
        let mut s = SeqCheck::default();
        let got: Vec<_> = [0, 1, 1, 5, 3, 3, 2, 4, 6, 0].iter().map(|&n| s.see(n)).collect();
        assert_eq!(
            got,
            [InOrder, InOrder, Duplicate, Ahead, Late, Duplicate, Late, Late, InOrder, Duplicate]
        );
        assert_eq!(s.lost(7), 0);
        assert_eq!(s.lost(10), 3);
    }

    #[test]
    fn holes_count() {
        let mut s = SeqCheck::default();
        for n in [0, 10, 5, 20] {
            s.see(n);
        }
        assert_eq!(s.lost(21), 21 - 4);
        assert_eq!(SeqCheck::default().lost(5), 5);
    }
}
