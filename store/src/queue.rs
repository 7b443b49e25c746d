//! Consume queues: which message stands at which offset. Dense ids, tails in memory, the rest in shared files.

pub(crate) mod files;

use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};
use protocol::record::{JavaHash, key_prefix};

use crate::error::TooManyQueues;

/// Bytes of a unit: position (8), size (4), tags code (8).
pub const UNIT: usize = 20;

/// The topic whose units hold the time of delivery in place of the tags.
pub(crate) const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";

/// A queue of this store. Stays valid as long as the store is open, also over a deletion of the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueRef(pub(crate) u32);

impl QueueRef {
    /// A dense number, for tables beside the store.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a queue says about one of its messages: where it lies and what its tags hash to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    pub position: u64,
    pub size: u32,
    pub tags_code: i64,
}

impl Unit {
    /// Stands at offsets that no message has, as stock fills the start of its first file.
    pub(crate) const HOLE: Unit = Unit { position: 0, size: i32::MAX as u32, tags_code: 0 };

    pub fn encode(&self) -> [u8; UNIT] {
        let mut bytes = [0; UNIT];
        bytes[..8].copy_from_slice(&self.position.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.size.to_be_bytes());
        bytes[12..].copy_from_slice(&self.tags_code.to_be_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8; UNIT]) -> Unit {
        let (position, rest) = bytes.split_first_chunk().expect("20 bytes");
        let (size, tags_code) = rest.split_first_chunk().expect("12 bytes");
        Unit {
            position: u64::from_be_bytes(*position),
            size: u32::from_be_bytes(*size),
            tags_code: i64::from_be_bytes(tags_code.try_into().expect("8 bytes")),
        }
    }

    pub fn is_hole(&self) -> bool {
        *self == Unit::HOLE
    }
}

/// The whole units in some bytes.
pub(crate) fn units(
    bytes: &[u8],
) -> impl DoubleEndedIterator<Item = Unit> + ExactSizeIterator + '_ {
    bytes.as_chunks::<UNIT>().0.iter().map(Unit::decode)
}

#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: Box<str>,
    pub(crate) key_prefix: JavaHash,
    pub(crate) is_schedule: bool,
}

#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) topic: u32,
    pub(crate) queue_id: i32,
    /// The offset the next message gets; written under the log lock only.
    pub(crate) next: AtomicI64,
    /// The offset after the last message readers may see.
    pub(crate) max: AtomicI64,
    /// Has units the state file does not know of.
    pub(crate) dirty: AtomicBool,
    pub(crate) state: Mutex<State>,
}

/// The file id of a queue the state file does not know.
pub(crate) const UNKNOWN: u32 = u32::MAX;

/// The offsets run from `min` over the extents (in files) and the tail (in memory) to `max`.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) min: i64,
    /// The `min` the state file knows of.
    pub(crate) saved_min: i64,
    /// Offset of the first unit of the tail.
    pub(crate) tail_base: i64,
    pub(crate) tail: Vec<u8>,
    pub(crate) extents: Vec<files::Extent>,
    /// Units before this offset are in the state file.
    pub(crate) saved: i64,
    /// The number of the queue in the state file.
    pub(crate) file_id: u32,
    /// Counts the times the queue began again.
    pub(crate) life: u32,
    /// Log position of a deletion the state file does not know of.
    pub(crate) reset_at: Option<u64>,
}

impl Default for State {
    fn default() -> Self {
        State {
            min: 0,
            saved_min: 0,
            tail_base: 0,
            tail: Vec::new(),
            extents: Vec::new(),
            saved: 0,
            file_id: UNKNOWN,
            life: 0,
            reset_at: None,
        }
    }
}

impl State {
    /// Offset of the oldest unit that is kept.
    pub(crate) fn first(&self) -> i64 {
        self.extents.first().map_or(self.tail_base, |extent| extent.base)
    }

    /// There is something the state file does not know.
    pub(crate) fn has_unsaved(&self) -> bool {
        self.reset_at.is_some() || self.saved < self.end() || self.saved_min < self.min
    }

    /// The front of the tail is in a file now; returns how many units left the tail.
    pub(crate) fn seal(&mut self, extent: files::Extent) -> usize {
        let covered = usize::try_from(extent.end() - self.tail_base).unwrap_or(0);
        let count = covered.min(self.tail.len() / UNIT);
        self.tail.drain(..count * UNIT);
        if self.tail.capacity() > 4096 && self.tail.len() < self.tail.capacity() / 4 {
            self.tail.shrink_to(self.tail.len() * 2);
        }
        self.tail_base = extent.end();
        self.extents.push(extent);
        count
    }

    pub(crate) fn end(&self) -> i64 {
        self.tail_base + (self.tail.len() / UNIT) as i64
    }

    pub(crate) fn push(&mut self, unit: Unit) {
        self.tail.extend_from_slice(&unit.encode());
    }

    /// Units of the tail from `offset` on, at most `count`.
    pub(crate) fn tail_units(&self, offset: i64, count: usize) -> &[u8] {
        let Ok(skip) = usize::try_from(offset - self.tail_base) else { return &[] };
        let from = skip.saturating_mul(UNIT).min(self.tail.len());
        let to = from.saturating_add(count.saturating_mul(UNIT)).min(self.tail.len());
        &self.tail[from..to]
    }
}

/// Memory taken by all tails.
#[derive(Debug, Default)]
pub(crate) struct Tails(AtomicUsize);

impl Tails {
    pub(crate) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed) * UNIT
    }

    pub(crate) fn add(&self, units: usize) {
        self.0.fetch_add(units, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, units: usize) {
        self.0.fetch_sub(units, Ordering::Relaxed);
    }
}

/// Every queue by name and by number.
#[derive(Debug)]
pub(crate) struct Table {
    names: RwLock<HashMap<Box<str>, Named>>,
    topics: Slab<Topic>,
    queues: Slab<Queue>,
    max: u32,
}

#[derive(Debug)]
struct Named {
    topic: u32,
    /// (queue id, number), sorted.
    queues: Vec<(i32, u32)>,
}

impl Table {
    pub(crate) fn new(max: u32) -> Table {
        let max = max.min(Slab::<Queue>::CAPACITY);
        Table { names: RwLock::default(), topics: Slab::new(), queues: Slab::new(), max }
    }

    pub(crate) fn find(&self, topic: &str, queue_id: i32) -> Option<QueueRef> {
        let names = self.names.read();
        let queues = &names.get(topic)?.queues;
        let at = queues.binary_search_by_key(&queue_id, |(id, _)| *id).ok()?;
        Some(QueueRef(queues[at].1))
    }

    pub(crate) fn intern(&self, topic: &str, queue_id: i32) -> Result<QueueRef, TooManyQueues> {
        if let Some(found) = self.find(topic, queue_id) {
            return Ok(found);
        }
        let mut names = self.names.write();
        if self.queues.len() >= self.max {
            return Err(TooManyQueues { max: self.max });
        }
        if !names.contains_key(topic) {
            let made = Topic {
                name: topic.into(),
                key_prefix: key_prefix(topic),
                is_schedule: topic == SCHEDULE_TOPIC,
            };
            let named = Named { topic: self.topics.push(made), queues: Vec::new() };
            names.insert(topic.into(), named);
        }
        let named = names.get_mut(topic).expect("just inserted");
        let at = match named.queues.binary_search_by_key(&queue_id, |(id, _)| *id) {
            Ok(at) => return Ok(QueueRef(named.queues[at].1)),
            Err(at) => at,
        };
        let number = self.queues.push(Queue {
            topic: named.topic,
            queue_id,
            next: AtomicI64::new(0),
            max: AtomicI64::new(0),
            dirty: AtomicBool::new(false),
            state: Mutex::default(),
        });
        named.queues.insert(at, (queue_id, number));
        Ok(QueueRef(number))
    }

    pub(crate) fn queue(&self, queue: QueueRef) -> &Queue {
        self.queues.get(queue.0).expect("a queue reference is made by interning")
    }

    pub(crate) fn topic(&self, queue: &Queue) -> &Topic {
        self.topics.get(queue.topic).expect("a queue's topic is interned before it")
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (QueueRef, &Queue)> {
        (0..self.queues.len()).map(|number| (QueueRef(number), self.queue(QueueRef(number))))
    }

    pub(crate) fn len(&self) -> u32 {
        self.queues.len()
    }

    pub(crate) fn of_topic(&self, topic: &str) -> Vec<(i32, QueueRef)> {
        let names = self.names.read();
        let queues = names.get(topic).map_or(&[][..], |named| &named.queues);
        queues.iter().map(|(id, number)| (*id, QueueRef(*number))).collect()
    }

    pub(crate) fn topics(&self) -> Vec<Box<str>> {
        self.names.read().keys().cloned().collect()
    }
}

/// A list that grows under concurrent readers without moving what it holds.
#[derive(Debug)]
struct Slab<T> {
    chunks: Box<[OnceLock<Chunk<T>>]>,
    len: AtomicU32,
}

type Chunk<T> = Box<[OnceLock<T>]>;

const CHUNK: u32 = 1024;
const CHUNKS: u32 = 8192;

impl<T> Slab<T> {
    const CAPACITY: u32 = CHUNK * CHUNKS;

    fn new() -> Slab<T> {
        Slab { chunks: (0..CHUNKS).map(|_| OnceLock::new()).collect(), len: AtomicU32::new(0) }
    }

    fn len(&self) -> u32 {
        self.len.load(Ordering::Acquire)
    }

    fn get(&self, number: u32) -> Option<&T> {
        let chunk = self.chunks.get((number / CHUNK) as usize)?.get()?;
        chunk[(number % CHUNK) as usize].get()
    }

    /// Callers hold the lock of the table, so numbers are given out one at a time.
    fn push(&self, value: T) -> u32 {
        let number = self.len.load(Ordering::Relaxed);
        let chunk = self.chunks[(number / CHUNK) as usize]
            .get_or_init(|| (0..CHUNK).map(|_| OnceLock::new()).collect());
        let fresh = chunk[(number % CHUNK) as usize].set(value).is_ok();
        assert!(fresh, "a number is given out once");
        self.len.store(number + 1, Ordering::Release);
        number
    }
}
