//! Which log files go, and what queues and keys forget with them.

use std::io;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tracing::{info, warn};

use crate::append::STORE_TIME_LEAD_MAX_MS;
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

/// When the newest message of each of the first files was stored at the latest, by when the first message of each
/// was: the next file began then. A clock that was wrong has dated some ahead of now, or before what came before
/// them, and tells nothing of the files around them.
fn newest(
    files: usize,
    files_max: usize,
    first_time: impl Fn(usize) -> Option<i64>,
    now_ms: i64,
) -> Vec<Option<i64>> {
    let now_ms = now_ms.saturating_add(STORE_TIME_LEAD_MAX_MS);
    let mut before = i64::MIN;
    let newest = (0..files.min(files_max)).map(|file| {
        before = before.max(first_time(file).filter(|time| *time <= now_ms).unwrap_or(before));
        let mut later = (file + 1..files).filter_map(&first_time);
        later.find(|time| (before..=now_ms).contains(time))
    });
    newest.collect()
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

/// Keeps the log from being deleted from a position on, for as long as it exists.
#[derive(Debug)]
pub struct Hold(Arc<AtomicU64>);

impl Hold {
    /// What lies before this position is not needed any more.
    pub fn move_to(&self, position: u64) {
        self.0.store(position, Ordering::Release);
    }

    pub fn position(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// Every hold there is.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    all: Mutex<Vec<Weak<AtomicU64>>>,
    /// The end of the last file that was to go and is held.
    wanted: AtomicU64,
}

impl Holds {
    fn first(&self) -> u64 {
        let mut all = self.all.lock();
        all.retain(|hold| hold.strong_count() > 0);
        let positions = all.iter().filter_map(Weak::upgrade);
        positions.map(|hold| hold.load(Ordering::Acquire)).min().unwrap_or(u64::MAX)
    }
}

impl Store {
    /// Keeps the log from this position on, whatever its age and however full the disk is.
    pub fn hold(&self, position: u64) -> Hold {
        let hold = Hold(Arc::new(AtomicU64::new(position)));
        self.core.holds.all.lock().push(Arc::downgrade(&hold.0));
        hold
    }

    /// Whether a file would be deleted if it were not for this hold.
    pub fn is_wanted(&self, hold: &Hold) -> bool {
        hold.position() < self.core.holds.wanted.load(Ordering::Acquire)
    }

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
        let first_time = |file: usize| all[file].first_time();
        let newest = newest(all.len(), retention.files_per_round, first_time, now_ms);
        // The last file is being written.
        let candidates: Vec<_> = all[..all.len() - 1]
            .iter()
            .zip(newest)
            .map(|(segment, newest_ms)| Candidate { bytes: segment.bytes, newest_ms })
            .collect();
        let count = plan(&candidates, &retention, self.watch.room(), cleaning, now_ms);
        let mut cleaned = Cleaned::default();
        let held = self.holds.first();
        for segment in all.iter().take(count) {
            if segment.end() > held {
                self.holds.wanted.store(segment.end(), Ordering::Release);
                break;
            }
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
            self.observe();
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
    fn files_around_a_wrong_clock_are_as_old_as_what_came_next() {
        let check = |hours_ago: &[i64], expected: &[Option<i64>]| {
            let times: Vec<_> = hours_ago.iter().map(|ago| Some(NOW - ago * HOUR_MS)).collect();
            let newest = newest(times.len(), 9, |file| times[file], NOW);
            let ago = newest.iter().map(|time| time.map(|time| (NOW - time) / HOUR_MS));
            assert_eq!(ago.collect::<Vec<_>>(), expected, "{hours_ago:?}");
        };
        check(&[90, 80, 70], &[Some(80), Some(70), None]);
        let ahead = -100_000;
        check(&[90, ahead, ahead, 70], &[Some(70), Some(70), Some(70), None]);
        check(&[90, 80, ahead], &[Some(80), None, None]);
        check(&[ahead, ahead], &[None, None]);
        let long_ago = 100_000;
        check(&[90, 80, long_ago, 70], &[Some(80), Some(70), Some(70), None]);
        check(&[90, long_ago], &[None, None]);
    }

    #[test]
    fn without_expired_files_space_is_made_only_as_far_as_needed() {
        assert_eq!(check(&[1; 20], 0.84, Cleaning::Scheduled, 4), 0);
        assert_eq!(check(&[1; 20], 0.869, Cleaning::Scheduled, 4), 2);
        assert_eq!(check(&[1; 20], 0.99, Cleaning::Scheduled, 4), 10);
        assert_eq!(check(&[], 0.99, Cleaning::Manual, 22), 0);
    }
}
