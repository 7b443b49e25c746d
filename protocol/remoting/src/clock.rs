//! The only place that reads the time.

#![expect(clippy::disallowed_methods, reason = "every other place asks here")]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, as everything on the wire and on disk counts.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A point for measuring how long something takes; never goes back.
pub fn instant() -> Instant {
    Instant::now()
}
