//! How much a push consumer may hold that is not yet consumed: a share of the limits for each queue.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// What may be held, or is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Amount {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

impl Amount {
    /// The part of one of so many queues: never nothing.
    pub(crate) fn share(self, queues: usize) -> Self {
        let queues = queues.max(1);
        Self { messages: (self.messages / queues).max(1), bytes: (self.bytes / queues).max(1) }
    }

    /// How many messages may be asked for when so much is held. Their sizes are not known before they come, so
    /// that bytes may exceed their limit by one receive.
    pub(crate) fn room(self, held: Self) -> usize {
        match held.bytes < self.bytes {
            true => self.messages.saturating_sub(held.messages),
            false => 0,
        }
    }
}

/// What one queue holds.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    held: Mutex<Amount>,
    pub(crate) freed: Notify,
}

/// A message's place in the cache, free again when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    cache: Arc<Cache>,
    bytes: usize,
}

impl Cache {
    pub(crate) fn held(&self) -> Amount {
        *self.held.lock()
    }

    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Place {
        let mut held = self.held.lock();
        held.messages += 1;
        held.bytes += bytes;
        Place { cache: self.clone(), bytes }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.cache.held.lock();
        held.messages -= 1;
        held.bytes -= self.bytes;
        drop(held);
        self.cache.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn amount(messages: usize, bytes: usize) -> Amount {
        Amount { messages, bytes }
    }

    #[test]
    fn queues_share_the_limits_and_each_has_some() {
        assert_eq!(amount(1024, 4096).share(4), amount(256, 1024));
        assert_eq!(amount(2, 2).share(4), amount(1, 1));
        assert_eq!(amount(2, 2).share(0), amount(2, 2));
    }

    #[test]
    fn a_queue_asks_for_no_more_than_it_may_hold() {
        let limit = amount(10, 100);
        for (held, room) in [
            (amount(0, 0), 10),
            (amount(9, 99), 1),
            (amount(10, 0), 0),
            (amount(12, 0), 0),
            (amount(0, 100), 0),
        ] {
            assert_eq!(limit.room(held), room, "{held:?}");
        }
    }

    #[test]
    fn a_place_is_free_again_when_its_message_is_done() {
        let cache = Arc::new(Cache::default());
        let (one, other) = (cache.take(5), cache.take(7));
        assert_eq!(cache.held(), amount(2, 12));
        drop(one);
        assert_eq!(cache.held(), amount(1, 7));
        drop(other);
        assert_eq!(cache.held(), amount(0, 0));
    }
}
