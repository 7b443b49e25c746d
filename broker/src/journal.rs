//! The broker's state in the log: events are appended as records of one system topic, in batches, and
//! folded again at the start. What `config/*.json` says is the ground they are folded onto.
//!
//! A record's tag says what its lines are: changes, or a part of a snapshot of the whole state. Snapshots
//! are written now and then, so that the log may be cut behind them and a start need not read far back.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use protocol::record::Record;
use store::{Access, Batch, Limits, NewMessage, QueueRef, Status, Store};

use crate::event::Event;

/// Where the events are.
pub const TOPIC: &str = "rmq_sys_ferromq_state";
/// Bytes of events after which a snapshot is written.
const SNAPSHOT_AFTER_BYTES: usize = 32 * 1024 * 1024;
/// Bytes of one record of a snapshot.
const PART_BYTES: usize = 256 * 1024;

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

    /// Appends what `events` gives while nobody else can write; for changes that are in the tables already.
    pub fn catch_up(
        &self,
        store: &Store,
        now_ms: i64,
        events: impl FnOnce() -> Vec<Event>,
    ) -> Result<(), JournalError> {
        let mut writer = self.writer.lock();
        let events = events();
        if !events.is_empty() {
            self.append(&mut writer, store, &events, now_ms)?;
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
        let Writer { batch, text, since_snapshot } = writer;
        text.clear();
        events.iter().for_each(|event| event.write(text));
        *since_snapshot += text.len();
        batch.clear();
        self.push(store, batch, "event", text, now_ms)?;
        Ok(store.append(batch, now_ms)?.end)
    }

    /// Whether enough was written since the last snapshot for another one.
    pub fn wants_snapshot(&self) -> bool {
        self.writer.lock().since_snapshot >= SNAPSHOT_AFTER_BYTES
    }

    /// Writes the whole state, as `state` gives it while nobody else can change it.
    pub fn snapshot(
        &self,
        store: &Store,
        now_ms: i64,
        state: impl FnOnce() -> Vec<Event>,
    ) -> Result<(), JournalError> {
        let mut writer = self.writer.lock();
        let Writer { batch, text, since_snapshot } = &mut *writer;
        let begin = store.max_offset(self.queue);
        batch.clear();
        self.push(store, batch, BEGIN, b"", now_ms)?;
        text.clear();
        for event in state() {
            event.write(text);
            if text.len() >= PART_BYTES {
                self.push(store, batch, PART, text, now_ms)?;
                store.append(batch, now_ms)?;
                batch.clear();
                text.clear();
            }
        }
        self.push(store, batch, PART, text, now_ms)?;
        self.push(store, batch, END, b"", now_ms)?;
        store.append(batch, now_ms)?;
        *since_snapshot = 0;
        drop(writer);
        crate::config_files::write_atomically(&self.pointer, begin.to_string().as_bytes())?;
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
        // A snapshot counts once its end has been seen; until then its lines wait.
        let mut open: Option<Vec<(Event, i64)>> = None;
        self.each_record(store, from, &mut |tag, lines, time| {
            match tag {
                BEGIN => open = Some(Vec::new()),
                END => {
                    if let Some(events) = open.take() {
                        apply(None, time);
                        events.into_iter().for_each(|(event, time)| apply(Some(event), time));
                    }
                }
                _ => {
                    for event in lines.lines().filter_map(Event::read) {
                        match &mut open {
                            Some(events) if tag == PART => events.push((event, time)),
                            Some(_) => {
                                // The snapshot was broken off: what comes now changes the old state.
                                open = None;
                                apply(Some(event), time);
                            }
                            None => apply(Some(event), time),
                        }
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
        let limits = Limits { messages: 1024, bytes: 4 << 20, scan: 1024 };
        let mut offset = from;
        loop {
            let read = store.read(self.queue, offset, limits, Access::Blocking, store::All)?;
            if read.status == Status::AtEnd || read.status == Status::Empty {
                return Ok(());
            }
            if read.next_offset <= offset {
                return Err(std::io::Error::other(format!("nothing to read at {offset}")).into());
            }
            for slice in &read.slices {
                let mut rest = slice.as_ref();
                while let Ok((record, size)) = Record::decode(rest) {
                    let tag = protocol::properties::get_str(record.properties, "TAGS");
                    let lines = std::str::from_utf8(record.body).unwrap_or_default();
                    see(tag.unwrap_or_default(), lines, record.store_timestamp);
                    rest = &rest[size..];
                }
            }
            offset = read.next_offset;
        }
    }
}
