//! Keeps an eye on what may run out: appends stop when a disk is full, or the memory of what could not be written
//! there, and go on by themselves when there is room again.

use std::path::PathBuf;

use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing::{info, warn};

use crate::config::{Disk, Retention, Room};
use crate::error::AppendError;

#[derive(Debug)]
pub(crate) struct Watch {
    disk: Disk,
    log: PathBuf,
    /// What is derived, maybe on another file system.
    root: PathBuf,
    full: AtomicBool,
    seen: Mutex<Seen>,
}

/// What there was at the last look.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    log: Option<Room>,
    /// Of the file systems the one with less room.
    least: Option<Room>,
    /// Of what finds messages, and has been waiting to be written for too long.
    unwritten_bytes: Option<usize>,
}

impl Watch {
    pub(crate) fn new(disk: Disk, log: PathBuf, root: PathBuf) -> Watch {
        Watch { disk, log, root, full: AtomicBool::new(false), seen: Mutex::default() }
    }

    /// Looks at the disks and decides whether appends are taken; returns the room there is for the log.
    pub(crate) fn observe(
        &self,
        retention: &Retention,
        unwritten_bytes: Option<usize>,
    ) -> Option<Room> {
        let look = |path: &PathBuf| {
            let room = self.disk.room(path);
            room.inspect_err(|error| {
                warn!(path = %path.display(), %error, "cannot tell how full the disk is");
            })
        };
        let log = look(&self.log).ok()?;
        let root = look(&self.root).unwrap_or(log);
        let is_full = |room: &Room| {
            room.used_ratio() > retention.full_ratio
                || room.available_bytes < retention.free_bytes_min
        };
        let least = if is_full(&root) && !is_full(&log) { root } else { log };
        let full = is_full(&least) || unwritten_bytes.is_some();
        *self.seen.lock() = Seen { log: Some(log), least: Some(least), unwritten_bytes };
        if self.full.swap(full, Ordering::AcqRel) != full {
            if full {
                warn!(?log, ?root, ?unwritten_bytes, "there is no room: appends are refused");
            } else {
                info!(?log, ?root, "there is room again: appends go on");
            }
        }
        Some(log)
    }

    /// The refusal, while the disk is full.
    pub(crate) fn full(&self) -> Option<AppendError> {
        self.full.load(Ordering::Acquire).then(|| self.refusal())
    }

    /// The file system itself said so; appends stop until the next look at the disk.
    pub(crate) fn mark_full(&self) -> AppendError {
        if !self.full.swap(true, Ordering::AcqRel) {
            warn!("the file system has no room for the log: appends are refused");
        }
        self.refusal()
    }

    /// Room for the log.
    pub(crate) fn room(&self) -> Option<Room> {
        self.seen.lock().log
    }

    fn refusal(&self) -> AppendError {
        let Seen { least, unwritten_bytes, .. } = *self.seen.lock();
        if let Some(bytes) = unwritten_bytes {
            return AppendError::Unwritten { bytes };
        }
        let used = least.map_or(1.0, |room| room.used_ratio());
        AppendError::DiskFull {
            used_percent: (used * 100.0).round().clamp(0.0, 100.0) as u8,
            available_bytes: least.map_or(0, |room| room.available_bytes),
        }
    }
}
