//! Which client of a group has a queue for itself, for consumption in order.

use std::collections::{BTreeSet, HashMap};

use parking_lot::Mutex;
use protocol::body::MessageQueue;

/// How long a lock holds that is not renewed.
pub const HOLD_MS: i64 = 60_000;
/// Groups that may hold locks; others get none.
pub const GROUPS_MAX: usize = 100_000;
/// Locks a group may hold; more are not granted.
pub const LOCKS_PER_GROUP_MAX: usize = 1_000_000;

/// All locks, by group and queue. Locks outlive the connection of their holder.
#[derive(Debug, Default)]
pub struct Locks {
    groups: Mutex<HashMap<String, HashMap<MessageQueue, Lock>>>,
}

#[derive(Debug)]
struct Lock {
    client_id: String,
    renewed_ms: i64,
}

impl Locks {
    /// Locks or renews what is free or expired or the client's own; returns what it now has.
    pub fn lock(
        &self,
        group: &str,
        client_id: &str,
        wanted: BTreeSet<MessageQueue>,
        now_ms: i64,
    ) -> BTreeSet<MessageQueue> {
        let mut groups = self.groups.lock();
        if wanted.is_empty() || groups.len() >= GROUPS_MAX && !groups.contains_key(group) {
            return BTreeSet::new();
        }
        let locks = groups.entry(group.to_owned()).or_default();
        let mut granted = BTreeSet::new();
        for queue in wanted {
            let free = match locks.get(&queue) {
                None => locks.len() < LOCKS_PER_GROUP_MAX,
                Some(lock) => lock.client_id == client_id || now_ms - lock.renewed_ms > HOLD_MS,
            };
            if free {
                let lock = Lock { client_id: client_id.to_owned(), renewed_ms: now_ms };
                locks.insert(queue.clone(), lock);
                granted.insert(queue);
            }
        }
        granted
    }

    /// Whether any queue of the group is locked: then it consumes in order.
    pub fn any_held(&self, group: &str, now_ms: i64) -> bool {
        let groups = self.groups.lock();
        let held = |lock: &Lock| now_ms - lock.renewed_ms <= HOLD_MS;
        groups.get(group).is_some_and(|locks| locks.values().any(held))
    }

    /// Forgets what was not renewed.
    pub fn expire(&self, now_ms: i64) {
        self.groups.lock().retain(|_, locks| {
            locks.retain(|_, lock| now_ms - lock.renewed_ms <= HOLD_MS);
            !locks.is_empty()
        });
    }

    /// Gives back what the client holds of these.
    pub fn unlock(&self, group: &str, client_id: &str, queues: &BTreeSet<MessageQueue>) {
        let mut groups = self.groups.lock();
        let Some(locks) = groups.get_mut(group) else { return };
        for queue in queues {
            if locks.get(queue).is_some_and(|lock| lock.client_id == client_id) {
                locks.remove(queue);
            }
        }
        if locks.is_empty() {
            groups.remove(group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(ids: &[i32]) -> BTreeSet<MessageQueue> {
        let queue =
            |id: &i32| MessageQueue { topic: "t".into(), broker_name: "b".into(), queue_id: *id };
        ids.iter().map(queue).collect()
    }

    #[test]
    fn a_queue_belongs_to_one_client_until_given_back_or_not_renewed() {
        let locks = Locks::default();
        assert_eq!(locks.lock("g", "a", queues(&[0, 1]), 0), queues(&[0, 1]));
        assert_eq!(locks.lock("g", "b", queues(&[1, 2]), 1), queues(&[2]));
        assert_eq!(locks.lock("other", "b", queues(&[1]), 1), queues(&[1]));
        locks.unlock("g", "b", &queues(&[1]));
        assert_eq!(locks.lock("g", "b", queues(&[1]), 2), queues(&[]));
        locks.unlock("g", "a", &queues(&[1]));
        assert_eq!(locks.lock("g", "b", queues(&[1]), 2), queues(&[1]));
        assert!(locks.any_held("g", HOLD_MS) && !locks.any_held("nobody", 0));
        assert_eq!(locks.lock("g", "b", queues(&[0]), HOLD_MS), queues(&[]));
        assert_eq!(locks.lock("g", "b", queues(&[0]), HOLD_MS + 1), queues(&[0]));
        locks.expire(2 * HOLD_MS);
        assert!(locks.any_held("g", 2 * HOLD_MS), "what holds is kept");
        locks.expire(2 * HOLD_MS + 2);
        assert!(locks.groups.lock().is_empty());
    }
}
