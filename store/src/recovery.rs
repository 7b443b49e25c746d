//! From files on disk to a consistent store: find the end of the log, cut what is torn, rebuild what is derived.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use protocol::record::{BLANK_BYTES, Record, RecordError, at};
use tracing::{info, warn};

use crate::Core;
use crate::aside;
use crate::deletion;
use crate::error::{OpenError, is_full};
use crate::keys::KeyItem;
use crate::queue::{Queue, QueueRef, State, UNIT, Unit};
use crate::segment::{Segment, sync_dir, wipe};

/// Read at once while walking the log.
const CHUNK_BYTES: usize = 4 << 20;
/// After a checkpoint that failed, so much of the log is walked until another one is tried.
const CHECKPOINT_AGAIN_BYTES: u64 = 256 << 20;
/// A gap in queue offsets up to this length is bridged; a longer one starts the queue anew behind it.
const HOLES_MAX: i64 = 1 << 20;

/// The log files of a directory, oldest first.
pub(crate) fn segments(dir: &Path) -> Result<VecDeque<Arc<Segment>>, OpenError> {
    let io = |what| OpenError::io(what, dir);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io("read"))? {
        let path = entry.map_err(io("read"))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.len() == 20
            && let Ok(base) = name.parse::<u64>()
        {
            let opened = Segment::open(path.clone(), base);
            found.push(opened.map_err(OpenError::io("open", &path))?);
        }
    }
    found.sort_by_key(|segment| segment.base);
    // A crash while a file was made leaves it empty.
    while let Some(last) = found.pop_if(|last| last.bytes == 0) {
        std::fs::remove_file(&last.path).map_err(OpenError::io("remove", &last.path))?;
    }
    for pair in found.windows(2) {
        if pair[0].end() != pair[1].base {
            let why = format!("the file before it ends at {}", pair[0].end());
            return Err(OpenError::NotALog { path: pair[1].path.clone(), why });
        }
    }
    Ok(found.into_iter().map(Arc::new).collect())
}

/// What a walk over the log found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walked {
    pub(crate) end: u64,
    pub(crate) messages: u64,
    pub(crate) store_timestamp: i64,
}

impl Core {
    /// Walks the log from a position where a record starts, rebuilding queues and keys, to its end.
    pub(crate) fn replay(&self, from: u64) -> Result<Walked, OpenError> {
        let mut walked = Walked { end: from, messages: 0, store_timestamp: 0 };
        let mut replay = Replay { core: self, last: None, keys: Vec::new() };
        let mut checkpoint_from = from;
        let mut buffer = vec![0; CHUNK_BYTES];
        'segments: for segment in self.segments.all().iter().filter(|s| s.end() > from) {
            walked.end = walked.end.max(segment.base);
            let mut ask = CHUNK_BYTES;
            while segment.end() - walked.end >= BLANK_BYTES as u64 {
                let left = usize::try_from(segment.end() - walked.end).unwrap_or(usize::MAX);
                let chunk = ask.min(left);
                buffer.resize(buffer.len().max(chunk), 0);
                let bytes = &mut buffer[..chunk];
                segment.read(walked.end, bytes).map_err(OpenError::io("read", &segment.path))?;
                let next = replay.chunk(bytes, left, &mut walked)?;
                self.checkpoint_while_replaying(&walked, &mut checkpoint_from)?;
                match next {
                    Next::More { need } => ask = need.max(CHUNK_BYTES),
                    Next::Blank => break,
                    Next::Torn(error) => {
                        let end = walked.end;
                        info!(end, %error, "the log ends here");
                        break 'segments;
                    }
                }
            }
            walked.end = segment.end();
        }
        Ok(walked)
    }

    /// A long walk is not made twice, nor does it hold everything it finds in memory.
    fn checkpoint_while_replaying(&self, walked: &Walked, from: &mut u64) -> Result<(), OpenError> {
        let full = self.tails.bytes() > self.config.queue_tail_bytes_max
            || self.keys.buffer.lock().len() > self.config.key_items_max;
        if !full || walked.end < *from {
            return Ok(());
        }
        for segment in self.segments.overlapping(0, walked.end).iter().rev().take(2) {
            segment.file.sync_data().map_err(OpenError::io("sync", &segment.path))?;
        }
        let mut state = self.state.lock();
        if let Err(error) = self.checkpoint_at(&mut state, walked.end, walked.store_timestamp) {
            // Where there is no room for it, memory has to do; the log is read all the same.
            warn!(%error, "cannot write down what was read of the log so far");
            *from = walked.end + CHECKPOINT_AGAIN_BYTES;
        }
        Ok(())
    }

    /// Makes sure that nothing follows the end of the log that a later start could take for messages.
    pub(crate) fn cut(&self, end: u64) -> Result<Arc<Segment>, OpenError> {
        let mut later = Vec::new();
        let mut last = None;
        for segment in self.segments.all() {
            if segment.base > end || (segment.base == end && last.is_some()) {
                later.push(segment);
            } else {
                last = Some(segment);
            }
        }
        // Beside the log and not in it: a stock broker takes everything in there for its own.
        let folder = self.config.commit_log.with_extension("cut");
        for segment in later.iter().rev() {
            let kept = aside::keep_file(&folder, segment);
            if let Some(path) = kept.map_err(OpenError::io("put aside", &segment.path))? {
                warn!(path = %path.display(), end, "a log file behind the end of the log is put aside");
            }
            self.segments.pop_back();
        }
        let last = last.expect("the store has a first log file");
        if end < last.end() {
            let io = |what| OpenError::io(what, &last.path);
            match aside::keep_rest(&folder, &last, end) {
                Ok(Some(path)) => {
                    warn!(path = %path.display(), end, "what follows the end of the log is put aside");
                }
                Ok(None) => {}
                // It is kept for people to look at; the broker is not kept from starting for it.
                Err(error) if is_full(&error) => {
                    warn!(end, %error, "no room to put aside what follows the end of the log");
                }
                Err(error) => return Err(io("put aside the rest of")(error)),
            }
            wipe(&last.file, end - last.base, last.bytes).map_err(io("cut"))?;
            last.file.sync_all().map_err(io("sync"))?;
        }
        sync_dir(&self.segments.dir).map_err(OpenError::io("sync", &self.segments.dir))?;
        Ok(last)
    }
}

enum Next {
    /// The next record needs this many bytes in the buffer.
    More {
        need: usize,
    },
    Blank,
    Torn(RecordError),
}

struct Replay<'a> {
    core: &'a Core,
    /// The topic and queue of the last record; the next is often of the same.
    last: Option<(Box<str>, i32, QueueRef)>,
    keys: Vec<u32>,
}

impl Replay<'_> {
    /// Takes in the whole records of a chunk; `left` is what remains of the segment.
    fn chunk(&mut self, bytes: &[u8], left: usize, walked: &mut Walked) -> Result<Next, OpenError> {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            let (record, size) = match Record::decode(rest) {
                Ok(decoded) => decoded,
                Err(RecordError::Truncated { need, .. }) if at > 0 => {
                    return Ok(Next::More { need });
                }
                Err(error @ RecordError::Truncated { need, .. }) => {
                    // A size is believed only of a record that knows where it is.
                    let position = rest.get(at::PHYSICAL_OFFSET..at::PHYSICAL_OFFSET + 8);
                    let here = position == Some(&walked.end.to_be_bytes()[..]);
                    return Ok(if here && need <= left && need > rest.len() {
                        Next::More { need }
                    } else {
                        Next::Torn(error)
                    });
                }
                Err(RecordError::Blank { .. }) => return Ok(Next::Blank),
                Err(error) => return Ok(Next::Torn(error)),
            };
            if u64::try_from(record.physical_offset) != Ok(walked.end) {
                return Ok(Next::Torn(RecordError::Magic(0)));
            }
            if self.core.config.check_bodies
                && let Err(error) = record.check_body()
            {
                return Ok(Next::Torn(error));
            }
            self.record(&record, size, walked.end)?;
            at += size;
            walked.end += size as u64;
            walked.messages += 1;
            walked.store_timestamp = walked.store_timestamp.max(record.store_timestamp);
        }
    }

    fn record(&mut self, record: &Record<'_>, size: usize, position: u64) -> Result<(), OpenError> {
        if let Some(topic) = deletion::deleted_topic(record) {
            self.core.reset_topic(topic, position);
            self.last = None;
        }
        let queue_ref = self.queue(record)?;
        let queue = self.core.queues.queue(queue_ref);
        let topic = self.core.queues.topic(queue);
        self.keys.clear();
        let meaning = self.core.meaning(topic, record.sys_flag, record.properties, &mut self.keys);
        let mut buffer = self.core.keys.buffer.lock();
        for hash in &self.keys {
            buffer.push(KeyItem::new(*hash, position, record.store_timestamp));
        }
        drop(buffer);
        if meaning.offsets == 0 {
            return Ok(());
        }
        let unit = Unit {
            position,
            size: u32::try_from(size).expect("a record size is 31 bits"),
            tags_code: meaning.tags.code(record.store_timestamp),
        };
        self.enter(queue_ref, queue, record.queue_offset, meaning.offsets, unit);
        Ok(())
    }

    fn queue(&mut self, record: &Record<'_>) -> Result<QueueRef, OpenError> {
        if let Some((topic, queue_id, queue)) = &self.last
            && **topic == *record.topic
            && *queue_id == record.queue_id
        {
            return Ok(*queue);
        }
        let queue = self.core.queues.intern(record.topic, record.queue_id)?;
        self.last = Some((record.topic.into(), record.queue_id, queue));
        Ok(queue)
    }

    fn enter(
        &self,
        queue_ref: QueueRef,
        queue: &Queue,
        queue_offset: i64,
        offsets: u16,
        unit: Unit,
    ) {
        let mut state = queue.state.lock();
        let next = state.end();
        if queue_offset == 0 && next > 0 {
            // Another broker deleted the topic and created it again; our own deletions are in the log.
            self.core.reset_queue(queue, &mut state, unit.position);
        } else if queue_offset < next {
            warn!(queue_offset, next, position = unit.position, "a queue offset was used twice");
            return;
        }
        let mut pushed = usize::from(offsets);
        let gap = queue_offset - state.end();
        if gap > 0 {
            let empty = state.tail.is_empty() && state.extents.is_empty();
            if empty || gap > HOLES_MAX {
                self.core.start_queue_at(&mut state, queue_offset);
            } else {
                (0..gap).for_each(|_| state.push(Unit::HOLE));
                pushed += usize::try_from(gap).expect("at most HOLES_MAX");
            }
        }
        (0..offsets).for_each(|_| state.push(unit));
        let end = state.end();
        self.core.tails.add(pushed);
        drop(state);
        queue.next.store(end, Ordering::Relaxed);
        queue.max.store(end, Ordering::Release);
        self.core.mark_dirty(queue_ref, queue);
    }
}

impl Core {
    /// The queue has nothing before this offset, and nothing yet at it.
    pub(crate) fn start_queue_at(&self, state: &mut State, offset: i64) {
        for extent in state.extents.drain(..) {
            self.files.release(&extent);
        }
        self.tails.sub(state.tail.len() / UNIT);
        state.life += 1;
        state.tail.clear();
        state.tail_base = offset;
        state.min = offset;
        state.saved = offset;
    }

    /// The queue begins again at 0, as a new one.
    pub(crate) fn reset_queue(&self, queue: &Queue, state: &mut State, position: u64) {
        self.start_queue_at(state, 0);
        state.tail.shrink_to(16 * UNIT);
        state.reset_at = Some(position);
        queue.next.store(0, Ordering::Relaxed);
        queue.max.store(0, Ordering::Release);
    }

    pub(crate) fn reset_topic(&self, topic: &str, position: u64) {
        for (_, queue_ref) in self.queues.of_topic(topic) {
            let queue = self.queues.queue(queue_ref);
            self.reset_queue(queue, &mut queue.state.lock(), position);
            self.mark_dirty(queue_ref, queue);
        }
    }

    pub(crate) fn mark_dirty(&self, queue_ref: QueueRef, queue: &Queue) {
        if !queue.dirty.swap(true, Ordering::Relaxed) {
            self.dirty.lock().push(queue_ref);
        }
    }
}
