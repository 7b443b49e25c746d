//! Figures a broker reports about its store.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts durations in buckets of powers of two; cheap enough for every append.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; 40],
    sum_ns: AtomicU64,
    max_ns: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram {
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            sum_ns: AtomicU64::new(0),
            max_ns: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    pub(crate) fn record(&self, ns: u64) {
        let bucket = (64 - ns.leading_zeros() as usize).min(self.buckets.len() - 1);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
        self.max_ns.fetch_max(ns, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Durations {
        let counts = std::array::from_fn(|bucket| self.buckets[bucket].load(Ordering::Relaxed));
        Durations {
            counts,
            sum_ns: self.sum_ns.load(Ordering::Relaxed),
            max_ns: self.max_ns.load(Ordering::Relaxed),
        }
    }
}

/// A histogram at one moment. Bucket `n` counts durations of at least 2^(n-1) and less than 2^n ns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durations {
    pub counts: [u64; 40],
    pub sum_ns: u64,
    pub max_ns: u64,
}

impl Durations {
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The upper end of the bucket in which this share of the durations is reached.
    pub fn quantile_ns(&self, share: f64) -> u64 {
        let wanted = (self.count() as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted.max(1) {
                return (1 << bucket).min(self.max_ns);
            }
        }
        self.max_ns
    }
}
