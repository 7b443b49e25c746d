//! The files of the commit log: fixed size, named by the position of their first byte.

pub(crate) mod allocator;
pub(crate) mod mapped;

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use protocol::record::at;
use rustix::fs::{Advice, FallocateFlags};
use rustix::io::{Errno, ReadWriteFlags};

#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) base: u64,
    pub(crate) bytes: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    map: Mutex<Option<Bytes>>,
    /// Store timestamp of the first record, once known.
    first_time: AtomicI64,
}

const UNKNOWN: i64 = i64::MIN;

impl Segment {
    /// A new file whose blocks the file system has promised us.
    pub(crate) fn create(dir: &Path, base: u64, bytes: u64) -> io::Result<Segment> {
        let path = dir.join(file_name(base));
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        let made =
            reserve(&file, bytes).and_then(|()| file.sync_all()).and_then(|()| sync_dir(dir));
        if let Err(error) = made {
            // A file of the wrong size would be in the way of the next attempt.
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        Ok(Segment::new(base, bytes, path, file))
    }

    /// Lets the kernel drop what it keeps in memory of this range of the log.
    pub(crate) fn forget(&self, from: u64, to: u64) {
        let start = from.max(self.base) - self.base;
        let end = to.min(self.end()) - self.base;
        if let Some(length) = std::num::NonZeroU64::new(end.saturating_sub(start)) {
            // It is advice: memory that stays taken harms nobody.
            let _ = rustix::fs::fadvise(&self.file, start, Some(length), Advice::DontNeed);
        }
    }

    pub(crate) fn open(path: PathBuf, base: u64) -> io::Result<Segment> {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Segment::new(base, bytes, path, file))
    }

    fn new(base: u64, bytes: u64, path: PathBuf, file: File) -> Segment {
        let first_time = AtomicI64::new(UNKNOWN);
        Segment { base, bytes, path, file, map: Mutex::new(None), first_time }
    }

    pub(crate) fn end(&self) -> u64 {
        self.base + self.bytes
    }

    /// The whole file as memory. Only for ranges that were written and are likely in the page cache.
    pub(crate) fn mapped(&self) -> io::Result<Bytes> {
        let mut map = self.map.lock();
        if let Some(map) = &*map {
            return Ok(map.clone());
        }
        let made = mapped::map(&self.file)?;
        Ok(map.insert(made).clone())
    }

    /// Lets go of the mapping; it disappears with its last reader.
    pub(crate) fn unmap(&self) {
        self.map.lock().take();
    }

    pub(crate) fn read(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, position - self.base)
    }

    /// As `read`, but answers false when the disk would have to be waited for.
    pub(crate) fn read_cached(&self, position: u64, buffer: &mut [u8]) -> io::Result<bool> {
        read_cached(&self.file, position - self.base, buffer)
    }

    /// When the oldest message was stored; reads the disk the first time.
    pub(crate) fn first_time(&self) -> Option<i64> {
        let known = self.first_time.load(Ordering::Relaxed);
        if known != UNKNOWN {
            return Some(known);
        }
        let mut head = [0; at::STORE_TIMESTAMP_END_MAX];
        self.file.read_exact_at(&mut head, 0).ok()?;
        let time = store_timestamp(&head)?;
        self.first_time.store(time, Ordering::Relaxed);
        Some(time)
    }
}

/// The store timestamp in the head of a record, if it is one.
pub(crate) fn store_timestamp(head: &[u8]) -> Option<i64> {
    let sys_flag = i32::from_be_bytes(head.get(at::SYS_FLAG..at::SYS_FLAG + 4)?.try_into().ok()?);
    let magic = u32::from_be_bytes(head.get(at::MAGIC..at::MAGIC + 4)?.try_into().ok()?);
    if !matches!(magic, protocol::record::MAGIC_V1 | protocol::record::MAGIC_V2) {
        return None;
    }
    let at = at::store_timestamp(sys_flag);
    Some(i64::from_be_bytes(head.get(at..at + 8)?.try_into().ok()?))
}

pub(crate) fn read_cached(file: &File, at: u64, buffer: &mut [u8]) -> io::Result<bool> {
    let mut done = 0;
    while done < buffer.len() {
        let mut rest = [io::IoSliceMut::new(&mut buffer[done..])];
        match rustix::io::preadv2(file, &mut rest, at + done as u64, ReadWriteFlags::NOWAIT) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            // File systems that cannot tell are treated as if the disk had to be waited for.
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

/// Makes the file `bytes` long, with its blocks where the file system can promise them.
pub(crate) fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    loop {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return file.set_len(bytes),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Makes everything from `from` on zero, without giving back the room, which a full disk would not return.
pub(crate) fn wipe(file: &File, from: u64, bytes: u64) -> io::Result<()> {
    loop {
        match rustix::fs::fallocate(file, FallocateFlags::ZERO_RANGE, from, bytes - from) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(_) => break,
        }
    }
    file.set_len(from)?;
    // Reading must work on a full disk; appends are refused when their write finds no room.
    reserve(file, bytes).or_else(|_| file.set_len(bytes))
}

pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

pub(crate) fn file_name(base: u64) -> String {
    format!("{base:020}")
}

/// All log files, oldest first, without gaps.
#[derive(Debug)]
pub(crate) struct Segments {
    pub(crate) dir: PathBuf,
    list: RwLock<VecDeque<Arc<Segment>>>,
}

impl Segments {
    pub(crate) fn new(dir: PathBuf, list: VecDeque<Arc<Segment>>) -> Segments {
        Segments { dir, list: RwLock::new(list) }
    }

    pub(crate) fn find(&self, position: u64) -> Option<Arc<Segment>> {
        let list = self.list.read();
        let after = list.partition_point(|segment| segment.base <= position);
        let segment = list.get(after.checked_sub(1)?)?;
        (position < segment.end()).then(|| segment.clone())
    }

    pub(crate) fn push(&self, segment: Arc<Segment>) {
        self.list.write().push_back(segment);
    }

    /// Position behind the last byte there is a file for.
    pub(crate) fn end(&self) -> u64 {
        self.list.read().back().map_or(0, |segment| segment.end())
    }

    pub(crate) fn pop_back(&self) -> Option<Arc<Segment>> {
        self.list.write().pop_back()
    }

    pub(crate) fn pop_front(&self) -> Option<Arc<Segment>> {
        self.list.write().pop_front()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Segment>> {
        self.list.read().iter().cloned().collect()
    }

    /// Position of the first byte kept.
    pub(crate) fn min_position(&self) -> u64 {
        self.list.read().front().map_or(0, |segment| segment.base)
    }

    /// The segments that hold bytes of this range.
    pub(crate) fn overlapping(&self, from: u64, to: u64) -> Vec<Arc<Segment>> {
        let overlaps = |segment: &&Arc<Segment>| segment.base < to && from < segment.end();
        self.list.read().iter().filter(overlaps).cloned().collect()
    }
}
