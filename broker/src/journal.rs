//! The broker's state in the log: events are appended as records of one system topic, in batches, and
//! folded again at the start. What `config/*.json` says is the ground they are folded onto.
//!
//! A record's tag says what its lines are: changes, or a part of a snapshot of the whole state. Snapshots
//! are written now and then, so that the log may be cut behind them and a start need not read far back.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use protocol::record::Record;
use store::{Access, Appended, Batch, Limits, NewMessage, QueueRef, Status, Store};

use crate::event::Event;

/// Where the events are.
pub const TOPIC: &str = "rmq_sys_ferromq_state";
/// Bytes of events after which a snapshot is written.
const SNAPSHOT_AFTER_BYTES: usize = 32 * 1024 * 1024;
/// How old a snapshot may be before another one is written; well below what retention leaves.
const SNAPSHOT_AFTER_MS: i64 = 6 * 3_600_000;
/// Bytes of one record.
const PART_BYTES: usize = 256 * 1024;

/// Bytes of records that are appended as one group.
const GROUP_BYTES: usize = 4 * 1024 * 1024;

const EVENT: &str = "event";
const BEGIN: &str = "snapshot-begin";
const PART: &str = "snapshot-part";
const END: &str = "snapshot-end";

/// Writes events to the log, one writer at a time.
#[derive(Debug)]
pub struct Journal {
    queue: QueueRef,
    host: SocketAddr,
    /// Where the newest whole snapshot begins, as a file; derived, may be lost.
    pointer: PathBuf,
    writer: Mutex<Writer>,
}

#[derive(Debug, Default)]
struct Writer {
    batch: Batch,
    text: Vec<u8>,
    since_snapshot: usize,
    /// When the last snapshot was begun, or this process asked for the first time.
    snapshot_ms: Option<i64>,
}

/// A snapshot that is being read.
#[derive(Debug, Default)]
struct Snapshot {
    parts: Vec<(Event, i64)>,
    since: Vec<(Event, i64)>,
}

/// Why events were not written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error(transparent)]
    Queues(#[from] store::TooManyQueues),
    #[error(transparent)]
    Push(#[from] store::PushError),
    #[error(transparent)]
    Append(#[from] store::AppendError),
    #[error("cannot read the broker's state from the log: {0}")]
    Read(#[from] std::io::Error),
}

impl Journal {
    pub fn open(store: &Store, root: &Path, host: SocketAddr) -> Result<Self, JournalError> {
        Ok(Self {
            queue: store.queue(TOPIC, 0)?,
            host,
            pointer: root.join("config/ferromq.snapshot"),
            writer: Mutex::default(),
        })
    }

    /// Appends `events` and applies them while nobody else can; returns the end of their record.
    pub fn record(
        &self,
        store: &Store,
        events: &[Event],
        now_ms: i64,
        apply: impl FnOnce(),
    ) -> Result<u64, JournalError> {
        let mut writer = self.writer.lock();
        let end = self.append(&mut writer, store, events, now_ms)?;
        apply();
        Ok(end)
    }

    /// The same as one group with the messages of `batch`: either all of it is in the log, or nothing.
    pub fn record_with(
        &self,
        store: &Store,
        batch: &mut Batch,
        events: &[Event],
        now_ms: i64,
        apply: impl FnOnce(),
    ) -> Result<Appended, JournalError> {
        let mut writer = self.writer.lock();
        let text = &mut writer.text;
        text.clear();
        events.iter().for_each(|event| event.write(text));
        self.push(store, batch, EVENT, text, now_ms)?;
        let appended = store.append(batch, now_ms)?;
        writer.since_snapshot += writer.text.len();
        apply();
        Ok(appended)
    }

    /// Appends what `events` gives while nobody else can write; for changes that are in the tables already.
    pub fn catch_up<'e>(
        &self,
        store: &Store,
        now_ms: i64,
        events: impl FnOnce() -> &'e [Event],
    ) -> Result<(), JournalError> {
        let mut writer = self.writer.lock();
        let events = events();
        if !events.is_empty() {
            self.append(&mut writer, store, events, now_ms)?;
        }
        Ok(())
    }

    fn append(
        &self,
        writer: &mut Writer,
        store: &Store,
        events: &[Event],
        now_ms: i64,
    ) -> Result<u64, JournalError> {
        let Writer { batch, text, since_snapshot, .. } = writer;
        text.clear();
        batch.clear();
        for event in events {
            event.write(text);
            if text.len() >= PART_BYTES {
                *since_snapshot += text.len();
                self.push(store, batch, EVENT, text, now_ms)?;
                text.clear();
            }
            if batch.bytes() >= GROUP_BYTES {
                store.append(batch, now_ms)?;
                batch.clear();
            }
        }
        *since_snapshot += text.len();
        self.push(store, batch, EVENT, text, now_ms)?;
        Ok(store.append(batch, now_ms)?.end)
    }

    /// Whether enough was written since the last snapshot, or it may soon be too old, for another one.
    pub fn wants_snapshot(&self, now_ms: i64) -> bool {
        let mut writer = self.writer.lock();
        let old = now_ms - *writer.snapshot_ms.get_or_insert(now_ms) >= SNAPSHOT_AFTER_MS;
        writer.since_snapshot >= SNAPSHOT_AFTER_BYTES || old && writer.since_snapshot > 0
    }

    /// Writes the whole state, as `state` gives it while nobody else can change it. Changes that come
    /// while it is being written lie between its parts and are newer than all of them.
    pub fn snapshot(
        &self,
        store: &Store,
        now_ms: i64,
        state: impl FnOnce() -> Vec<Event>,
    ) -> Result<(), JournalError> {
        let mut batch = Batch::new();
        let (begin, state) = {
            let mut writer = self.writer.lock();
            let begin = store.max_offset(self.queue);
            self.push(store, &mut batch, BEGIN, b"", now_ms)?;
            store.append(&mut batch, now_ms)?;
            writer.since_snapshot = 0;
            writer.snapshot_ms = Some(now_ms);
            (begin, state())
        };
        let written = self.snapshot_parts(store, now_ms, state);
        if written.is_err() {
            // Soon again: the state before this one is what a start has to read.
            self.writer.lock().since_snapshot += SNAPSHOT_AFTER_BYTES;
        }
        written?;
        crate::config_files::write_atomically(&self.pointer, begin.to_string().as_bytes())?;
        Ok(())
    }

    fn snapshot_parts(
        &self,
        store: &Store,
        now_ms: i64,
        state: Vec<Event>,
    ) -> Result<(), JournalError> {
        let (mut batch, mut text) = (Batch::new(), Vec::new());
        for event in state {
            event.write(&mut text);
            if text.len() >= PART_BYTES {
                self.push(store, &mut batch, PART, &text, now_ms)?;
                store.append(&mut batch, now_ms)?;
                batch.clear();
                text.clear();
            }
        }
        self.push(store, &mut batch, PART, &text, now_ms)?;
        self.push(store, &mut batch, END, b"", now_ms)?;
        store.append(&mut batch, now_ms)?;
        Ok(())
    }

    fn push(
        &self,
        store: &Store,
        batch: &mut Batch,
        tag: &str,
        body: &[u8],
        now_ms: i64,
    ) -> Result<(), JournalError> {
        let properties = format!("TAGS\u{1}{tag}\u{2}");
        let message = NewMessage {
            flag: 0,
            sys_flag: 0,
            born_timestamp: now_ms,
            born_host: self.host,
            store_host: self.host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body,
            properties: &[properties.as_bytes()],
        };
        Ok(store.push(batch, self.queue, &message)?)
    }

    /// Reads the state back: every event since the newest whole snapshot, that snapshot first.
    ///
    /// `apply` is told `None` where everything before is to be forgotten.
    pub fn load(
        &self,
        store: &Store,
        mut apply: impl FnMut(Option<Event>, i64),
    ) -> Result<(), JournalError> {
        let pointed = std::fs::read_to_string(&self.pointer).ok();
        let pointed: Option<i64> = pointed.and_then(|text| text.trim().parse().ok());
        let (min, max) = (store.min_offset(self.queue), store.max_offset(self.queue));
        let from = pointed.filter(|at| (min..max).contains(at)).unwrap_or(min);
        if from > min && !self.whole_snapshot_at(store, from)? {
            // The pointer outlived what it points to: everything counts again.
            return self.fold(store, min, &mut apply);
        }
        self.fold(store, from, &mut apply)
    }

    /// Whether a snapshot begins at `from` and its end is there too.
    fn whole_snapshot_at(&self, store: &Store, from: i64) -> Result<bool, JournalError> {
        let (mut first, mut whole) = (true, false);
        let mut open = false;
        self.each_record(store, from, &mut |tag, _, _| {
            match tag {
                BEGIN => open = first,
                END => whole |= open,
                _ => {}
            }
            first = false;
        })?;
        Ok(whole)
    }

    fn fold(
        &self,
        store: &Store,
        from: i64,
        apply: &mut dyn FnMut(Option<Event>, i64),
    ) -> Result<(), JournalError> {
        // A snapshot counts once its end has been seen; until then its lines wait, and what changes
        // meanwhile changes the old state now and the new one then.
        let mut open: Option<Snapshot> = None;
        self.each_record(store, from, &mut |tag, lines, time| {
            let events = lines.lines().filter_map(Event::read).map(|event| (event, time));
            match tag {
                BEGIN => open = Some(Snapshot::default()),
                END => {
                    let Some(Snapshot { parts, since }) = open.take() else { return };
                    apply(None, time);
                    parts.into_iter().chain(since).for_each(|(event, at)| apply(Some(event), at));
                }
                PART => {
                    if let Some(snapshot) = &mut open {
                        snapshot.parts.extend(events);
                    }
                }
                _ => {
                    for (event, time) in events {
                        if let Some(snapshot) = &mut open {
                            snapshot.since.push((event.clone(), time));
                        }
                        apply(Some(event), time);
                    }
                }
            }
        })
    }

    fn each_record(
        &self,
        store: &Store,
        from: i64,
        see: &mut dyn FnMut(&str, &str, i64),
    ) -> Result<(), JournalError> {
        each_record(store, self.queue, from, |record| {
            let tag = protocol::properties::get_str(record.properties, "TAGS");
            let lines = std::str::from_utf8(record.body).unwrap_or_default();
            see(tag.unwrap_or_default(), lines, record.store_timestamp);
        })
    }
}

/// Reads the records of a journal's queue, from this offset to its end.
pub(crate) fn each_record(
    store: &Store,
    queue: QueueRef,
    from: i64,
    mut see: impl FnMut(&Record<'_>),
) -> Result<(), JournalError> {
    let limits = Limits { messages: 1024, bytes: 4 << 20, scan: 1024 };
    let mut offset = from;
    loop {
        let read = store.read(queue, offset, limits, Access::Blocking, store::All)?;
        if read.status == Status::AtEnd || read.status == Status::Empty {
            return Ok(());
        }
        if read.next_offset <= offset {
            return Err(std::io::Error::other(format!("nothing to read at {offset}")).into());
        }
        for slice in &read.slices {
            let mut rest = slice.as_ref();
            while let Ok((record, size)) = Record::decode(rest) {
                see(&record);
                rest = &rest[size..];
            }
        }
        offset = read.next_offset;
    }
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

    fn delayed(level: i32, offset: i64) -> Event {
        Event::Delayed { level, offset }
    }

    fn append(store: &Store, journal: &Journal, tag: &str, events: &[Event]) {
        let (mut batch, mut text) = (Batch::new(), Vec::new());
        events.iter().for_each(|event| event.write(&mut text));
        journal.push(store, &mut batch, tag, &text, 0).unwrap();
        store.append(&mut batch, 0).unwrap();
    }

    fn loaded(store: &Store, journal: &Journal) -> Vec<Event> {
        let mut all = Vec::new();
        let fold = |event: Option<Event>, _| match event {
            None => all.clear(),
            Some(event) => all.push(event),
        };
        journal.load(store, fold).unwrap();
        all
    }

    #[test]
    fn what_changes_while_a_snapshot_is_written_is_newer_than_its_parts() {
        let dir = tempfile::tempdir().unwrap();
        let (store, journal) = open(dir.path());
        append(&store, &journal, EVENT, &[delayed(1, 1)]);
        append(&store, &journal, BEGIN, &[]);
        append(&store, &journal, PART, &[delayed(1, 2)]);
        append(&store, &journal, EVENT, &[delayed(1, 3)]);
        let broken_off = loaded(&store, &journal);
        assert_eq!(broken_off, [delayed(1, 1), delayed(1, 3)]);
        append(&store, &journal, PART, &[delayed(2, 2)]);
        append(&store, &journal, END, &[]);
        assert_eq!(loaded(&store, &journal), [delayed(1, 2), delayed(2, 2), delayed(1, 3)]);
    }

    #[test]
    fn a_pointer_to_anything_but_a_whole_snapshot_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let (store, journal) = open(dir.path());
        journal.record(&store, &[delayed(1, 1)], 0, || ()).unwrap();
        journal.record(&store, &[delayed(2, 2)], 0, || ()).unwrap();
        append(&store, &journal, BEGIN, &[]);
        append(&store, &journal, PART, &[]);
        std::fs::create_dir_all(dir.path().join("config")).unwrap();
        for pointer in ["0", "1", "2", "3", "4", "-1", "x"] {
            std::fs::write(&journal.pointer, pointer).unwrap();
            assert_eq!(loaded(&store, &journal), [delayed(1, 1), delayed(2, 2)], "{pointer}");
        }
        journal.snapshot(&store, 0, || vec![delayed(7, 7)]).unwrap();
        assert_eq!(std::fs::read_to_string(&journal.pointer).unwrap(), "4");
        assert_eq!(loaded(&store, &journal), [delayed(7, 7)]);
    }

    #[test]
    fn more_events_than_a_record_holds_are_written_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let (store, journal) = open(dir.path());
        let events: Vec<Event> = (0..600_000).map(|at| delayed(1, at)).collect();
        journal.record(&store, &events, 0, || ()).unwrap();
        assert_eq!(loaded(&store, &journal), events);
    }
}
