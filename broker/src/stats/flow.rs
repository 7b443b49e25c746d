//! What passes through the broker: sums, rates over the last seconds and minutes, and where the days began.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Counter;

const DAY_MS: i64 = 86_400_000;
/// Samples kept, one a second; the longest rate that tools show is over ten minutes.
const SECONDS_MAX: usize = 601;

#[derive(Debug, Default)]
pub struct Flow {
    /// Messages that clients sent.
    pub sent: Arc<Counter>,
    /// Messages that consumers got.
    pub got: Arc<Counter>,
    put: AtomicU64,
    put_bytes: AtomicU64,
    put_failed: AtomicU64,
    found: AtomicU64,
    missed: AtomicU64,
    past: Mutex<Past>,
}

/// What the counters stood at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    pub at_ms: i64,
    pub sent: u64,
    pub got: u64,
    /// Messages that entered the log, those that were delayed or retried once more each time.
    pub put: u64,
    pub put_bytes: u64,
    pub put_failed: u64,
    /// Pulls that were answered with messages, and without.
    pub found: u64,
    pub missed: u64,
}

#[derive(Debug, Default)]
struct Past {
    seconds: VecDeque<Sums>,
    day: i64,
    today: Sums,
    yesterday: Sums,
}

impl Flow {
    pub fn put(&self, messages: usize, bytes: usize) {
        self.put.fetch_add(messages as u64, Ordering::Relaxed);
        self.put_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn put_failed(&self, messages: usize) {
        self.put_failed.fetch_add(messages as u64, Ordering::Relaxed);
    }

    /// A pull was answered with so many messages.
    pub fn pulled(&self, messages: usize) {
        if messages == 0 {
            self.missed.fetch_add(1, Ordering::Relaxed);
        } else {
            self.found.fetch_add(1, Ordering::Relaxed);
            self.got.add(messages as u64);
        }
    }

    pub fn sums(&self, at_ms: i64) -> Sums {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Sums {
            at_ms,
            sent: self.sent.sum(),
            got: self.got.sum(),
            put: load(&self.put),
            put_bytes: load(&self.put_bytes),
            put_failed: load(&self.put_failed),
            found: load(&self.found),
            missed: load(&self.missed),
        }
    }

    /// Called every second; `utc_offset_ms` says when a day begins.
    pub fn sample(&self, now_ms: i64, utc_offset_ms: i64) {
        let sums = self.sums(now_ms);
        let day = (now_ms + utc_offset_ms).div_euclid(DAY_MS);
        let mut past = self.past.lock();
        past.seconds.push_back(sums);
        if past.seconds.len() > SECONDS_MAX {
            past.seconds.pop_front();
        }
        if past.day != day {
            // What was counted before the first day began here belongs to it.
            let first = past.day == 0;
            past.yesterday = past.today;
            past.today = if first { Sums::default() } else { sums };
            past.day = day;
        }
    }

    /// What the counters stood at when yesterday and today began.
    pub fn mornings(&self) -> (Sums, Sums) {
        let past = self.past.lock();
        (past.yesterday, past.today)
    }

    /// How much of `what` went by in a second, over the last `seconds` or since the start.
    pub fn rate(&self, now_ms: i64, seconds: i64, what: impl Fn(&Sums) -> u64) -> f64 {
        let now = self.sums(now_ms);
        let past = self.past.lock();
        let since = now_ms - seconds * 1000;
        let newer = past.seconds.partition_point(|sample| sample.at_ms <= since);
        let Some(then) = past.seconds.get(newer.saturating_sub(1)) else { return 0.0 };
        let elapsed_ms = now_ms - then.at_ms;
        if elapsed_ms <= 0 {
            return 0.0;
        }
        what(&now).saturating_sub(what(then)) as f64 * 1000.0 / elapsed_ms as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_span_asked_for_or_of_what_there_is() {
        let flow = Flow::default();
        assert_eq!(flow.rate(0, 10, |sums| sums.put), 0.0);
        for second in 0..=30 {
            flow.sample(second * 1000, 0);
            flow.put(if second < 20 { 100 } else { 7 }, 1);
        }
        assert_eq!(flow.rate(30_000, 10, |sums| sums.put), 7.7);
        let all = (20.0 * 100.0 + 11.0 * 7.0) / 30.0;
        assert_eq!(flow.rate(30_000, 600, |sums| sums.put), all);
    }

    #[test]
    fn days_begin_at_midnight() {
        let flow = Flow::default();
        let morning = 20_000 * DAY_MS;
        flow.sent.add(5);
        flow.sample(morning - 2000, 0);
        flow.sent.add(10);
        flow.sample(morning + 1000, 0);
        flow.sent.add(1);
        flow.sample(morning + 2000, 0);
        let (yesterday, today) = flow.mornings();
        assert_eq!((yesterday.sent, today.sent), (0, 15));
        assert_eq!(flow.sums(morning + 3000).sent, 16);
    }
}
