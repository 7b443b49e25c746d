//! The broker's state in the log: events are appended as records of one system topic, in batches, and
//! folded again at the start. What `config/*.json` says is the ground they are folded onto.
//!
//! A record's tag says what its lines are: changes, or a part of a snapshot of the whole state. Snapshots
//! are written now and then, so that the log may be cut behind them and a start need not read far back.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use protocol::record::{Record, RecordError};
use store::{
    Access, Appended, Batch, Entry, Hold, Limits, NewMessage, QueueRef, Status, Store, Stored,
};
use tracing::error;

use crate::event::Event;

/// Where the events are.
pub const TOPIC: &str = "rmq_sys_ferromq_state";
/// Bytes of events after which a snapshot is written.
const SNAPSHOT_AFTER_BYTES: usize = 32 * 1024 * 1024;
/// How old a snapshot may be before another one is written; well below what retention leaves.
const SNAPSHOT_AFTER_MS: i64 = 6 * 3_600_000;
/// After one that failed, another is not tried for so long.
pub(crate) const REST_MS: u64 = 10_000;
/// Bytes of one record; a last event may lead beyond.
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
    /// What a start would read.
    hold: Hold,
    part_bytes: usize,
    group_bytes: usize,
    writer: Mutex<Writer>,
}

#[derive(Debug, Default)]
struct Writer {
    batch: Batch,
    text: Vec<u8>,
    since_snapshot: usize,
    /// When the oldest record was written that a start reads, or this process asked for the first time.
    snapshot_ms: Option<i64>,
    /// When a snapshot failed.
    rests_since_ms: Option<i64>,
}

/// A snapshot that is being read.
#[derive(Debug, Default)]
struct Snapshot {
    parts: Vec<(Event, i64)>,
    since: Vec<(Event, i64)>,
}

/// What a start is told of the state, in the order in which it changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    Changed(Event),
    /// Everything before is to be forgotten: the whole state follows.
    Anew,
    /// Some changes cannot be read any more.
    Unreadable,
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
    #[error(
        "the disk is full, and the log has no room for {bytes} bytes more of the broker's state"
    )]
    NoRoom { bytes: u64 },
}

impl JournalError {
    /// Whether the same may be written later, without anybody's doing.
    pub fn is_passing(&self) -> bool {
        use store::AppendError::{DiskFull, Unsynced, Unwritten};
        let Self::Append(error) = self else { return matches!(self, Self::NoRoom { .. }) };
        matches!(error, DiskFull { .. } | Unwritten { .. } | Unsynced { .. })
    }
}

/// On a full disk nothing is begun that cannot be ended.
pub(crate) fn check_room(store: &Store, bytes: impl FnOnce() -> u64) -> Result<(), JournalError> {
    let room = store.own_room();
    if room == u64::MAX {
        return Ok(());
    }
    let bytes = bytes();
    if bytes > room / 2 { Err(JournalError::NoRoom { bytes }) } else { Ok(()) }
}

impl Journal {
    pub fn open(store: &Store, root: &Path, host: SocketAddr) -> Result<Self, JournalError> {
        // So that a record with an event beyond its size still fits into a group that has begun.
        let third = store.record_bytes_max() / 3;
        Ok(Self {
            queue: store.queue(TOPIC, 0)?,
            host,
            pointer: root.join("config/ferromq.snapshot"),
            hold: store.hold(store.min_position()),
            part_bytes: PART_BYTES.min(third),
            group_bytes: GROUP_BYTES.min(third),
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
            if text.len() >= self.part_bytes {
                *since_snapshot += text.len();
                self.push(store, batch, EVENT, text, now_ms)?;
                text.clear();
            }
            if batch.bytes() >= self.group_bytes {
                store.append_own(batch, now_ms)?;
                batch.clear();
            }
        }
        *since_snapshot += text.len();
        self.push(store, batch, EVENT, text, now_ms)?;
        Ok(store.append_own(batch, now_ms)?.end)
    }

    /// Whether enough was written since the last snapshot, or it is old or in the way, for another one.
    pub fn wants_snapshot(&self, store: &Store, now_ms: i64) -> bool {
        let mut writer = self.writer.lock();
        if writer.rests_since_ms.is_some_and(|since| now_ms.abs_diff(since) < REST_MS) {
            return false;
        }
        // What a clock that was wrong has dated ahead of now is as old as now.
        let written_ms = writer.snapshot_ms.map_or(now_ms, |written_ms| written_ms.min(now_ms));
        writer.snapshot_ms = Some(written_ms);
        let old = now_ms - written_ms >= SNAPSHOT_AFTER_MS;
        writer.since_snapshot >= SNAPSHOT_AFTER_BYTES
            || old && writer.since_snapshot > 0
            || store.is_wanted(&self.hold)
    }

    /// Writes the whole state, as `state` gives it while nobody else can change it. Changes that come
    /// while it is being written lie between its parts and are newer than all of them.
    pub fn snapshot(
        &self,
        store: &Store,
        now_ms: i64,
        state: impl FnOnce() -> Vec<Event>,
    ) -> Result<(), JournalError> {
        let begin = self.snapshot_parts(store, now_ms, state).inspect_err(|_| {
            // Soon again: the state before this one is what a start has to read.
            let mut writer = self.writer.lock();
            writer.since_snapshot += SNAPSHOT_AFTER_BYTES;
            writer.rests_since_ms = Some(now_ms);
        })?;
        point_to(store, &self.pointer, &self.hold, begin)
    }

    /// Returns where the first part is.
    fn snapshot_parts(
        &self,
        store: &Store,
        now_ms: i64,
        state: impl FnOnce() -> Vec<Event>,
    ) -> Result<Stored, JournalError> {
        let (mut batch, mut text) = (Batch::new(), Vec::new());
        let (begin, state) = {
            let mut writer = self.writer.lock();
            let state = state();
            check_room(store, || {
                state.iter().for_each(|event| event.write(&mut text));
                text.len() as u64
            })?;
            self.push(store, &mut batch, BEGIN, b"", now_ms)?;
            store.append_own(&mut batch, now_ms)?;
            let begin = batch.entries().next().expect("it was just appended");
            writer.since_snapshot = 0;
            writer.snapshot_ms = Some(now_ms);
            (begin, state)
        };
        batch.clear();
        text.clear();
        for event in state {
            event.write(&mut text);
            if text.len() >= self.part_bytes {
                self.push(store, &mut batch, PART, &text, now_ms)?;
                store.append_own(&mut batch, now_ms)?;
                batch.clear();
                text.clear();
            }
        }
        self.push(store, &mut batch, PART, &text, now_ms)?;
        self.push(store, &mut batch, END, b"", now_ms)?;
        store.append_own(&mut batch, now_ms)?;
        Ok(begin)
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

    /// Reads the state back: every event since the newest whole snapshot, that snapshot first. `apply` is told
    /// when each was written; of what is unreadable, when what was before it.
    pub fn load(
        &self,
        store: &Store,
        mut apply: impl FnMut(Told, i64),
    ) -> Result<(), JournalError> {
        let pointed = std::fs::read_to_string(&self.pointer).ok();
        let pointed: Option<i64> = pointed.and_then(|text| text.trim().parse().ok());
        let (min, max) = (store.min_offset(self.queue), store.max_offset(self.queue));
        let mut from = pointed.filter(|at| (min..max).contains(at)).unwrap_or(min);
        if from > min && !self.whole_snapshot_at(store, from)? {
            // The pointer outlived what it points to: everything counts again.
            from = min;
        }
        let first = store.position_from(self.queue, from)?;
        self.hold.move_to(first.unwrap_or_else(|| store.appended_position()));
        let (since, first_ms) = self.fold(store, from, &mut apply)?;
        let mut writer = self.writer.lock();
        (writer.since_snapshot, writer.snapshot_ms) = (since, first_ms);
        Ok(())
    }

    /// Whether a snapshot begins at `from` and its end is there too.
    fn whole_snapshot_at(&self, store: &Store, from: i64) -> Result<bool, JournalError> {
        let (mut first, mut whole) = (true, false);
        let mut open = false;
        self.each_record(store, from, &mut |tag, _, _| {
            match tag {
                Some(BEGIN) => open = first,
                Some(END) => whole |= open,
                // It is not whole without a part.
                None => open = false,
                Some(_) => {}
            }
            first = false;
        })?;
        Ok(whole)
    }

    /// Returns the bytes of events behind the last snapshot, and when the first record was written.
    fn fold(
        &self,
        store: &Store,
        from: i64,
        apply: &mut dyn FnMut(Told, i64),
    ) -> Result<(usize, Option<i64>), JournalError> {
        let (mut since_snapshot, mut first_ms) = (0, None);
        // A snapshot counts once its end has been seen; until then its lines wait, and what changes
        // meanwhile changes the old state now and the new one then.
        let mut open: Option<Snapshot> = None;
        self.each_record(store, from, &mut |tag, lines, time| {
            first_ms.get_or_insert(time);
            since_snapshot += lines.len();
            let events = lines.lines().filter_map(Event::read).map(|event| (event, time));
            let Some(tag) = tag else {
                open = None;
                return apply(Told::Unreadable, time);
            };
            match tag {
                BEGIN => open = Some(Snapshot::default()),
                END => {
                    let Some(Snapshot { parts, since }) = open.take() else { return };
                    since_snapshot = 0;
                    apply(Told::Anew, time);
                    let all = parts.into_iter().chain(since);
                    all.for_each(|(event, at)| apply(Told::Changed(event), at));
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
                        apply(Told::Changed(event), time);
                    }
                }
            }
        })?;
        Ok((since_snapshot, first_ms))
    }

    fn each_record(
        &self,
        store: &Store,
        from: i64,
        see: &mut dyn FnMut(Option<&str>, &str, i64),
    ) -> Result<(), JournalError> {
        let mut last_ms = 0;
        each_record(store, self.queue, from, |record| {
            let Some(record) = record else { return see(None, "", last_ms) };
            let tag = protocol::properties::get_str(record.properties, "TAGS");
            let lines = std::str::from_utf8(record.body).unwrap_or_default();
            last_ms = record.store_timestamp;
            see(Some(tag.unwrap_or_default()), lines, last_ms);
        })
    }
}

/// A start reads from the record at `begin` on, which is whole with everything that belongs to it.
pub(crate) fn point_to(
    store: &Store,
    pointer: &Path,
    hold: &Hold,
    begin: Stored,
) -> Result<(), JournalError> {
    // What comes before is let go of only when nothing can take this away.
    store.flush().map_err(std::io::Error::other)?;
    hold.move_to(begin.position);
    // Without it, a start reads everything that is left, and finds this as well.
    Ok(crate::config_files::write_atomically(pointer, begin.queue_offset.to_string().as_bytes())?)
}

/// Reads the records of a journal's queue, from this offset to its end; `None` stands for one that is damaged.
pub(crate) fn each_record(
    store: &Store,
    queue: QueueRef,
    from: i64,
    mut see: impl FnMut(Option<&Record<'_>>),
) -> Result<(), JournalError> {
    const MANY: usize = 1024;
    let mut offset = from;
    // Read one by one up to here, where something among many could not be read.
    let mut careful_to = i64::MIN;
    loop {
        let messages = if offset < careful_to { 1 } else { MANY };
        let limits = Limits { messages, bytes: 4 << 20, scan: messages };
        let read = match store.read(queue, offset, limits, Access::Blocking, store::All) {
            Ok(read) => read,
            Err(error) if error.kind() != std::io::ErrorKind::InvalidData => {
                return Err(error.into());
            }
            Err(_) if messages > 1 => {
                careful_to = offset + MANY as i64;
                continue;
            }
            Err(error) => {
                let (topic, _) = store.queue_name(queue);
                error!(topic, offset, %error, "passing over a damaged record of the broker's own");
                see(None);
                offset += 1;
                continue;
            }
        };
        if read.status == Status::AtEnd || read.status == Status::Empty {
            return Ok(());
        }
        if read.next_offset <= offset {
            return Err(std::io::Error::other(format!("nothing to read at {offset}")).into());
        }
        let mut slices = read.slices.iter();
        let mut rest: &[u8] = &[];
        for Entry { queue_offset, position, size, .. } in &read.entries {
            if rest.is_empty() {
                rest = slices.next().map(AsRef::as_ref).unwrap_or_default();
            }
            let bytes;
            (bytes, rest) = rest.split_at(rest.len().min(*size as usize));
            match whole_record(bytes, *position) {
                Ok(record) => see(Some(&record)),
                Err(error) => {
                    let (topic, offset) = (store.queue_name(queue).0, queue_offset);
                    error!(topic, offset, %error, "passing over a damaged record of the broker's own");
                    see(None);
                }
            }
        }
        offset = read.next_offset;
    }
}

/// The record that lies at this position, if it is what was written there.
fn whole_record(bytes: &[u8], position: u64) -> Result<Record<'_>, RecordError> {
    let (record, _) = Record::decode(bytes)?;
    record.check_body()?;
    if record.physical_offset != position.cast_signed() {
        return Err(RecordError::Magic(0));
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn open(dir: &Path) -> (Arc<Store>, Journal) {
        let clock = store::Clock::new(|| 0, || 0);
        open_with(store::Config { maintenance: false, ..store::Config::new(dir, clock) })
    }

    fn open_with(config: store::Config) -> (Arc<Store>, Journal) {
        let root = config.root.clone();
        let store = Store::open(config).unwrap();
        let journal = Journal::open(&store, &root, ([127, 0, 0, 1], 1).into()).unwrap();
        (store, journal)
    }

    /// Stands for what cannot be read.
    const UNREADABLE: Event = Event::Delayed { level: -1, offset: -1 };

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
        let fold = |told: Told, _| match told {
            Told::Anew => all.clear(),
            Told::Changed(event) => all.push(event),
            Told::Unreadable => all.push(UNREADABLE),
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
    fn a_damaged_record_is_passed_over_alone_and_said_to_be() {
        // In a body, which a checksum guards, and in a head.
        for (what, at) in [("body", 90), ("magic", 4), ("size", 1), ("position", 30)] {
            let dir = tempfile::tempdir().unwrap();
            let (store, journal) = open(dir.path());
            let mut positions = Vec::new();
            for number in 0..6 {
                positions.push(store.appended_position());
                journal.record(&store, &[delayed(1, number)], 0, || ()).unwrap();
            }
            positions.push(store.appended_position());
            append(&store, &journal, BEGIN, &[]);
            append(&store, &journal, PART, &[delayed(7, 7)]);
            append(&store, &journal, END, &[]);
            journal.record(&store, &[delayed(1, 9)], 0, || ()).unwrap();
            store.close().unwrap();
            drop((store, journal));
            let damage = |position: u64| {
                use std::os::unix::fs::FileExt;
                let file = format!("commitlog/{:020}", 0);
                let file = std::fs::File::options()
                    .read(true)
                    .write(true)
                    .open(dir.path().join(file))
                    .unwrap();
                let mut byte = [0];
                file.read_exact_at(&mut byte, position).unwrap();
                file.write_all_at(&[byte[0] ^ 0x10], position).unwrap();
            };
            damage(positions[2] + at);
            let (store, journal) = open(dir.path());
            assert_eq!(loaded(&store, &journal), [delayed(7, 7), delayed(1, 9)], "{what}");
            drop((store, journal));
            // A snapshot that lost a part is none.
            let begin_bytes = store_size_of_begin(&dir);
            damage(positions[6] + begin_bytes + at);
            let (store, journal) = open(dir.path());
            let all = loaded(&store, &journal);
            let mut expected: Vec<_> = (0..6).map(|number| delayed(1, number)).collect();
            expected[2] = UNREADABLE;
            expected.extend([UNREADABLE, delayed(1, 9)]);
            assert_eq!(all, expected, "{what}");
        }
    }

    /// Bytes of a record that begins a snapshot.
    fn store_size_of_begin(dir: &tempfile::TempDir) -> u64 {
        let (store, journal) = open(dir.path());
        let (_, units) = store.units(journal.queue, 6, 1).unwrap();
        u64::from(units[0].size)
    }

    #[test]
    fn a_snapshot_outlives_the_log_file_it_was_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let config = store::Config {
            maintenance: false,
            segment_bytes: 64 * 1024,
            retention: store::Retention { reserved_ms: 1000, ..store::Retention::default() },
            ..store::Config::new(dir.path(), store::Clock::new(|| 0, || 0))
        };
        let again = config.clone();
        let (store, journal) = open_with(config);
        journal.record(&store, &[delayed(1, 1)], 0, || ()).unwrap();
        let mut filler = Batch::new();
        let fill = |store: &Store, filler: &mut Batch, at_ms: i64| {
            for _ in 0..20 {
                filler.clear();
                let queue = store.queue("t", 0).unwrap();
                let message = NewMessage {
                    flag: 0,
                    sys_flag: 0,
                    born_timestamp: 0,
                    born_host: ([127, 0, 0, 1], 1).into(),
                    store_host: ([127, 0, 0, 1], 1).into(),
                    reconsume_times: 0,
                    prepared_transaction_offset: 0,
                    body: &[0; 20_000],
                    properties: &[],
                };
                store.push(filler, queue, &message).unwrap();
                store.append(filler, at_ms).unwrap();
            }
            store.flush().unwrap();
            store.delete_expired(store::Cleaning::Manual, at_ms + 10_000).unwrap();
        };
        fill(&store, &mut filler, 10);
        assert_eq!(loaded(&store, &journal), [delayed(1, 1)], "nothing else says so");
        assert!(journal.wants_snapshot(&store, 20), "it is in the way");
        journal.snapshot(&store, 20, || vec![delayed(1, 1)]).unwrap();
        assert!(!journal.wants_snapshot(&store, 20));
        fill(&store, &mut filler, 20);
        assert!(store.min_offset(journal.queue) > 0, "what came before it has gone");
        assert_eq!(loaded(&store, &journal), [delayed(1, 1)]);
        // Also a start knows how old it is.
        drop((store, journal));
        let (store, journal) = open_with(again);
        assert_eq!(loaded(&store, &journal), [delayed(1, 1)]);
        journal.record(&store, &[delayed(2, 2)], 0, || ()).unwrap();
        assert!(!journal.wants_snapshot(&store, SNAPSHOT_AFTER_MS));
        assert!(journal.wants_snapshot(&store, SNAPSHOT_AFTER_MS + 20));
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
