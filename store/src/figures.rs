//! Figures a broker reports about its store.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::Store;
use crate::config::Room;

/// The state of a store at one moment.
#[derive(Clone, Debug)]
pub struct Figures {
    pub min_position: u64,
    pub appended_position: u64,
    pub durable_position: u64,
    /// A restart after a crash walks the log from here.
    pub checkpoint_position: u64,
    /// Messages appended since the store was opened.
    pub messages: u64,
    pub store_timestamp: i64,
    pub queues: u32,
    pub queue_tail_bytes: usize,
    pub queue_file_bytes: u64,
    pub keys_in_memory: usize,
    pub key_runs: usize,
    pub segments: usize,
    pub segment_bytes: u64,
    /// Room on the disk of the log, when it was last looked at.
    pub room: Option<Room>,
    pub disk_full: bool,
    /// From asking for the log to having written a group.
    pub appends: Durations,
    pub flushes: Durations,
}

impl Store {
    pub fn figures(&self) -> Figures {
        let core = &self.core;
        let (messages, store_timestamp) = {
            let log = core.log.lock();
            (log.messages, log.store_timestamp)
        };
        let segments = core.segments.all();
        Figures {
            min_position: self.min_position(),
            appended_position: self.appended_position(),
            durable_position: self.durable_position(),
            checkpoint_position: core.covered.load(Ordering::Acquire),
            messages,
            store_timestamp,
            queues: core.queues.len(),
            queue_tail_bytes: core.tails.bytes(),
            queue_file_bytes: core.files.disk_bytes(),
            keys_in_memory: core.keys.buffer.lock().len(),
            key_runs: core.keys.runs.read().len(),
            segments: segments.len(),
            segment_bytes: segments.iter().map(|segment| segment.bytes).sum(),
            room: core.watch.room(),
            disk_full: core.watch.full().is_some(),
            appends: core.append_ns.snapshot(),
            flushes: core.durable.flush_ns.snapshot(),
        }
    }
}

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
