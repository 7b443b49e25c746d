//! What happens to a ledger, and how it is written down: a few bytes each.

use super::ledger::{Hold, Ledger, Run, Runs};

/// A change of one ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Popped(Popped),
    Acked(Runs),
    /// The same for what was taken in order.
    AckedInOrder(Runs),
    /// One message was hidden anew, by its holder.
    Hidden {
        offset: i64,
        at_ms: i64,
        hidden_ms: i64,
    },
    /// The group was put somewhere else; what it holds is forgotten.
    Moved {
        to: i64,
        at_ms: i64,
    },
    /// Everything before `to` was consumed by other means.
    Advanced {
        to: i64,
    },
    /// The whole ledger, for a snapshot.
    State(Box<Ledger>),
}

/// One delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Popped {
    pub at_ms: i64,
    pub hidden_ms: i64,
    /// Who took it in order; 0 for nobody in particular.
    pub attempt: u32,
    /// The same attempt took the same messages once more.
    pub retaken: bool,
    pub again: Runs,
    pub fresh: Runs,
    /// Where the new ones end; what lies before and is not delivered was not wanted.
    pub next: i64,
}

const POPPED: u8 = 1;
const ACKED: u8 = 2;
const HIDDEN: u8 = 3;
const MOVED: u8 = 4;
const ADVANCED: u8 = 5;
const STATE: u8 = 6;
const ACKED_IN_ORDER: u8 = 7;

/// In a snapshot, beside the deliveries of a hold: it is early.
const EARLY: u64 = 1 << 16;

/// Bits of the byte that starts a delivery.
mod shape {
    pub(super) const RETAKEN: u8 = 0x10;
    pub(super) const ATTEMPT: u8 = 0x20;
    pub(super) const AGAIN: u8 = 0x40;
    pub(super) const FRESH: u8 = 0x80;
}

/// Appends an unsigned number, seven bits a byte.
pub fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a number that may be negative.
pub fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

/// Takes a number from the front.
pub fn get(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = input.split_first()?;
        *input = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Takes a number that may be negative.
pub fn get_signed(input: &mut &[u8]) -> Option<i64> {
    let value = get(input)?;
    Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
}

fn get_byte(input: &mut &[u8]) -> Option<u8> {
    let (byte, rest) = input.split_first()?;
    *input = rest;
    Some(*byte)
}

/// Runs, each relative to the end of the one before. A full one takes as few bytes as there can be.
fn put_runs(out: &mut Vec<u8>, runs: &[Run], from: i64) {
    put(out, runs.len() as u64);
    let mut at = from;
    for run in runs {
        put_signed(out, run.first.wrapping_sub(at));
        let count = run.count() as u64;
        let full = run.bits.leading_zeros() as u64 + count == 64;
        put(out, count << 1 | u64::from(!full));
        if !full {
            put(out, run.bits);
        }
        at = run.last().wrapping_add(1);
    }
}

fn get_runs(input: &mut &[u8], from: i64) -> Option<Runs> {
    let count = get(input)?;
    let mut runs = Runs::new();
    let mut at = from;
    for _ in 0..count {
        let first = at.wrapping_add(get_signed(input)?);
        let shape = get(input)?;
        let bits = match (shape & 1, shape >> 1) {
            (1, _) => get(input)?,
            (_, width @ 1..=64) => u64::MAX >> (64 - width),
            _ => return None,
        };
        // Ends of the number range are never offsets; refusing them keeps sums from overflowing.
        if bits & 1 == 0 || !(0..i64::MAX - 64).contains(&first) {
            return None;
        }
        let run = Run { first, bits };
        at = run.last() + 1;
        runs.push(run);
    }
    Some(runs)
}

impl Event {
    /// Appends this event of `ledger` as it is before. Times are counted from `base_ms`.
    pub fn write(&self, out: &mut Vec<u8>, ledger: &Ledger, base_ms: i64) {
        match self {
            Self::Popped(popped) => popped.write(out, ledger, base_ms),
            Self::Acked(runs) => {
                out.push(ACKED);
                put_runs(out, runs, ledger.committed());
            }
            Self::AckedInOrder(runs) => {
                out.push(ACKED_IN_ORDER);
                put_runs(out, runs, ledger.committed());
            }
            Self::Hidden { offset, at_ms, hidden_ms } => {
                out.push(HIDDEN);
                put_signed(out, offset.wrapping_sub(ledger.committed()));
                put_signed(out, at_ms.wrapping_sub(base_ms));
                put_signed(out, *hidden_ms);
            }
            Self::Moved { to, at_ms } => {
                out.push(MOVED);
                put_signed(out, *to);
                put_signed(out, at_ms.wrapping_sub(base_ms));
            }
            Self::Advanced { to } => {
                out.push(ADVANCED);
                put_signed(out, *to);
            }
            Self::State(state) => {
                out.push(STATE);
                write_state(out, state, base_ms);
            }
        }
    }

    /// Takes an event of `ledger` from the front; `None` when it is none.
    pub fn read(input: &mut &[u8], ledger: &Ledger, base_ms: i64) -> Option<Self> {
        let first = get_byte(input)?;
        Some(match first & 0x0f {
            POPPED => Self::Popped(Popped::read(first, input, ledger, base_ms)?),
            ACKED => Self::Acked(get_runs(input, ledger.committed())?),
            ACKED_IN_ORDER => Self::AckedInOrder(get_runs(input, ledger.committed())?),
            HIDDEN => Self::Hidden {
                offset: ledger.committed().wrapping_add(get_signed(input)?),
                at_ms: base_ms.wrapping_add(get_signed(input)?),
                hidden_ms: get_signed(input)?,
            },
            MOVED => Self::Moved {
                to: get_signed(input)?,
                at_ms: base_ms.wrapping_add(get_signed(input)?),
            },
            ADVANCED => Self::Advanced { to: get_signed(input)? },
            STATE => Self::State(Box::new(read_state(input, base_ms)?)),
            _ => return None,
        })
    }
}

impl Popped {
    fn write(&self, out: &mut Vec<u8>, ledger: &Ledger, base_ms: i64) {
        let bit = |wanted: bool, bit: u8| if wanted { bit } else { 0 };
        out.push(
            POPPED
                | bit(self.retaken, shape::RETAKEN)
                | bit(self.attempt != 0, shape::ATTEMPT)
                | bit(!self.again.is_empty(), shape::AGAIN)
                | bit(!self.fresh.is_empty(), shape::FRESH),
        );
        put_signed(out, self.at_ms.wrapping_sub(base_ms));
        put_signed(out, self.hidden_ms);
        if self.attempt != 0 {
            put(out, self.attempt.into());
        }
        if !self.again.is_empty() {
            put_runs(out, &self.again, ledger.committed());
        }
        if !self.fresh.is_empty() {
            put_runs(out, &self.fresh, ledger.next());
        }
        put_signed(out, self.next.wrapping_sub(self.end_of_fresh(ledger)));
    }

    fn end_of_fresh(&self, ledger: &Ledger) -> i64 {
        self.fresh.last().map_or_else(|| ledger.next(), |run| run.last() + 1)
    }

    fn read(first: u8, input: &mut &[u8], ledger: &Ledger, base_ms: i64) -> Option<Self> {
        let has = |bit: u8| first & bit != 0;
        let at_ms = base_ms.wrapping_add(get_signed(input)?);
        let hidden_ms = get_signed(input)?;
        let attempt = if has(shape::ATTEMPT) { u32::try_from(get(input)?).ok()? } else { 0 };
        let mut of = |bit, from| if has(bit) { get_runs(input, from) } else { Some(Runs::new()) };
        let again = of(shape::AGAIN, ledger.committed())?;
        let fresh = of(shape::FRESH, ledger.next())?;
        let retaken = has(shape::RETAKEN);
        let mut popped = Self { at_ms, hidden_ms, attempt, retaken, again, fresh, next: 0 };
        popped.next = popped.end_of_fresh(ledger).wrapping_add(get_signed(input)?);
        // A run that was handed out before belongs to another ledger than this.
        let known = popped.fresh.first().is_some_and(|run| run.first < ledger.next());
        (!known).then_some(popped)
    }
}

fn write_state(out: &mut Vec<u8>, ledger: &Ledger, base_ms: i64) {
    put_signed(out, ledger.next());
    put_signed(out, ledger.floor_ms().wrapping_sub(base_ms));
    put(out, ledger.attempt().into());
    put(out, ledger.holds().len() as u64);
    let mut at = ledger.next();
    for hold in ledger.holds() {
        put_runs(out, &[hold.run], at);
        put_signed(out, hold.popped_ms.wrapping_sub(base_ms));
        put_signed(out, hold.hidden_until_ms.wrapping_sub(hold.popped_ms));
        put(out, u64::from(hold.attempts) | if hold.early { EARLY } else { 0 });
        at = hold.run.last() + 1;
    }
}

fn read_state(input: &mut &[u8], base_ms: i64) -> Option<Ledger> {
    let next = get_signed(input)?;
    let floor_ms = base_ms.wrapping_add(get_signed(input)?);
    let attempt = u32::try_from(get(input)?).ok()?;
    let count = get(input)?;
    let mut holds: Vec<Hold> = Vec::new();
    for _ in 0..count {
        let at = holds.last().map_or(next, |hold| hold.run.last() + 1);
        let &[run] = get_runs(input, at)?.as_slice() else { return None };
        let popped_ms = base_ms.wrapping_add(get_signed(input)?);
        let hidden_until_ms = popped_ms.wrapping_add(get_signed(input)?);
        let attempts = get(input)?;
        let early = attempts & EARLY != 0;
        let attempts = u16::try_from(attempts & !EARLY).ok()?;
        let in_order = holds.last().is_none_or(|hold| hold.run.last() < run.first);
        // Something comes before what is early.
        if !in_order || run.last() >= next || early && holds.is_empty() {
            return None;
        }
        holds.push(Hold { run, popped_ms, hidden_until_ms, attempts, early });
    }
    Some(Ledger::restored(next, floor_ms, attempt, holds))
}
