//! Counters that operators ask for: sums since the start and rates of the last minute, hour and day.

mod flow;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use protocol::body::{BrokerStatsData, BrokerStatsItem};

pub use flow::{Flow, Sums};

/// Something counted: how much, in how many steps.
#[derive(Debug, Default)]
pub struct Counter {
    sum: AtomicU64,
    times: AtomicU64,
    samples: Mutex<Samples>,
}

/// What a counter stood at, and when.
#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    at_ms: i64,
    sum: u64,
    times: u64,
}

/// Past samples: every ten seconds of a minute, every ten minutes of an hour, every hour of a day.
#[derive(Debug, Default)]
struct Samples {
    minute: VecDeque<Sample>,
    hour: VecDeque<Sample>,
    day: VecDeque<Sample>,
}

/// How often samples are taken.
const SAMPLE_MS: i64 = 10_000;
const MINUTE: (usize, i64) = (7, 10_000);
const HOUR: (usize, i64) = (7, 600_000);
const DAY: (usize, i64) = (25, 3_600_000);

impl Counter {
    pub fn add(&self, amount: u64) {
        self.add_steps(amount, 1);
    }

    /// So much in all, in so many steps.
    pub fn add_steps(&self, amount: u64, steps: u64) {
        self.sum.fetch_add(amount, Ordering::Relaxed);
        self.times.fetch_add(steps, Ordering::Relaxed);
    }

    pub fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }

    fn now(&self, at_ms: i64) -> Sample {
        Sample { at_ms, sum: self.sum(), times: self.times.load(Ordering::Relaxed) }
    }

    /// Called every ten seconds.
    fn sample(&self, now_ms: i64) {
        let sample = self.now(now_ms);
        let mut samples = self.samples.lock();
        let Samples { minute, hour, day } = &mut *samples;
        for (list, (length, every)) in [(minute, MINUTE), (hour, HOUR), (day, DAY)] {
            if list.is_empty() {
                // Whatever was counted before the first sample was counted since the last one was due.
                list.push_back(Sample { at_ms: now_ms - SAMPLE_MS, ..Sample::default() });
            }
            if list.back().is_none_or(|last| now_ms - last.at_ms >= every * 9 / 10) {
                list.push_back(sample);
                if list.len() > length {
                    list.pop_front();
                }
            }
        }
    }

    /// How much went by in the last minute, hour and day.
    pub fn rates(&self, at_ms: i64) -> BrokerStatsData {
        let now = self.now(at_ms);
        let samples = self.samples.lock();
        let item = |list: &VecDeque<Sample>| {
            let new = Sample { at_ms: at_ms - SAMPLE_MS, ..Sample::default() };
            let first = list.front().copied().unwrap_or(new);
            let seconds = (now.at_ms - first.at_ms).max(1) as f64 / 1000.0;
            let (sum, times) = (now.sum - first.sum, now.times - first.times);
            Some(BrokerStatsItem {
                sum: sum as i64,
                tps: sum as f64 / seconds,
                avgpt: if times == 0 { 0.0 } else { sum as f64 / times as f64 },
            })
        };
        BrokerStatsData {
            stats_minute: item(&samples.minute),
            stats_hour: item(&samples.hour),
            stats_day: item(&samples.day),
        }
    }
}

/// Counters by name and key, under the names that tools ask for.
#[derive(Debug, Default)]
pub struct Stats {
    pub flow: Flow,
    /// By name, then by key.
    table: Mutex<HashMap<&'static str, HashMap<String, Arc<Counter>>>>,
}

/// Names of counters; the key of a group's counter is `topic@group`.
pub mod kind {
    pub const TOPIC_PUT_NUMS: &str = "TOPIC_PUT_NUMS";
    pub const TOPIC_PUT_SIZE: &str = "TOPIC_PUT_SIZE";
    pub const GROUP_GET_NUMS: &str = "GROUP_GET_NUMS";
    pub const GROUP_GET_SIZE: &str = "GROUP_GET_SIZE";
    pub const SEND_BACK_PUT_NUMS: &str = "SNDBCK_PUT_NUMS";
    pub const BROKER_PUT_NUMS: &str = "BROKER_PUT_NUMS";
    pub const BROKER_GET_NUMS: &str = "BROKER_GET_NUMS";
    pub const ALL: [&str; 7] = [
        TOPIC_PUT_NUMS,
        TOPIC_PUT_SIZE,
        GROUP_GET_NUMS,
        GROUP_GET_SIZE,
        SEND_BACK_PUT_NUMS,
        BROKER_PUT_NUMS,
        BROKER_GET_NUMS,
    ];
}

impl Stats {
    /// With the counters of a broker as a whole, whose key is its cluster.
    pub fn new(cluster: &str) -> Self {
        let mut stats = Self::default();
        stats.flow.sent = stats.counter(kind::BROKER_PUT_NUMS, cluster);
        stats.flow.got = stats.counter(kind::BROKER_GET_NUMS, cluster);
        stats
    }

    /// The counter, made when first asked for.
    pub fn counter(&self, kind: &'static str, key: &str) -> Arc<Counter> {
        let mut table = self.table.lock();
        let counters = table.entry(kind).or_default();
        if let Some(counter) = counters.get(key) {
            return counter.clone();
        }
        counters.entry(key.to_owned()).or_default().clone()
    }

    /// The counter, if anything was ever counted.
    pub fn find(&self, kind: &str, key: &str) -> Option<Arc<Counter>> {
        let kind = kind::ALL.into_iter().find(|known| *known == kind)?;
        self.table.lock().get(kind)?.get(key).cloned()
    }

    /// Called every ten seconds.
    pub fn sample(&self, now_ms: i64) {
        let counters: Vec<_> = {
            let table = self.table.lock();
            table.values().flat_map(HashMap::values).cloned().collect()
        };
        for counter in counters {
            counter.sample(now_ms);
        }
    }

    /// Forgets what belongs to a topic that is gone.
    pub fn forget_topic(&self, topic: &str) {
        let of_topic = |key: &str| {
            key == topic || key.strip_prefix(topic).is_some_and(|rest| rest.starts_with('@'))
        };
        self.table
            .lock()
            .values_mut()
            .for_each(|counters| counters.retain(|key, _| !of_topic(key)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_cover_the_last_minute() {
        let stats = Stats::default();
        let counter = stats.counter(kind::TOPIC_PUT_NUMS, "t");
        for second in 0..=120 {
            counter.add(5);
            if second % 10 == 0 {
                stats.sample(second * 1000);
            }
        }
        let rates = stats.find("TOPIC_PUT_NUMS", "t").unwrap().rates(120_000);
        let minute = rates.stats_minute.unwrap();
        assert_eq!((minute.sum, minute.tps), (300, 5.0));
        assert_eq!(rates.stats_hour.unwrap().sum, 605);
        assert!(stats.find("TOPIC_PUT_NUMS", "other").is_none());
        let new = stats.counter(kind::TOPIC_PUT_NUMS, "new");
        new.add(20);
        assert_eq!(new.rates(120_000).stats_day.unwrap().sum, 20);
    }
}
