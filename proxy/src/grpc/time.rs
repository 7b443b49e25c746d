//! Timestamps and durations as milliseconds, and back.

use prost_types::{Duration, Timestamp};

/// Milliseconds since 1970; what does not fit is as far away as can be said.
pub fn timestamp_ms(timestamp: &Timestamp) -> i64 {
    millis(timestamp.seconds, timestamp.nanos)
}

pub fn duration_ms(duration: &Duration) -> i64 {
    millis(duration.seconds, duration.nanos)
}

pub fn timestamp(ms: i64) -> Timestamp {
    Timestamp { seconds: ms.div_euclid(1000), nanos: nanos(ms) }
}

pub fn duration(ms: i64) -> Duration {
    // Both parts of a duration have the same sign; ours are never negative.
    let ms = ms.max(0);
    Duration { seconds: ms / 1000, nanos: nanos(ms) }
}

fn millis(seconds: i64, nanos: i32) -> i64 {
    seconds.saturating_mul(1000).saturating_add(i64::from(nanos / 1_000_000))
}

fn nanos(ms: i64) -> i32 {
    i32::try_from(ms.rem_euclid(1000)).expect("below 1000") * 1_000_000
}
