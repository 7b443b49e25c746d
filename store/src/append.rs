//! The one way into the log: one short lock, one write.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;
use protocol::record::{BLANK_BYTES, blank};

use crate::batch::Batch;
use crate::error::{AppendError, is_full};
use crate::keys::KeyItem;
use crate::queue::{QueueRef, State, Unit};
use crate::segment::Segment;
use crate::{Core, Store};

/// How far store time may be ahead of the clock. A clock that is set back by less, as all are now and then, does
/// not take store time with it; one that is set back by more was wrong before, and nothing is to last until
/// it gets there again.
pub const STORE_TIME_LEAD_MAX_MS: i64 = 1000;

/// The end of the log, behind the lock that orders appends.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) segment: Arc<Segment>,
    pub(crate) position: u64,
    /// Of the last message; goes back only with a clock that does so by a lot.
    pub(crate) store_timestamp: i64,
    pub(crate) next_prepared: bool,
    pub(crate) closed: bool,
    pub(crate) messages: u64,
    /// Up to here the file was written, if only with zeros.
    pub(crate) zeroed: u64,
}

/// What the file system writes as a whole.
const BLOCK_BYTES: u64 = 4096;
/// How far ahead of the log zeros are written when every group is flushed by itself, and from which size on
/// a group is large enough to do without.
const AHEAD_BYTES: u64 = 512 << 10;
const LARGE_GROUP_BYTES: usize = 16 << 10;

/// Who appends a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Clients,
    /// The store or its owner: what it has to remember is small, and it cannot go on without.
    Own,
}

/// The range of the log a batch took, and the store time of its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub start: u64,
    pub end: u64,
    pub store_timestamp: i64,
}

impl Store {
    /// Writes the batch as one group. An error means that nothing of it was written.
    ///
    /// What was appended can be read at once; it is safe from a loss of power when [`Store::durable`] says so.
    pub fn append(&self, batch: &mut Batch, now_ms: i64) -> Result<Appended, AppendError> {
        let appended = self.append_quietly(batch, now_ms, Origin::Clients)?;
        self.core.durable.appended_more(appended.end);
        Ok(appended)
    }

    /// The same for what the owner of the store has to remember: it is also taken while the disk is full, as
    /// long as there is [room](Store::own_room) that only the log can use.
    pub fn append_own(&self, batch: &mut Batch, now_ms: i64) -> Result<Appended, AppendError> {
        let appended = self.append_quietly(batch, now_ms, Origin::Own)?;
        self.core.durable.appended_more(appended.end);
        Ok(appended)
    }

    /// Bytes [`Store::append_own`] takes before it refuses, too. Anything, unless the disk is full.
    pub fn own_room(&self) -> u64 {
        let log = self.core.log.lock();
        if self.core.watch.full().is_some() { self.core.own_room(&log) } else { u64::MAX }
    }

    /// The same for a writer that is alone and waits for the disk: when the disk is quick, and every flush is
    /// to follow at once anyway, it is flushed here instead of by a thread that has to be woken first.
    /// [`Store::durable_position`] says whether it was.
    pub fn append_alone(&self, batch: &mut Batch, now_ms: i64) -> Result<Appended, AppendError> {
        let appended = self.append_quietly(batch, now_ms, Origin::Clients)?;
        if !(self.core.durable.is_sync() && self.core.flush_quickly()) {
            self.core.durable.appended_more(appended.end);
        }
        Ok(appended)
    }

    fn append_quietly(
        &self,
        batch: &mut Batch,
        now_ms: i64,
        origin: Origin,
    ) -> Result<Appended, AppendError> {
        let clock = &self.core.config.clock;
        let started = clock.ticks_ns();
        let appended = self.core.append(&mut self.core.log.lock(), batch, now_ms, origin)?;
        self.core.append_ns.record(clock.ticks_ns().saturating_sub(started));
        Ok(appended)
    }
}

impl Core {
    pub(crate) fn append(
        &self,
        log: &mut MutexGuard<'_, Log>,
        batch: &mut Batch,
        now_ms: i64,
        origin: Origin,
    ) -> Result<Appended, AppendError> {
        self.check_writable(log, batch.bytes.len(), origin)?;
        let store_timestamp = self.store_time(log, now_ms);
        if batch.items.is_empty() {
            return Ok(Appended { start: log.position, end: log.position, store_timestamp });
        }
        self.make_room(log, batch.bytes.len())?;
        let start = log.position;
        for index in 0..batch.items.len() {
            let item = &mut batch.items[index];
            let next = &self.queues.queue(item.queue).next;
            if item.offsets > 0 {
                item.queue_offset = next.load(Ordering::Relaxed);
                next.store(item.queue_offset + i64::from(item.offsets), Ordering::Relaxed);
            }
            let position = start + u64::from(item.at);
            batch.patch(index, position, store_timestamp);
        }
        if let Err(error) = self.write(log, batch) {
            self.take_back(log, batch, start);
            return Err(self.write_error(error));
        }
        batch.base = start;
        let end = start + batch.bytes.len() as u64;
        log.position = end;
        log.store_timestamp = store_timestamp;
        log.messages += batch.items.len() as u64;
        self.durable.set_appended(end);
        self.enter_queues(batch, store_timestamp);
        self.enter_keys(batch, store_timestamp);
        if !log.next_prepared
            && end - log.segment.base > log.segment.bytes / 2
            && (self.watch.full().is_none() || self.has_room_for_another())
        {
            log.next_prepared = true;
            self.allocator.prepare(log.segment.end());
        }
        Ok(Appended { start, end, store_timestamp })
    }

    /// Writes the batch at the end of the log.
    ///
    /// A block that was never written to has to enter the file system's journal before a flush of it is done,
    /// and that takes as long again as the flush. So zeros are written ahead, and most flushes find only blocks
    /// that are known. They are written one by one: what the kernel keeps as one piece it also flushes as one.
    fn write(&self, log: &mut Log, batch: &mut Batch) -> io::Result<()> {
        let Log { segment, position, zeroed, .. } = log;
        let (start, bytes) = (*position - segment.base, batch.bytes.len());
        if !self.durable.is_sync() || bytes >= LARGE_GROUP_BYTES {
            return segment.file.write_all_at(&batch.bytes, start);
        }
        // Whole blocks: of others the rest would have to be read from the disk first.
        let end = (start + bytes as u64).next_multiple_of(BLOCK_BYTES).min(segment.bytes);
        batch.bytes.resize((end - start) as usize, 0);
        let written = segment.file.write_all_at(&batch.bytes, start);
        batch.bytes.truncate(bytes);
        written?;
        if segment.base + end > *zeroed {
            let ahead = (end + AHEAD_BYTES).min(segment.bytes);
            let zeros = [0; BLOCK_BYTES as usize];
            for at in (end..ahead).step_by(BLOCK_BYTES as usize) {
                let block = &zeros[..zeros.len().min((ahead - at) as usize)];
                // The messages are written; where no zeros are, flushes only take longer.
                let _ = segment.file.write_all_at(block, at);
            }
            *zeroed = segment.base + ahead;
        }
        Ok(())
    }

    fn store_time(&self, log: &Log, now_ms: i64) -> i64 {
        let is_ahead = |now_ms| log.store_timestamp.saturating_sub(now_ms) > STORE_TIME_LEAD_MAX_MS;
        if !is_ahead(now_ms) {
            return log.store_timestamp.max(now_ms);
        }
        // Who asked the clock long ago is behind, too.
        let now_ms = self.config.clock.now_ms().max(now_ms);
        if is_ahead(now_ms) { now_ms } else { log.store_timestamp.max(now_ms) }
    }

    fn check_writable(&self, log: &Log, bytes: usize, origin: Origin) -> Result<(), AppendError> {
        if log.closed {
            return Err(AppendError::Closed);
        }
        if let Some(error) = self.durable.error() {
            return Err(AppendError::Flush(error));
        }
        if let Some(full) = self.watch.full()
            && (origin == Origin::Clients || self.own_room(log) < bytes as u64)
        {
            return Err(full);
        }
        if let Some(wait_for) = self.behind(log.position) {
            let unsynced_bytes = log.position.saturating_sub(self.durable.position());
            return Err(AppendError::Unsynced { unsynced_bytes, wait_for });
        }
        Ok(())
    }

    /// What the log can still take on a full disk: the rest of its file, whose blocks are reserved, and
    /// another file if there is one already or the disk is full only by its share.
    fn own_room(&self, log: &Log) -> u64 {
        let left = (log.segment.end() - log.position).saturating_sub(BLANK_BYTES as u64);
        if self.allocator.is_ready(log.segment.end()) || self.has_room_for_another() {
            return left.max(self.config.segment_bytes - BLANK_BYTES as u64);
        }
        left
    }

    /// Whether another log file leaves the disk the bytes that are to stay free.
    fn has_room_for_another(&self) -> bool {
        let bytes = self.config.segment_bytes.saturating_add(self.retention.lock().free_bytes_min);
        self.watch.room().is_some_and(|room| room.available_bytes >= bytes)
    }

    /// What has to be durable before more is appended behind `position`.
    pub(crate) fn behind(&self, position: u64) -> Option<u64> {
        let unsynced_bytes = position.saturating_sub(self.durable.position());
        // A disk that failed catches up with nothing; it is reported, not waited for.
        let too_many =
            unsynced_bytes > self.config.unsynced_bytes_max && self.durable.error().is_none();
        too_many.then(|| position - self.config.unsynced_bytes_max / 2)
    }

    /// Goes on to the next file when the group and a blank behind it do not fit into this one.
    fn make_room(&self, log: &mut MutexGuard<'_, Log>, bytes: usize) -> Result<(), AppendError> {
        let left = log.segment.end() - log.position;
        if bytes as u64 + BLANK_BYTES as u64 <= left {
            return Ok(());
        }
        let next =
            self.allocator.take(log.segment.end()).map_err(|error| self.write_error(error))?;
        if left >= BLANK_BYTES as u64 {
            let left = u32::try_from(left).unwrap_or(u32::MAX);
            log.segment
                .file
                .write_all_at(&blank(left), log.position - log.segment.base)
                .map_err(|error| self.write_error(error))?;
        }
        self.segments.push(next.clone());
        log.position = next.base;
        log.zeroed = next.base;
        log.segment = next;
        log.next_prepared = false;
        self.durable.set_appended(log.position);
        Ok(())
    }

    fn enter_queues(&self, batch: &Batch, store_timestamp: i64) {
        let mut held: Option<(QueueRef, MutexGuard<'_, State>)> = None;
        let mut entered = 0;
        for item in batch.items.iter().filter(|item| item.offsets > 0) {
            let queue = self.queues.queue(item.queue);
            if held.as_ref().is_none_or(|(held, _)| *held != item.queue) {
                drop(held.take());
                held = Some((item.queue, queue.state.lock()));
                self.mark_dirty(item.queue, queue);
            }
            let (_, state) = held.as_mut().expect("just set");
            let unit = Unit {
                position: batch.base + u64::from(item.at),
                size: item.size,
                tags_code: item.tags.code(store_timestamp),
            };
            for _ in 0..item.offsets {
                state.push(unit);
            }
            entered += usize::from(item.offsets);
            queue.max.store(item.queue_offset + i64::from(item.offsets), Ordering::Release);
        }
        self.tails.add(entered);
    }

    fn enter_keys(&self, batch: &Batch, store_timestamp: i64) {
        if batch.keys.is_empty() {
            return;
        }
        let mut buffer = self.keys.buffer.lock();
        let mut from = 0;
        for item in &batch.items {
            for hash in &batch.keys[from..item.keys_end as usize] {
                let position = batch.base + u64::from(item.at);
                buffer.push(KeyItem::new(*hash, position, store_timestamp));
            }
            from = item.keys_end as usize;
        }
    }

    /// Nothing was written, so nothing is assigned.
    fn take_back(&self, log: &Log, batch: &mut Batch, start: u64) {
        for item in batch.items.iter().rev() {
            if item.offsets > 0 {
                self.queues.queue(item.queue).next.store(item.queue_offset, Ordering::Relaxed);
            }
        }
        // A part may lie in the file; a restart must not take it for messages. If this fails too, it will find
        // messages nobody was told are stored, which is allowed.
        let zeros = vec![0; batch.bytes.len()];
        let _ = log.segment.file.write_all_at(&zeros, start - log.segment.base);
    }

    fn write_error(&self, error: io::Error) -> AppendError {
        if is_full(&error) {
            return self.watch.mark_full();
        }
        AppendError::Write(Arc::new(error))
    }
}
