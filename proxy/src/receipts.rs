//! Which receipts a consumer wants renewed, when, and for how long. Pure: the driver asks brokers.

use std::collections::HashMap;

/// A receipt is renewed when its message would be visible in so long.
pub const AHEAD_MS: i64 = 10_000;
/// No message is kept from others for longer than this.
pub const HELD_MAX_MS: i64 = 3 * 60 * 60 * 1000;
/// A receipt that so many renewals in a row failed for is left to itself.
pub const FAILURES_MAX: u32 = 3;
/// Receipts one proxy renews; messages beyond keep the time they were taken for.
pub const RECEIPTS_MAX: usize = 1_000_000;
/// For how long each renewal hides the message; the last step stays.
const STEPS_MS: [i64; 6] = [60_000, 180_000, 300_000, 600_000, 1_800_000, 3_600_000];

/// Receipts to be renewed.
#[derive(Debug, Default)]
pub struct Receipts {
    by_client: HashMap<String, HashMap<Key, Held>>,
    count: usize,
}

/// A receipt as the consumer knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    group: String,
    handle: String,
}

#[derive(Debug)]
struct Held {
    topic: String,
    /// The handle since the last renewal.
    newest: String,
    taken_ms: i64,
    visible_at_ms: i64,
    renewals: usize,
    failures: u32,
    busy: bool,
}

/// One renewal to be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    pub client: String,
    pub group: String,
    pub topic: String,
    /// What names the receipt here.
    pub handle: String,
    /// What names it to the broker.
    pub newest: String,
    pub invisible_ms: i64,
}

/// A receipt that its consumer has done with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// Nothing is renewed under this handle.
    Unknown,
    /// The handle the broker knows.
    Now(String),
    /// A renewal is under way; ask again when it has ended.
    Busy,
}

/// A message that its consumer has left or never got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    pub group: String,
    pub topic: String,
    pub handle: String,
}

impl Receipts {
    /// A message was taken until `visible_at_ms`; false when there are too many.
    pub fn take(
        &mut self,
        client: &str,
        group: &str,
        topic: &str,
        handle: &str,
        visible_at_ms: i64,
        now_ms: i64,
    ) -> bool {
        if self.count >= RECEIPTS_MAX {
            return false;
        }
        let held = Held {
            topic: topic.to_owned(),
            newest: handle.to_owned(),
            taken_ms: now_ms,
            visible_at_ms,
            renewals: 0,
            failures: 0,
            busy: false,
        };
        let key = Key { group: group.to_owned(), handle: handle.to_owned() };
        if self.by_client.entry(client.to_owned()).or_default().insert(key, held).is_none() {
            self.count += 1;
        }
        true
    }

    /// The consumer settles the message: nothing is renewed any more.
    pub fn settle(&mut self, client: &str, group: &str, handle: &str) -> Settled {
        let Some(held) = self.by_client.get_mut(client) else { return Settled::Unknown };
        let key = Key { group: group.to_owned(), handle: handle.to_owned() };
        match held.get(&key) {
            None => return Settled::Unknown,
            Some(held) if held.busy => return Settled::Busy,
            Some(_) => {}
        }
        let newest = held.remove(&key).map(|held| held.newest).unwrap_or_default();
        if held.is_empty() {
            self.by_client.remove(client);
        }
        self.count -= 1;
        Settled::Now(newest)
    }

    /// What has to be renewed now. Each is then to be reported as `renewed` or `failed`.
    pub fn due(&mut self, now_ms: i64) -> Vec<Renewal> {
        let mut due = Vec::new();
        let mut dropped = 0;
        self.by_client.retain(|client, receipts| {
            receipts.retain(|key, held| {
                if held.busy || held.visible_at_ms - now_ms > AHEAD_MS {
                    return true;
                }
                if now_ms - held.taken_ms >= HELD_MAX_MS || held.visible_at_ms <= now_ms {
                    dropped += 1;
                    return false;
                }
                held.busy = true;
                due.push(Renewal {
                    client: client.clone(),
                    group: key.group.clone(),
                    topic: held.topic.clone(),
                    handle: key.handle.clone(),
                    newest: held.newest.clone(),
                    invisible_ms: STEPS_MS[held.renewals.min(STEPS_MS.len() - 1)],
                });
                true
            });
            !receipts.is_empty()
        });
        self.count -= dropped;
        due
    }

    /// The broker hides the message until `visible_at_ms` under the handle `newest`.
    pub fn renewed(&mut self, renewal: &Renewal, newest: String, visible_at_ms: i64) {
        if let Some(held) = self.held(renewal) {
            held.newest = newest;
            held.visible_at_ms = visible_at_ms;
            held.renewals += 1;
            held.failures = 0;
            held.busy = false;
        }
    }

    /// The broker did not; `finally` when it never will.
    pub fn failed(&mut self, renewal: &Renewal, finally: bool) {
        let Some(held) = self.held(renewal) else { return };
        held.busy = false;
        held.failures += 1;
        if finally || held.failures >= FAILURES_MAX {
            self.settle(&renewal.client, &renewal.group, &renewal.handle);
        }
    }

    /// The client is gone: what it held.
    pub fn leave(&mut self, client: &str) -> Vec<Left> {
        let held = self.by_client.remove(client).unwrap_or_default();
        self.count -= held.len();
        let left = held.into_iter();
        left.map(|(key, held)| Left { group: key.group, topic: held.topic, handle: held.newest })
            .collect()
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn held(&mut self, renewal: &Renewal) -> Option<&mut Held> {
        let key = Key { group: renewal.group.clone(), handle: renewal.handle.clone() };
        self.by_client.get_mut(&renewal.client)?.get_mut(&key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    fn taken() -> Receipts {
        let mut receipts = Receipts::default();
        assert!(receipts.take("c", "g", "t", "h", 60_000, 0));
        receipts
    }

    #[test]
    fn a_receipt_is_renewed_shortly_before_its_time_in_growing_steps_for_three_hours() {
        let mut receipts = taken();
        assert!(receipts.due(49_999).is_empty());
        let (mut steps, mut now_ms, mut visible_ms) = (Vec::new(), 50_000, 60_000);
        while let Some(renewal) = receipts.due(now_ms).pop() {
            assert!(receipts.due(now_ms).is_empty(), "one renewal at a time");
            steps.push(renewal.invisible_ms / 60_000);
            visible_ms = now_ms + renewal.invisible_ms;
            receipts.renewed(&renewal, format!("h{}", steps.len()), visible_ms);
            now_ms = visible_ms - AHEAD_MS;
        }
        assert_eq!(steps, [1, 3, 5, 10, 30, 60, 60, 60]);
        assert!(now_ms >= HELD_MAX_MS && visible_ms < 4 * HOUR_MS && receipts.is_empty());
    }

    #[test]
    fn a_consumer_settles_with_the_handle_it_got_and_the_broker_sees_the_newest() {
        let mut receipts = taken();
        let renewal = receipts.due(55_000).pop().unwrap();
        assert_eq!(receipts.settle("c", "g", "h"), Settled::Busy);
        receipts.renewed(&renewal, "newer".to_owned(), 120_000);
        assert_eq!(receipts.settle("c", "g", "h"), Settled::Now("newer".to_owned()));
        assert_eq!(receipts.settle("c", "g", "h"), Settled::Unknown);
        assert!(receipts.is_empty() && receipts.due(115_000).is_empty());
    }

    #[test]
    fn after_three_failures_or_a_final_one_a_receipt_is_left_to_itself() {
        let mut receipts = taken();
        for round in 1..=FAILURES_MAX {
            let renewal = receipts.due(50_000).pop().unwrap();
            receipts.failed(&renewal, false);
            assert_eq!(receipts.len(), usize::from(round < FAILURES_MAX));
        }
        let mut receipts = taken();
        let renewal = receipts.due(50_000).pop().unwrap();
        receipts.failed(&renewal, true);
        assert!(receipts.is_empty());
    }

    #[test]
    fn whoever_leaves_gives_everything_back() {
        let mut receipts = taken();
        receipts.take("c", "g", "t", "h2", 60_000, 0);
        receipts.take("other", "g", "t", "h3", 60_000, 0);
        let mut left: Vec<_> = receipts.leave("c").into_iter().map(|left| left.handle).collect();
        left.sort();
        assert_eq!(left, ["h", "h2"]);
        assert_eq!(receipts.len(), 1);
    }

    #[test]
    fn what_is_visible_already_is_not_renewed() {
        let mut receipts = taken();
        assert!(receipts.due(60_000).is_empty());
        assert!(receipts.is_empty());
    }
}
