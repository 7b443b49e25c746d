//! Writing down what is derived, so that the next start begins where the last checkpoint ended.

use std::io;
use std::sync::atomic::Ordering;

use crate::Core;
use crate::keys::RunInfo;
use crate::queue::files::Extent;
use crate::queue::{Queue, QueueRef, State, UNIT, UNKNOWN, units};
use crate::state::{Fact, Frame, StateFile, Witness};
use crate::stock::Checkpoint;

/// Tails with this many units go to a queue file.
const SEAL_UNITS: usize = 256;

/// What becomes true of a queue once the frame is durable.
struct Change {
    queue: QueueRef,
    /// Guards against a deletion in between.
    life: u32,
    saved: i64,
    extent: Option<Extent>,
    witness: Witness,
}

impl Core {
    /// Brings the state file up to what is durable.
    pub(crate) fn checkpoint(&self) -> io::Result<()> {
        let mut file = self.state.lock();
        let (covered, store_timestamp) = self.entered();
        self.checkpoint_at(&mut file, covered, store_timestamp)
    }

    /// Up to where everything is durable and in its queue, and a store time not newer than that.
    fn entered(&self) -> (u64, i64) {
        // Under the lock: a group may be flushed by others before its own thread has entered it into its queues.
        let log = self.log.lock();
        let durable = self.durable.position();
        debug_assert!(durable <= log.position, "what is durable was appended");
        (durable, log.store_timestamp)
    }

    pub(crate) fn checkpoint_at(
        &self,
        file: &mut StateFile,
        covered: u64,
        store_timestamp: i64,
    ) -> io::Result<()> {
        let dirty = std::mem::take(&mut *self.dirty.lock());
        let done = if file.wants_account() {
            self.write_account(file, covered, store_timestamp)
        } else {
            self.write_changes(file, &dirty, covered, store_timestamp)
        };
        for queue_ref in dirty {
            let queue = self.queues.queue(queue_ref);
            queue.dirty.store(false, Ordering::Relaxed);
            if done.is_err() || queue.state.lock().has_unsaved() {
                self.mark_dirty(queue_ref, queue);
            }
        }
        if done.is_err() {
            file.give_up();
        }
        done?;
        self.covered.store(covered, Ordering::Release);
        Checkpoint { log_timestamp: store_timestamp, ..Checkpoint::default() }
            .write(&self.config.root)
    }

    fn write_changes(
        &self,
        file: &mut StateFile,
        dirty: &[QueueRef],
        covered: u64,
        store_timestamp: i64,
    ) -> io::Result<()> {
        let mut frame = Frame::default();
        let mut changes = Vec::new();
        let mut deleted_at = 0;
        let pressed = self.tails.bytes() > self.config.queue_tail_bytes_max;
        let seal_units = if pressed { 1 } else { SEAL_UNITS };
        for queue_ref in dirty {
            let queue = self.queues.queue(*queue_ref);
            let mut state = queue.state.lock();
            deleted_at = deleted_at.max(state.reset_at.unwrap_or(0));
            self.announce(queue, &mut state, &mut file.next_id, &mut frame);
            let change = self.collect(*queue_ref, &mut state, covered, seal_units, &mut frame)?;
            changes.push(change);
        }
        if pressed {
            self.seal_the_rest(covered, &mut frame, &mut changes)?;
        }
        let run = self.collect_keys(covered, &mut frame)?;
        let witness = changes.iter().map(|change| change.witness).max().unwrap_or_default();
        file.witness = file.witness.max(witness);
        let witness = file.witness;
        frame.add(&Fact::Covered { position: covered, store_timestamp, witness });
        self.files.write_out()?;
        self.files.sync()?;
        self.wait_for_deletion(deleted_at)?;
        file.append(&mut frame)?;
        changes.into_iter().for_each(|change| self.settle(change));
        self.settle_keys(covered, run);
        Ok(())
    }

    /// Under memory pressure also the tails of queues that nothing was sent to are written.
    fn seal_the_rest(
        &self,
        covered: u64,
        frame: &mut Frame,
        changes: &mut Vec<Change>,
    ) -> io::Result<()> {
        let collected: std::collections::HashSet<_> =
            changes.iter().map(|change| change.queue).collect();
        for (queue_ref, queue) in self.queues.all() {
            let mut state = queue.state.lock();
            let idle = !collected.contains(&queue_ref) && !state.tail.is_empty();
            if idle && state.file_id != UNKNOWN {
                changes.push(self.collect(queue_ref, &mut state, covered, 1, frame)?);
            }
        }
        Ok(())
    }

    /// Says which queue it is, and what became of it since the last frame.
    fn announce(&self, queue: &Queue, state: &mut State, next_id: &mut u32, frame: &mut Frame) {
        if state.file_id == UNKNOWN {
            state.file_id = *next_id;
            *next_id += 1;
            let topic = &self.queues.topic(queue).name;
            let (id, base) = (state.file_id, state.first());
            frame.add(&Fact::Queue { id, queue_id: queue.queue_id, base, topic });
            state.saved_min = base;
        } else if state.reset_at.is_some() {
            frame.add(&Fact::Reset { id: state.file_id });
            state.saved_min = 0;
        }
        state.reset_at = None;
        if state.min > state.saved_min {
            frame.add(&Fact::Min { id: state.file_id, min: state.min });
            state.saved_min = state.min;
        }
    }

    fn collect(
        &self,
        queue: QueueRef,
        state: &mut State,
        covered: u64,
        seal_units: usize,
        frame: &mut Frame,
    ) -> io::Result<Change> {
        let count = covered_units(&state.tail, covered);
        let (id, base) = (state.file_id, state.tail_base);
        let end = base + count as i64;
        let saved = end.max(state.saved);
        let witness = witness_in(&state.tail[..count * UNIT]);
        let mut change = Change { queue, life: state.life, saved, extent: None, witness };
        if count >= seal_units && count > 0 {
            let extent = self.files.add(id, base, &state.tail[..count * UNIT])?;
            frame.add(&Fact::Sealed { id, extent });
            change.extent = Some(extent);
        } else if state.saved < end {
            let skip = usize::try_from(state.saved.max(base) - base).expect("inside the tail");
            let units = &state.tail[skip * UNIT..count * UNIT];
            frame.add(&Fact::Units { id, base: base + skip as i64, units });
        }
        Ok(change)
    }

    fn settle(&self, change: Change) {
        let queue = self.queues.queue(change.queue);
        let mut state = queue.state.lock();
        if state.life != change.life {
            if let Some(extent) = change.extent {
                self.files.release(&extent);
            }
            return;
        }
        state.saved = change.saved;
        if let Some(extent) = change.extent {
            let sealed = state.seal(extent);
            self.tails.sub(sealed);
        }
    }

    /// A deletion may be written down only when its record in the log is durable.
    fn wait_for_deletion(&self, position: u64) -> io::Result<()> {
        if position >= self.durable.position() && position > 0 && !self.flush_once() {
            return Err(io::Error::other("the log cannot be made durable"));
        }
        Ok(())
    }

    fn collect_keys(&self, covered: u64, frame: &mut Frame) -> io::Result<Option<RunInfo>> {
        let mut saved = self.keys.saved.lock();
        let items: Vec<_> = {
            let buffer = self.keys.buffer.lock();
            let count = buffer.partition_point(|item| item.position < covered);
            if count < self.config.key_items_max {
                for item in &buffer[(*saved).min(count)..count] {
                    frame.add(&Fact::Key(*item));
                }
                *saved = count.max(*saved);
                return Ok(None);
            }
            buffer[..count].to_vec()
        };
        let run = self.keys.write_run(&items)?;
        frame.add(&Fact::Run(run));
        *saved = 0;
        Ok(Some(run))
    }

    fn settle_keys(&self, covered: u64, run: Option<RunInfo>) {
        if let Some(run) = run
            && self.keys.attach(run)
        {
            let mut buffer = self.keys.buffer.lock();
            let count = buffer.partition_point(|item| item.position < covered);
            buffer.drain(..count);
        }
    }

    /// Writes everything down anew, in a file of its own.
    fn write_account(
        &self,
        file: &mut StateFile,
        covered: u64,
        store_timestamp: i64,
    ) -> io::Result<()> {
        let mut account = file.start_account()?;
        let mut deleted_at = 0;
        for (_, queue) in self.queues.all() {
            let mut state = queue.state.lock();
            deleted_at = deleted_at.max(state.reset_at.take().unwrap_or(0));
            state.file_id = UNKNOWN;
            if state.end() == 0 {
                continue;
            }
            let mut frame = Frame::default();
            self.announce(queue, &mut state, &mut file.next_id, &mut frame);
            let id = state.file_id;
            account.extend(&frame);
            for extent in &state.extents {
                account.add(&Fact::Sealed { id, extent: *extent })?;
            }
            let (base, count) = (state.tail_base, covered_units(&state.tail, covered));
            if count > 0 {
                account.add(&Fact::Units { id, base, units: &state.tail[..count * UNIT] })?;
            }
            state.saved = base + count as i64;
            file.witness = file.witness.max(witness_in(&state.tail[..count * UNIT]));
        }
        for run in self.keys.runs.read().iter() {
            account.add(&Fact::Run(run.info))?;
        }
        {
            let mut saved = self.keys.saved.lock();
            let buffer = self.keys.buffer.lock();
            *saved = buffer.partition_point(|item| item.position < covered);
            for item in &buffer[..*saved] {
                account.add(&Fact::Key(*item))?;
            }
        }
        let witness = file.witness;
        account.add(&Fact::Covered { position: covered, store_timestamp, witness })?;
        self.wait_for_deletion(deleted_at)?;
        file.finish_account(account)?;
        // Only now nothing on disk refers to them any more.
        self.files.delete_unused()?;
        self.keys.delete_unknown()
    }
}

fn witness_in(covered_tail: &[u8]) -> Witness {
    let last = units(covered_tail).rev().find(|unit| !unit.is_hole());
    last.map(|unit| Witness { position: unit.position, size: unit.size }).unwrap_or_default()
}

/// How many units at the front lie before this position of the log.
fn covered_units(tail: &[u8], covered: u64) -> usize {
    let beyond = units(tail).rev().take_while(|unit| unit.is_hole() || unit.position >= covered);
    units(tail).len() - beyond.count()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;
    use crate::{Batch, Clock, Config, NewMessage, Store};

    /// Messages that the state file claims to cover and does not hold.
    fn missed(core: &Core) -> usize {
        let _nobody_appends = core.log.lock();
        let covered = core.covered.load(Ordering::Acquire);
        let of_queue = |queue: &Queue| {
            let state = queue.state.lock();
            let saved = usize::try_from((state.saved - state.tail_base).max(0)).unwrap();
            units(&state.tail).skip(saved).filter(|unit| unit.position < covered).count()
        };
        core.queues.all().map(|(_, queue)| of_queue(queue)).sum()
    }

    #[test]
    fn a_checkpoint_covers_nothing_that_is_still_on_its_way_into_a_queue() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            segment_bytes: 16 << 20,
            maintenance: false,
            ..Config::new(dir.path(), Clock::new(|| 0, || 0))
        };
        let store = Store::open(config).unwrap();
        let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
        let message = NewMessage {
            flag: 0,
            sys_flag: 0,
            born_timestamp: 0,
            born_host: nobody,
            store_host: nobody,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: b"x",
            properties: &[],
        };
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut batch = Batch::new();
                // A large group takes its time to enter its queues, and is flushed meanwhile.
                for queue_id in 0..1000 {
                    let queue = store.queue("t", queue_id).unwrap();
                    store.push(&mut batch, queue, &message).unwrap();
                }
                while !stop.load(Ordering::Relaxed) {
                    store.append(&mut batch, 0).unwrap();
                }
            });
            scope.spawn(|| {
                // A disk that takes no time.
                while !stop.load(Ordering::Relaxed) {
                    store.core.durable.settle(store.appended_position());
                }
            });
            let missed = (0..25).map(|_| {
                store.checkpoint().unwrap();
                missed(&store.core)
            });
            let missed: usize = missed.sum();
            stop.store(true, Ordering::Relaxed);
            assert_eq!(missed, 0);
        });
    }
}
