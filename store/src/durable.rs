//! Making the log durable: one flusher thread, and those who wait for it, ordered by position.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::{Condvar, Mutex};
use tracing::error;

use crate::Core;
use crate::config::Flush;
use crate::error::FlushError;
use crate::figures::Histogram;

#[derive(Debug)]
pub(crate) struct Durable {
    flush: Flush,
    appended: AtomicU64,
    position: AtomicU64,
    failed: OnceLock<Arc<std::io::Error>>,
    /// What the flusher sleeps for, or is about to.
    sleep: AtomicU8,
    work: Mutex<Work>,
    changed: Condvar,
    waiters: Mutex<Waiters>,
    /// The kernel was told that what lies before this is not needed in memory.
    given_back: AtomicU64,
    /// Held by whoever flushes.
    flushing: Mutex<()>,
    /// A running average, the last flush being an eighth of it.
    recent_flush_ns: AtomicU64,
    pub(crate) flush_ns: Histogram,
}

/// A disk is quick when its flushes took less than this lately. Such a flush takes about as long as to
/// wake another thread for it and to be woken by that.
const QUICK_FLUSH_NS: u64 = 400_000;

const AWAKE: u8 = 0;
/// For the end of the flush interval.
const UNTIL_INTERVAL: u8 = 1;
/// For the first bytes to flush.
const UNTIL_BYTES: u8 = 2;

#[derive(Debug, Default)]
struct Work {
    wanted: bool,
    stopped: bool,
}

#[derive(Debug, Default)]
struct Waiters {
    by_position: BTreeMap<(u64, u64), Waker>,
    next_id: u64,
    closed: bool,
}

impl Durable {
    pub(crate) fn new(flush: Flush, position: u64) -> Durable {
        Durable {
            flush,
            appended: AtomicU64::new(position),
            position: AtomicU64::new(position),
            failed: OnceLock::new(),
            sleep: AtomicU8::new(AWAKE),
            work: Mutex::default(),
            changed: Condvar::new(),
            waiters: Mutex::default(),
            given_back: AtomicU64::new(position),
            flushing: Mutex::default(),
            // Not quick until it has shown to be.
            recent_flush_ns: AtomicU64::new(4 * QUICK_FLUSH_NS),
            flush_ns: Histogram::default(),
        }
    }

    /// Everything before this position can be read.
    pub(crate) fn appended(&self) -> u64 {
        self.appended.load(Ordering::Acquire)
    }

    /// Everything before this position is on disk.
    pub(crate) fn position(&self) -> u64 {
        self.position.load(Ordering::Acquire)
    }

    pub(crate) fn is_sync(&self) -> bool {
        self.flush == Flush::Sync
    }

    pub(crate) fn set_appended(&self, position: u64) {
        self.appended.store(position, Ordering::SeqCst);
    }

    /// Called after an append, outside of the log lock.
    pub(crate) fn appended_more(&self, end: u64) {
        let due = match self.flush {
            Flush::Sync => true,
            Flush::Async { bytes, .. } => end.saturating_sub(self.position()) >= bytes,
        };
        match self.sleep.load(Ordering::SeqCst) {
            UNTIL_BYTES | UNTIL_INTERVAL if due => self.want(),
            UNTIL_BYTES => {
                // Under the lock, so that the flusher does not miss it on its way to sleep.
                let _work = self.work.lock();
                self.changed.notify_one();
            }
            _ => {}
        }
    }

    pub(crate) fn want(&self) {
        self.work.lock().wanted = true;
        self.changed.notify_one();
    }

    pub(crate) fn error(&self) -> Option<FlushError> {
        self.failed.get().map(|error| FlushError::Disk(error.clone()))
    }

    /// Ends the flusher thread, after a last flush.
    pub(crate) fn stop(&self) {
        self.work.lock().stopped = true;
        self.changed.notify_one();
    }

    /// Answers those who still wait; nothing will become durable any more.
    pub(crate) fn close(&self) {
        let waiting = {
            let mut waiters = self.waiters.lock();
            waiters.closed = true;
            std::mem::take(&mut waiters.by_position)
        };
        waiting.into_values().for_each(Waker::wake);
    }

    fn took(&self, ns: u64) {
        self.flush_ns.record(ns);
        // Only who holds `flushing` comes here.
        let recent = self.recent_flush_ns.load(Ordering::Relaxed);
        self.recent_flush_ns.store(recent - recent / 8 + ns / 8, Ordering::Relaxed);
    }

    pub(crate) fn settle(&self, position: u64) {
        self.position.fetch_max(position, Ordering::AcqRel);
        let done = {
            let mut waiters = self.waiters.lock();
            let later = waiters.by_position.split_off(&(position + 1, 0));
            std::mem::replace(&mut waiters.by_position, later)
        };
        done.into_values().for_each(Waker::wake);
    }

    fn fail(&self, error: std::io::Error) {
        let _ = self.failed.set(Arc::new(error));
        let waiting = std::mem::take(&mut self.waiters.lock().by_position);
        waiting.into_values().for_each(Waker::wake);
    }

    /// Sleeps until there is something to flush; false when the store closes.
    fn wait_for_work(&self) -> bool {
        let mut work = self.work.lock();
        loop {
            self.sleep.store(UNTIL_BYTES, Ordering::SeqCst);
            let behind = self.appended.load(Ordering::SeqCst) > self.position();
            let sync = self.flush == Flush::Sync;
            if work.stopped || work.wanted || (sync && behind) {
                break;
            }
            match self.flush {
                Flush::Sync => self.changed.wait(&mut work),
                Flush::Async { .. } if !behind => self.changed.wait(&mut work),
                Flush::Async { interval, .. } => {
                    self.sleep.store(UNTIL_INTERVAL, Ordering::SeqCst);
                    if self.changed.wait_for(&mut work, interval).timed_out() {
                        break;
                    }
                }
            }
        }
        work.wanted = false;
        self.sleep.store(AWAKE, Ordering::SeqCst);
        !work.stopped
    }
}

impl Core {
    /// The flusher thread.
    pub(crate) fn run_flusher(&self) {
        loop {
            let go_on = self.durable.wait_for_work();
            if !self.flush_once() || !go_on {
                return;
            }
        }
    }

    /// Makes durable what is appended by now; false when the disk failed.
    pub(crate) fn flush_once(&self) -> bool {
        let _flushing = self.durable.flushing.lock();
        let flushed = self.flush();
        self.give_back(self.durable.position());
        flushed
    }

    /// The same on the caller's thread, if that is quick; false when others have to be waited for.
    pub(crate) fn flush_quickly(&self) -> bool {
        let is_quick = self.durable.recent_flush_ns.load(Ordering::Relaxed) < QUICK_FLUSH_NS;
        if !is_quick || self.give_back_is_due(self.durable.position()) {
            return false;
        }
        self.durable.flushing.try_lock().is_some_and(|_flushing| self.flush())
    }

    fn flush(&self) -> bool {
        if self.durable.error().is_some() {
            return false;
        }
        let from = self.durable.position();
        let to = self.durable.appended();
        if from >= to {
            return true;
        }
        let started = self.config.clock.ticks_ns();
        for segment in self.segments.overlapping(from, to) {
            if let Err(error) = segment.file.sync_data() {
                error!(path = %segment.path.display(), %error, "cannot make the log durable");
                self.durable.fail(error);
                return false;
            }
        }
        self.durable.took(self.config.clock.ticks_ns().saturating_sub(started));
        self.durable.settle(to);
        true
    }

    /// Lets the kernel forget what lies far behind the end of the log, so that the memory of old messages is taken
    /// again for new ones. Without this a busy log spreads over all memory there is, and on a virtual machine
    /// the first touch of a page costs several times what the write does.
    fn give_back(&self, durable: u64) {
        if !self.give_back_is_due(durable) {
            return;
        }
        let from = self.durable.given_back.load(Ordering::Relaxed);
        let to = durable.saturating_sub(self.config.hot_bytes_max);
        for segment in self.segments.overlapping(from, to) {
            segment.forget(from, to);
        }
        self.durable.given_back.store(to, Ordering::Relaxed);
    }
}

impl Core {
    fn give_back_is_due(&self, durable: u64) -> bool {
        let from = self.durable.given_back.load(Ordering::Relaxed);
        durable.saturating_sub(self.config.hot_bytes_max) >= from + GIVE_BACK_BYTES
    }
}

/// Bytes of log that are given back at once.
const GIVE_BACK_BYTES: u64 = 16 << 20;

/// Resolves when everything before a position is on disk, or never will be.
#[derive(Debug)]
pub struct WaitDurable {
    core: Arc<Core>,
    position: u64,
    id: Option<u64>,
}

impl WaitDurable {
    /// Everything before this is on disk.
    pub fn durable_position(&self) -> u64 {
        self.core.durable.position()
    }

    pub fn position(&self) -> u64 {
        self.position
    }

    pub(crate) fn new(core: Arc<Core>, position: u64) -> WaitDurable {
        WaitDurable { core, position, id: None }
    }

    /// What is known now, without waiting.
    pub fn outcome(&self) -> Option<Result<(), FlushError>> {
        let durable = &self.core.durable;
        if durable.position() >= self.position {
            return Some(Ok(()));
        }
        durable.error().map(Err)
    }
}

impl Future for WaitDurable {
    type Output = Result<(), FlushError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(outcome) = self.outcome() {
            return Poll::Ready(outcome);
        }
        let core = self.core.clone();
        let mut waiters = core.durable.waiters.lock();
        // Looked at again under the lock: what settles later finds us in the list.
        if let Some(outcome) = self.outcome() {
            return Poll::Ready(outcome);
        }
        if waiters.closed {
            return Poll::Ready(Err(FlushError::Closed(self.position)));
        }
        let id = *self.id.get_or_insert_with(|| {
            waiters.next_id += 1;
            waiters.next_id
        });
        waiters.by_position.insert((self.position, id), context.waker().clone());
        drop(waiters);
        if core.durable.sleep.load(Ordering::SeqCst) != AWAKE {
            core.durable.want();
        }
        Poll::Pending
    }
}

impl Drop for WaitDurable {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.core.durable.waiters.lock().by_position.remove(&(self.position, id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AppendError, Batch, Clock, Config, Store};

    #[test]
    fn after_a_failed_sync_nothing_is_written_and_those_who_wait_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            segment_bytes: 1 << 16,
            maintenance: false,
            ..Config::new(dir.path(), Clock::new(|| 0, || 0))
        };
        let store = Store::open(config).unwrap();
        let mut waiting = std::pin::pin!(store.durable(1));
        let mut context = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        store.core.durable.fail(std::io::Error::other("the disk is gone"));
        let told = waiting.as_mut().poll(&mut context);
        assert!(matches!(told, Poll::Ready(Err(FlushError::Disk(_)))), "{told:?}");
        let refused = store.append(&mut Batch::new(), 0);
        assert!(matches!(refused, Err(AppendError::Flush(_))), "{refused:?}");
        assert!(store.close().is_err(), "closing cannot promise anything either");
    }

    #[test]
    fn those_who_wait_are_woken_in_order_and_forgotten_when_they_leave() {
        let durable = Durable::new(Flush::ASYNC, 100);
        let mut waiters = durable.waiters.lock();
        for (position, id) in [(150, 1), (120, 2), (200, 3)] {
            waiters.by_position.insert((position, id), Waker::noop().clone());
        }
        drop(waiters);
        durable.settle(150);
        let left: Vec<_> = durable.waiters.lock().by_position.keys().copied().collect();
        assert_eq!((left, durable.position()), (vec![(200, 3)], 150));
        durable.settle(140);
        assert_eq!(durable.position(), 150, "what is durable stays durable");
    }
}
