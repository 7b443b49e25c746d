//! Reading a queue: zero-copy from what is in memory, never waiting for the disk unless told that it may.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use protocol::record::{self, Record, RecordError, at};
use smallvec::SmallVec;

use crate::queue::{Queue, QueueRef, Unit, units};
use crate::segment::Segment;
use crate::{Core, Store};

/// Units looked at in one step.
const STEP: usize = 128;
/// Records up to this size that lie apart are copied together: a slice of its own for each would cost the
/// cores more, fighting for the mapping's count of references, than the copy does.
const GATHER_BYTES_MAX: usize = 2048;

/// Where one read ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub messages: usize,
    /// A first message is returned even if it alone is larger.
    pub bytes: usize,
    /// Messages looked at, including those that are filtered away.
    pub scan: usize,
}

/// Whether the caller can wait for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only what is in memory; anything else is answered by [`Status::Cold`].
    Cached,
    /// Also from disk, on a thread that may block.
    Blocking,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Found,
    /// There are messages, but none of those looked at passed the filter; go on at `next_offset`.
    NoMatch,
    /// The disk has to be waited for: read again with [`Access::Blocking`], elsewhere.
    Cold,
    /// The queue holds nothing, and did not since its creation.
    Empty,
    /// The offset was deleted by retention; go on at `next_offset`.
    BelowMin,
    /// The offset is the next one to be written.
    AtEnd,
    /// The offset is beyond the next one to be written.
    BeyondEnd,
}

/// Where a message found by a read stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub queue_offset: i64,
    pub position: u64,
    pub size: u32,
    pub tags_code: i64,
}

#[derive(Clone, Debug)]
pub struct Read {
    pub status: Status,
    pub next_offset: i64,
    pub min_offset: i64,
    pub max_offset: i64,
    /// The records, one after another; neighbours in the log, and small ones, share a slice.
    pub slices: SmallVec<[Bytes; 2]>,
    pub entries: Vec<Entry>,
    pub bytes: usize,
}

/// Which messages a read is to return.
pub trait Filter {
    fn by_tags(&mut self, tags_code: i64) -> bool;

    /// Whether [`Filter::by_record`] has to be asked about those that passed by their tags.
    fn wants_records(&self) -> bool {
        false
    }

    fn by_record(&mut self, _record: &[u8]) -> bool {
        true
    }
}

impl<F: FnMut(i64) -> bool> Filter for F {
    fn by_tags(&mut self, tags_code: i64) -> bool {
        self(tags_code)
    }
}

/// Every message.
#[derive(Clone, Copy, Debug, Default)]
pub struct All;

impl Filter for All {
    fn by_tags(&mut self, _tags_code: i64) -> bool {
        true
    }
}

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the disk would have to be waited for")]
    Cold,
    #[error("the disk failed: {0}")]
    Io(#[from] io::Error),
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Cold => io::ErrorKind::WouldBlock.into(),
            ReadError::Io(error) => error,
        }
    }
}

/// A stretch of the log that is returned as one slice.
#[derive(Clone, Copy, Debug)]
struct Run {
    position: u64,
    bytes: usize,
    messages: usize,
}

impl Store {
    pub fn read(
        &self,
        queue: QueueRef,
        offset: i64,
        limits: Limits,
        access: Access,
        mut filter: impl Filter,
    ) -> io::Result<Read> {
        let mut attempt = || self.core.read(queue, offset, limits, access, &mut filter);
        // Retention may take a file between finding a message and reading it; then there is a new minimum.
        attempt().or_else(|_| attempt()).or_else(|_| attempt())
    }

    /// The record that starts at this position of the log, or nothing if none does.
    pub fn message_at(&self, position: u64, access: Access) -> Result<Option<Bytes>, ReadError> {
        self.core.message_at(position, access)
    }

    pub fn min_offset(&self, queue: QueueRef) -> i64 {
        self.core.queues.queue(queue).state.lock().min
    }

    /// The offset the next message will get.
    pub fn max_offset(&self, queue: QueueRef) -> i64 {
        self.core.queues.queue(queue).max.load(Ordering::Acquire)
    }

    /// Where the first message at or after this offset lies, if there is one. Reads the disk.
    pub fn position_from(&self, queue: QueueRef, offset: i64) -> io::Result<Option<u64>> {
        let first = self.core.unit_from(self.core.queues.queue(queue), offset)?;
        Ok(first.map(|(_, unit)| unit.position))
    }

    /// The units from an offset on, at most `count` of them, with the offset of the first.
    pub fn units(&self, queue: QueueRef, from: i64, count: usize) -> io::Result<(i64, Vec<Unit>)> {
        let queue = self.core.queues.queue(queue);
        let mut offset = from;
        let mut found = Vec::new();
        let mut bytes = Vec::new();
        while found.len() < count {
            bytes.clear();
            let at = offset + found.len() as i64;
            let step = (count - found.len()).min(STEP);
            let Some(first) = self.core.units(queue, at, step, Access::Blocking, &mut bytes)?
            else {
                break;
            };
            if found.is_empty() {
                offset = first;
            } else if first != at {
                break;
            }
            found.extend(units(&bytes));
        }
        Ok((offset, found))
    }
}

impl Core {
    fn read(
        &self,
        queue_ref: QueueRef,
        offset: i64,
        limits: Limits,
        access: Access,
        filter: &mut dyn Filter,
    ) -> io::Result<Read> {
        let queue = self.queues.queue(queue_ref);
        let mut read = Read {
            status: Status::NoMatch,
            next_offset: offset,
            min_offset: queue.state.lock().min,
            max_offset: queue.max.load(Ordering::Acquire),
            slices: SmallVec::new(),
            entries: Vec::new(),
            bytes: 0,
        };
        if let Some((status, next_offset)) = self.out_of_range(&read, offset) {
            return Ok(Read { status, next_offset, ..read });
        }
        let mut runs: SmallVec<[Run; 4]> = SmallVec::new();
        match self.choose(queue, limits, access, filter, &mut read, &mut runs) {
            Ok(()) => {}
            Err(ReadError::Cold) => return Ok(cold(read, offset)),
            Err(ReadError::Io(error)) => return Err(error),
        }
        match self.fetch(&runs, access, &mut read.slices) {
            Ok(()) => {}
            Err(ReadError::Cold) => return Ok(cold(read, offset)),
            Err(ReadError::Io(error)) => return Err(error),
        }
        if !read.entries.is_empty() {
            read.status = Status::Found;
        } else if read.next_offset == offset {
            // Nothing is left of what the queue still names: retention was here.
            read.status = Status::BelowMin;
            read.next_offset = read.max_offset;
        }
        Ok(read)
    }

    fn out_of_range(&self, read: &Read, offset: i64) -> Option<(Status, i64)> {
        let Read { min_offset, max_offset, .. } = *read;
        if max_offset == 0 {
            Some((Status::Empty, 0))
        } else if offset < min_offset {
            Some((Status::BelowMin, min_offset))
        } else if offset == max_offset {
            Some((Status::AtEnd, offset))
        } else if offset > max_offset {
            Some((Status::BeyondEnd, max_offset))
        } else {
            None
        }
    }

    /// Walks the units and decides what to return, until a limit is reached.
    fn choose(
        &self,
        queue: &Queue,
        limits: Limits,
        access: Access,
        filter: &mut dyn Filter,
        read: &mut Read,
        runs: &mut SmallVec<[Run; 4]>,
    ) -> Result<(), ReadError> {
        let min_position = self.segments.min_position();
        let (mut messages, mut scanned) = (0, 0);
        let mut bytes = Vec::new();
        let mut last_position = None;
        loop {
            bytes.clear();
            let left = limits.scan.saturating_sub(scanned);
            // One more, to see whether the limit lies between two records.
            let step = STEP.min(left).min(limits.messages).max(8) + 1;
            let Some(first) = self.units(queue, read.next_offset, step, access, &mut bytes)? else {
                return Ok(());
            };
            read.next_offset = first;
            for unit in units(&bytes) {
                // Every offset of an inner batch leads to the same record. A read ends behind the last one: who went
                // on in the midst of a batch would get all of it again.
                let repeated = !unit.is_hole() && last_position == Some(unit.position);
                if !repeated && (messages >= limits.messages || scanned >= limits.scan) {
                    return Ok(());
                }
                let wanted = !repeated
                    && !unit.is_hole()
                    && unit.position >= min_position
                    && filter.by_tags(unit.tags_code)
                    && (!filter.wants_records() || self.passes(&unit, access, filter)?);
                if wanted {
                    let size = unit.size as usize;
                    if !read.entries.is_empty() && read.bytes + size > limits.bytes {
                        return Ok(());
                    }
                    add_run(runs, &unit);
                    read.bytes += size;
                    last_position = Some(unit.position);
                    read.entries.push(Entry {
                        queue_offset: read.next_offset,
                        position: unit.position,
                        size: unit.size,
                        tags_code: unit.tags_code,
                    });
                }
                if wanted || repeated {
                    messages += 1;
                }
                read.next_offset += 1;
                scanned += 1;
            }
        }
    }

    fn passes(
        &self,
        unit: &Unit,
        access: Access,
        filter: &mut dyn Filter,
    ) -> Result<bool, ReadError> {
        let run = Run { position: unit.position, bytes: unit.size as usize, messages: 1 };
        let mut slices: SmallVec<[Bytes; 2]> = SmallVec::new();
        self.fetch(&[run], access, &mut slices)?;
        Ok(slices.iter().all(|record| filter.by_record(record)))
    }

    /// Brings the runs into memory, unless they are there already.
    fn fetch(
        &self,
        runs: &[Run],
        access: Access,
        slices: &mut SmallVec<[Bytes; 2]>,
    ) -> Result<(), ReadError> {
        let mut segment: Option<Arc<Segment>> = None;
        let mut mapped: Option<(u64, Bytes)> = None;
        let mut gathered = Vec::new();
        let is_small = |run: &&Run| run.bytes <= GATHER_BYTES_MAX;
        let (hot_from, appended) = (self.hot_from(), self.durable.appended());
        for (index, run) in runs.iter().enumerate() {
            let end = run.position.saturating_add(run.bytes as u64);
            if segment.as_ref().is_none_or(|s| run.position < s.base || end > s.end()) {
                segment = self.segments.find(run.position);
            }
            let Some(segment) = segment.as_ref().filter(|s| end <= s.end() && end <= appended)
            else {
                return Err(damaged("a queue points beyond the log"));
            };
            if run.position >= hot_from {
                let from = (run.position - segment.base) as usize;
                let map = match &mut mapped {
                    Some((base, map)) if *base == segment.base => map,
                    other => &other.insert((segment.base, segment.mapped()?)).1,
                };
                if runs.len() > 1 && is_small(&run) {
                    if gathered.is_empty() {
                        let small = runs[index..].iter().filter(is_small);
                        gathered.reserve(small.map(|run| run.bytes).sum());
                    }
                    gathered.extend_from_slice(&map[from..from + run.bytes]);
                } else {
                    push_gathered(&mut gathered, slices);
                    slices.push(map.slice(from..from + run.bytes));
                }
                continue;
            }
            push_gathered(&mut gathered, slices);
            let mut buffer = vec![0; run.bytes];
            if access == Access::Blocking {
                segment.read(run.position, &mut buffer)?;
            } else if !segment.read_cached(run.position, &mut buffer)? {
                return Err(ReadError::Cold);
            }
            check_records(&buffer, run)?;
            slices.push(buffer.into());
        }
        push_gathered(&mut gathered, slices);
        Ok(())
    }

    /// From here to the end, the log is taken to be in the page cache.
    pub(crate) fn hot_from(&self) -> u64 {
        let window = self.durable.appended().saturating_sub(self.config.hot_bytes_max);
        window.max(self.opened_at)
    }

    pub(crate) fn message_at(
        &self,
        position: u64,
        access: Access,
    ) -> Result<Option<Bytes>, ReadError> {
        let appended = self.durable.appended();
        let Some(segment) = self.segments.find(position).filter(|_| position < appended) else {
            return Ok(None);
        };
        let end = appended.min(segment.end());
        let found = if position >= self.hot_from() {
            let from = (position - segment.base) as usize;
            let rest = segment.mapped()?.slice(from..(end - segment.base) as usize);
            record::peek(&rest).ok().map(|size| rest.slice(..size))
        } else {
            self.read_record(&segment, position, end, access)?
        };
        Ok(found.filter(|bytes| {
            let whole = Record::decode(bytes);
            whole.is_ok_and(|(record, _)| u64::try_from(record.physical_offset) == Ok(position))
        }))
    }

    fn read_record(
        &self,
        segment: &Segment,
        position: u64,
        end: u64,
        access: Access,
    ) -> Result<Option<Bytes>, ReadError> {
        let read = |buffer: &mut [u8]| match access {
            Access::Blocking => segment.read(position, buffer).map(|()| true),
            Access::Cached => segment.read_cached(position, buffer),
        };
        // Most messages fit into the first page; the others are read a second time.
        let left = usize::try_from(end - position).unwrap_or(usize::MAX);
        let mut buffer = vec![0; left.min(4096)];
        if !read(&mut buffer)? {
            return Err(ReadError::Cold);
        }
        let size = match record::peek(&buffer) {
            Ok(size) => size,
            Err(RecordError::Truncated { need, .. }) if need <= left && buffer.len() < need => need,
            Err(_) => return Ok(None),
        };
        // The magic alone may be chance; the position is checked before its size is believed.
        let field = buffer.get(at::PHYSICAL_OFFSET..at::PHYSICAL_OFFSET + 8);
        if field != Some(&position.to_be_bytes()[..]) {
            return Ok(None);
        }
        if size > buffer.len() {
            buffer.resize(size, 0);
            if !read(&mut buffer)? {
                return Err(ReadError::Cold);
            }
        }
        buffer.truncate(size);
        Ok(Some(buffer.into()))
    }

    /// Appends units from `offset` (or the first one after it that exists) to `out` and returns the offset of
    /// the first. Nothing if the queue ends before.
    pub(crate) fn units(
        &self,
        queue: &Queue,
        offset: i64,
        count: usize,
        access: Access,
        out: &mut Vec<u8>,
    ) -> Result<Option<i64>, ReadError> {
        let (extent, skip) = {
            let state = queue.state.lock();
            let offset = offset.max(state.min);
            let after = state.extents.partition_point(|extent| extent.end() <= offset);
            let Some(extent) = state.extents.get(after) else {
                let offset = offset.max(state.tail_base);
                let max = queue.max.load(Ordering::Acquire);
                let count = count.min(usize::try_from(max - offset).unwrap_or(0));
                let tail = state.tail_units(offset, count);
                out.extend_from_slice(tail);
                return Ok((!tail.is_empty()).then_some(offset));
            };
            (*extent, u32::try_from((offset - extent.base).max(0)).expect("inside the extent"))
        };
        let count = u32::try_from(count).unwrap_or(u32::MAX).min(extent.count - skip);
        if !self.files.read(&extent, skip, count, access == Access::Blocking, out)? {
            return Err(ReadError::Cold);
        }
        Ok(Some(extent.base + i64::from(skip)))
    }
}

fn cold(read: Read, offset: i64) -> Read {
    Read {
        status: Status::Cold,
        next_offset: offset,
        entries: Vec::new(),
        slices: SmallVec::new(),
        bytes: 0,
        ..read
    }
}

fn push_gathered(gathered: &mut Vec<u8>, slices: &mut SmallVec<[Bytes; 2]>) {
    if !gathered.is_empty() {
        slices.push(std::mem::take(gathered).into());
    }
}

fn add_run(runs: &mut SmallVec<[Run; 4]>, unit: &Unit) {
    if let Some(last) = runs.last_mut()
        && last.position + last.bytes as u64 == unit.position
    {
        last.bytes += unit.size as usize;
        last.messages += 1;
        return;
    }
    runs.push(Run { position: unit.position, bytes: unit.size as usize, messages: 1 });
}

/// Bytes read back from disk are what the queue says they are, or they are not handed out.
fn check_records(mut bytes: &[u8], run: &Run) -> Result<(), ReadError> {
    for _ in 0..run.messages {
        let size = record::peek(bytes).map_err(|_| damaged("a queue points at no message"))?;
        bytes = &bytes[size..];
    }
    if bytes.is_empty() { Ok(()) } else { Err(damaged("a queue and the log disagree on a size")) }
}

fn damaged(what: &'static str) -> ReadError {
    ReadError::Io(io::Error::new(io::ErrorKind::InvalidData, what))
}
