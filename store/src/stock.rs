//! The small files a stock broker keeps in the root of its store: `lock`, `abort`, `checkpoint`.

pub(crate) mod batches;
pub(crate) mod index;
pub(crate) mod queues;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use tracing::warn;

use crate::error::OpenError;
use crate::segment::sync_dir;

/// Held as long as the store is open; stock brokers and ours exclude each other.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    pub(crate) fn take(root: &Path) -> Result<Lock, OpenError> {
        let path = root.join("lock");
        let io = |what| OpenError::io(what, &path);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io("open"))?;
        // Stock takes a record lock, which does not exclude a second store in the same process; flock does.
        let held = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
            .and_then(|()| rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive));
        match held {
            Ok(()) => {}
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => {
                return Err(OpenError::InUse(root.to_path_buf()));
            }
            Err(error) => return Err(io("lock")(error.into())),
        }
        file.write_all_at(b"lock", 0).map_err(io("write"))?;
        Ok(Lock { _file: file })
    }
}

/// A stock broker that finds it walks the whole log and builds its consume queues anew. That is what it has to do
/// after us, so the file stays when we stop; only [`crate::Store::close_for_stock`] removes it.
#[derive(Debug)]
pub(crate) struct Abort {
    path: PathBuf,
}

impl Abort {
    pub(crate) fn new(root: &Path) -> Abort {
        Abort { path: root.join("abort") }
    }

    /// That it is there says all, so it may be empty; and without it we start all the same.
    pub(crate) fn create(&self) {
        let pid = std::process::id().to_string();
        if let Err(error) = std::fs::write(&self.path, pid) {
            warn!(path = %self.path.display(), %error, "cannot write the mark of a running broker");
        }
    }

    pub(crate) fn remove(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// The positions and times a stock broker starts its recovery from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    pub log_timestamp: i64,
    /// 0 while our queues are ahead of any stock ones: a stock broker is to build them from the whole log.
    pub queues_timestamp: i64,
    pub index_timestamp: i64,
    pub master_flushed: i64,
    pub confirmed: i64,
}

const CHECKPOINT_BYTES: usize = 4096;

impl Checkpoint {
    pub fn read(root: &Path) -> io::Result<Option<Checkpoint>> {
        let bytes = match std::fs::read(root.join("checkpoint")) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut fields = bytes.as_chunks::<8>().0.iter().map(|field| i64::from_be_bytes(*field));
        let mut next = || fields.next().unwrap_or(0);
        Ok(Some(Checkpoint {
            log_timestamp: next(),
            queues_timestamp: next(),
            index_timestamp: next(),
            master_flushed: next(),
            confirmed: next(),
        }))
    }

    pub(crate) fn encode(&self) -> [u8; CHECKPOINT_BYTES] {
        let mut bytes = [0; CHECKPOINT_BYTES];
        let fields = [
            self.log_timestamp,
            self.queues_timestamp,
            self.index_timestamp,
            self.master_flushed,
            self.confirmed,
        ];
        for (place, field) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(fields) {
            *place = field.to_be_bytes();
        }
        bytes
    }

    /// In place, as stock does: a torn write is harmless, since nothing of ours depends on it.
    pub(crate) fn write(&self, root: &Path) -> io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(root.join("checkpoint"))?;
        file.write_all_at(&self.encode(), 0)?;
        file.sync_data()?;
        sync_dir(root)
    }
}
