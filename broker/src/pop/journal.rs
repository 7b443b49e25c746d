//! Ledgers in the log: events of many requests share a record of one system topic, and a start folds them.
//!
//! What was answered but is not in the log yet is in a tail file, written without waiting for the disk: it
//! outlives this process, not a loss of power. Its frames are numbered on from the log, and each names the end
//! of the log it presupposes, so that it is never taken for more than a log that was cut still holds.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use protocol::reply::{Refusal, ReplyCode};
use store::{Batch, Hold, NewMessage, QueueRef, Store, Stored};
use tracing::warn;

use super::event::{get, get_signed, put, put_signed};
use crate::journal::{JournalError, REST_MS, check_room, each_record, point_to};

/// Where the events are.
pub const TOPIC: &str = "rmq_sys_ferromq_pop";
/// Events that wait are appended when they are this many bytes.
pub const FLUSH_BYTES: usize = 32 * 1024;
/// Or this old.
pub const FLUSH_AFTER_MS: i64 = 1000;
/// Bytes of one record; a last event may lead beyond.
const PART_BYTES: usize = 256 * 1024;
/// Bytes of a record that are not events: fixed fields, topic, and what a part says of itself.
const PART_HEAD_BYTES: usize = 256;
/// Bytes that may wait for a log that takes nothing.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of events after which all ledgers are written once more, so that a start need not read further back.
const SWEEP_AFTER_BYTES: u64 = 16 * 1024 * 1024;
/// Or when the last time is this long ago; well below what retention leaves.
const SWEEP_AFTER_MS: i64 = 6 * 3_600_000;
/// Length and checksum, and then what the checksum covers: number, time base and end of the log.
const FRAME_HEAD: usize = 8;
const FRAME_FACTS: usize = 24;
/// Numbers left out at a start, so that frames of another life are never taken for those of this one.
const LIFE: u64 = 1 << 32;

/// First and last record of a sweep.
const BEGIN: u8 = 1;
const END: u8 = 2;
const VERSION: u8 = 1;

/// Writes events, in the order in which they are given.
#[derive(Debug)]
pub struct Journal {
    queue: QueueRef,
    host: SocketAddr,
    tails: [File; 2],
    /// Where the newest whole sweep begins, as a file; derived, may be lost.
    pointer: PathBuf,
    /// What a start would read.
    hold: Hold,
    part_bytes: usize,
    event_bytes_max: usize,
    writer: Mutex<Writer>,
    /// Held while records are appended, so that they are in the order of their numbers.
    flushing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Writer {
    /// What is added to.
    open: Part,
    /// Complete parts that are not in the log yet, oldest first.
    closed: VecDeque<Arc<Part>>,
    closed_bytes: usize,
    /// Events before this number are in the log or in a tail.
    kept: u64,
    /// Which tail is written, and where.
    tail: usize,
    tail_at: u64,
    /// The number behind the last event in each tail.
    tail_ends: [u64; 2],
    frame: Vec<u8>,
    since_sweep: u64,
    /// When the oldest record was written that a start reads, or this process asked for the first time.
    swept_ms: Option<i64>,
    /// When a sweep failed.
    rests_since_ms: Option<i64>,
}

/// Events of one record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Bytes of events before these, since the first of all.
    pub number: u64,
    pub base_ms: i64,
    pub events: Vec<u8>,
    marks: u8,
}

impl Part {
    fn end(&self) -> u64 {
        self.number + self.events.len() as u64
    }
}

impl Writer {
    /// What is open is complete, and what comes next is another part.
    fn close(&mut self, marks: u8) {
        self.open.marks |= marks;
        if self.open.events.is_empty() && self.open.marks == 0 {
            return;
        }
        let part = std::mem::take(&mut self.open);
        self.open.number = part.end();
        self.closed_bytes += part.events.len();
        self.closed.push_back(Arc::new(part));
    }

    /// The oldest part is in the log.
    fn logged(&mut self) {
        if let Some(part) = self.closed.pop_front() {
            self.closed_bytes -= part.events.len();
            self.kept = self.kept.max(part.end());
        }
    }

    /// Goes on in the other tail, unless that has something which is not in the log.
    fn turn(&mut self) {
        let logged = self.closed.front().map_or(self.open.number, |part| part.number);
        let other = self.tail ^ 1;
        if self.tail_at > 0 && self.tail_ends[other] <= logged {
            (self.tail, self.tail_at) = (other, 0);
        }
    }
}

impl Journal {
    pub fn open(store: &Store, root: &Path, host: SocketAddr) -> Result<Self, JournalError> {
        let folder = root.join("ferromq");
        std::fs::create_dir_all(&folder)?;
        let tail = |name: &str| {
            let mut options = OpenOptions::new();
            options.create(true).truncate(false).read(true).write(true).open(folder.join(name))
        };
        let half = (store.record_bytes_max() - PART_HEAD_BYTES) / 2;
        Ok(Self {
            queue: store.queue(TOPIC, 0)?,
            host,
            tails: [tail("pop.0")?, tail("pop.1")?],
            pointer: folder.join("pop.sweep"),
            hold: store.hold(store.min_position()),
            part_bytes: PART_BYTES.min(half),
            event_bytes_max: half,
            writer: Mutex::default(),
            flushing: Mutex::default(),
        })
    }

    /// Adds what `write` appends, told the time that times count from. It is in the log soon, and outlives this
    /// process once [`Journal::keep`] has been called.
    pub fn add(&self, now_ms: i64, write: impl FnOnce(&mut Vec<u8>, i64)) -> Result<(), Refusal> {
        let mut writer = self.writer.lock();
        let busy = |remark: &'static str| Refusal::new(ReplyCode::SystemBusy, remark);
        if writer.open.events.len() + writer.closed_bytes > WAITING_BYTES_MAX {
            return Err(busy("too many changes wait for the log, which takes nothing"));
        }
        let Part { base_ms, events, .. } = &mut writer.open;
        if events.is_empty() {
            *base_ms = now_ms;
        }
        let before = events.len();
        write(events, *base_ms);
        let added = events.len() - before;
        if added > self.event_bytes_max {
            events.truncate(before);
            return Err(busy("more is taken of a queue than a record of the log can hold"));
        }
        let is_full = events.len() >= self.part_bytes;
        writer.since_sweep += added as u64;
        if is_full {
            writer.close(0);
        }
        Ok(())
    }

    /// Everything added so far outlives this process.
    pub fn keep(&self, log_end: u64) -> Result<(), Refusal> {
        let mut writer = self.writer.lock();
        let Writer { open, closed, kept, tail, tail_at, tail_ends, frame, .. } = &mut *writer;
        let end = open.end();
        if *kept == end {
            return Ok(());
        }
        frame.clear();
        // Also what is on its way to the log, which it may not reach: a tail with a gap ends there.
        for part in closed.iter().map(Arc::as_ref).chain([&*open]) {
            put_frame(frame, part, *kept, log_end);
        }
        self.tails[*tail].write_all_at(frame, *tail_at).map_err(|error| {
            let remark = format!("cannot keep what was consumed: {error}");
            Refusal::new(ReplyCode::SystemBusy, remark)
        })?;
        *tail_at += frame.len() as u64;
        (*kept, tail_ends[*tail]) = (end, end);
        Ok(())
    }

    /// Whether it is time for [`Journal::flush`].
    pub fn wants_flush(&self, now_ms: i64) -> bool {
        let writer = self.writer.lock();
        let Part { base_ms, events, .. } = &writer.open;
        let old = !events.is_empty() && now_ms.abs_diff(*base_ms) >= FLUSH_AFTER_MS as u64;
        events.len() >= FLUSH_BYTES || old || !writer.closed.is_empty()
    }

    /// Appends what waits to the log.
    pub fn flush(&self, store: &Store, now_ms: i64) -> Result<(), JournalError> {
        self.flush_marked(store, now_ms, 0).map(drop)
    }

    /// The same, and says where the part is that got these marks.
    fn flush_marked(
        &self,
        store: &Store,
        now_ms: i64,
        marks: u8,
    ) -> Result<Option<Stored>, JournalError> {
        let _flushing = self.flushing.lock();
        {
            let mut writer = self.writer.lock();
            writer.close(marks);
            writer.turn();
        }
        let mut marked = None;
        while let Some(part) = self.oldest() {
            let stored = self.append(store, &part, now_ms)?;
            if part.marks & marks != 0 {
                marked = Some(stored);
            }
            self.writer.lock().logged();
        }
        Ok(marked)
    }

    fn oldest(&self) -> Option<Arc<Part>> {
        self.writer.lock().closed.front().cloned()
    }

    fn append(&self, store: &Store, part: &Part, now_ms: i64) -> Result<Stored, JournalError> {
        let mut body = Vec::with_capacity(part.events.len() + 24);
        body.extend_from_slice(&[VERSION, part.marks]);
        put(&mut body, part.number);
        put_signed(&mut body, part.base_ms);
        body.extend_from_slice(&part.events);
        let message = NewMessage {
            flag: 0,
            sys_flag: 0,
            born_timestamp: now_ms,
            born_host: self.host,
            store_host: self.host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: &body,
            properties: &[],
        };
        let mut batch = Batch::new();
        store.push(&mut batch, self.queue, &message)?;
        store.append_own(&mut batch, now_ms)?;
        Ok(batch.entries().next().expect("it was just appended"))
    }

    /// Whether enough was written since the last sweep, or it is old or in the way, for another one.
    pub fn wants_sweep(&self, store: &Store, now_ms: i64) -> bool {
        let mut writer = self.writer.lock();
        if writer.rests_since_ms.is_some_and(|since| now_ms.abs_diff(since) < REST_MS) {
            return false;
        }
        // What a clock that was wrong has dated ahead of now is as old as now.
        let swept_ms = writer.swept_ms.map_or(now_ms, |swept_ms| swept_ms.min(now_ms));
        writer.swept_ms = Some(swept_ms);
        let old = now_ms - swept_ms >= SWEEP_AFTER_MS;
        writer.since_sweep >= SWEEP_AFTER_BYTES
            || old && writer.since_sweep > 0
            || store.is_wanted(&self.hold)
    }

    /// Has `write` add every ledger whole, some `bytes` in all. What happens meanwhile lies between them, in the
    /// order of each.
    pub fn sweep(
        &self,
        store: &Store,
        now_ms: i64,
        bytes: impl FnOnce() -> u64,
        write: impl FnOnce() -> Result<(), Refusal>,
    ) -> Result<(), JournalError> {
        let begin = self.sweep_parts(store, now_ms, bytes, write).inspect_err(|_| {
            let mut writer = self.writer.lock();
            writer.since_sweep += SWEEP_AFTER_BYTES;
            writer.rests_since_ms = Some(now_ms);
        })?;
        point_to(store, &self.pointer, &self.hold, begin)
    }

    /// Returns where the first part is.
    fn sweep_parts(
        &self,
        store: &Store,
        now_ms: i64,
        bytes: impl FnOnce() -> u64,
        write: impl FnOnce() -> Result<(), Refusal>,
    ) -> Result<Stored, JournalError> {
        check_room(store, bytes)?;
        self.flush(store, now_ms)?;
        let begin =
            self.flush_marked(store, now_ms, BEGIN)?.expect("a part with marks is appended");
        {
            let mut writer = self.writer.lock();
            writer.since_sweep = 0;
            writer.swept_ms = Some(now_ms);
        }
        write().map_err(|refusal| io::Error::other(refusal.to_string()))?;
        self.flush_marked(store, now_ms, END)?;
        Ok(begin)
    }

    /// Reads everything back in order, from the newest whole sweep on: the log first, then the tails. `None` stands
    /// for a part that cannot be read.
    pub fn load(
        &self,
        store: &Store,
        now_ms: i64,
        mut fold: impl FnMut(Option<&Part>),
    ) -> Result<(), JournalError> {
        let from = self.start(store)?;
        let first = store.position_from(self.queue, from)?;
        self.hold.move_to(first.unwrap_or_else(|| store.appended_position()));
        let (mut end, mut since, mut first_ms) = (0, 0, None);
        self.each_part(store, from, |part, time| {
            let Some(part) = part else { return fold(None) };
            end = part.end();
            since += part.events.len() as u64;
            first_ms.get_or_insert(time);
            if part.marks & END != 0 {
                since = 0;
            }
            fold(Some(&part));
        })?;
        let kept = self.kept(store, end)?;
        let mut tails = [(0, 0); 2];
        {
            let mut writer = self.writer.lock();
            for Kept { part, tail, tail_end } in kept {
                fold(Some(&part));
                end = part.end();
                tails[tail] = (tail_end, end);
                writer.closed_bytes += part.events.len();
                writer.closed.push_back(Arc::new(part));
            }
            (writer.open.number, writer.kept) = (end, end);
            (writer.since_sweep, writer.swept_ms) = (since, first_ms);
        }
        match self.begin_life(store, now_ms, end) {
            Err(error) if error.is_passing() => {
                warn!(%error, "what was popped last stays beside the log");
                self.go_on(tails)
            }
            begun => begun,
        }
    }

    /// Brings what the tails held into the log, and numbers on from where no frame of theirs does.
    fn begin_life(&self, store: &Store, now_ms: i64, end: u64) -> Result<(), JournalError> {
        self.flush(store, now_ms)?;
        let mut tailed = false;
        for tail in &self.tails {
            tailed |= tail.metadata()?.len() > 0;
        }
        if end > 0 || tailed {
            let life = Part { number: end + LIFE, base_ms: now_ms, ..Part::default() };
            self.append(store, &life, now_ms)?;
            let mut writer = self.writer.lock();
            (writer.open.number, writer.kept) = (life.number, life.number);
        }
        for tail in &self.tails {
            tail.set_len(0)?;
        }
        Ok(())
    }

    /// Goes on in the tails as they are, behind what counts in each and the number it ends with; what does not
    /// count is gone before any frame could be taken for the one behind it.
    fn go_on(&self, tails: [(u64, u64); 2]) -> Result<(), JournalError> {
        for (file, (length, _)) in self.tails.iter().zip(tails) {
            file.set_len(length)?;
            file.sync_all()?;
        }
        let mut writer = self.writer.lock();
        writer.tail = usize::from(tails[1].1 > tails[0].1);
        writer.tail_at = tails[writer.tail].0;
        writer.tail_ends = tails.map(|(_, end)| end);
        Ok(())
    }

    /// Where the newest whole sweep begins; the first record there is, if none is known.
    fn start(&self, store: &Store) -> Result<i64, JournalError> {
        let pointed = std::fs::read_to_string(&self.pointer).ok();
        let pointed: Option<i64> = pointed.and_then(|text| text.trim().parse().ok());
        let (min, max) = (store.min_offset(self.queue), store.max_offset(self.queue));
        let Some(from) = pointed.filter(|at| (min..max).contains(at)) else { return Ok(min) };
        let (mut first, mut begun, mut whole) = (true, false, false);
        self.each_part(store, from, |part, _| {
            let marks = part.map_or(0, |part| part.marks);
            begun |= first && marks & BEGIN != 0;
            first = false;
            whole |= begun && marks & END != 0;
        })?;
        Ok(if whole { from } else { min })
    }

    fn each_part(
        &self,
        store: &Store,
        from: i64,
        mut see: impl FnMut(Option<Part>, i64),
    ) -> Result<(), JournalError> {
        each_record(store, self.queue, from, |record| {
            let time = record.map_or(0, |record| record.store_timestamp);
            see(record.and_then(|record| part(record.body)), time);
        })
    }

    /// What the tails hold beyond the log, as far as it goes on without a gap.
    fn kept(&self, store: &Store, mut end: u64) -> Result<Vec<Kept>, JournalError> {
        let mut frames = Vec::new();
        for (tail, file) in self.tails.iter().enumerate() {
            let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).unwrap_or(0)];
            file.read_exact_at(&mut bytes, 0)?;
            let mut rest = bytes.as_slice();
            while let Some((part, presupposed)) = frame(&mut rest) {
                let tail_end = (bytes.len() - rest.len()) as u64;
                frames.push((Kept { part, tail, tail_end }, presupposed));
            }
        }
        frames.sort_by_key(|(frame, _)| frame.part.number);
        let log_end = store.appended_position();
        let mut kept = Vec::new();
        for (frame, presupposed) in frames {
            if frame.part.number == end && presupposed <= log_end {
                end = frame.part.end();
                kept.push(frame);
            }
        }
        Ok(kept)
    }
}

/// What a frame of a tail holds, and where it ends there.
#[derive(Debug)]
struct Kept {
    part: Part,
    tail: usize,
    tail_end: u64,
}

fn part(body: &[u8]) -> Option<Part> {
    let &[VERSION, marks, ref rest @ ..] = body else { return None };
    let mut rest = rest;
    let number = get(&mut rest)?;
    let base_ms = get_signed(&mut rest)?;
    Some(Part { number, base_ms, events: rest.to_vec(), marks })
}

/// Writes the events of a part from this number on, if there are any.
fn put_frame(out: &mut Vec<u8>, part: &Part, from: u64, log_end: u64) {
    let skip = usize::try_from(from.saturating_sub(part.number)).unwrap_or(usize::MAX);
    let Some(events) = part.events.get(skip..).filter(|events| !events.is_empty()) else { return };
    let length = u32::try_from(events.len()).expect("parts are limited");
    let start = out.len();
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&from.max(part.number).to_be_bytes());
    out.extend_from_slice(&part.base_ms.to_be_bytes());
    out.extend_from_slice(&log_end.to_be_bytes());
    out.extend_from_slice(events);
    let checksum = crc32fast::hash(&out[start + FRAME_HEAD..]);
    out[start + 4..start + FRAME_HEAD].copy_from_slice(&checksum.to_be_bytes());
}

fn frame(input: &mut &[u8]) -> Option<(Part, u64)> {
    let (head, rest) = input.split_first_chunk::<FRAME_HEAD>()?;
    let (length, checksum) = head.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let whole = rest.get(..length.checked_add(FRAME_FACTS)?)?;
    if length == 0 || crc32fast::hash(whole).to_be_bytes() != checksum {
        return None;
    }
    let word = |at: usize| whole[at..at + 8].try_into().map(u64::from_be_bytes);
    let (number, base_ms, log_end) = (word(0).ok()?, word(8).ok()?, word(16).ok()?);
    *input = &rest[whole.len()..];
    let events = whole[FRAME_FACTS..].to_vec();
    Some((Part { number, base_ms: base_ms.cast_signed(), events, marks: 0 }, log_end))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn open(dir: &Path) -> (Arc<Store>, Journal) {
        let clock = store::Clock::new(|| 0, || 0);
        let config = store::Config { maintenance: false, ..store::Config::new(dir, clock) };
        let store = Store::open(config).unwrap();
        let journal = Journal::open(&store, dir, ([127, 0, 0, 1], 1).into()).unwrap();
        (store, journal)
    }

    fn loaded(store: &Store, journal: &Journal) -> Vec<u8> {
        let mut all = Vec::new();
        journal.load(store, 0, |part| all.extend_from_slice(&part.unwrap().events)).unwrap();
        all
    }

    fn add(journal: &Journal, event: u8) {
        journal.add(0, |out, _| out.push(event)).unwrap();
    }

    #[test]
    fn what_is_kept_is_found_beside_the_log_once_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let (store, mut journal) = open(dir.path());
        let mut expected = Vec::new();
        for life in 0..4u8 {
            for step in 0..20u8 {
                let event = life * 20 + step;
                add(&journal, event);
                expected.push(event);
                if step % 3 == 0 {
                    journal.keep(store.appended_position()).unwrap();
                }
                if step % 7 == 5 {
                    journal.flush(&store, 0).unwrap();
                }
            }
            journal.keep(store.appended_position()).unwrap();
            // Neither kept nor appended, it is lost with the process.
            add(&journal, 255);
            for time in ["at first", "once more"] {
                journal = Journal::open(&store, dir.path(), journal.host).unwrap();
                assert_eq!(loaded(&store, &journal), expected, "life {life}, {time}");
            }
        }
    }

    #[test]
    fn what_was_on_its_way_to_a_log_that_did_not_take_it_leaves_no_gap() {
        let dir = tempfile::tempdir().unwrap();
        let (store, journal) = open(dir.path());
        add(&journal, 1);
        journal.keep(store.appended_position()).unwrap();
        // A delivery that was not kept, and then the log takes nothing.
        add(&journal, 2);
        store.close().unwrap();
        assert!(journal.flush(&store, 0).is_err());
        add(&journal, 3);
        assert!(journal.flush(&store, 0).is_err());
        add(&journal, 4);
        journal.keep(store.appended_position()).unwrap();
        drop((store, journal));
        let (store, journal) = open(dir.path());
        assert_eq!(loaded(&store, &journal), [1, 2, 3, 4]);
    }

    #[test]
    fn what_waited_for_long_fits_into_the_records_there_may_be() {
        let dir = tempfile::tempdir().unwrap();
        let clock = store::Clock::new(|| 0, || 0);
        let config = store::Config {
            maintenance: false,
            segment_bytes: 64 * 1024,
            ..store::Config::new(dir.path(), clock)
        };
        let store = Store::open(config).unwrap();
        let journal = Journal::open(&store, dir.path(), ([127, 0, 0, 1], 1).into()).unwrap();
        let mut expected = Vec::new();
        for number in 0..100u8 {
            let event = vec![number; 5000];
            journal.add(0, |out, _| out.extend_from_slice(&event)).unwrap();
            expected.extend_from_slice(&event);
            if number % 40 == 0 {
                journal.keep(store.appended_position()).unwrap();
            }
        }
        let refused = journal.add(0, |out, _| out.resize(out.len() + 40_000, 0));
        assert!(refused.is_err(), "an event that no record could hold");
        journal.flush(&store, 0).unwrap();
        assert!(!journal.wants_flush(0));
        assert!(loaded(&store, &journal) == expected);
    }

    #[test]
    fn a_sweep_outlives_the_log_file_it_was_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let config = store::Config {
            maintenance: false,
            segment_bytes: 64 * 1024,
            retention: store::Retention { reserved_ms: 1000, ..store::Retention::default() },
            ..store::Config::new(dir.path(), store::Clock::new(|| 0, || 0))
        };
        let store = Store::open(config).unwrap();
        let journal = Journal::open(&store, dir.path(), ([127, 0, 0, 1], 1).into()).unwrap();
        loaded(&store, &journal);
        let fill = |event: u8| {
            for _ in 0..30 {
                journal.add(0, |out, _| out.extend_from_slice(&[event; 20_000])).unwrap();
                journal.flush(&store, 0).unwrap();
            }
            store.flush().unwrap();
            store.delete_expired(store::Cleaning::Manual, 10_000).unwrap();
        };
        fill(1);
        assert_eq!(loaded(&store, &journal)[..5], [1; 5], "there is no sweep yet");
        assert!(journal.wants_sweep(&store, 0), "it is in the way");
        let write = || {
            add(&journal, 2);
            Ok(())
        };
        journal.sweep(&store, 0, || 0, write).unwrap();
        assert!(!journal.wants_sweep(&store, 0));
        fill(3);
        assert!(store.min_offset(journal.queue) > 0, "what came before it has gone");
        assert_eq!(loaded(&store, &journal)[..2], [2, 3]);
        assert!(journal.wants_sweep(&store, 0), "and now it is in the way");
    }

    #[test]
    fn on_a_full_disk_a_start_goes_on_with_the_tails() {
        use std::sync::atomic::{AtomicU64, Ordering};
        let dir = tempfile::tempdir().unwrap();
        let available = Arc::new(AtomicU64::new(500 << 20));
        let open = || {
            let clock = store::Clock::new(|| 0, || 0);
            let available = available.clone();
            let disk = store::Disk::new(move |_| {
                let available_bytes = available.load(Ordering::SeqCst);
                Ok(store::Room { total_bytes: 1000 << 20, available_bytes })
            });
            let config = store::Config {
                maintenance: false,
                segment_bytes: 64 * 1024,
                disk,
                ..store::Config::new(dir.path(), clock)
            };
            let store = Store::open(config).unwrap();
            let journal = Journal::open(&store, dir.path(), ([127, 0, 0, 1], 1).into()).unwrap();
            (store, journal)
        };
        let (store, journal) = open();
        // What is left of the log file shall be too little for what waits.
        let filled = vec![0; 63 * 1024 - 500];
        let limit = journal.part_bytes;
        for piece in filled.chunks(limit / 2) {
            journal.add(0, |out, _| out.extend_from_slice(piece)).unwrap();
            journal.flush(&store, 0).unwrap();
        }
        let mut expected = filled;
        let mut next = |journal: &Journal, store: &Store, number: u8| {
            let event = [number; 2000];
            journal.add(0, |out, _| out.extend_from_slice(&event)).unwrap();
            journal.keep(store.appended_position()).unwrap();
            expected.extend_from_slice(&event);
            expected.clone()
        };
        next(&journal, &store, 1);
        drop((store, journal));
        // Too little for another log file, too.
        available.store(50 << 20, Ordering::SeqCst);
        for life in 2..6 {
            let (store, journal) = open();
            let before = loaded(&store, &journal);
            let expected = next(&journal, &store, life);
            assert_eq!(before.len() + 2000, expected.len(), "life {life}");
            assert!(journal.flush(&store, 0).is_err(), "it is full");
        }
        available.store(500 << 20, Ordering::SeqCst);
        let (store, journal) = open();
        loaded(&store, &journal);
        let expected = next(&journal, &store, 6);
        journal.flush(&store, 0).unwrap();
        let journal = Journal::open(&store, dir.path(), journal.host).unwrap();
        assert!(loaded(&store, &journal) == expected);
    }

    #[test]
    fn what_presupposes_more_of_the_log_than_there_is_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let (store, journal) = open(dir.path());
        for (event, beyond) in [(1, 0), (2, 1), (3, 0)] {
            add(&journal, event);
            journal.keep(store.appended_position() + beyond).unwrap();
        }
        let journal = Journal::open(&store, dir.path(), journal.host).unwrap();
        assert_eq!(loaded(&store, &journal), [1], "and nothing behind it");
        // The life that follows numbers on from elsewhere.
        add(&journal, 4);
        journal.keep(store.appended_position()).unwrap();
        let journal = Journal::open(&store, dir.path(), journal.host).unwrap();
        assert_eq!(loaded(&store, &journal), [1, 4]);
    }

    #[test]
    fn a_start_reads_from_the_newest_whole_sweep() {
        let dir = tempfile::tempdir().unwrap();
        let (store, journal) = open(dir.path());
        add(&journal, 1);
        let broken_off = || {
            add(&journal, 2);
            Err(Refusal::new(ReplyCode::SystemBusy, "broken off"))
        };
        assert!(journal.sweep(&store, 0, || 0, broken_off).is_err());
        assert!(!journal.wants_sweep(&store, 0), "it would fail again");
        assert!(journal.wants_sweep(&store, REST_MS as i64));
        let sweep = |event| {
            let write = || {
                add(&journal, event);
                Ok(())
            };
            journal.sweep(&store, 0, || 0, write).unwrap();
        };
        journal.flush(&store, 0).unwrap();
        sweep(3);
        sweep(4);
        add(&journal, 5);
        journal.flush(&store, 0).unwrap();
        assert_eq!(loaded(&store, &journal), [4, 5]);
        std::fs::remove_file(&journal.pointer).unwrap();
        assert_eq!(loaded(&store, &journal), [1, 2, 3, 4, 5], "the pointer may be lost");
    }
}
