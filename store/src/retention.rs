//! Which log files go, and what queues and keys forget with them.

use std::io;
use std::sync::atomic::Ordering;

use tracing::{info, warn};

use crate::config::{Retention, Room};
use crate::queue::files::Extent;
use crate::queue::{Queue, UNIT, units};
use crate::{Core, Store};

const HOUR_MS: i64 = 3_600_000;

/// Why files are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleaning {
    /// By the clock and the disk, as configured.
    Scheduled,
    /// Somebody asked for it: expired files go now.
    Manual,
}

/// What a round of cleaning did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    pub files: usize,
    pub bytes: u64,
}

/// What the rule knows of a log file that is complete.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) bytes: u64,
    /// No message in it is newer.
    pub(crate) newest_ms: Option<i64>,
}

/// How many of the oldest files go. The file being written is not among the candidates.
pub(crate) fn plan(
    candidates: &[Candidate],
    retention: &Retention,
    room: Option<Room>,
    cleaning: Cleaning,
    now_ms: i64,
) -> usize {
    let hour = (now_ms + retention.utc_offset_ms).div_euclid(HOUR_MS).rem_euclid(24);
    let in_hours = retention.hours.iter().any(|one| i64::from(*one) == hour);
    let used = room.map_or(0.0, |room| room.used_ratio());
    let due = cleaning == Cleaning::Manual || in_hours || used > retention.clean_ratio;
    let expired = |file: &Candidate| {
        file.newest_ms.is_some_and(|newest| newest.saturating_add(retention.reserved_ms) < now_ms)
    };
    let mut count = 0;
    let mut freed = 0;
    for file in candidates.iter().take(retention.files_per_round) {
        let crowded = room.is_some_and(|room| {
            let available_bytes = (room.available_bytes + freed).min(room.total_bytes);
            Room { available_bytes, ..room }.used_ratio() > retention.force_ratio
        });
        if !(crowded || due && expired(file)) {
            break;
        }
        freed += file.bytes;
        count += 1;
    }
    count
}

impl Store {
    /// One round of deleting log files, with what queues and keys knew of them. Reads and writes the disk.
    pub fn delete_expired(&self, cleaning: Cleaning, now_ms: i64) -> io::Result<Cleaned> {
        self.core.delete_expired(cleaning, now_ms)
    }

    /// Changes how long messages are kept.
    pub fn set_retention(&self, retention: Retention) {
        *self.core.retention.lock() = retention;
    }

    pub fn retention(&self) -> Retention {
        self.core.retention.lock().clone()
    }
}

impl Core {
    pub(crate) fn delete_expired(&self, cleaning: Cleaning, now_ms: i64) -> io::Result<Cleaned> {
        let retention = self.retention.lock().clone();
        let all = self.segments.all();
        let candidates: Vec<_> = all
            .windows(2)
            .take(retention.files_per_round)
            .map(|pair| Candidate { bytes: pair[0].bytes, newest_ms: pair[1].first_time() })
            .collect();
        let count = plan(&candidates, &retention, self.watch.room(), cleaning, now_ms);
        let mut cleaned = Cleaned::default();
        for segment in all.iter().take(count) {
            // What the state file does not cover yet would be missed when the log is walked again.
            if self.covered.load(Ordering::Acquire) < segment.end() {
                self.flush_once();
                self.checkpoint()?;
                if self.covered.load(Ordering::Acquire) < segment.end() {
                    break;
                }
            }
            std::fs::remove_file(&segment.path)?;
            self.segments.pop_front();
            info!(path = %segment.path.display(), "deleted a log file");
            cleaned.files += 1;
            cleaned.bytes += segment.bytes;
        }
        if cleaned.files > 0 {
            self.forget_before(self.segments.min_position())?;
            self.watch.observe(&retention);
        }
        Ok(cleaned)
    }

    /// Queues and keys let go of what lies before this position.
    pub(crate) fn forget_before(&self, position: u64) -> io::Result<()> {
        for (queue_ref, queue) in self.queues.all() {
            match self.first_at_or_after(queue, position) {
                Ok(Some((life, min))) => {
                    let mut state = queue.state.lock();
                    if state.life == life {
                        self.trim(&mut state, min);
                        drop(state);
                        self.mark_dirty(queue_ref, queue);
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    let (topic, queue_id) = (&self.queues.topic(queue).name, queue.queue_id);
                    warn!(%topic, queue_id, %error, "cannot tell the first offset of a queue");
                }
            }
        }
        self.keys.forget_before(position)
    }

    /// The first offset whose message is kept, if it is not the first one already.
    fn first_at_or_after(&self, queue: &Queue, position: u64) -> io::Result<Option<(u32, i64)>> {
        let (life, extent) = {
            let state = queue.state.lock();
            let after = state.extents.partition_point(|e| e.first_position < position);
            // The last extent that starts before the position may hold messages on both sides of it.
            let Some(extent) = after.checked_sub(1).map(|last| state.extents[last]) else {
                let gone = units(&state.tail).take_while(|unit| unit.position < position).count();
                let min = state.tail_base + gone as i64;
                let moved = state.extents.is_empty() && min > state.min;
                return Ok(moved.then_some((state.life, min)));
            };
            if after == state.extents.len() {
                let gone = units(&state.tail).take_while(|unit| unit.position < position).count();
                if gone > 0 {
                    return Ok(Some((state.life, state.tail_base + gone as i64)));
                }
            }
            (state.life, extent)
        };
        let live = self.first_live(&extent, position)?;
        Ok(Some((life, extent.base + i64::from(live))))
    }

    fn first_live(&self, extent: &Extent, position: u64) -> io::Result<u32> {
        let (mut low, mut high) = (0, extent.count);
        let mut unit = Vec::with_capacity(UNIT);
        while low < high {
            let middle = low + (high - low) / 2;
            unit.clear();
            self.files.read(extent, middle, 1, true, &mut unit)?;
            // A hole says nothing, but lies where the message before it lay.
            if units(&unit).all(|unit| unit.position < position) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    fn check(newest_hours_ago: &[i64], used: f64, cleaning: Cleaning, hour: u8) -> usize {
        let files: Vec<_> = newest_hours_ago
            .iter()
            .map(|ago| Candidate { bytes: 10, newest_ms: Some(NOW - ago * HOUR_MS) })
            .collect();
        // NOW is in hour 22 UTC.
        let retention = Retention { hours: vec![hour], ..Retention::default() };
        let room = Room { total_bytes: 1000, available_bytes: 1000 - (used * 1000.0) as u64 };
        plan(&files, &retention, Some(room), cleaning, NOW)
    }

    #[test]
    fn expired_files_go_in_the_hour_or_when_space_is_short_or_asked_for() {
        let ages = [100, 90, 73, 72, 10];
        for (used, cleaning, hour, expected) in [
            (0.5, Cleaning::Scheduled, 4, 0),
            (0.5, Cleaning::Scheduled, 22, 3),
            (0.76, Cleaning::Scheduled, 4, 3),
            (0.5, Cleaning::Manual, 4, 3),
            (0.86, Cleaning::Scheduled, 4, 3),
            (0.90, Cleaning::Scheduled, 4, 5),
        ] {
            assert_eq!(check(&ages, used, cleaning, hour), expected, "{used} {cleaning:?} {hour}");
        }
    }

    #[test]
    fn without_expired_files_space_is_made_only_as_far_as_needed() {
        assert_eq!(check(&[1; 20], 0.84, Cleaning::Scheduled, 4), 0);
        assert_eq!(check(&[1; 20], 0.869, Cleaning::Scheduled, 4), 2);
        assert_eq!(check(&[1; 20], 0.99, Cleaning::Scheduled, 4), 10);
        assert_eq!(check(&[], 0.99, Cleaning::Manual, 22), 0);
    }
}
