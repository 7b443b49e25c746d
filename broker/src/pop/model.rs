//! The ledger against a model that is too simple to be wrong, driven by seeds.
//!
//! `SEED=n` runs one seed, `STEPS=n` as many transitions in all.

use std::collections::BTreeMap;

use super::event::{Event, Popped};
use super::ledger::{Ledger, Run, Runs, runs};

/// One message that is not settled, as everybody understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    popped_ms: i64,
    until_ms: i64,
    attempts: u16,
    /// Acknowledged in order, with one before it that is not.
    early: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    next: i64,
    held: BTreeMap<i64, Held>,
    attempt: u32,
    /// What was answered to be settled.
    settled: Vec<bool>,
}

/// A queue, its consumers, a clock and a journal, all driven by one seed.
struct World {
    seed: u64,
    random: u64,
    now_ms: i64,
    end: i64,
    ledger: Ledger,
    model: Model,
    journal: Vec<u8>,
    /// The model at each length of the journal since the last crash or promise.
    history: Vec<(usize, Model)>,
    /// Where a replay may begin: a snapshot of the ledger, or the start.
    starts: Vec<usize>,
    /// Handles that were handed out, good and stale: offset and pop time.
    handles: Vec<(i64, i64)>,
}

const BASE_MS: i64 = 1_000_000;

impl World {
    fn new(seed: u64) -> Self {
        let random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        Self {
            seed,
            random,
            now_ms: BASE_MS,
            end: 0,
            ledger: Ledger::default(),
            model: Model::default(),
            journal: Vec::new(),
            history: Vec::new(),
            starts: vec![0],
            handles: Vec::new(),
        }
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % sides
    }

    fn step(&mut self) {
        match self.roll(32) {
            0..4 => self.end += self.roll(40) as i64,
            4..10 => self.pop(),
            10..13 => self.pop_in_order(),
            13..22 => self.ack(),
            22..25 => self.hide(),
            25..29 => self.now_ms += self.roll(60) as i64,
            29 => self.move_or_advance(),
            30 => self.crash(),
            _ => self.snapshot(),
        }
        self.check();
    }

    fn apply(&mut self, event: &Event) {
        event.write(&mut self.journal, &self.ledger, BASE_MS);
        self.ledger.apply(event);
    }

    /// The model has followed; what is promised survives every crash.
    fn done(&mut self, promised: bool) {
        if promised {
            self.history.clear();
        }
        self.history.push((self.journal.len(), self.model.clone()));
    }

    fn hand_out(&mut self, offset: i64, until_ms: i64, more: u16) {
        let before = self.model.held.get(&offset).map_or(0, |held| held.attempts);
        let attempts = before + more;
        let popped_ms = self.now_ms;
        if let Some(held) = self.model.held.get(&offset).filter(|held| more > 0 && !held.early) {
            assert!(held.until_ms <= self.now_ms, "seed {}: {offset} is hidden", self.seed);
        }
        self.model.held.insert(offset, Held { popped_ms, until_ms, attempts, early: false });
        self.handles.push((offset, popped_ms));
    }

    /// New messages, of which a filter wants some.
    fn fresh(&mut self, count: usize) -> (Vec<i64>, i64) {
        let wanted_of_8 = self.roll(9);
        let (mut found, mut next) = (Vec::new(), self.ledger.next());
        while next < self.end && found.len() < count {
            if self.roll(8) < wanted_of_8 {
                found.push(next);
            }
            next += 1;
        }
        (found, next)
    }

    fn pop(&mut self) {
        let max = 1 + self.roll(40) as usize;
        let hidden_ms = 1 + self.roll(100) as i64;
        let offer = self.ledger.offer(self.now_ms, max);
        let again: Runs = offer.again.iter().map(|(run, _)| *run).collect();
        for (run, attempts) in &offer.again {
            for offset in run.offsets() {
                let known = &self.model.held[&offset];
                assert_eq!(known.attempts, *attempts, "seed {}", self.seed);
            }
        }
        self.popped(again, offer.fresh, hidden_ms, 0, false);
    }

    fn pop_in_order(&mut self) {
        let max = 1 + self.roll(40) as usize;
        let hidden_ms = 1 + self.roll(100) as i64;
        let attempt = self.roll(3) as u32;
        let offer = self.ledger.offer_in_order(self.now_ms, max, attempt);
        let now_ms = self.now_ms;
        let hidden = self.model.held.values().any(|held| !held.early && held.until_ms > now_ms);
        let same = attempt != 0 && attempt == self.model.attempt;
        assert_eq!(offer.retaken, hidden && same && self.can_deliver(), "seed {}", self.seed);
        if hidden && !same {
            let nothing = offer.again.is_empty() && offer.fresh == 0;
            assert!(nothing, "seed {}: the order forbids it", self.seed);
        }
        let again: Runs = offer.again.iter().map(|(run, _)| *run).collect();
        let offsets: Vec<i64> = again.iter().flat_map(|run| run.offsets()).collect();
        let oldest: Vec<i64> = self.model.held.keys().copied().take(offsets.len()).collect();
        assert_eq!(offsets, oldest, "seed {}: in order, without a gap", self.seed);
        if offer.fresh > 0 {
            assert_eq!(offsets.len(), self.model.held.len(), "seed {}: all before", self.seed);
        }
        if offsets.is_empty() && offer.fresh == 0 {
            return;
        }
        self.popped(again, offer.fresh, hidden_ms, attempt, offer.retaken);
    }

    /// Just after a move nothing is delivered.
    fn can_deliver(&self) -> bool {
        !(1..1000).contains(&(self.ledger.floor_ms() - self.now_ms))
    }

    fn popped(&mut self, again: Runs, fresh: usize, hidden_ms: i64, attempt: u32, retaken: bool) {
        let (found, next) =
            if fresh > 0 { self.fresh(fresh) } else { (Vec::new(), self.ledger.next()) };
        let event = Event::Popped(Popped {
            at_ms: self.now_ms,
            hidden_ms,
            attempt,
            retaken,
            again: again.clone(),
            fresh: runs(found.iter().copied()),
            next,
        });
        self.apply(&event);
        let until_ms = self.now_ms + hidden_ms;
        for offset in again.iter().flat_map(|run| run.offsets()) {
            self.hand_out(offset, until_ms, u16::from(!retaken));
        }
        if !again.is_empty() {
            for held in self.model.held.values_mut().filter(|held| held.early) {
                (held.early, held.until_ms) = (false, self.now_ms);
            }
        }
        for offset in found {
            assert!(!self.is_settled(offset), "seed {}: {offset} comes back", self.seed);
            self.hand_out(offset, until_ms, 1);
        }
        self.model.next = next;
        self.model.attempt = attempt;
        self.done(false);
    }

    fn is_settled(&self, offset: i64) -> bool {
        self.model.settled.get(offset as usize).copied().unwrap_or(false)
    }

    fn some_handle(&mut self) -> Option<(i64, i64)> {
        let at = self.roll(self.handles.len().max(1) as u64) as usize;
        let handle = self.handles.get(at).copied();
        // Now and then one that nobody was given.
        match (handle, self.roll(20)) {
            (_, 0) => Some((self.roll(self.end as u64 + 100) as i64, self.now_ms)),
            (handle, _) => handle,
        }
    }

    fn ack(&mut self) {
        let Some((first, popped_ms)) = self.some_handle() else { return };
        let bits = match self.roll(3) {
            0 => 1,
            1 => u64::MAX,
            _ => self.roll(u64::MAX) | 1,
        };
        let run = Run { first, bits };
        let settled = self.ledger.settle(run, popped_ms);
        let mut stale = 0;
        let mut hit = Vec::new();
        for offset in run.offsets() {
            match self.model.held.get(&offset) {
                Some(held) if held.popped_ms == popped_ms && held.early => {}
                Some(held) if held.popped_ms == popped_ms => hit.push(offset),
                Some(_) => stale += 1,
                None if offset >= self.model.next => stale += 1,
                None => {}
            }
        }
        assert_eq!(settled.stale, stale, "seed {}", self.seed);
        let found: Vec<i64> = settled.runs.iter().flat_map(|run| run.offsets()).collect();
        assert_eq!(found, hit, "seed {}", self.seed);
        if self.roll(2) == 0 {
            self.apply(&Event::AckedInOrder(settled.runs));
            for offset in hit {
                self.model.held.get_mut(&offset).unwrap().early = true;
            }
        } else {
            self.apply(&Event::Acked(settled.runs));
            for offset in hit {
                self.settled(offset);
            }
        }
        self.settle_early();
        self.done(true);
    }

    fn settled(&mut self, offset: i64) {
        self.model.held.remove(&offset);
        let at = offset as usize;
        if self.model.settled.len() <= at {
            self.model.settled.resize(at + 1, false);
        }
        self.model.settled[at] = true;
    }

    /// What is early and has nothing before it any more.
    fn settle_early(&mut self) {
        while let Some((first, _)) = self.model.held.first_key_value().filter(|(_, h)| h.early) {
            let first = *first;
            self.settled(first);
        }
    }

    fn hide(&mut self) {
        let Some((offset, popped_ms)) = self.some_handle() else { return };
        let hidden_ms = 1 + self.roll(100) as i64;
        let holds = |held: &Held| held.popped_ms == popped_ms && !held.early;
        let good = self.model.held.get(&offset).is_some_and(holds);
        let hidden = self.ledger.hide(offset, popped_ms, self.now_ms, hidden_ms);
        assert_eq!(hidden.is_ok(), good, "seed {}", self.seed);
        let Ok(event) = hidden else { return };
        self.apply(&event);
        let Event::Hidden { at_ms, .. } = event else { panic!("seed {}: {event:?}", self.seed) };
        let held = self.model.held.get_mut(&offset).unwrap();
        (held.popped_ms, held.until_ms) = (at_ms, at_ms + hidden_ms);
        self.handles.push((offset, at_ms));
        self.done(true);
    }

    fn move_or_advance(&mut self) {
        if self.roll(4) > 0 {
            return;
        }
        let to = self.roll(self.end as u64 + 1) as i64;
        if self.roll(2) == 0 {
            self.apply(&Event::Moved { to, at_ms: self.now_ms });
            self.model.held.clear();
            self.model.next = to;
            self.model.attempt = 0;
            // What was settled may come again: it was asked for.
            self.model.settled.clear();
        } else {
            self.apply(&Event::Advanced { to });
            self.model.held.retain(|offset, _| *offset >= to);
            self.model.next = self.model.next.max(to);
            self.settle_early();
        }
        self.done(true);
    }

    fn snapshot(&mut self) {
        self.starts.push(self.journal.len());
        self.apply(&Event::State(Box::new(self.ledger.clone())));
        self.done(false);
    }

    /// Everything that was not promised may be lost, but only from some point on.
    fn crash(&mut self) {
        let whole = self.replay(self.journal.len());
        assert_eq!(whole, self.ledger, "seed {}: the journal is the ledger", self.seed);
        if self.history.is_empty() {
            return;
        }
        let at = self.roll(self.history.len() as u64) as usize;
        let (length, model) = self.history[at].clone();
        self.journal.truncate(length);
        self.starts.retain(|start| *start < length.max(1));
        self.ledger = self.replay(length);
        self.model = model;
        self.history.truncate(at + 1);
        // Times of deliveries that were lost are not given again.
        self.now_ms += 1;
    }

    fn replay(&self, length: usize) -> Ledger {
        let start = self.starts.iter().rev().find(|start| **start < length).copied().unwrap_or(0);
        let mut rest = &self.journal[start..length];
        let mut ledger = Ledger::default();
        while !rest.is_empty() {
            let event = Event::read(&mut rest, &ledger, BASE_MS);
            ledger.apply(&event.unwrap_or_else(|| panic!("seed {}: unreadable", self.seed)));
        }
        ledger
    }

    /// Each message is exactly one of ready, hidden and settled, and the ledger says which.
    fn check(&self) {
        let seed = self.seed;
        let committed = self.model.held.keys().next().copied().unwrap_or(self.model.next);
        assert_eq!(self.ledger.committed(), committed, "seed {seed}");
        assert_eq!(self.ledger.next(), self.model.next, "seed {seed}");
        assert_eq!(self.ledger.in_flight(), self.model.held.len(), "seed {seed}");
        let waits = self.model.held.values().filter(|held| !held.early);
        let due = waits.map(|held| held.until_ms).min();
        assert_eq!(self.ledger.next_due_ms(), due, "seed {seed}");
        let mut held = self.model.held.iter();
        for hold in self.ledger.holds() {
            for offset in hold.run.offsets() {
                let (known, held) = held.next().unwrap();
                assert_eq!(offset, *known, "seed {seed}");
                let of_hold = Held {
                    popped_ms: hold.popped_ms,
                    until_ms: hold.hidden_until_ms,
                    attempts: hold.attempts,
                    early: hold.early,
                };
                assert_eq!(of_hold, *held, "seed {seed}");
            }
        }
        assert!(held.next().is_none(), "seed {seed}");
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn every_message_is_ready_hidden_or_settled_and_the_journal_says_which() {
    const STEPS_OF_SEED: u64 = 500;
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("STEPS").unwrap_or(1_000_000).div_ceil(STEPS_OF_SEED),
    };
    for seed in seeds {
        let mut world = World::new(seed);
        for _ in 0..STEPS_OF_SEED {
            world.step();
        }
        world.crash();
    }
}

#[test]
fn a_batch_of_32_costs_a_dozen_bytes() {
    let mut ledger = Ledger::new(1_000_000, 0);
    let mut journal = Vec::new();
    let fresh = runs(1_000_000..1_000_032);
    let popped = Event::Popped(Popped {
        at_ms: BASE_MS + 900,
        hidden_ms: 30_000,
        attempt: 0,
        retaken: false,
        again: Runs::new(),
        fresh: fresh.clone(),
        next: 1_000_032,
    });
    for event in [popped, Event::Acked(fresh)] {
        event.write(&mut journal, &ledger, BASE_MS);
        ledger.apply(&event);
    }
    assert!(journal.len() <= 16, "{} bytes", journal.len());
    assert_eq!((ledger.committed(), ledger.in_flight()), (1_000_032, 0));
}

#[test]
fn damaged_events_are_refused_not_believed() {
    let mut state = 1u64;
    for _ in 0..200_000 {
        let mut bytes = [0u8; 24];
        for byte in &mut bytes {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = (state >> 32) as u8;
        }
        bytes[0] &= 0xf7;
        let mut ledger = Ledger::new(5, 0);
        let mut rest = bytes.as_slice();
        while let Some(event) = Event::read(&mut rest, &ledger, 0) {
            ledger.apply(&event);
        }
    }
}
