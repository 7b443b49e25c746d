//! Which messages of one queue are hidden from a group, from when, until when, and how often they were delivered.
//!
//! A ledger does no I/O and reads no clock. Whoever drives it asks what may be delivered or settled, gets an
//! [`Event`], journals that and applies it; a replay of the journal gives the same ledger.
//!
//! Offsets before `next` that are in no hold are settled: what is acknowledged out of order costs nothing. Only
//! taking in order remembers it, since there all that follows a message comes again with it.

use std::collections::{BTreeMap, BTreeSet};

use smallvec::SmallVec;

use super::event::{Event, Popped};

/// Messages of one queue that one group may have taken and not settled.
pub const IN_FLIGHT_MAX: usize = 65_536;

/// Up to 64 messages: bit `n` is the one at `first + n`. The lowest bit is always set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub first: i64,
    pub bits: u64,
}

/// Few enough not to need the heap, in most cases.
pub type Runs = SmallVec<[Run; 2]>;

/// Messages that were delivered together and are not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    pub run: Run,
    pub popped_ms: i64,
    /// From then on they may be delivered again.
    pub hidden_until_ms: i64,
    /// Deliveries so far.
    pub attempts: u16,
    /// Taken in order and acknowledged before one that comes first: settled together with that one, unless
    /// that one is delivered again, for then these follow it once more.
    pub early: bool,
}

/// What a group has taken of one queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The first offset that was never handed out.
    next: i64,
    /// By first offset. Their ranges do not overlap.
    holds: BTreeMap<i64, Hold>,
    /// When each hold ends that is not early, with its first offset.
    deadlines: BTreeSet<(i64, i64)>,
    in_flight: usize,
    /// Which attempt took the last batch in order; 0 for none.
    attempt: u32,
    /// Nothing is delivered before this: what was handed out before a move must not share a time with
    /// what is handed out after it.
    floor_ms: i64,
}

/// What can be delivered now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// To be delivered again, with the deliveries each had so far.
    pub again: SmallVec<[(Run, u16); 2]>,
    /// How many messages that were never handed out may follow.
    pub fresh: usize,
    /// The same attempt asks again for what it has: not one more delivery.
    pub retaken: bool,
}

/// The handle is of an earlier delivery, or of none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale;

/// What an acknowledgement does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// What is to be settled by it.
    pub runs: Runs,
    /// Messages that were delivered again since, or never.
    pub stale: u32,
}

impl Run {
    /// The run of these messages, unless there are none.
    pub fn new(first: i64, bits: u64) -> Option<Self> {
        if bits == 0 {
            return None;
        }
        let zeros = bits.trailing_zeros();
        Some(Self { first: first.saturating_add(i64::from(zeros)), bits: bits >> zeros })
    }

    pub fn count(self) -> usize {
        self.bits.count_ones() as usize
    }

    pub fn last(self) -> i64 {
        self.first + i64::from(63 - self.bits.leading_zeros())
    }

    pub fn offsets(self) -> impl Iterator<Item = i64> + Clone {
        let mut bits = self.bits;
        std::iter::from_fn(move || {
            let bit = (bits != 0).then(|| bits.trailing_zeros())?;
            bits &= bits - 1;
            Some(self.first + i64::from(bit))
        })
    }

    /// The messages of this run as bits counted from `first`, and those that lie outside.
    fn seen_from(self, first: i64) -> u64 {
        match self.first.checked_sub(first) {
            Some(up @ 0..64) => self.bits << up,
            Some(down @ -63..0) => self.bits >> -down,
            _ => 0,
        }
    }

    /// The first `count` messages, and the rest.
    fn split(self, count: usize) -> (Option<Self>, Option<Self>) {
        let mut rest = self.bits;
        for _ in 0..count {
            rest &= rest.wrapping_sub(1);
        }
        (Self::new(self.first, self.bits & !rest), Self::new(self.first, rest))
    }

    fn without(self, bits: u64) -> Option<Self> {
        Self::new(self.first, self.bits & !bits)
    }
}

/// Groups ascending offsets into runs.
pub fn runs(offsets: impl IntoIterator<Item = i64>) -> Runs {
    let mut runs = Runs::new();
    for offset in offsets {
        match runs.last_mut() {
            Some(run) if (0..64).contains(&(offset - run.first)) => {
                run.bits |= 1 << (offset - run.first);
            }
            _ => runs.push(Run { first: offset, bits: 1 }),
        }
    }
    runs
}

impl Ledger {
    /// A group that goes on from `next`.
    pub fn new(next: i64, floor_ms: i64) -> Self {
        Self { next, floor_ms, ..Self::default() }
    }

    /// Everything before this is settled.
    pub fn committed(&self) -> i64 {
        self.holds.first_key_value().map_or(self.next, |(first, _)| *first)
    }

    /// The first offset that was never handed out.
    pub fn next(&self) -> i64 {
        self.next
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub fn floor_ms(&self) -> i64 {
        self.floor_ms
    }

    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    pub fn holds(&self) -> impl ExactSizeIterator<Item = &Hold> {
        self.holds.values()
    }

    /// When there may be more to deliver without anybody's doing: the next hold ends, or the rest after a move.
    pub fn due_ms(&self, now_ms: i64) -> Option<i64> {
        if self.rests(now_ms) { Some(self.floor_ms) } else { self.next_due_ms() }
    }

    /// When the next hold ends, or has ended.
    pub fn next_due_ms(&self) -> Option<i64> {
        self.deadlines.first().map(|(until, _)| *until)
    }

    /// Messages whose hidden time is over.
    pub fn ready(&self, now_ms: i64) -> usize {
        self.due(now_ms).map(|hold| hold.run.count()).sum()
    }

    /// Whether everything that was handed out is settled or ready again, as taking in order demands.
    pub fn is_blocked(&self, now_ms: i64, attempt: u32) -> bool {
        let hidden = self.deadlines.last().is_some_and(|(until, _)| *until > now_ms);
        hidden && (attempt == 0 || attempt != self.attempt)
    }

    /// The latest time anything was handed out at.
    pub fn last_popped_ms(&self) -> i64 {
        self.holds.values().map(|hold| hold.popped_ms).max().unwrap_or(0).max(self.floor_ms - 1)
    }

    fn rests(&self, now_ms: i64) -> bool {
        // A floor far ahead is that of a clock that was wrong.
        (1..1000).contains(&(self.floor_ms.saturating_sub(now_ms)))
    }

    fn due(&self, now_ms: i64) -> impl Iterator<Item = &Hold> {
        let due = self.deadlines.iter().take_while(move |(until, _)| *until <= now_ms);
        due.map(|(_, first)| &self.holds[first])
    }

    /// Up to `max` messages: those whose hidden time is over, oldest deadline first, then new ones.
    pub fn offer(&self, now_ms: i64, max: usize) -> Offer {
        let mut offer = Offer::default();
        if self.rests(now_ms) {
            return offer;
        }
        let mut room = max;
        for hold in self.due(now_ms) {
            if room == 0 {
                break;
            }
            if let (Some(run), _) = hold.run.split(room) {
                room -= run.count();
                offer.again.push((run, hold.attempts));
            }
        }
        offer.fresh = room.min(IN_FLIGHT_MAX.saturating_sub(self.in_flight));
        offer
    }

    /// The same in order: by offset, and nothing while a delivery is hidden, unless the attempt that took
    /// it asks again.
    pub fn offer_in_order(&self, now_ms: i64, max: usize, attempt: u32) -> Offer {
        let mut offer = Offer::default();
        if self.rests(now_ms) || self.is_blocked(now_ms, attempt) {
            return offer;
        }
        offer.retaken = self.deadlines.last().is_some_and(|(until, _)| *until > now_ms);
        let mut room = max;
        for hold in self.holds.values() {
            if room == 0 {
                break;
            }
            if let (Some(run), _) = hold.run.split(room) {
                room -= run.count();
                offer.again.push((run, hold.attempts));
            }
        }
        if !offer.retaken {
            offer.fresh = room.min(IN_FLIGHT_MAX.saturating_sub(self.in_flight));
        }
        offer
    }

    /// What becomes of an acknowledgement of a delivery at `popped_ms`. What is settled already is no error:
    /// an answer may have been lost.
    pub fn settle(&self, run: Run, popped_ms: i64) -> Settled {
        let mut settled = Settled::default();
        let mut left = Some(run);
        while let Some(run) = left {
            let before = self.holds.range(..=run.first).next_back();
            let hold = before.map(|(_, hold)| hold).filter(|hold| hold.run.last() >= run.first);
            let Some(hold) = hold else {
                // The lowest one is in no hold.
                if run.first >= self.next {
                    settled.stale += 1;
                }
                left = run.without(1);
                continue;
            };
            let asked = run.seen_from(hold.run.first);
            let hit = Run::new(hold.run.first, hold.run.bits & asked);
            match hit {
                Some(_) if hold.popped_ms == popped_ms && hold.early => {}
                Some(hit) if hold.popped_ms == popped_ms => settled.runs.push(hit),
                Some(hit) => settled.stale += hit.count() as u32,
                None => {}
            }
            // What lies in the range of this hold is done with, settled before or now.
            let reach = hold.run.last() - run.first;
            left = if reach >= 63 { None } else { run.without((1 << (reach + 1)) - 1) };
        }
        settled
    }

    /// Hides a message of a delivery at `popped_ms` anew.
    pub fn hide(
        &self,
        offset: i64,
        popped_ms: i64,
        now_ms: i64,
        hidden_ms: i64,
    ) -> Result<Event, Stale> {
        let (_, hold) = self.holds.range(..=offset).next_back().ok_or(Stale)?;
        let bit = Run { first: offset, bits: 1 }.seen_from(hold.run.first);
        if hold.run.bits & bit == 0 || hold.popped_ms != popped_ms || hold.early {
            return Err(Stale);
        }
        // Another time than that of the delivery it replaces, whatever the clock does.
        let at_ms = now_ms.max(popped_ms + 1);
        Ok(Event::Hidden { offset, at_ms, hidden_ms })
    }

    /// Applies what was decided before, or by another process.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Popped(popped) => self.popped(popped),
            Event::Acked(runs) => {
                for run in runs {
                    self.take(*run);
                }
            }
            Event::AckedInOrder(runs) => {
                for offset in runs.iter().flat_map(|run| run.offsets()) {
                    self.acked_in_order(offset);
                }
            }
            Event::Hidden { offset, at_ms, hidden_ms } => {
                let Some(hold) = self.take_one(*offset) else { return };
                let hidden_until_ms = at_ms.saturating_add(*hidden_ms);
                self.insert(Hold { popped_ms: *at_ms, hidden_until_ms, ..hold });
            }
            Event::Moved { to, at_ms } => {
                let floor_ms = self.last_popped_ms().max(*at_ms) + 1;
                *self = Self::new(*to, floor_ms);
            }
            Event::Advanced { to } => self.advance(*to),
            Event::State(state) => *self = (**state).clone(),
        }
        // Nothing is before these any more.
        while let Some((first, _)) = self.holds.first_key_value().filter(|(_, hold)| hold.early) {
            self.remove(*first);
        }
        debug_assert!(
            self.deadlines.len() <= self.holds.len(),
            "at most one deadline for each hold"
        );
    }

    fn acked_in_order(&mut self, offset: i64) {
        let comes_first = offset == self.committed();
        if let Some(hold) = self.take_one(offset).filter(|_| !comes_first) {
            self.insert(Hold { early: true, ..hold });
        }
    }

    fn popped(&mut self, popped: &Popped) {
        let Popped { at_ms, hidden_ms, attempt, retaken, again, fresh, next } = popped;
        let hidden_until_ms = at_ms.saturating_add(*hidden_ms);
        let more = u16::from(!retaken);
        for run in again {
            let Some(hold) = self.take(*run) else { continue };
            let attempts = hold.attempts.saturating_add(more);
            let run = hold.run;
            self.insert(Hold { run, popped_ms: *at_ms, hidden_until_ms, attempts, early: false });
        }
        if !again.is_empty() {
            self.follow_once_more(*at_ms);
        }
        for run in fresh {
            let popped_ms = *at_ms;
            self.insert(Hold { run: *run, popped_ms, hidden_until_ms, attempts: 1, early: false });
        }
        self.next = self.next.max(*next);
        self.attempt = *attempt;
    }

    /// One that comes before the early ones was delivered again: they may be, too.
    fn follow_once_more(&mut self, at_ms: i64) {
        let early: Vec<Hold> = self.holds.values().filter(|hold| hold.early).copied().collect();
        for hold in early {
            self.remove(hold.run.first);
            self.insert(Hold { hidden_until_ms: at_ms, early: false, ..hold });
        }
    }

    /// Everything before `to` is settled, by whatever way.
    fn advance(&mut self, to: i64) {
        while let Some((first, hold)) = self.holds.first_key_value()
            && *first < to
        {
            let run = hold.run;
            let below = match to - run.first {
                width @ 0..64 => run.bits & ((1 << width) - 1),
                _ => run.bits,
            };
            let Some(gone) = Run::new(run.first, below) else { break };
            self.take(gone);
        }
        self.next = self.next.max(to);
    }

    /// Removes a run that lies in one hold, which it leaves with the rest of its messages.
    fn take(&mut self, run: Run) -> Option<Hold> {
        let (first, hold) = self.holds.range(..=run.first).next_back()?;
        let (first, hold) = (*first, *hold);
        let bits = run.seen_from(first);
        if bits == 0 || hold.run.bits & bits != bits {
            return None;
        }
        self.remove(first);
        if let Some(rest) = hold.run.without(bits) {
            self.insert(Hold { run: rest, ..hold });
        }
        Some(Hold { run, ..hold })
    }

    /// Removes one message from its hold; none spans it after this.
    fn take_one(&mut self, offset: i64) -> Option<Hold> {
        let hold = self.take(Run { first: offset, bits: 1 })?;
        self.split_at(offset);
        Some(hold)
    }

    /// No hold spans `offset` after this.
    fn split_at(&mut self, offset: i64) {
        let Some((first, hold)) = self.holds.range(..offset).next_back() else { return };
        let (first, hold) = (*first, *hold);
        if hold.run.last() < offset {
            return;
        }
        let below = hold.run.bits & ((1 << (offset - first)) - 1);
        let parts = [Run::new(first, below), hold.run.without(below)];
        self.remove(first);
        for run in parts.into_iter().flatten() {
            self.insert(Hold { run, ..hold });
        }
    }

    pub(super) fn insert(&mut self, hold: Hold) {
        let first = hold.run.first;
        self.in_flight += hold.run.count();
        if !hold.early {
            self.deadlines.insert((hold.hidden_until_ms, first));
        }
        let before = self.holds.insert(first, hold);
        debug_assert!(before.is_none(), "a message is in one hold");
    }

    fn remove(&mut self, first: i64) {
        if let Some(hold) = self.holds.remove(&first) {
            self.in_flight -= hold.run.count();
            self.deadlines.remove(&(hold.hidden_until_ms, first));
        }
    }

    /// A ledger as a snapshot has it.
    pub(super) fn restored(
        next: i64,
        floor_ms: i64,
        attempt: u32,
        holds: impl IntoIterator<Item = Hold>,
    ) -> Self {
        let mut ledger = Self { attempt, ..Self::new(next, floor_ms) };
        holds.into_iter().for_each(|hold| ledger.insert(hold));
        ledger
    }
}
