//! What can go wrong between the store and its owner.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use protocol::record::EncodeError;
use rustix::io::Errno;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{} is in use by another broker (its lock file is held)", .0.display())]
    InUse(PathBuf),
    #[error("cannot {what} {}: {error}", path.display())]
    Io { what: &'static str, path: PathBuf, error: io::Error },
    #[error("{} is not a log file: {why}", path.display())]
    NotALog { path: PathBuf, why: String },
    #[error(
        "the log ends at {end}, but bytes up to {durable} were once durable; restore the missing files, or \
         remove {} to go on with what is left",
        state.display()
    )]
    LogTooShort { end: u64, durable: u64, state: PathBuf },
    #[error(transparent)]
    Queues(#[from] TooManyQueues),
}

impl OpenError {
    pub(crate) fn io(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> OpenError {
        let path = path.into();
        move |error| OpenError::Io { what, path, error }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store holds its maximum of {max} queues")]
pub struct TooManyQueues {
    pub max: u32,
}

/// Whether the file system had no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    let full = [Errno::NOSPC, Errno::DQUOT, Errno::FBIG];
    full.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Why a message was not taken into a batch. The batch is as it was before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error("the stored message would take {bytes} bytes, at most {max} are allowed")]
    MessageTooLarge { bytes: usize, max: usize },
    #[error("the group would take {bytes} bytes, at most {max} are written at once")]
    GroupTooLarge { bytes: usize, max: usize },
}

/// Why a batch was not written. Nothing of it is in the log or in a queue; it may be tried again.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    #[error("the store is closed")]
    Closed,
    #[error("the disk is full ({used_percent}% used, {available_bytes} bytes left)")]
    DiskFull { used_percent: u8, available_bytes: u64 },
    #[error("{bytes} bytes of queues and keys wait in memory and cannot be written")]
    Unwritten { bytes: usize },
    #[error("{unsynced_bytes} bytes wait for the disk; try again when {wait_for} is durable")]
    Unsynced { unsynced_bytes: u64, wait_for: u64 },
    #[error("the log cannot be written: {0}")]
    Write(Arc<io::Error>),
    #[error(transparent)]
    Flush(#[from] FlushError),
}

/// The disk failed to make bytes durable. From then on the log takes nothing more: what it holds is unknown.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FlushError {
    #[error("the disk failed to make the log durable, so nothing more is written: {0}")]
    Disk(Arc<io::Error>),
    #[error("the store was closed before {0} was durable")]
    Closed(u64),
}
