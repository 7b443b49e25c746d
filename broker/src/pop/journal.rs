//! Ledgers in the log: events of many requests share a record of one system topic, and a start folds them.
//!
//! What was answered but is not in the log yet is in a tail file, written without waiting for the disk: it
//! outlives this process, not a loss of power. Its frames are numbered on from the log, and each names the end
//! of the log it presupposes, so that it is never taken for more than a log that was cut still holds.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use protocol::reply::{Refusal, ReplyCode};
use store::{Batch, NewMessage, QueueRef, Store};

use super::event::{get, get_signed, put, put_signed};
use crate::journal::{JournalError, each_record};

/// Where the events are.
pub const TOPIC: &str = "rmq_sys_ferromq_pop";
/// Events that wait are appended when they are this many bytes.
pub const FLUSH_BYTES: usize = 32 * 1024;
/// Or this old.
pub const FLUSH_AFTER_MS: i64 = 1000;
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
    writer: Mutex<Writer>,
    /// Held while records are appended: parts that the log refused so far.
    flushing: Mutex<Vec<Part>>,
}

#[derive(Debug, Default)]
struct Writer {
    waiting: Part,
    /// Bytes of `waiting` that are in a tail.
    tailed: usize,
    /// Which tail is written, and where.
    tail: usize,
    tail_at: u64,
    frame: Vec<u8>,
    refused_bytes: usize,
    since_sweep: u64,
    swept_ms: Option<i64>,
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

impl Journal {
    pub fn open(store: &Store, root: &Path, host: SocketAddr) -> Result<Self, JournalError> {
        let folder = root.join("ferromq");
        std::fs::create_dir_all(&folder)?;
        let tail = |name: &str| {
            let mut options = OpenOptions::new();
            options.create(true).truncate(false).read(true).write(true).open(folder.join(name))
        };
        Ok(Self {
            queue: store.queue(TOPIC, 0)?,
            host,
            tails: [tail("pop.0")?, tail("pop.1")?],
            pointer: folder.join("pop.sweep"),
            writer: Mutex::default(),
            flushing: Mutex::default(),
        })
    }

    /// Adds what `write` appends, told the time that times count from. It is in the log soon, and outlives this
    /// process once [`Journal::keep`] has been called.
    pub fn add(&self, now_ms: i64, write: impl FnOnce(&mut Vec<u8>, i64)) -> Result<(), Refusal> {
        let mut writer = self.writer.lock();
        if writer.waiting.events.len() + writer.refused_bytes > WAITING_BYTES_MAX {
            let remark = "too many changes wait for the log, which takes nothing";
            return Err(Refusal::new(ReplyCode::SystemBusy, remark));
        }
        let Part { base_ms, events, .. } = &mut writer.waiting;
        if events.is_empty() {
            *base_ms = now_ms;
        }
        let before = events.len();
        write(events, *base_ms);
        let added = (events.len() - before) as u64;
        writer.since_sweep += added;
        Ok(())
    }

    /// Everything added so far outlives this process.
    pub fn keep(&self, log_end: u64) -> Result<(), Refusal> {
        let mut writer = self.writer.lock();
        let Writer { waiting, tailed, tail, tail_at, frame, .. } = &mut *writer;
        if *tailed == waiting.events.len() {
            return Ok(());
        }
        let events = &waiting.events[*tailed..];
        let length = u32::try_from(events.len()).expect("far less waits");
        frame.clear();
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(&(waiting.number + *tailed as u64).to_be_bytes());
        frame.extend_from_slice(&waiting.base_ms.to_be_bytes());
        frame.extend_from_slice(&log_end.to_be_bytes());
        frame.extend_from_slice(events);
        let checksum = crc32fast::hash(&frame[FRAME_HEAD..]);
        frame[4..FRAME_HEAD].copy_from_slice(&checksum.to_be_bytes());
        self.tails[*tail].write_all_at(frame, *tail_at).map_err(|error| {
            let remark = format!("cannot keep what was consumed: {error}");
            Refusal::new(ReplyCode::SystemBusy, remark)
        })?;
        *tail_at += frame.len() as u64;
        *tailed = waiting.events.len();
        Ok(())
    }

    /// Whether it is time for [`Journal::flush`].
    pub fn wants_flush(&self, now_ms: i64) -> bool {
        let writer = self.writer.lock();
        let Part { base_ms, events, .. } = &writer.waiting;
        let old = !events.is_empty() && now_ms.abs_diff(*base_ms) >= FLUSH_AFTER_MS as u64;
        events.len() >= FLUSH_BYTES || old || writer.refused_bytes > 0
    }

    /// Appends what waits to the log.
    pub fn flush(&self, store: &Store, now_ms: i64) -> Result<(), JournalError> {
        self.flush_marked(store, now_ms, 0)
    }

    fn flush_marked(&self, store: &Store, now_ms: i64, marks: u8) -> Result<(), JournalError> {
        let mut refused = self.flushing.lock();
        {
            let mut writer = self.writer.lock();
            writer.waiting.marks |= marks;
            if !writer.waiting.events.is_empty() || writer.waiting.marks != 0 {
                let next = writer.waiting.end();
                let part = std::mem::take(&mut writer.waiting);
                writer.waiting.number = next;
                writer.tailed = 0;
                if refused.is_empty() {
                    // What the other tail holds is in the log.
                    writer.tail ^= 1;
                    writer.tail_at = 0;
                }
                writer.refused_bytes += part.events.len();
                refused.push(part);
            }
        }
        while let Some(part) = refused.first() {
            self.append(store, part, now_ms)?;
            self.writer.lock().refused_bytes -= part.events.len();
            refused.remove(0);
        }
        Ok(())
    }

    fn append(&self, store: &Store, part: &Part, now_ms: i64) -> Result<(), JournalError> {
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
        store.append(&mut batch, now_ms)?;
        Ok(())
    }

    /// Whether enough was written since the last sweep, or it may soon be too old, for another one.
    pub fn wants_sweep(&self, now_ms: i64) -> bool {
        let mut writer = self.writer.lock();
        let old = now_ms - *writer.swept_ms.get_or_insert(now_ms) >= SWEEP_AFTER_MS;
        writer.since_sweep >= SWEEP_AFTER_BYTES || old && writer.since_sweep > 0
    }

    /// Has `write` add every ledger whole. What happens meanwhile lies between them, in the order of each.
    pub fn sweep(
        &self,
        store: &Store,
        now_ms: i64,
        write: impl FnOnce() -> Result<(), Refusal>,
    ) -> Result<(), JournalError> {
        self.flush(store, now_ms)?;
        let begin = store.max_offset(self.queue);
        self.flush_marked(store, now_ms, BEGIN)?;
        {
            let mut writer = self.writer.lock();
            writer.since_sweep = 0;
            writer.swept_ms = Some(now_ms);
        }
        let written = write().map_err(|refusal| io::Error::other(refusal.to_string()));
        if written.is_err() {
            self.writer.lock().since_sweep += SWEEP_AFTER_BYTES;
        }
        written?;
        self.flush_marked(store, now_ms, END)?;
        crate::config_files::write_atomically(&self.pointer, begin.to_string().as_bytes())?;
        Ok(())
    }

    /// Reads everything back in order, from the newest whole sweep on: the log first, then the tails.
    pub fn load(
        &self,
        store: &Store,
        now_ms: i64,
        mut fold: impl FnMut(&Part),
    ) -> Result<(), JournalError> {
        let mut end = 0;
        let from = self.start(store)?;
        self.each_part(store, from, |part| {
            end = part.end();
            fold(&part);
        })?;
        let kept = self.kept(store, end)?;
        for part in &kept {
            fold(part);
            self.append(store, part, now_ms)?;
            end = part.end();
        }
        let mut tailed = false;
        for tail in &self.tails {
            tailed |= tail.metadata()?.len() > 0;
            tail.set_len(0)?;
        }
        if end > 0 || tailed {
            // From here frames go on that this life writes.
            let life = Part { number: end + LIFE, base_ms: now_ms, ..Part::default() };
            self.append(store, &life, now_ms)?;
            self.writer.lock().waiting.number = life.number;
        }
        Ok(())
    }

    /// Where the newest whole sweep begins; the first record there is, if none is known.
    fn start(&self, store: &Store) -> Result<i64, JournalError> {
        let pointed = std::fs::read_to_string(&self.pointer).ok();
        let pointed: Option<i64> = pointed.and_then(|text| text.trim().parse().ok());
        let (min, max) = (store.min_offset(self.queue), store.max_offset(self.queue));
        let Some(from) = pointed.filter(|at| (min..max).contains(at)) else { return Ok(min) };
        let (mut first, mut begun, mut whole) = (true, false, false);
        self.each_part(store, from, |part| {
            begun |= first && part.marks & BEGIN != 0;
            first = false;
            whole |= begun && part.marks & END != 0;
        })?;
        Ok(if whole { from } else { min })
    }

    fn each_part(
        &self,
        store: &Store,
        from: i64,
        mut see: impl FnMut(Part),
    ) -> Result<(), JournalError> {
        each_record(store, self.queue, from, |record| {
            if let Some(part) = part(record.body) {
                see(part);
            }
        })
    }

    /// What the tails hold beyond the log, as far as it goes on without a gap.
    fn kept(&self, store: &Store, mut end: u64) -> Result<Vec<Part>, JournalError> {
        let mut frames = Vec::new();
        for tail in &self.tails {
            let mut bytes = vec![0; usize::try_from(tail.metadata()?.len()).unwrap_or(0)];
            tail.read_exact_at(&mut bytes, 0)?;
            let mut rest = bytes.as_slice();
            while let Some((frame, log_end)) = frame(&mut rest) {
                frames.push((frame, log_end));
            }
        }
        frames.sort_by_key(|(frame, _)| frame.number);
        let log_end = store.appended_position();
        let mut kept = Vec::new();
        for (frame, presupposed) in frames {
            if frame.number == end && presupposed <= log_end {
                end = frame.end();
                kept.push(frame);
            }
        }
        Ok(kept)
    }
}

fn part(body: &[u8]) -> Option<Part> {
    let &[VERSION, marks, ref rest @ ..] = body else { return None };
    let mut rest = rest;
    let number = get(&mut rest)?;
    let base_ms = get_signed(&mut rest)?;
    Some(Part { number, base_ms, events: rest.to_vec(), marks })
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
        journal.load(store, 0, |part| all.extend_from_slice(&part.events)).unwrap();
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
        let failed = journal.sweep(&store, 0, || {
            add(&journal, 2);
            Err(Refusal::new(ReplyCode::SystemBusy, "broken off"))
        });
        assert!(failed.is_err());
        assert!(journal.wants_sweep(0), "soon again");
        let sweep = |event| {
            let write = || {
                add(&journal, event);
                Ok(())
            };
            journal.sweep(&store, 0, write).unwrap();
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
