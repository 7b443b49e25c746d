//! Reading the state file back, and not believing it more than it deserves.

use std::io;
use std::sync::atomic::Ordering;

use protocol::record::{self, at};
use tracing::warn;

use crate::Core;
use crate::queue::{Queue, QueueRef, State, UNIT, UNKNOWN};
use crate::state::{Fact, StateFile, Witness};

/// From where the log has to be walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Covered {
    pub(crate) position: u64,
    pub(crate) store_timestamp: i64,
}

struct Loader<'a> {
    core: &'a Core,
    by_id: Vec<QueueRef>,
    covered: Option<Covered>,
    witness: Witness,
    /// The first thing that did not fit.
    wrong: Option<&'static str>,
}

impl Core {
    /// Takes over the state file, if there is one that fits the log.
    pub(crate) fn load(&self, file: &mut StateFile) -> io::Result<Option<Covered>> {
        let mut loader = Loader {
            core: self,
            by_id: Vec::new(),
            covered: None,
            witness: Witness::default(),
            wrong: None,
        };
        file.load(|fact| loader.fact(&fact))?;
        let Loader { by_id, covered, witness, mut wrong, .. } = loader;
        file.witness = witness;
        file.next_id = u32::try_from(by_id.len()).expect("numbers are 32 bits");
        let Some(covered) = covered else {
            self.forget(file)?;
            return Ok(None);
        };
        if wrong.is_none() {
            wrong = self.disagreement(covered.position, witness);
        }
        if let Some(wrong) = wrong {
            warn!(wrong, "the state file does not fit the log; everything is rebuilt");
            self.forget(file)?;
            return Ok(None);
        }
        *self.keys.saved.lock() = self.keys.buffer.lock().len();
        Ok(Some(covered))
    }

    /// Everything derived is rebuilt from the log.
    fn forget(&self, file: &mut StateFile) -> io::Result<()> {
        file.give_up();
        file.witness = Witness::default();
        for (_, queue) in self.queues.all() {
            let mut state = queue.state.lock();
            self.reset_queue(queue, &mut state, 0);
            state.reset_at = None;
            state.file_id = UNKNOWN;
        }
        self.keys.clear()?;
        self.files.clear()
    }

    /// Why the state cannot be of this log and these files.
    fn disagreement(&self, covered: u64, witness: Witness) -> Option<&'static str> {
        for (_, queue) in self.queues.all() {
            let state = queue.state.lock();
            if !state.extents.iter().all(|extent| self.files.holds(extent)) {
                return Some("a queue file is missing or too short");
            }
        }
        let Witness { position, size } = witness;
        if size == 0 || position < self.segments.min_position() {
            return None;
        }
        if position + u64::from(size) > covered {
            return Some("it holds a message behind its own end");
        }
        // A log that ends before is not a misfit but a loss, and told as such.
        let segment = self.segments.find(position)?;
        let mut head = [0; record::FIXED_HEAD];
        segment.read(position, &mut head).ok()?;
        let there = head[at::PHYSICAL_OFFSET..][..8] == position.to_be_bytes()
            && head[at::TOTAL_SIZE..][..4] == size.to_be_bytes();
        (!there).then_some("the newest message it knows is not in the log")
    }

    /// Drops what lies before this offset.
    pub(crate) fn trim(&self, state: &mut State, min: i64) {
        let gone = state.extents.partition_point(|extent| extent.end() <= min);
        for extent in state.extents.drain(..gone) {
            self.files.release(&extent);
        }
        if state.extents.is_empty() && min > state.tail_base {
            let units = usize::try_from(min - state.tail_base).unwrap_or(usize::MAX);
            let units = units.min(state.tail.len() / UNIT);
            state.tail.drain(..units * UNIT);
            state.tail_base += units as i64;
            self.tails.sub(units);
        }
        state.min = state.min.max(min);
    }
}

impl Loader<'_> {
    fn fact(&mut self, fact: &Fact<'_>) {
        match *fact {
            Fact::Queue { id, queue_id, base, topic } => self.queue(id, queue_id, base, topic),
            Fact::Units { id, base, units } => self.change(id, |core, queue, state| {
                let end = state.end();
                if base > end {
                    return Err("units are missing");
                }
                let known = usize::try_from(end - base).unwrap_or(usize::MAX).saturating_mul(UNIT);
                if let Some(new) = units.get(known..) {
                    core.tails.add(new.len() / UNIT);
                    state.tail.extend_from_slice(new);
                }
                publish(queue, state);
                Ok(())
            }),
            Fact::Sealed { id, extent } => self.change(id, |core, queue, state| {
                if extent.base != state.tail_base {
                    return Err("an extent does not follow the one before");
                }
                core.files.refer(&extent);
                let sealed = state.seal(extent);
                core.tails.sub(sealed);
                publish(queue, state);
                Ok(())
            }),
            Fact::Reset { id } => self.change(id, |core, queue, state| {
                core.reset_queue(queue, state, 0);
                state.reset_at = None;
                state.saved_min = 0;
                Ok(())
            }),
            Fact::Min { id, min } => self.change(id, |core, _, state| {
                core.trim(state, min);
                state.saved_min = state.min;
                Ok(())
            }),
            Fact::Key(item) => self.core.keys.buffer.lock().push(item),
            Fact::Run(run) => {
                self.core.keys.buffer.lock().clear();
                let gone = run.end <= self.core.segments.min_position();
                if !gone && !self.core.keys.attach(run) {
                    self.wrong = self.wrong.or(Some("a run of keys is missing"));
                }
            }
            Fact::Covered { position, store_timestamp, witness } => {
                self.witness = witness;
                self.covered = Some(Covered { position, store_timestamp });
            }
        }
    }

    fn queue(&mut self, id: u32, queue_id: i32, base: i64, topic: &str) {
        if id as usize != self.by_id.len() {
            self.wrong = self.wrong.or(Some("queues are not in order"));
            return;
        }
        let Ok(queue_ref) = self.core.queues.intern(topic, queue_id) else {
            self.wrong = self.wrong.or(Some("there are too many queues"));
            return;
        };
        self.by_id.push(queue_ref);
        let queue = self.core.queues.queue(queue_ref);
        let mut state = queue.state.lock();
        self.core.start_queue_at(&mut state, base);
        state.file_id = id;
        state.saved_min = base;
        publish(queue, &mut state);
    }

    fn change(
        &mut self,
        id: u32,
        change: impl FnOnce(&Core, &Queue, &mut State) -> Result<(), &'static str>,
    ) {
        let Some(queue_ref) = self.by_id.get(id as usize) else {
            self.wrong = self.wrong.or(Some("a queue was not announced"));
            return;
        };
        let queue = self.core.queues.queue(*queue_ref);
        if let Err(wrong) = change(self.core, queue, &mut queue.state.lock()) {
            self.wrong = self.wrong.or(Some(wrong));
        }
    }
}

fn publish(queue: &Queue, state: &mut State) {
    state.saved = state.end();
    queue.next.store(state.saved, Ordering::Relaxed);
    queue.max.store(state.saved, Ordering::Release);
}
