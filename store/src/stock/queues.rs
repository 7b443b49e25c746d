//! Stock consume queues: reading them, writing them byte for byte, and comparing ours with them.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::OpenError;
use crate::queue::{QueueRef, UNIT, Unit};
use crate::segment::{file_name, sync_dir};
use crate::stock::{Checkpoint, batches};
use crate::{Core, Store};

/// Units in a stock file; the last file has its full size too, with zeros at the end.
pub const UNITS_PER_FILE: u32 = 300_000;
/// Where a stock broker keeps its consume queues, below the root.
const QUEUES: &str = "consumequeue";
/// Where we put what a stock broker left, below the root.
pub const STOCK_QUEUES: &str = "consumequeue.stock";
/// The same for topics that keep each batch as one record.
const BATCH_QUEUES: &str = "batchconsumequeue";
const STOCK_BATCH_QUEUES: &str = "batchconsumequeue.stock";
/// Differences told in full; the rest is only counted.
const DIFFERENCES_MAX: usize = 100;
/// Values up to this one are addresses in a `consumequeue_ext` file, in place of a tags code.
const EXT_ADDRESS_MAX: i64 = i32::MIN as i64;

/// A place where a stock queue and ours do not say the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub topic: String,
    pub queue_id: i32,
    pub offset: i64,
    pub stock: Option<Unit>,
    pub ours: Option<Unit>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    pub queues: usize,
    pub units: u64,
    pub different: u64,
    /// The first of them.
    pub differences: Vec<Difference>,
}

impl Store {
    /// Compares every stock consume queue below `dir` (`dir/TOPIC/QUEUE/`) with ours, unit by unit.
    ///
    /// What the last stock broker left is in [`STOCK_QUEUES`] below the root.
    pub fn verify_against_stock_queues(&self, dir: &Path) -> io::Result<Comparison> {
        let mut comparison = Comparison::default();
        for (topic, queue_id, dir) in stock_queues(dir)? {
            comparison.queues += 1;
            self.compare(&topic, queue_id, &dir, &mut comparison)?;
        }
        Ok(comparison)
    }

    /// Writes all queues as stock would, into directories it knows below `root`. Returns how many there are.
    ///
    /// A file holds [`UNITS_PER_FILE`] units unless the stock broker is configured otherwise
    /// (`mappedFileSizeConsumeQueue` / 20). Topics whose batches are `whole` have queues of another form; a stock
    /// broker that finds the wrong one does not start.
    pub fn export_queues(
        &self,
        root: &Path,
        units_per_file: u32,
        whole: impl Fn(&str) -> bool,
    ) -> io::Result<usize> {
        let units_per_file = i64::from(units_per_file.max(1));
        let mut count = 0;
        for (queue_ref, queue) in self.core.queues.all() {
            let topic = &self.core.queues.topic(queue).name;
            if self.max_offset(queue_ref) == 0 {
                continue;
            }
            if !is_file_name(topic) {
                let why = format!("the topic {topic:?} cannot be the name of a directory");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            }
            let kind = if whole(topic) { BATCH_QUEUES } else { QUEUES };
            let dir = root.join(kind).join(&**topic).join(queue.queue_id.to_string());
            std::fs::create_dir_all(&dir)?;
            if whole(topic) {
                batches::export(self, queue_ref, &dir)?;
            } else {
                self.export_queue(queue_ref, &dir, units_per_file)?;
            }
            count += 1;
        }
        Ok(count)
    }

    /// As [`Store::close`], and leaves the directory so that a stock broker starts without building its consume
    /// queues from the whole log.
    pub fn close_for_stock(
        &self,
        units_per_file: u32,
        whole: impl Fn(&str) -> bool,
    ) -> io::Result<()> {
        self.close()?;
        let root = &self.core.config.root;
        self.export_queues(root, units_per_file, whole)?;
        let time = self.core.log.lock().store_timestamp;
        let end = self.durable_position().cast_signed();
        let checkpoint = Checkpoint {
            log_timestamp: time,
            queues_timestamp: time,
            index_timestamp: 0,
            master_flushed: 0,
            confirmed: end,
        };
        checkpoint.write(root)?;
        self.core.abort.remove()
    }

    fn export_queue(&self, queue: QueueRef, dir: &Path, units_per_file: i64) -> io::Result<()> {
        let (min, max) = (self.min_offset(queue), self.max_offset(queue));
        let mut at = min;
        let mut file_base = (min.min(max - 1) / units_per_file) * units_per_file;
        while file_base < max {
            let path = dir.join(file_name(file_base.unsigned_abs() * UNIT as u64));
            let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
            let file_end = file_base + units_per_file;
            for _ in file_base..at.min(file_end) {
                file.write_all(&Unit::HOLE.encode())?;
            }
            while at < file_end.min(max) {
                let step = usize::try_from(file_end.min(max) - at).unwrap_or(usize::MAX);
                let (first, units) = self.units(queue, at, step.min(4096))?;
                if first != at || units.is_empty() {
                    return Err(io::Error::other("the queue was deleted while it was exported"));
                }
                units.iter().try_for_each(|unit| file.write_all(&unit.encode()))?;
                at += units.len() as i64;
            }
            let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.set_len(units_per_file.unsigned_abs() * UNIT as u64)?;
            file.sync_all()?;
            file_base = file_end;
        }
        Ok(())
    }

    fn compare(
        &self,
        topic: &str,
        queue_id: i32,
        dir: &Path,
        comparison: &mut Comparison,
    ) -> io::Result<()> {
        let queue = self.find_queue(topic, queue_id);
        let min_position = self.min_position();
        let mut next = queue.map_or(0, |queue| self.min_offset(queue));
        let mut ahead: std::collections::VecDeque<Unit> = std::collections::VecDeque::new();
        let mut differ = |offset, stock, ours| {
            comparison.different += 1;
            if comparison.differences.len() < DIFFERENCES_MAX {
                let topic = topic.to_string();
                comparison.differences.push(Difference { topic, queue_id, offset, stock, ours });
            }
        };
        let mut units = 0;
        each_unit(dir, |offset, stock| {
            // Stock keeps units of messages that retention has deleted; we do not.
            if stock.is_hole() || stock.position < min_position || offset < next {
                return Ok(());
            }
            units += 1;
            while next < offset && ahead.pop_front().is_some() {
                next += 1;
            }
            if let Some(queue) = queue
                && ahead.is_empty()
            {
                let (first, more) = self.units(queue, offset, 4096)?;
                if first == offset {
                    ahead = more.into();
                }
            }
            next = offset + 1;
            let ours = ahead.pop_front();
            if ours.is_none_or(|ours| !same(&stock, &ours)) {
                differ(offset, Some(stock), ours);
            }
            Ok(())
        })?;
        if let Some(queue) = queue
            && self.max_offset(queue) > next
        {
            let (first, more) = self.units(queue, next, 1)?;
            differ(first, None, more.first().copied());
        }
        comparison.units += units;
        Ok(())
    }
}

fn same(stock: &Unit, ours: &Unit) -> bool {
    let tags = stock.tags_code <= EXT_ADDRESS_MAX || stock.tags_code == ours.tags_code;
    tags && stock.position == ours.position && stock.size == ours.size
}

impl Core {
    /// From the first append on, the queues a stock broker left are out of date. It would go on from them all the
    /// same, one message short, so they are put aside; after what only they know is written down elsewhere.
    pub(crate) fn take_over_stock_queues(&self) -> Result<(), OpenError> {
        let root = &self.config.root;
        let batches = root.join(BATCH_QUEUES);
        put_aside(&batches, &root.join(STOCK_BATCH_QUEUES))
            .map_err(OpenError::io("put aside", &batches))?;
        let queues = root.join(QUEUES);
        if !queues.exists() {
            return Ok(());
        }
        if self.import_stock_ends(&queues).map_err(OpenError::io("read", &queues))? {
            // Where a queue begins is said by a full account alone.
            self.state.lock().give_up();
            self.checkpoint().map_err(OpenError::io("write the state of the store to", root))?;
        }
        put_aside(&queues, &root.join(STOCK_QUEUES))
            .map_err(OpenError::io("put aside", &queues))?;
        sync_dir(root).map_err(OpenError::io("sync", root))
    }

    /// Stock queues whose messages have all expired still know their next offset; the log does not. Whether there
    /// were any.
    fn import_stock_ends(&self, queues: &Path) -> io::Result<bool> {
        let mut any = false;
        for (topic, queue_id, dir) in stock_queues(queues)? {
            let Some(end) = stock_end(&dir)? else { continue };
            let Ok(queue_ref) = self.queues.intern(&topic, queue_id) else { continue };
            let queue = self.queues.queue(queue_ref);
            let mut state = queue.state.lock();
            if state.first() == state.end() && state.end() < end {
                self.start_queue_at(&mut state, end);
                drop(state);
                queue.next.store(end, std::sync::atomic::Ordering::Relaxed);
                queue.max.store(end, std::sync::atomic::Ordering::Release);
                self.mark_dirty(queue_ref, queue);
                any = true;
            }
        }
        Ok(any)
    }
}

/// What is there, in place of what was put aside before.
fn put_aside(queues: &Path, aside: &Path) -> io::Result<()> {
    if !queues.exists() {
        return Ok(());
    }
    if aside.exists() {
        std::fs::remove_dir_all(aside)?;
    }
    std::fs::rename(queues, aside)
}

/// Topic names become directory names here and nowhere else.
fn is_file_name(topic: &str) -> bool {
    !topic.is_empty()
        && topic.len() <= 255
        && topic.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-%|".contains(&b))
}

/// Topic, queue number and directory of every stock consume queue below `dir`.
pub fn stock_queues(dir: &Path) -> io::Result<Vec<(String, i32, PathBuf)>> {
    let mut found = Vec::new();
    let topics = match std::fs::read_dir(dir) {
        Ok(topics) => topics,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error),
    };
    for topic in topics {
        let topic = topic?;
        let Ok(name) = topic.file_name().into_string() else { continue };
        if !topic.file_type()?.is_dir() {
            continue;
        }
        for queue in std::fs::read_dir(topic.path())? {
            let queue = queue?;
            if let Some(queue_id) = queue.file_name().to_str().and_then(|id| id.parse().ok()) {
                found.push((name.clone(), queue_id, queue.path()));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The files of a stock queue with the offset of their first unit.
fn files(dir: &Path) -> io::Result<Vec<(i64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let base: Option<i64> =
            path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        if let Some(base) = base {
            files.push((base / UNIT as i64, path));
        }
    }
    files.sort();
    Ok(files)
}

/// Every unit a stock broker wrote to a queue, in order, with its offset.
pub fn each_unit(dir: &Path, mut each: impl FnMut(i64, Unit) -> io::Result<()>) -> io::Result<()> {
    let mut buffer = vec![0; UNIT * 4096];
    for (base, path) in files(dir)? {
        let mut file = File::open(path)?;
        let mut offset = base;
        let mut filled = 0;
        loop {
            let count = file.read(&mut buffer[filled..])?;
            filled += count;
            let whole = filled / UNIT * UNIT;
            for unit in crate::queue::units(&buffer[..whole]) {
                if unit.size == 0 {
                    return Ok(());
                }
                each(offset, unit)?;
                offset += 1;
            }
            buffer.copy_within(whole..filled, 0);
            filled -= whole;
            if count == 0 {
                break;
            }
        }
    }
    Ok(())
}

/// The offset behind the last unit of a stock queue.
fn stock_end(dir: &Path) -> io::Result<Option<i64>> {
    let Some((base, path)) = files(dir)?.pop() else { return Ok(None) };
    let file = File::open(path)?;
    let count = file.metadata()?.len() / UNIT as u64;
    // Units are written from the front, and what is not written is zero.
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        let mut unit = [0; UNIT];
        file.read_exact_at(&mut unit, middle * UNIT as u64)?;
        if Unit::decode(&unit).size == 0 {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(i64::try_from(low).ok().map(|low| base + low))
}
