//! What the server promised so far: everything here must be true after every restart.

use std::collections::{BTreeMap, HashMap, HashSet};

use integration_tests::ask::Consumed;
use protocol::properties;
use rand::{Rng, SeedableRng, rngs::StdRng};

/// Topics that take the load, and the queues of each.
pub(crate) const TOPICS: [&str; 4] = ["crash-a", "crash-b", "crash-c", "crash-d"];
pub(crate) const QUEUES: i32 = 4;
/// Where delayed messages arrive; order is not promised here.
pub(crate) const DELAYED: &str = "crash-delayed";

pub(crate) type Queue = (String, i32);

/// Promises, and what may be or may not be.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Messages by queue and offset that were acknowledged, or once seen by a consumer: their numbers.
    pub(crate) stored: BTreeMap<Queue, BTreeMap<i64, u64>>,
    /// Delayed messages that were acknowledged: when they were sent.
    pub(crate) delayed: HashMap<u64, i64>,
    /// Half messages that were acknowledged, and those whose end was.
    pub(crate) halves: HashSet<u64>,
    pub(crate) ended: HashSet<u64>,
    pub(crate) committed: HashMap<Consumed, Commit>,
    pub(crate) topics: HashMap<String, Life>,
    pub(crate) groups: HashMap<String, Life>,
    /// Messages whose id was told, with the position in it; newest last.
    pub(crate) placed: Vec<(u64, i64)>,
}

/// How far a group has consumed a queue.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Commit {
    /// The highest offset that was promised.
    pub(crate) answered: i64,
    /// The highest offset that was asked for.
    pub(crate) asked: i64,
}

/// What is known of a topic or a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// Asked for, not answered.
    Unknown,
    Exists,
    Gone,
}

/// What one worker saw until the server was gone.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) stored: Vec<(Queue, i64, u64)>,
    pub(crate) placed: Vec<(u64, i64)>,
    pub(crate) delayed: Vec<(u64, i64)>,
    pub(crate) halves: Vec<u64>,
    pub(crate) ended: Vec<u64>,
    pub(crate) committed: Vec<(Consumed, Commit)>,
    pub(crate) topics: Vec<(String, Life)>,
    pub(crate) groups: Vec<(String, Life)>,
    /// Codes other than success and how often they were answered.
    pub(crate) refused: BTreeMap<i32, usize>,
    /// Requests that were answered.
    pub(crate) answers: usize,
}

impl History {
    /// Adds what a worker saw; two promises that contradict each other are a defect.
    pub(crate) fn learn(&mut self, seen: Seen) {
        for (queue, offset, number) in seen.stored {
            self.learn_stored(queue, offset, number);
        }
        self.placed.extend(seen.placed);
        self.delayed.extend(seen.delayed);
        self.halves.extend(seen.halves);
        self.ended.extend(seen.ended);
        for (consumed, new) in seen.committed {
            let known = self.committed.entry(consumed).or_default();
            known.answered = known.answered.max(new.answered);
            known.asked = known.asked.max(new.asked);
        }
        self.topics.extend(seen.topics);
        self.groups.extend(seen.groups);
    }

    pub(crate) fn learn_stored(&mut self, queue: Queue, offset: i64, number: u64) {
        let before = self.stored.entry(queue.clone()).or_default().insert(offset, number);
        assert!(
            before.is_none_or(|before| before == number),
            "{queue:?} {offset} was {before:x?} and is {number:x}"
        );
    }
}

/// Numbers of the messages of one sender in one round; they say who sent a message, and in which order.
pub(crate) fn first_number(round: usize, sender: usize) -> u64 {
    (round as u64) << 40 | (sender as u64) << 32
}

/// Who sent the message with this number.
pub(crate) fn sender(number: u64) -> u64 {
    number >> 32
}

/// The message with a number, wherever it goes; the same whenever it is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) body: Vec<u8>,
    pub(crate) properties: String,
}

impl Content {
    pub(crate) fn of(number: u64, topic: &str, queue_id: i32) -> Self {
        let mut random = StdRng::seed_from_u64(number);
        let length = match random.random_range(0..100) {
            0 => random.random_range(0..100_000),
            1..20 => 0,
            _ => random.random_range(0..1000),
        };
        let mut body = format!("{number:016x} {topic} {queue_id} ").into_bytes();
        let start = body.len();
        body.resize(start + length, 0);
        random.fill(&mut body[start..]);
        let mut pairs = vec![("UNIQ_KEY", unique_key(number))];
        if random.random() {
            pairs.push(("KEYS", format!("key-{number:x} also-{number:x}")));
        }
        if random.random() {
            pairs.push(("TAGS", format!("tag-{}", number % 5)));
        }
        let pairs = pairs.iter().map(|(name, value)| (*name, value.as_str()));
        let properties = String::from_utf8(properties::encode(pairs)).expect("it was text");
        Self { body, properties }
    }

    /// Whether these are the stored bytes of it; the broker may add properties of its own.
    pub(crate) fn is(&self, body: &[u8], stored: &[u8]) -> bool {
        let stored: HashSet<_> = properties::pairs(stored).collect();
        self.body == body
            && properties::pairs(self.properties.as_bytes()).all(|pair| stored.contains(&pair))
    }
}

/// The number that a stored body says it has.
pub(crate) fn number_of(body: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(body.get(..16)?).ok()?, 16).ok()
}

pub(crate) fn unique_key(number: u64) -> String {
    format!("{number:032X}")
}
