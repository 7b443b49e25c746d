//! POP: messages are taken one by one, hidden for a while, and settled one by one.
//!
//! One [`ledger::Ledger`] for each group, topic and queue is the whole state; this file is who has which.

mod basket;
pub mod event;
pub mod handle;
pub mod journal;
pub mod ledger;
#[cfg(test)]
mod model;
pub mod requests;
pub mod settle;
pub mod take;
mod wait;

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence};

use parking_lot::{Mutex, RwLock};
use protocol::name;
use protocol::reply::{Refusal, ReplyCode};
use store::{QueueRef, Store};
use tokio::sync::Notify;
use tracing::{error, info, warn};

use crate::broker::Broker;
use crate::journal::JournalError;
use event::{Event, get, put};
use handle::Handle;
use journal::{Journal, Part};
use ledger::Ledger;

/// Ledgers a broker may have.
pub const LEDGERS_MAX: usize = 4_000_000;
/// Requests for messages that may wait, for one group and topic.
pub const WAITING_OF_GROUP_MAX: usize = 1024;
/// And on the whole broker.
pub const WAITING_MAX: usize = 100_000;

/// Everything that is taken by popping.
#[derive(Debug)]
pub struct Pops {
    /// By group, then topic.
    groups: RwLock<HashMap<Box<str>, Topics>>,
    /// Who takes from a topic, for those who put something there.
    by_topic: RwLock<HashMap<Box<str>, Vec<Arc<Consumption>>>>,
    last_id: AtomicU32,
    ledgers: AtomicUsize,
    waiting: AtomicUsize,
    pub journal: Journal,
}

/// What one group pops.
type Topics = HashMap<Box<str>, Arc<Consumption>>;

/// A group's taking of one topic.
#[derive(Debug)]
pub struct Consumption {
    pub group: Box<str>,
    pub topic: Box<str>,
    /// Part of every handle; another one for each life of the topic.
    pub nonce: i32,
    places: RwLock<BTreeMap<(Kind, i32), Arc<Place>>>,
    /// It is forgotten, and gets no more places. Changes under the lock of the places.
    gone: AtomicBool,
    /// Where the next look at all queues starts.
    pub turn: AtomicU32,
    /// Something may be there to take.
    pub arrived: Notify,
    /// Requests that wait, and those among them that do not take whatever comes.
    waiting: AtomicUsize,
    particular: AtomicUsize,
}

/// One queue and what the group has taken of it.
#[derive(Debug)]
pub struct Place {
    id: u32,
    pub kind: Kind,
    pub queue_id: i32,
    pub queue: QueueRef,
    pub ledger: Mutex<Ledger>,
    /// The ledger is forgotten, and nothing more is written of it. Changes under its lock.
    gone: AtomicBool,
}

/// Which messages a queue holds: those of the topic, or what the group's members gave back while they pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Topic,
    Retry,
}

/// Entries that are not of a ledger have this in place of its number.
const CONTROL: u64 = 0;
const DECLARED: u8 = 1;
const FORGOTTEN: u8 = 2;

impl Pops {
    pub fn open(store: &Store, root: &Path, host: SocketAddr) -> Result<Self, JournalError> {
        Ok(Self {
            groups: RwLock::default(),
            by_topic: RwLock::default(),
            last_id: AtomicU32::new(0),
            ledgers: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            journal: Journal::open(store, root, host)?,
        })
    }

    pub fn find(&self, group: &str, topic: &str) -> Option<Arc<Consumption>> {
        self.groups.read().get(group)?.get(topic).cloned()
    }

    /// A group begins to pop a topic, or has begun.
    pub fn consumption(&self, group: &str, topic: &str) -> Arc<Consumption> {
        if let Some(known) = self.find(group, topic) {
            return known;
        }
        let random = RandomState::new().build_hasher().finish();
        self.insert(group, topic, Handle::nonce(random as u32))
    }

    fn insert(&self, group: &str, topic: &str, nonce: i32) -> Arc<Consumption> {
        let mut groups = self.groups.write();
        let topics = groups.entry(group.into()).or_default();
        if let Some(known) = topics.get(topic) {
            return known.clone();
        }
        let consumption = Arc::new(Consumption {
            group: group.into(),
            topic: topic.into(),
            nonce,
            places: RwLock::default(),
            gone: AtomicBool::new(false),
            turn: AtomicU32::new(0),
            arrived: Notify::new(),
            waiting: AtomicUsize::new(0),
            particular: AtomicUsize::new(0),
        });
        topics.insert(topic.into(), consumption.clone());
        let mut by_topic = self.by_topic.write();
        for topic in [topic.to_owned(), name::retry_topic(group)] {
            by_topic.entry(topic.into()).or_default().push(consumption.clone());
        }
        consumption
    }

    /// The ledger of a queue, which is opened at `from` if there is none.
    pub fn place(
        &self,
        consumption: &Consumption,
        (kind, queue_id): (Kind, i32),
        queue: QueueRef,
        now_ms: i64,
        from: impl FnOnce() -> i64,
    ) -> Result<Arc<Place>, Refusal> {
        if let Some(place) = consumption.places.read().get(&(kind, queue_id)) {
            return Ok(place.clone());
        }
        let from = from();
        let mut places = consumption.places.write();
        if let Some(place) = places.get(&(kind, queue_id)) {
            return Ok(place.clone());
        }
        if consumption.gone.load(Ordering::Relaxed) {
            let remark = "what the group took of this topic was just forgotten; try again";
            return Err(Refusal::new(ReplyCode::SystemBusy, remark));
        }
        if self.ledgers.load(Ordering::Relaxed) >= LEDGERS_MAX {
            let remark = format!("{LEDGERS_MAX} queues are being popped already");
            return Err(Refusal::new(ReplyCode::SystemBusy, remark));
        }
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let place = Place::new(id, (kind, queue_id), queue, Ledger::new(from, 0));
        self.declare(consumption, &place, &place.ledger.lock(), now_ms)?;
        self.ledgers.fetch_add(1, Ordering::Relaxed);
        let place = Arc::new(place);
        places.insert((kind, queue_id), place.clone());
        Ok(place)
    }

    /// Writes a ledger down whole, unless it was forgotten.
    fn declare(
        &self,
        consumption: &Consumption,
        place: &Place,
        ledger: &Ledger,
        now_ms: i64,
    ) -> Result<(), Refusal> {
        if place.gone.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.journal.add(now_ms, |out, base_ms| {
            put(out, CONTROL);
            out.push(DECLARED);
            put(out, place.id.into());
            out.push(u8::from(place.kind == Kind::Retry));
            put(out, u64::from(place.queue_id.unsigned_abs()));
            put(out, u64::from(consumption.nonce.unsigned_abs()));
            for name in [&consumption.group, &consumption.topic] {
                put(out, name.len() as u64);
                out.extend_from_slice(name.as_bytes());
            }
            put(out, place.id.into());
            Event::State(Box::new(ledger.clone())).write(out, ledger, base_ms);
        })
    }

    /// Journals a change of a ledger and makes it.
    pub fn record(
        &self,
        place: &Place,
        ledger: &mut Ledger,
        event: &Event,
        now_ms: i64,
    ) -> Result<(), Refusal> {
        if !place.gone.load(Ordering::Relaxed) {
            self.journal.add(now_ms, |out, base_ms| {
                put(out, place.id.into());
                event.write(out, ledger, base_ms);
            })?;
        }
        ledger.apply(event);
        Ok(())
    }

    /// Every consumption there is.
    pub fn all(&self) -> Vec<Arc<Consumption>> {
        self.groups.read().values().flat_map(HashMap::values).cloned().collect()
    }

    /// Appends what waits, and all ledgers once more when that is due.
    pub fn write(&self, store: &Store, now_ms: i64, all: bool) -> Result<(), JournalError> {
        if let Err(error) = self.journal.keep(store.appended_position()) {
            warn!(%error, "what was popped last may come again early");
        }
        if all || self.journal.wants_flush(now_ms) {
            self.journal.flush(store, now_ms)?;
        }
        if self.journal.wants_sweep(store, now_ms) {
            let bytes = || self.bytes_of_a_sweep();
            self.journal.sweep(store, now_ms, bytes, || {
                for consumption in self.all() {
                    for place in consumption.places() {
                        self.declare(&consumption, &place, &place.ledger.lock(), now_ms)?;
                        if self.journal.wants_flush(now_ms) {
                            let flushed = self.journal.flush(store, now_ms);
                            flushed.map_err(|error| unwritten(&error))?;
                        }
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// About what all ledgers take in the log.
    fn bytes_of_a_sweep(&self) -> u64 {
        const OF_A_LEDGER: usize = 64;
        const OF_A_HOLD: usize = 20;
        let of = |consumption: &Consumption| {
            let names = consumption.group.len() + consumption.topic.len();
            let places = consumption.places();
            let holds = |place: &Arc<Place>| place.ledger.lock().holds().len() * OF_A_HOLD;
            places.iter().map(|place| OF_A_LEDGER + names + holds(place)).sum::<usize>() as u64
        };
        self.all().iter().map(|consumption| of(consumption)).sum()
    }

    /// Messages have entered this queue.
    pub fn arrived(&self, store: &Store, queues: impl Iterator<Item = QueueRef>) {
        // With the fence of those who begin to wait: one of the two sees what the other has done.
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        let by_topic = self.by_topic.read();
        let mut last = None;
        for queue in queues {
            if last.replace(queue) == Some(queue) {
                continue;
            }
            let (topic, _) = store.queue_name(queue);
            for consumption in by_topic.get(topic).into_iter().flatten() {
                consumption.wake();
            }
        }
    }

    /// The group was put to another offset by somebody, or its members have pulled.
    pub fn moved(
        &self,
        group: &str,
        topic: &str,
        queue_id: i32,
        event: impl FnOnce(&Ledger) -> Option<Event>,
        now_ms: i64,
    ) -> Result<bool, Refusal> {
        if self.ledgers.load(Ordering::Relaxed) == 0 {
            return Ok(false);
        }
        let Some(consumption) = self.find(group, topic) else { return Ok(false) };
        let Some(place) = consumption.place((Kind::Topic, queue_id)) else { return Ok(false) };
        let mut ledger = place.ledger.lock();
        let Some(event) = event(&ledger) else { return Ok(false) };
        self.record(&place, &mut ledger, &event, now_ms)?;
        drop(ledger);
        consumption.wake();
        Ok(true)
    }

    /// Forgets what groups have taken, as of a topic or group that goes. Whether there was anything.
    pub fn forget(&self, group: Option<&str>, topic: Option<&str>, now_ms: i64) -> bool {
        let matches = |consumption: &Consumption| {
            group.is_none_or(|group| *consumption.group == *group)
                && topic.is_none_or(|topic| *consumption.topic == *topic)
        };
        let mut gone = Vec::new();
        {
            let mut groups = self.groups.write();
            for topics in groups.values_mut() {
                gone.extend(topics.extract_if(|_, consumption| matches(consumption)));
            }
            groups.retain(|_, topics| !topics.is_empty());
            let mut by_topic = self.by_topic.write();
            for consumptions in by_topic.values_mut() {
                consumptions.retain(|consumption| !matches(consumption));
            }
            by_topic.retain(|_, consumptions| !consumptions.is_empty());
        }
        let any = !gone.is_empty() | topic.is_some_and(|topic| self.forget_retries(topic, now_ms));
        for (_, consumption) in gone {
            let places = consumption.places.write();
            consumption.gone.store(true, Ordering::Relaxed);
            for place in places.values() {
                self.forget_place(place, now_ms);
            }
            drop(places);
            consumption.arrived.notify_waiters();
        }
        any
    }

    /// Members of the group have pulled, and committed this.
    pub fn pulled(&self, group: &str, topic: &str, queue_id: i32, to: i64, now_ms: i64) {
        if self.ledgers.load(Ordering::Relaxed) == 0 {
            return;
        }
        let Some(consumption) = self.find(group, topic) else { return };
        let idle = consumption.waiting() == 0;
        let event = |ledger: &Ledger| match to.cmp(&ledger.committed()) {
            std::cmp::Ordering::Greater => Some(Event::Advanced { to }),
            // While others pop, a member that is behind does not put them back.
            std::cmp::Ordering::Less if idle && ledger.in_flight() == 0 => {
                Some(Event::Moved { to, at_ms: now_ms })
            }
            _ => None,
        };
        if let Err(error) = self.moved(group, topic, queue_id, event, now_ms) {
            warn!(group, topic, queue_id, to, %error, "what was pulled may be popped, too");
        }
    }

    /// The next offset that will be handed out, if a group pops.
    pub fn next(&self, group: &str, topic: &str, queue_id: i32) -> Option<i64> {
        let place = self.find(group, topic)?.place((Kind::Topic, queue_id))?;
        let next = place.ledger.lock().next();
        Some(next)
    }

    /// The retries of a group go: nobody has taken anything of what comes there next.
    fn forget_retries(&self, topic: &str, now_ms: i64) -> bool {
        let Some(group) = name::retry_group(topic) else { return false };
        let topics = self.groups.read().get(group).cloned().unwrap_or_default();
        let mut any = false;
        for consumption in topics.values() {
            let mut places = consumption.places.write();
            places.retain(|(kind, _), place| {
                if *kind == Kind::Retry {
                    self.forget_place(place, now_ms);
                    any = true;
                }
                *kind != Kind::Retry
            });
        }
        any
    }

    fn forget_place(&self, place: &Place, now_ms: i64) {
        let _ledger = place.ledger.lock();
        // Who has the place at hand must not write it down behind this.
        place.gone.store(true, Ordering::Relaxed);
        self.ledgers.fetch_sub(1, Ordering::Relaxed);
        self.forget_ledger(place.id.into(), now_ms);
    }

    fn forget_ledger(&self, id: u64, now_ms: i64) {
        let forgotten = self.journal.add(now_ms, |out, _| {
            put(out, CONTROL);
            out.push(FORGOTTEN);
            put(out, id);
        });
        if let Err(error) = forgotten {
            warn!(%error, "cannot write that a queue is no longer popped");
        }
    }

    /// Wakes everyone, for the end of the process.
    pub fn wake_all(&self) {
        for consumption in self.all() {
            consumption.arrived.notify_waiters();
        }
    }
}

pub(crate) fn unwritten(error: &JournalError) -> Refusal {
    Refusal::new(ReplyCode::ServiceNotAvailable, error.to_string())
}

impl Place {
    fn new(id: u32, (kind, queue_id): (Kind, i32), queue: QueueRef, ledger: Ledger) -> Self {
        let (ledger, gone) = (Mutex::new(ledger), AtomicBool::new(false));
        Self { id, kind, queue_id, queue, ledger, gone }
    }
}

impl Consumption {
    pub fn place(&self, key: (Kind, i32)) -> Option<Arc<Place>> {
        self.places.read().get(&key).cloned()
    }

    pub fn places(&self) -> Vec<Arc<Place>> {
        self.places.read().values().cloned().collect()
    }

    /// Somebody who waits shall look again; everybody, when not everybody can take everything.
    pub fn wake(&self) {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        if self.particular.load(Ordering::SeqCst) == 0 {
            self.arrived.notify_one();
        } else {
            self.arrived.notify_waiters();
        }
    }

    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

/// A place in the waiting room of a group; given up when dropped.
#[derive(Debug)]
pub struct Ticket {
    broker: Arc<Broker>,
    consumption: Arc<Consumption>,
    particular: bool,
}

impl Ticket {
    /// Takes a place, unless too many wait. Look once more after this: what arrives from now on is noticed.
    pub fn take(broker: &Arc<Broker>, of: &Arc<Consumption>, particular: bool) -> Option<Self> {
        let before = broker.pops.waiting.fetch_add(1, Ordering::SeqCst);
        let before_here = of.waiting.fetch_add(1, Ordering::SeqCst);
        if particular {
            of.particular.fetch_add(1, Ordering::SeqCst);
        }
        // With the loads of those who put something: one of the two sees what the other has done.
        fence(Ordering::SeqCst);
        let ticket = Self { broker: broker.clone(), consumption: of.clone(), particular };
        (before < WAITING_MAX && before_here < WAITING_OF_GROUP_MAX).then_some(ticket)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.consumption.waiting.fetch_sub(1, Ordering::SeqCst);
        if self.particular {
            self.consumption.particular.fetch_sub(1, Ordering::SeqCst);
        }
        self.broker.pops.waiting.fetch_sub(1, Ordering::SeqCst);
        // It may have been woken for something it did not take.
        self.consumption.wake();
    }
}

/// A ledger while it is being read back.
#[derive(Debug)]
struct Known {
    group: String,
    topic: String,
    kind: Kind,
    queue_id: i32,
    nonce: i32,
    ledger: Ledger,
    /// Changes of it may have been lost: it stays as it was before, and what was taken since is taken again.
    frozen: bool,
}

/// Ledgers by number, folded from the journal.
#[derive(Debug, Default)]
struct Fold {
    known: HashMap<u64, Known>,
    last_id: u64,
    damaged: usize,
}

impl Fold {
    fn part(&mut self, part: Option<&Part>) {
        let mut rest = part.map_or(&[][..], |part| &part.events);
        let mut readable = part.is_some();
        while readable && !rest.is_empty() {
            readable = self.entry(&mut rest, part.map_or(0, |part| part.base_ms)).is_some();
        }
        if !readable {
            // Events mean something only to the ledger they were written for: those that follow cannot be read
            // until it is written down whole again.
            self.damaged += 1;
            self.known.values_mut().for_each(|known| known.frozen = true);
        }
    }

    fn entry(&mut self, input: &mut &[u8], base_ms: i64) -> Option<()> {
        let id = get(input)?;
        if id != CONTROL {
            // Before the ledger was declared in a sweep, its events cannot be read, but have to be passed over.
            let blank = Ledger::default();
            let known = self.known.get_mut(&id).filter(|known| !known.frozen);
            let event =
                Event::read(input, known.as_ref().map_or(&blank, |known| &known.ledger), base_ms)?;
            if let Some(known) = known {
                known.ledger.apply(&event);
            }
            return Some(());
        }
        let (kind, rest) = input.split_first()?;
        *input = rest;
        let id = get(input)?;
        if *kind == FORGOTTEN {
            self.known.remove(&id);
            return Some(());
        }
        let (retry, rest) = input.split_first()?;
        *input = rest;
        let queue_id = i32::try_from(get(input)?).ok()?;
        let nonce = i32::try_from(get(input)?).ok()?;
        let mut text = || {
            let length = usize::try_from(get(input)?).ok()?;
            let (text, rest) = input.split_at_checked(length)?;
            *input = rest;
            String::from_utf8(text.to_vec()).ok()
        };
        let (group, topic) = (text()?, text()?);
        let kind = if *retry == 1 { Kind::Retry } else { Kind::Topic };
        let ledger = Ledger::default();
        let known = Known { group, topic, kind, queue_id, nonce, ledger, frozen: false };
        self.known.insert(id, known);
        self.last_id = self.last_id.max(id);
        Some(())
    }
}

/// Reads the ledgers back, once topics, groups and offsets are there.
pub fn load(broker: &Broker, foreign_offsets: bool, now_ms: i64) -> Result<(), JournalError> {
    let mut fold = Fold::default();
    broker.pops.journal.load(&broker.store, now_ms, |part| fold.part(part))?;
    if fold.damaged > 0 {
        error!(
            records = fold.damaged,
            "some of what was popped cannot be read; what was taken since is delivered again"
        );
    }
    let pops = &broker.pops;
    pops.last_id.store(u32::try_from(fold.last_id).unwrap_or(u32::MAX), Ordering::Relaxed);
    let mut count = 0;
    for (id, known) in fold.known {
        let Known { group, topic, kind, queue_id, nonce, mut ledger, frozen } = known;
        let retries = name::retry_topic(&group);
        let of = if kind == Kind::Retry { &retries } else { &topic };
        let queue =
            broker.topics.get(of).and_then(|topic| topic.queue(&broker.store, queue_id).ok());
        let Some(queue) = queue.filter(|_| broker.topics.get(&topic).is_some()) else {
            // Another life of the topic has nothing to do with it.
            pops.forget_ledger(id, now_ms);
            continue;
        };
        let end = broker.store.max_offset(queue);
        let mut changed = frozen;
        if frozen && kind == Kind::Topic {
            // The file of offsets may know more.
            let known = broker.offsets.committed(&group, &topic, queue_id).unwrap_or(0).min(end);
            ledger.apply(&Event::Advanced { to: known });
        }
        if ledger.next() > end {
            // Never beyond what is there: the next messages of this queue are others.
            warn!(
                group,
                topic,
                queue_id,
                next = ledger.next(),
                end,
                "a group was ahead of its queue"
            );
            ledger = Ledger::new(ledger.committed().min(end), ledger.floor_ms());
            changed = true;
        }
        if kind == Kind::Topic {
            let known = broker.offsets.committed(&group, &topic, queue_id);
            match known.filter(|known| foreign_offsets && *known != ledger.committed()) {
                // A stock broker ran here in between: it knows better.
                Some(known) => {
                    ledger = Ledger::new(known, now_ms + 1);
                    changed = true;
                }
                None => broker.offsets.popped(&group, &topic, queue_id, ledger.committed()),
            }
        }
        let consumption = pops.insert(&group, &topic, nonce);
        let id = u32::try_from(id).unwrap_or(u32::MAX);
        let place = Place::new(id, (kind, queue_id), queue, ledger);
        if changed {
            pops.declare(&consumption, &place, &place.ledger.lock(), now_ms)
                .map_err(|refusal| std::io::Error::other(refusal.to_string()))?;
        }
        consumption.places.write().insert((kind, queue_id), Arc::new(place));
        count += 1;
    }
    pops.ledgers.store(count, Ordering::Relaxed);
    if count > 0 {
        info!(ledgers = count, "what was popped is back");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(root: &Path) -> (Arc<Store>, Pops) {
        let clock = store::Clock::new(|| 0, || 0);
        let config = store::Config { maintenance: false, ..store::Config::new(root, clock) };
        let store = Store::open(config).unwrap();
        let pops = Pops::open(&store, root, ([127, 0, 0, 1], 1).into()).unwrap();
        (store, pops)
    }

    /// Groups whose ledgers the journal knows.
    fn known(store: &Store, pops: &Pops) -> Vec<String> {
        pops.journal.flush(store, 0).unwrap();
        let mut fold = Fold::default();
        pops.journal.load(store, 0, |part| fold.part(part)).unwrap();
        assert_eq!(fold.damaged, 0);
        let mut groups: Vec<String> = fold.known.into_values().map(|known| known.group).collect();
        groups.sort();
        groups
    }

    #[test]
    fn a_ledger_some_of_whose_events_are_lost_stays_as_it_was_until_it_is_written_down_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (store, pops) = open(dir.path());
        let queue = store.queue("t", 0).unwrap();
        let consumption = pops.consumption("g", "t");
        let place = pops.place(&consumption, (Kind::Topic, 0), queue, 0, || 0).unwrap();
        for to in 1..=4 {
            let mut ledger = place.ledger.lock();
            if to == 4 {
                pops.declare(&consumption, &place, &ledger, 0).unwrap();
            }
            pops.record(&place, &mut ledger, &Event::Advanced { to }, 0).unwrap();
            drop(ledger);
            pops.journal.flush(&store, 0).unwrap();
        }
        for (lost, expected) in [(0, 4), (1, 4), (3, 3)] {
            let mut fold = Fold::default();
            let mut number = 0;
            let mut before_last = None;
            let see = |part: Option<&Part>| {
                fold.part(part.filter(|_| number != lost));
                if number == 2 {
                    before_last = fold.known.values().next().map(|known| known.ledger.next());
                }
                number += 1;
            };
            pops.journal.load(&store, 0, see).unwrap();
            let next = fold.known.values().next().map(|known| known.ledger.next());
            assert_eq!(next, Some(expected), "part {lost} is lost");
            let frozen = [None, Some(1), None, Some(3)][lost];
            assert_eq!(before_last, frozen, "part {lost} is lost");
            assert_eq!(fold.damaged, 1);
        }
    }

    #[test]
    fn a_ledger_that_is_forgotten_while_all_are_written_down_does_not_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let (store, pops) = open(dir.path());
        let queue = store.queue("t", 0).unwrap();
        let key = (Kind::Topic, 0);
        let take = |group| {
            let consumption = pops.consumption(group, "t");
            let place = pops.place(&consumption, key, queue, 0, || 0).unwrap();
            (consumption, place)
        };
        let ((here, place_here), (gone, place_gone)) = (take("here"), take("gone"));
        assert_eq!(known(&store, &pops), ["gone", "here"]);
        assert!(pops.forget(Some("gone"), None, 0));
        // As a sweep that has seen the places before, and a request that found them.
        for (consumption, place) in [(&here, &place_here), (&gone, &place_gone)] {
            pops.declare(consumption, place, &place.ledger.lock(), 0).unwrap();
            let event = Event::Advanced { to: 3 };
            pops.record(place, &mut place.ledger.lock(), &event, 0).unwrap();
        }
        let refused = pops.place(&gone, (Kind::Topic, 1), queue, 0, || 0).map(drop);
        assert_eq!(refused.unwrap_err().code, ReplyCode::SystemBusy);
        assert_eq!(known(&store, &pops), ["here"]);
    }
}
