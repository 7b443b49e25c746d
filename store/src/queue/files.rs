//! The shared files that hold the units of all queues, block after block; no queue has a file of its own.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::UNIT;
use crate::segment::{read_cached, sync_dir};

/// A file is closed when it has grown to this size.
const FILE_BYTES_MAX: u64 = 64 << 20;
const BLOCK_MAGIC: u32 = 0xFE44_0CB1;
const BLOCK_HEAD: usize = 24;

/// A run of units of one queue in one of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Queue offset of the first unit.
    pub(crate) base: i64,
    /// Log position the first unit that is not a hole points to.
    pub(crate) first_position: u64,
    pub(crate) file: u32,
    /// Where the units start in the file.
    pub(crate) at: u32,
    pub(crate) count: u32,
}

impl Extent {
    pub(crate) fn end(&self) -> i64 {
        self.base + i64::from(self.count)
    }
}

#[derive(Debug)]
struct QueueFile {
    file: File,
    path: PathBuf,
    /// Units that some queue still refers to.
    live_units: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct Files {
    dir: PathBuf,
    open: RwLock<HashMap<u32, Arc<QueueFile>>>,
    writer: Mutex<Writer>,
}

#[derive(Debug, Default)]
struct Writer {
    current: u32,
    at: u64,
    buffer: Vec<u8>,
    unsynced: Vec<u32>,
}

impl Files {
    pub(crate) fn open(dir: PathBuf) -> io::Result<Files> {
        std::fs::create_dir_all(&dir)?;
        let mut open = HashMap::new();
        let mut last = 0;
        for entry in std::fs::read_dir(&dir)? {
            let path = entry?.path();
            let Some(number) = number_of(&path) else { continue };
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            last = last.max(number);
            open.insert(number, Arc::new(QueueFile { file, path, live_units: AtomicU64::new(0) }));
        }
        // Writing goes on in a new file: what lies behind the known blocks of the last one is not known.
        let writer = Writer { current: last, at: FILE_BYTES_MAX, ..Writer::default() };
        Ok(Files { dir, open: RwLock::new(open), writer: Mutex::new(writer) })
    }

    /// Adds a block and says where its units will be; they can be read after the next `write_out`.
    pub(crate) fn add(&self, queue: u32, base: i64, units: &[u8]) -> io::Result<Extent> {
        let mut writer = self.writer.lock();
        if writer.at + (writer.buffer.len() + BLOCK_HEAD + units.len()) as u64 > FILE_BYTES_MAX {
            self.flush_buffer(&mut writer)?;
            self.roll(&mut writer)?;
        }
        let count = u32::try_from(units.len() / UNIT).expect("a block is smaller than a file");
        let at = writer.at + (writer.buffer.len() + BLOCK_HEAD) as u64;
        writer.buffer.extend_from_slice(&BLOCK_MAGIC.to_be_bytes());
        writer.buffer.extend_from_slice(&queue.to_be_bytes());
        writer.buffer.extend_from_slice(&base.to_be_bytes());
        writer.buffer.extend_from_slice(&count.to_be_bytes());
        writer.buffer.extend_from_slice(&crc32fast::hash(units).to_be_bytes());
        writer.buffer.extend_from_slice(units);
        let extent = Extent {
            base,
            first_position: first_position(units),
            file: writer.current,
            at: u32::try_from(at).expect("files are smaller than 4 GiB"),
            count,
        };
        if writer.buffer.len() > 1 << 20 {
            self.flush_buffer(&mut writer)?;
        }
        self.refer(&extent);
        Ok(extent)
    }

    /// Writes what was added; afterwards it can be read.
    pub(crate) fn write_out(&self) -> io::Result<()> {
        self.flush_buffer(&mut self.writer.lock())
    }

    /// Makes everything written durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let unsynced = std::mem::take(&mut self.writer.lock().unsynced);
        for number in unsynced {
            if let Some(file) = self.get(number) {
                file.file.sync_data()?;
            }
        }
        Ok(())
    }

    fn flush_buffer(&self, writer: &mut Writer) -> io::Result<()> {
        if writer.buffer.is_empty() {
            return Ok(());
        }
        let file = self.get(writer.current).ok_or(io::ErrorKind::NotFound)?;
        file.file.write_all_at(&writer.buffer, writer.at)?;
        writer.at += writer.buffer.len() as u64;
        writer.buffer.clear();
        if writer.unsynced.last() != Some(&writer.current) {
            let current = writer.current;
            writer.unsynced.push(current);
        }
        Ok(())
    }

    fn roll(&self, writer: &mut Writer) -> io::Result<()> {
        let number = writer.current + 1;
        let path = self.dir.join(format!("{number:010}.units"));
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        sync_dir(&self.dir)?;
        let file = Arc::new(QueueFile { file, path, live_units: AtomicU64::new(0) });
        self.open.write().insert(number, file);
        writer.current = number;
        writer.at = 0;
        Ok(())
    }

    fn get(&self, number: u32) -> Option<Arc<QueueFile>> {
        self.open.read().get(&number).cloned()
    }

    /// Whether the units of the extent are within a file that exists.
    pub(crate) fn holds(&self, extent: &Extent) -> bool {
        let end = u64::from(extent.at) + u64::from(extent.count) * UNIT as u64;
        self.get(extent.file)
            .and_then(|file| file.file.metadata().ok())
            .is_some_and(|metadata| end <= metadata.len())
    }

    pub(crate) fn refer(&self, extent: &Extent) {
        if let Some(file) = self.get(extent.file) {
            file.live_units.fetch_add(u64::from(extent.count), Ordering::Relaxed);
        }
    }

    /// The extent is not needed any more.
    pub(crate) fn release(&self, extent: &Extent) {
        if let Some(file) = self.get(extent.file) {
            file.live_units.fetch_sub(u64::from(extent.count), Ordering::Relaxed);
        }
    }

    /// Deletes the files nothing refers to; the state on disk must not refer to them either.
    pub(crate) fn delete_unused(&self) -> io::Result<usize> {
        let current = self.writer.lock().current;
        let mut open = self.open.write();
        let unused: Vec<u32> = open
            .iter()
            .filter(|(number, file)| {
                **number != current && file.live_units.load(Ordering::Relaxed) == 0
            })
            .map(|(number, _)| *number)
            .collect();
        for number in &unused {
            if let Some(file) = open.remove(number) {
                std::fs::remove_file(&file.path)?;
            }
        }
        Ok(unused.len())
    }

    /// Units of an extent from `skip` on into `out`; false if the disk would have to be waited for and may not.
    pub(crate) fn read(
        &self,
        extent: &Extent,
        skip: u32,
        count: u32,
        may_wait: bool,
        out: &mut Vec<u8>,
    ) -> io::Result<bool> {
        let file = self.get(extent.file).ok_or(io::ErrorKind::NotFound)?;
        let at = u64::from(extent.at) + u64::from(skip) * UNIT as u64;
        let from = out.len();
        out.resize(from + count as usize * UNIT, 0);
        if may_wait {
            file.file.read_exact_at(&mut out[from..], at)?;
            return Ok(true);
        }
        let read = read_cached(&file.file, at, &mut out[from..])?;
        if !read {
            out.truncate(from);
        }
        Ok(read)
    }

    pub(crate) fn disk_bytes(&self) -> u64 {
        let open = self.open.read();
        open.values().filter_map(|file| file.file.metadata().ok()).map(|m| m.len()).sum()
    }

    /// Forgets every file, when the state that gave them a meaning is lost.
    pub(crate) fn clear(&self) -> io::Result<()> {
        let mut open = self.open.write();
        for (_, file) in open.drain() {
            std::fs::remove_file(&file.path)?;
        }
        Ok(())
    }
}

fn first_position(units: &[u8]) -> u64 {
    super::units(units).find(|unit| !unit.is_hole()).map_or(u64::MAX, |unit| unit.position)
}

fn number_of(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(".units")?.parse().ok()
}
