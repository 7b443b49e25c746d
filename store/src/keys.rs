//! The key index: from the hash of topic and key to positions in the log, in memory first, then in sorted runs.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use protocol::properties::{self, KEY_SEPARATOR, name};
use protocol::record::{JavaHash, Record, key_prefix};

use crate::read::Access;
use crate::segment::sync_dir;
use crate::{Core, Store};

/// Items read around the place where a hash should stand.
const WINDOW: u64 = 1024;
/// Positions collected for a query at most, for each message wanted.
const CANDIDATES_PER_MESSAGE: usize = 16;

/// One indexed key of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyItem {
    /// First, so that sorting is by hash.
    pub(crate) hash: u32,
    pub(crate) store_seconds: u32,
    pub(crate) position: u64,
}

impl KeyItem {
    pub(crate) const BYTES: usize = 16;

    pub(crate) fn new(hash: u32, position: u64, store_timestamp: i64) -> KeyItem {
        KeyItem { hash, store_seconds: seconds(store_timestamp), position }
    }

    pub(crate) fn encode(&self) -> [u8; Self::BYTES] {
        let high = u128::from(self.hash) << 96 | u128::from(self.store_seconds) << 64;
        (high | u128::from(self.position)).to_be_bytes()
    }

    pub(crate) fn decode(bytes: &[u8; Self::BYTES]) -> KeyItem {
        let all = u128::from_be_bytes(*bytes);
        KeyItem {
            hash: (all >> 96) as u32,
            store_seconds: (all >> 64) as u32,
            position: all as u64,
        }
    }
}

fn seconds(store_timestamp: i64) -> u32 {
    u32::try_from(store_timestamp.max(0) / 1000).unwrap_or(u32::MAX)
}

/// Spreads Java's clustered hashes evenly over 32 bits; different hashes stay different.
pub(crate) fn mix(hash: u32) -> u32 {
    let mut hash = hash;
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x85EB_CA6B);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0xC2B2_AE35);
    hash ^ (hash >> 16)
}

/// What is known of a run without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunInfo {
    pub(crate) number: u32,
    pub(crate) items: u32,
    pub(crate) min_seconds: u32,
    pub(crate) max_seconds: u32,
    /// No message of the run lies at or behind this position.
    pub(crate) end: u64,
}

impl RunInfo {
    pub(crate) const BYTES: usize = 24;

    pub(crate) fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let words = [self.number, self.items, self.min_seconds, self.max_seconds];
        for (place, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *place = word.to_be_bytes();
        }
        bytes[16..].copy_from_slice(&self.end.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; Self::BYTES]) -> RunInfo {
        let word = |index: usize| u32::from_be_bytes(bytes.as_chunks::<4>().0[index]);
        RunInfo {
            number: word(0),
            items: word(1),
            min_seconds: word(2),
            max_seconds: word(3),
            end: u64::from(word(4)) << 32 | u64::from(word(5)),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) info: RunInfo,
    file: File,
    path: PathBuf,
}

#[derive(Debug)]
pub(crate) struct Keys {
    dir: PathBuf,
    /// In the order of the log.
    pub(crate) buffer: Mutex<Vec<KeyItem>>,
    /// How many items at the front of the buffer the state file holds.
    pub(crate) saved: Mutex<usize>,
    /// Oldest first.
    pub(crate) runs: RwLock<Vec<Arc<Run>>>,
}

impl Keys {
    pub(crate) fn open(dir: PathBuf) -> io::Result<Keys> {
        std::fs::create_dir_all(&dir)?;
        Ok(Keys { dir, buffer: Mutex::default(), saved: Mutex::default(), runs: RwLock::default() })
    }

    fn path(&self, number: u32) -> PathBuf {
        self.dir.join(format!("{number:010}.keys"))
    }

    /// A run the state file names; false if it is not there as it should be.
    pub(crate) fn attach(&self, info: RunInfo) -> bool {
        let path = self.path(info.number);
        let bytes = u64::from(info.items) * KeyItem::BYTES as u64;
        let Ok(file) = File::open(&path) else { return false };
        if file.metadata().map_or(0, |metadata| metadata.len()) != bytes {
            return false;
        }
        self.runs.write().push(Arc::new(Run { info, file, path }));
        true
    }

    /// Deletes files no run refers to.
    pub(crate) fn delete_unknown(&self) -> io::Result<()> {
        let known: HashSet<PathBuf> = self.runs.read().iter().map(|run| run.path.clone()).collect();
        for entry in std::fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if is_run(&path) && !known.contains(&path) {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Writes these items as a sorted run and makes it durable; it does not count until `attach`.
    pub(crate) fn write_run(&self, items: &[KeyItem]) -> io::Result<RunInfo> {
        let number = self.runs.read().last().map_or(0, |run| run.info.number) + 1;
        let mut sorted = items.to_vec();
        sorted.sort_unstable();
        let mut bytes = Vec::with_capacity(sorted.len() * KeyItem::BYTES);
        sorted.iter().for_each(|item| bytes.extend_from_slice(&item.encode()));
        let file = File::create(self.path(number))?;
        file.write_all_at(&bytes, 0)?;
        file.sync_data()?;
        sync_dir(&self.dir)?;
        let times = || items.iter().map(|item| item.store_seconds);
        Ok(RunInfo {
            number,
            items: u32::try_from(items.len()).expect("the buffer is limited"),
            min_seconds: times().min().unwrap_or(0),
            max_seconds: times().max().unwrap_or(0),
            end: items.last().map_or(0, |item| item.position + 1),
        })
    }

    /// Forgets the runs whose messages are all gone.
    pub(crate) fn forget_before(&self, position: u64) -> io::Result<()> {
        let mut gone = Vec::new();
        self.runs.write().retain(|run| {
            let keep = run.info.end > position;
            if !keep {
                gone.push(run.clone());
            }
            keep
        });
        gone.iter().try_for_each(|run| std::fs::remove_file(&run.path))
    }

    pub(crate) fn clear(&self) -> io::Result<()> {
        self.buffer.lock().clear();
        *self.saved.lock() = 0;
        self.runs.write().clear();
        self.delete_unknown()
    }

    /// Positions under a hash within these seconds, newest first, at most `max`.
    fn find(&self, hash: u32, from: u32, to: u32, max: usize) -> io::Result<Vec<u64>> {
        let matches =
            |item: &&KeyItem| item.hash == hash && (from..=to).contains(&item.store_seconds);
        let mut found: Vec<u64> = {
            let buffer = self.buffer.lock();
            buffer.iter().rev().filter(matches).map(|item| item.position).take(max).collect()
        };
        let runs: Vec<_> = self.runs.read().iter().rev().cloned().collect();
        for run in runs {
            if found.len() >= max {
                break;
            }
            if run.info.max_seconds >= from && run.info.min_seconds <= to {
                let items = run.find(hash, from, to, max - found.len())?;
                found.extend(items.iter().map(|item| item.position));
            }
        }
        // While a run is being attached, its items are found in both places.
        found.sort_unstable_by_key(|position| std::cmp::Reverse(*position));
        found.dedup();
        Ok(found)
    }
}

impl Run {
    /// The newest items of a hash within these seconds, newest first, at most `max`.
    fn find(&self, hash: u32, from: u32, to: u32, max: usize) -> io::Result<Vec<KeyItem>> {
        let mut found = Vec::new();
        let mut end = self.behind((hash, to))?;
        while end > 0 {
            let start = end.saturating_sub(WINDOW / 4);
            for item in self.read(start, end)?.iter().rev() {
                if item.hash != hash || item.store_seconds < from || found.len() >= max {
                    return Ok(found);
                }
                found.push(*item);
            }
            end = start;
        }
        Ok(found)
    }

    /// The number of the first item behind all of this hash and second.
    fn behind(&self, last: (u32, u32)) -> io::Result<u64> {
        let not_behind = |item: &KeyItem| (item.hash, item.store_seconds) <= last;
        // Hashes are evenly spread, so the place can be guessed; only many equal ones spoil the guess.
        let items = u64::from(self.info.items);
        let guess = ((u128::from(last.0) * u128::from(items)) >> 32) as u64;
        let (from, to) = (guess.saturating_sub(WINDOW / 2), (guess + WINDOW / 2).min(items));
        let window = self.read(from, to)?;
        let starts_before = from == 0 || window.first().is_some_and(not_behind);
        let ends_behind = to == items || window.last().is_some_and(|item| !not_behind(item));
        if starts_before && ends_behind {
            return Ok(from + window.partition_point(not_behind) as u64);
        }
        let (mut low, mut high) = (0, items);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.read(middle, middle + 1)?.iter().all(not_behind) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    fn read(&self, from: u64, to: u64) -> io::Result<Vec<KeyItem>> {
        let mut bytes = vec![0; (to - from) as usize * KeyItem::BYTES];
        self.file.read_exact_at(&mut bytes, from * KeyItem::BYTES as u64)?;
        Ok(bytes.as_chunks().0.iter().map(KeyItem::decode).collect())
    }
}

fn is_run(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "keys")
}

/// What a query by key asks for.
#[derive(Clone, Copy, Debug)]
pub struct KeyQuery<'a> {
    pub topic: &'a str,
    pub key: &'a str,
    pub kind: KeyKind,
    pub begin_ms: i64,
    pub end_ms: i64,
    pub max: usize,
}

/// What the key of a query is a key of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyKind {
    /// One of the keys, or the id the client gave the message.
    #[default]
    Any,
    /// The id the client gave the message (stock: index type `U`).
    Unique,
    /// The tags (stock: index type `T`).
    Tags,
}

/// Where the hash of tags is found: stock keeps them under `topic#T#tags`.
pub(crate) fn tag_key(prefix: JavaHash, tags: &[u8]) -> JavaHash {
    prefix.with(b"T#").with(tags)
}

impl Store {
    /// The newest messages of a topic with this key, stored in this time, newest first. Reads the disk.
    pub fn query(&self, query: &KeyQuery<'_>) -> io::Result<Vec<Bytes>> {
        self.core.query(query)
    }
}

impl Core {
    fn query(&self, query: &KeyQuery<'_>) -> io::Result<Vec<Bytes>> {
        let (prefix, key) = (key_prefix(query.topic), query.key.as_bytes());
        let hash = match query.kind {
            KeyKind::Tags => tag_key(prefix, key),
            KeyKind::Any | KeyKind::Unique => prefix.with(key),
        };
        let hash = mix(hash.for_index());
        let (from, to) = (seconds(query.begin_ms), seconds(query.end_ms));
        let candidates = query.max.saturating_mul(CANDIDATES_PER_MESSAGE).min(1 << 16);
        let mut found = Vec::new();
        for position in self.keys.find(hash, from, to, candidates)? {
            if found.len() >= query.max {
                break;
            }
            if position < self.segments.min_position() {
                continue;
            }
            if let Some(bytes) = self.message_at(position, Access::Blocking)?
                && Record::decode(&bytes).is_ok_and(|(record, _)| query.is_answered_by(&record))
                && self.is_current(&bytes, position)?
            {
                found.push(bytes);
            }
        }
        Ok(found)
    }

    /// Whether the message is still in its queue, that is, its topic was not deleted after it.
    fn is_current(&self, bytes: &[u8], position: u64) -> io::Result<bool> {
        let Ok((record, _)) = Record::decode(bytes) else { return Ok(false) };
        if !protocol::record::sys_flag::enters_queue(record.sys_flag) {
            return Ok(true);
        }
        let Some(queue) = self.queues.find(record.topic, record.queue_id) else {
            return Ok(false);
        };
        let mut unit = Vec::new();
        let queue = self.queues.queue(queue);
        let first = self.units(queue, record.queue_offset, 1, Access::Blocking, &mut unit)?;
        let positions = crate::queue::units(&unit).map(|unit| unit.position).next();
        Ok(first == Some(record.queue_offset) && positions == Some(position))
    }
}

impl KeyQuery<'_> {
    /// A hash proves nothing: topic, time and key are compared.
    fn is_answered_by(&self, record: &Record<'_>) -> bool {
        let in_time = (self.begin_ms..=self.end_ms).contains(&record.store_timestamp);
        if record.topic != self.topic || !in_time {
            return false;
        }
        let key = self.key.as_bytes();
        let is = |name| properties::get(record.properties, name) == Some(key);
        let keys = || properties::get(record.properties, name::KEYS).unwrap_or_default();
        match self.kind {
            KeyKind::Tags => is(name::TAGS),
            KeyKind::Unique => is(name::UNIQ_KEY),
            KeyKind::Any => {
                is(name::UNIQ_KEY)
                    || keys().split(|byte| *byte == KEY_SEPARATOR).any(|one| one == key)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_finds_the_newest_of_every_hash_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open(dir.path().to_path_buf()).unwrap();
        // Evenly spread, all in one corner, and nearly all the same.
        for (spread, copies) in [(200_000u32, 3u32), (1, 3), (1_000_000_000, 9_000)] {
            let item =
                |n: u32| KeyItem::new(n / copies * spread, u64::from(n), i64::from(n) * 1000);
            let items: Vec<_> = (0..30_000).map(item).collect();
            let info = keys.write_run(&items).unwrap();
            assert!(keys.attach(info));
            let run = keys.runs.read().last().cloned().unwrap();
            for n in (0..30_000).step_by(331) {
                let hash = n / copies * spread;
                for (from, to, max) in [(0, u32::MAX, usize::MAX), (0, n, 2), (n, n + 1, 9)] {
                    let in_time = |item: &&KeyItem| (from..=to).contains(&item.store_seconds);
                    let of_hash = items.iter().rev().filter(|item| item.hash == hash);
                    let expected: Vec<_> = of_hash.filter(in_time).take(max).copied().collect();
                    assert_eq!(run.find(hash, from, to, max).unwrap(), expected);
                }
            }
            assert_eq!(run.find(u32::MAX, 0, u32::MAX, 9).unwrap(), []);
        }
    }
}
