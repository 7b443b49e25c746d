//! What happens by itself: checkpoints, watching the disk, deleting what has expired.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use std::sync::atomic::Ordering;
use tracing::warn;

use crate::Core;
use crate::config::Room;
use crate::keys::KeyItem;
use crate::retention::Cleaning;

const TICK: Duration = Duration::from_secs(1);
/// When so many times more units or keys wait in memory than are to, checkpoints have failed for long.
const TAILS_FACTOR_MAX: usize = 2;
const KEYS_FACTOR_MAX: usize = 16;
const TICKS_PER_CLEANING: u64 = 10;

/// Lets the thread sleep, and wakes it for the end.
#[derive(Debug, Default)]
pub(crate) struct Sleep {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Sleep {
    pub(crate) fn stop(&self) {
        *self.stopped.lock() = true;
        self.changed.notify_all();
    }

    /// False when the store closes.
    fn wait(&self, time: Duration) -> bool {
        let mut stopped = self.stopped.lock();
        if !*stopped {
            self.changed.wait_for(&mut stopped, time);
        }
        !*stopped
    }
}

impl Core {
    /// The maintenance thread.
    pub(crate) fn run_maintenance(&self) {
        let mut ticks = 0u64;
        let mut last_checkpoint_ms = self.config.clock.now_ms();
        while self.sleep.wait(TICK) {
            ticks += 1;
            let now_ms = self.config.clock.now_ms();
            self.observe();
            let since = now_ms.saturating_sub(last_checkpoint_ms).max(0).unsigned_abs();
            if self.checkpoint_is_due(Duration::from_millis(since)) {
                last_checkpoint_ms = now_ms;
                if let Err(error) = self.checkpoint() {
                    warn!(%error, "cannot write a checkpoint; a restart will take longer");
                }
                self.unmap_cold();
            }
            if ticks.is_multiple_of(TICKS_PER_CLEANING)
                && let Err(error) = self.delete_expired(Cleaning::Scheduled, now_ms)
            {
                warn!(%error, "cannot delete expired log files");
            }
        }
    }

    /// Looks at what may run out.
    pub(crate) fn observe(&self) -> Option<Room> {
        let (tail_bytes, keys) = (self.tails.bytes(), self.keys.buffer.lock().len());
        let too_much = tail_bytes / TAILS_FACTOR_MAX > self.config.queue_tail_bytes_max
            || keys / KEYS_FACTOR_MAX > self.config.key_items_max;
        let bytes = tail_bytes + keys * size_of::<KeyItem>();
        self.watch.observe(&self.retention.lock(), too_much.then_some(bytes))
    }

    fn checkpoint_is_due(&self, since: Duration) -> bool {
        let behind = self.durable.position().saturating_sub(self.covered.load(Ordering::Acquire));
        let something = behind > 0 || !self.dirty.lock().is_empty();
        behind >= self.config.checkpoint_bytes
            || self.tails.bytes() > self.config.queue_tail_bytes_max
            || self.keys.buffer.lock().len() >= self.config.key_items_max
            || (something && since >= self.config.checkpoint_interval)
    }

    /// Mappings are for what is hot; keeping others would only make the process look large.
    fn unmap_cold(&self) {
        let hot_from = self.hot_from();
        for segment in self.segments.all().iter().filter(|segment| segment.end() <= hot_from) {
            segment.unmap();
        }
    }
}
