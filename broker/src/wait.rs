//! Long polling: who waits for which queue, woken by the append that feeds it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering, fence};

use parking_lot::Mutex;
use store::QueueRef;
use tokio::sync::Notify;

/// Waiting pulls of this broker; one more is answered at once.
pub const WAITING_MAX: usize = 100_000;

/// Everyone who waits.
#[derive(Debug, Default)]
pub struct Waiting {
    /// How many wait at all, so that an append nobody waits for takes no lock.
    count: AtomicUsize,
    queues: Mutex<HashMap<usize, Place>>,
}

#[derive(Debug, Default)]
struct Place {
    count: usize,
    arrived: Arc<Notify>,
}

/// One place in the waiting room of a queue; given up when dropped.
#[derive(Debug)]
pub struct Ticket {
    waiting: Arc<Waiting>,
    queue: usize,
    pub arrived: Arc<Notify>,
}

impl Waiting {
    /// Takes a place, unless too many wait. Look at the queue once more after this: what arrives from
    /// now on is noticed.
    pub fn enter(self: &Arc<Self>, queue: QueueRef) -> Option<Ticket> {
        if self.count.fetch_add(1, Ordering::SeqCst) >= WAITING_MAX {
            self.count.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        // With the fence in `arrived`: one of the two sees what the other has just done.
        fence(Ordering::SeqCst);
        let mut queues = self.queues.lock();
        let place = queues.entry(queue.index()).or_default();
        place.count += 1;
        let arrived = place.arrived.clone();
        Some(Ticket { waiting: self.clone(), queue: queue.index(), arrived })
    }

    /// How many wait.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Messages have entered these queues.
    pub fn arrived(&self, queues: impl Iterator<Item = QueueRef>) {
        fence(Ordering::SeqCst);
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let places = self.queues.lock();
        let mut last = None;
        for queue in queues {
            if last.replace(queue) != Some(queue)
                && let Some(place) = places.get(&queue.index())
            {
                place.arrived.notify_waiters();
            }
        }
    }

    /// Wakes everyone, for the end of the process.
    pub fn wake_all(&self) {
        for place in self.queues.lock().values() {
            place.arrived.notify_waiters();
        }
    }

    pub fn len(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut queues = self.waiting.queues.lock();
        if let Some(place) = queues.get_mut(&self.queue) {
            place.count -= 1;
            if place.count == 0 {
                queues.remove(&self.queue);
            }
        }
        drop(queues);
        self.waiting.count.fetch_sub(1, Ordering::SeqCst);
    }
}
