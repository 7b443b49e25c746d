//! Waiting for the disk: the flusher wakes one waiter of each thread, and that one wakes the others.
//!
//! To wake a task of another thread takes a microsecond or more, and a flusher that did so for every connection
//! would flush the less often the more of them wait.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread::ThreadId;

use parking_lot::Mutex;
use store::{FlushError, Store, WaitDurable};

/// The gates of all threads that serve a broker.
#[derive(Debug, Default)]
pub struct Gates(Mutex<HashMap<ThreadId, Arc<Gate>>>);

/// Where the waiters of one thread meet.
#[derive(Debug, Default)]
pub struct Gate(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// Those that a leader wakes.
    followers: BTreeMap<(u64, u64), Waker>,
    next_id: u64,
    /// Somebody here is woken by the flusher.
    is_led: bool,
}

/// Resolves when everything before a position is on disk, or never will be.
#[derive(Debug)]
pub struct Durable {
    gate: Arc<Gate>,
    wait: WaitDurable,
    id: Option<u64>,
    leads: bool,
}

impl Gates {
    /// The gate of this thread.
    pub fn here(&self) -> Arc<Gate> {
        self.0.lock().entry(std::thread::current().id()).or_default().clone()
    }
}

impl Gate {
    pub fn durable(self: &Arc<Self>, store: &Store, position: u64) -> Durable {
        Durable { gate: self.clone(), wait: store.durable(position), id: None, leads: false }
    }
}

impl Future for Durable {
    type Output = Result<(), FlushError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut waiting = this.gate.0.lock();
        if let Some(outcome) = this.wait.outcome() {
            drop(waiting);
            this.leave();
            return Poll::Ready(outcome);
        }
        if waiting.is_led && !this.leads {
            let id = *this.id.get_or_insert_with(|| {
                waiting.next_id += 1;
                waiting.next_id
            });
            waiting.followers.insert((this.wait.position(), id), context.waker().clone());
            return Poll::Pending;
        }
        (waiting.is_led, this.leads) = (true, true);
        if let Some(id) = this.id.take() {
            waiting.followers.remove(&(this.wait.position(), id));
        }
        drop(waiting);
        let outcome = Pin::new(&mut this.wait).poll(context);
        if outcome.is_ready() {
            this.leave();
        }
        outcome
    }
}

impl Durable {
    /// Wakes those that are done too, and another one to lead the rest.
    fn leave(&mut self) {
        let mut waiting = self.gate.0.lock();
        if let Some(id) = self.id.take() {
            waiting.followers.remove(&(self.wait.position(), id));
        }
        if std::mem::take(&mut self.leads) {
            waiting.is_led = false;
        }
        if waiting.is_led {
            return;
        }
        let later = waiting.followers.split_off(&(self.wait.durable_position() + 1, 0));
        let done = std::mem::replace(&mut waiting.followers, later);
        let next = waiting.followers.first_key_value().map(|(_, waker)| waker.clone());
        drop(waiting);
        done.into_values().chain(next).for_each(Waker::wake);
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use super::*;
    use store::{Clock, Config};

    #[derive(Default)]
    struct Woken(Mutex<bool>);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            *self.0.lock() = true;
        }
    }

    /// A position that is never reached, as nothing is appended.
    fn waiters(gate: &Arc<Gate>, store: &Store) -> Vec<(Durable, Arc<Woken>)> {
        (1..=4).map(|position| (gate.durable(store, position), Arc::default())).collect()
    }

    fn poll((durable, woken): &mut (Durable, Arc<Woken>)) -> Poll<Result<(), FlushError>> {
        *woken.0.lock() = false;
        Pin::new(durable).poll(&mut Context::from_waker(&Waker::from(woken.clone())))
    }

    #[test]
    fn a_leader_that_leaves_is_followed_by_another_until_all_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { segment_bytes: 1 << 16, maintenance: false, ..config(dir.path()) };
        let store = Store::open(config).unwrap();
        let gate = Gates::default().here();
        let mut waiters = waiters(&gate, &store);
        assert!(waiters.iter_mut().all(|waiter| poll(waiter).is_pending()));
        assert!(waiters[0].0.leads && gate.0.lock().followers.len() == 3);
        // Who goes unserved leaves the others a leader, also when the next one goes before it was polled.
        drop(waiters.remove(0));
        assert!(*waiters[0].1.0.lock() && !*waiters[1].1.0.lock());
        drop(waiters.remove(0));
        assert!(*waiters[0].1.0.lock());
        assert!(poll(&mut waiters[0]).is_pending() && waiters[0].0.leads);
        store.close().unwrap();
        assert!(*waiters[0].1.0.lock(), "the store tells its leader");
        for mut waiter in waiters {
            let told = poll(&mut waiter);
            assert!(matches!(told, Poll::Ready(Err(FlushError::Closed(_)))), "{told:?}");
        }
        assert!(gate.0.lock().followers.is_empty());
    }

    fn config(root: &std::path::Path) -> Config {
        Config::new(root, Clock::new(|| 0, || 0))
    }
}
