//! Keeps an eye on the disk: appends stop when it is full and go on by themselves when there is room again.

use std::path::PathBuf;

use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing::{info, warn};

use crate::config::{Disk, Retention, Room};
use crate::error::AppendError;

#[derive(Debug)]
pub(crate) struct Watch {
    disk: Disk,
    path: PathBuf,
    full: AtomicBool,
    last: Mutex<Option<Room>>,
}

impl Watch {
    pub(crate) fn new(disk: Disk, path: PathBuf) -> Watch {
        Watch { disk, path, full: AtomicBool::new(false), last: Mutex::new(None) }
    }

    /// Looks at the disk and decides whether appends are taken.
    pub(crate) fn observe(&self, retention: &Retention) -> Option<Room> {
        let room = match self.disk.room(&self.path) {
            Ok(room) => room,
            Err(error) => {
                warn!(path = %self.path.display(), %error, "cannot tell how full the disk is");
                return None;
            }
        };
        let full = room.used_ratio() > retention.full_ratio
            || room.available_bytes < retention.free_bytes_min;
        *self.last.lock() = Some(room);
        if self.full.swap(full, Ordering::AcqRel) != full {
            if full {
                warn!(?room, "the disk is full: appends are refused");
            } else {
                info!(?room, "the disk has room again: appends go on");
            }
        }
        Some(room)
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

    pub(crate) fn room(&self) -> Option<Room> {
        *self.last.lock()
    }

    fn refusal(&self) -> AppendError {
        let room = self.room();
        let used = room.map_or(1.0, |room| room.used_ratio());
        AppendError::DiskFull {
            used_percent: (used * 100.0).round().clamp(0.0, 100.0) as u8,
            available_bytes: room.map_or(0, |room| room.available_bytes),
        }
    }
}
