//! Log-linear histogram of nanosecond values (relative error < 0.8 %).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const SUB_BITS: u32 = 7;
const SUB: usize = 1 << SUB_BITS;
const MAX_EXP: u32 = 42; // 2^42 ns = 73 minutes
/// Buckets of a histogram.
pub const BUCKETS: usize = (MAX_EXP - SUB_BITS + 2) as usize * SUB;

/// A histogram of one process.
pub struct Hist {
    counts: Vec<u64>,
    n: u64,
    sum: u64,
    min: u64,
    max: u64,
}

/// The same histogram laid out for shared memory.
#[repr(C)]
pub struct SharedHist {
    counts: [AtomicU64; BUCKETS],
    n: AtomicU64,
    sum: AtomicU64,
    min: AtomicU64,
    max: AtomicU64,
}

#[inline]
fn index(v: u64) -> usize {
    if v < SUB as u64 {
        return v as usize;
    }
    let e = 63 - v.leading_zeros();
    if e > MAX_EXP {
        return BUCKETS - 1;
    }
    let shift = e - SUB_BITS;
    ((shift as usize + 1) << SUB_BITS) + ((v >> shift) as usize & (SUB - 1))
}

/// Largest value that falls into bucket `i`.
fn upper(i: usize) -> u64 {
    if i < SUB {
        return i as u64;
    }
    let shift = (i >> SUB_BITS) as u32 - 1;
    let base = ((SUB + (i & (SUB - 1))) as u64) << shift;
    base + (1u64 << shift) - 1
}

impl Default for Hist {
    fn default() -> Self {
        Hist { counts: vec![0; BUCKETS], n: 0, sum: 0, min: u64::MAX, max: 0 }
    }
}

impl Hist {
    /// Adds a value.
    #[inline]
    pub fn record(&mut self, v: u64) {
        self.counts[index(v)] += 1;
        self.n += 1;
        self.sum += v;
        self.min = self.min.min(v);
        self.max = self.max.max(v);
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.n
    }

    /// The largest value, exact.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The smallest value, exact; 0 when empty.
    pub fn min(&self) -> u64 {
        if self.n == 0 {
            0
        } else {
            self.min
        }
    }

    /// The mean, exact; 0 when empty.
    pub fn mean(&self) -> f64 {
        if self.n == 0 {
            0.0
        } else {
            self.sum as f64 / self.n as f64
        }
    }

    /// Value at quantile `q` (0..=1); 0 when empty.
    pub fn quantile(&self, q: f64) -> u64 {
        if self.n == 0 {
            return 0;
        }
        let want = ((self.n as f64 * q).ceil() as u64).clamp(1, self.n);
        let mut seen = 0;
        for (i, &c) in self.counts.iter().enumerate() {
            seen += c;
            if seen >= want {
                return upper(i).min(self.max);
            }
        }
        self.max
    }

    /// Writes this histogram into shared memory (single writer).
    pub fn store(&self, to: &SharedHist) {
        for (s, &c) in to.counts.iter().zip(&self.counts) {
            s.store(c, Relaxed);
        }
        to.n.store(self.n, Relaxed);
        to.sum.store(self.sum, Relaxed);
        to.min.store(self.min, Relaxed);
        to.max.store(self.max, Relaxed);
    }

    /// Adds a stored histogram.
    pub fn add_shared(&mut self, from: &SharedHist) {
        let n = from.n.load(Relaxed);
        if n == 0 {
            return;
        }
        for (c, s) in self.counts.iter_mut().zip(&from.counts) {
            *c += s.load(Relaxed);
        }
        self.n += n;
        self.sum += from.sum.load(Relaxed);
        self.min = self.min.min(from.min.load(Relaxed));
        self.max = self.max.max(from.max.load(Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_monotone_and_tight() {
        let mut last = 0;
        for i in 0..BUCKETS {
            let u = upper(i);
            assert!(i == 0 || u > last, "{i}");
            assert_eq!(index(u), i);
            if i > 0 {
                assert_eq!(index(last + 1), i);
            }
            last = u;
        }
        assert_eq!(index(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles() {
        let mut h = Hist::default();
        for v in 1..=100_000u64 {
            h.record(v * 1000);
        }
        for (q, want) in [(0.5, 50_000_000f64), (0.99, 99_000_000.0), (0.999, 99_900_000.0)] {
            let got = h.quantile(q) as f64;
            assert!((got / want - 1.0).abs() < 0.009, "{q}: {got} vs {want}");
        }
        assert_eq!(h.quantile(1.0), 100_000_000);
        assert_eq!(h.max(), 100_000_000);
        assert_eq!(h.min(), 1000);
        assert_eq!(h.count(), 100_000);
        assert_eq!(Hist::default().quantile(0.5), 0);
    }
}
