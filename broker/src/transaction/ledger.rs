//! Every half message is committed, rolled back, given up or due for a question to its producer.
//!
//! A half message lies in the queue of halves. It is written again there when its producer is asked, so that
//! the old ones may be forgotten; the offset of its first copy names the transaction. Ends are records too,
//! and may be known before the half they end has been read.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// Half messages that may wait, and ends that may be known ahead of their halves.
pub const WAITING_MAX: usize = 1_000_000;
/// Ends that are remembered, for a client that says the same again.
const ENDS_KEPT: usize = 10_000;
/// How many places of the queue of ends are known by what was in the queue of halves then.
const MARKS_MAX: usize = 64;
/// A clock that is set back by less is taken for one that stands still.
const CLOCK_SLACK_MS: i64 = 1000;
/// How long a half message may hold up the end of its queue.
const CARRY_MS: i64 = 30_000;

/// A half message that waits, by its newest copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Half {
    /// Offset of the first copy in the queue of halves.
    pub first: i64,
    /// Of this copy.
    pub offset: i64,
    /// Where this copy is in the log.
    pub position: u64,
    /// When the first copy was stored, as far as this one says.
    pub since_ms: i64,
    pub stored_ms: i64,
    /// Nobody is asked before this much time has passed.
    pub immune_ms: i64,
    /// How often its producer was asked.
    pub checks: u32,
}

/// What the configuration says.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub interval_ms: i64,
    pub checks_max: u32,
    /// How long messages are kept at all.
    pub reserved_ms: i64,
}

/// What is to be done with a half message whose time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Its producer is asked for the so-manieth time.
    Ask(u32),
    /// It is written again so that it does not hold up the end of the queue; nobody is asked yet.
    Carry,
    /// It was asked about too often, or is too old.
    GiveUp,
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Committed,
    RolledBack,
    GivenUp,
}

/// What is known of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its newest copy is at this offset.
    Waiting { offset: i64 },
    /// How, if that is not long ago.
    Ended(Option<End>),
}

#[derive(Debug, Default)]
pub struct Ledger {
    /// By the offset of the first copy.
    waiting: HashMap<i64, Half>,
    /// Offset of the newest copy to that of the first.
    newest: BTreeMap<i64, i64>,
    /// When something has to be done, and about which transaction.
    due: BTreeSet<(i64, i64)>,
    due_of: HashMap<i64, i64>,
    /// Offsets at or behind `next` that are ended or written again already.
    early: BTreeSet<i64>,
    /// The next offset to be read.
    next: i64,
    ends: HashMap<i64, End>,
    ends_by_age: VecDeque<i64>,
    /// Ends before the second place are about halves before the first.
    marks: VecDeque<(i64, i64)>,
    /// When it was last asked what is due.
    now_ms: i64,
}

impl Ledger {
    /// Nothing before this offset waits.
    pub fn new(next: i64) -> Self {
        Self { next, ..Self::default() }
    }

    /// The next offset of the queue of halves to be read.
    pub fn next(&self) -> i64 {
        self.next
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.waiting.len() + self.early.len() >= WAITING_MAX
    }

    /// An end was read, of the half message at this offset.
    pub fn end_read(&mut self, offset: i64) {
        if offset >= self.next {
            self.early.insert(offset);
        }
    }

    /// The half message at `next` was read.
    pub fn read(&mut self, half: Half, rules: &Rules) {
        self.next = half.offset + 1;
        if self.early.remove(&half.offset) {
            return;
        }
        if self.waiting.get(&half.first).is_some_and(|known| known.offset >= half.offset) {
            return;
        }
        // A copy whose original was not ended: a loss of power took the end.
        self.forget(half.first);
        self.insert(half, half.due_ms(rules));
    }

    /// There is nothing to be read before this offset.
    pub fn skip_to(&mut self, offset: i64) {
        self.next = self.next.max(offset);
        self.early = self.early.split_off(&self.next);
    }

    /// What is known of the transaction whose first copy is at `first`, and one of whose copies is at `offset`.
    pub fn state(&self, first: i64, offset: i64) -> State {
        if let Some(half) = self.waiting.get(&first) {
            return State::Waiting { offset: half.offset };
        }
        if offset >= self.next && !self.early.contains(&offset) {
            return State::Waiting { offset };
        }
        State::Ended(self.ends.get(&first).copied())
    }

    /// The transaction has ended: the record of it names `offset`, its newest copy.
    pub fn ended(&mut self, first: i64, offset: i64, end: End) {
        self.forget(first);
        self.end_read(offset);
        if self.ends.insert(first, end).is_none() {
            self.ends_by_age.push_back(first);
        }
        if self.ends_by_age.len() > ENDS_KEPT
            && let Some(oldest) = self.ends_by_age.pop_front()
        {
            self.ends.remove(&oldest);
        }
    }

    /// A copy was written in place of the one that was known.
    pub fn renewed(&mut self, half: Half, rules: &Rules) {
        if let Some(old) = self.forget(half.first) {
            self.end_read(old.offset);
        }
        self.insert(half, half.due_ms(rules));
    }

    /// What could not be done now is tried again then.
    pub fn put_off(&mut self, first: i64, until_ms: i64) {
        if let Some(due_ms) = self.due_of.get_mut(&first) {
            self.due.remove(&(*due_ms, first));
            *due_ms = until_ms;
            self.due.insert((until_ms, first));
        }
    }

    /// When something has to be done next.
    pub fn next_due(&self) -> Option<i64> {
        self.due.first().map(|(due_ms, _)| *due_ms)
    }

    /// Half messages whose time has come, the longest due first, and what is to be done with each.
    pub fn due(&mut self, now_ms: i64, max: usize, rules: &Rules) -> Vec<(Half, Due)> {
        if now_ms < self.now_ms.saturating_sub(CLOCK_SLACK_MS) {
            self.set_back(now_ms, rules);
        }
        self.now_ms = now_ms;
        let due = self.due.iter().take_while(|(due_ms, _)| *due_ms <= now_ms).take(max);
        due.map(|(_, first)| {
            let half = self.waiting[first];
            (half, half.due(now_ms, rules))
        })
        .collect()
    }

    /// How far the queue of halves and the queue of ends are done with: a start reads from there.
    pub fn done(&mut self) -> (i64, Option<i64>) {
        let halves = self.newest.first_key_value().map_or(self.next, |(offset, _)| *offset);
        let halves = halves.min(self.next);
        let mut ends = None;
        while let Some((half, end)) = self.marks.front()
            && *half <= halves
        {
            ends = Some(*end);
            self.marks.pop_front();
        }
        (halves, ends)
    }

    /// The queue of ends ended at `ends` at a time when the queue of halves did not end behind `halves`.
    pub fn mark(&mut self, halves: i64, ends: i64) {
        let news = self.marks.back().is_none_or(|(_, last)| *last < ends);
        if news && self.marks.len() < MARKS_MAX {
            self.marks.push_back((halves, ends));
        }
    }

    /// The clock was ahead when these were stored: they are as old as now.
    fn set_back(&mut self, now_ms: i64, rules: &Rules) {
        for (first, half) in &mut self.waiting {
            *half = half.not_after(now_ms);
            let due_ms = half.due_ms(rules);
            if let Some(before_ms) = self.due_of.insert(*first, due_ms) {
                self.due.remove(&(before_ms, *first));
            }
            self.due.insert((due_ms, *first));
        }
    }

    fn insert(&mut self, half: Half, due_ms: i64) {
        self.newest.insert(half.offset, half.first);
        self.due.insert((due_ms, half.first));
        self.due_of.insert(half.first, due_ms);
        self.waiting.insert(half.first, half);
    }

    fn forget(&mut self, first: i64) -> Option<Half> {
        let half = self.waiting.remove(&first)?;
        self.newest.remove(&half.offset);
        if let Some(due_ms) = self.due_of.remove(&first) {
            self.due.remove(&(due_ms, first));
        }
        Some(half)
    }
}

impl Half {
    /// As one that was not stored ahead of now, as a clock that was wrong may say.
    pub fn not_after(self, now_ms: i64) -> Self {
        let (since_ms, stored_ms) = (self.since_ms.min(now_ms), self.stored_ms.min(now_ms));
        Self { since_ms, stored_ms, ..self }
    }

    fn due_ms(&self, rules: &Rules) -> i64 {
        match self.checks {
            0 => (self.since_ms + self.immune_ms).min(self.stored_ms + CARRY_MS),
            _ => self.stored_ms + rules.interval_ms,
        }
    }

    fn due(&self, now_ms: i64, rules: &Rules) -> Due {
        let age_ms = now_ms - self.since_ms;
        if self.checks >= rules.checks_max || age_ms > rules.reserved_ms {
            Due::GiveUp
        } else if self.checks == 0 && (0..self.immune_ms).contains(&age_ms) {
            Due::Carry
        } else {
            Due::Ask(self.checks + 1)
        }
    }
}

#[cfg(test)]
mod tests;
