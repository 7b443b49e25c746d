//! Which receipts a consumer wants renewed, when, and for how long. Pure: the driver asks brokers.

use std::collections::HashMap;

use crate::handle::Handle;

/// A receipt is renewed when its message would be visible in so long.
pub const AHEAD_MS: i64 = 10_000;
/// No message is kept from others for longer than this.
pub const HELD_MAX_MS: i64 = 3 * 60 * 60 * 1000;
/// A receipt that so many renewals in a row failed for is left to itself.
pub const FAILURES_MAX: u32 = 3;
/// Receipts one proxy renews; messages beyond keep the time they were taken for.
pub const RECEIPTS_MAX: usize = 1_000_000;
/// Renewals of one look; what is due beyond has its turn at the next.
const DUE_MAX: usize = 100_000;
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

    /// The message did not reach its consumer: nobody has the receipt any more. What the broker knows it by.
    pub fn abandon(&mut self, client: &str, group: &str, handle: &str) -> Option<Left> {
        let held = self.by_client.get_mut(client)?;
        let key = Key { group: group.to_owned(), handle: handle.to_owned() };
        let (key, gone) = held.remove_entry(&key)?;
        if held.is_empty() {
            self.by_client.remove(client);
        }
        self.count -= 1;
        Some(Left { group: key.group, topic: gone.topic, handle: gone.newest })
    }

    /// What has to be renewed now, by broker, without those of brokers that are `passed_over`. A renewal is
    /// to be begun with [`Receipts::begin`], as much may have happened until its turn comes.
    pub fn due(
        &mut self,
        now_ms: i64,
        passed_over: impl Fn(&str) -> bool,
    ) -> HashMap<String, Vec<Renewal>> {
        let mut due: HashMap<String, Vec<Renewal>> = HashMap::new();
        let (mut found, mut dropped) = (0, 0);
        self.by_client.retain(|client, receipts| {
            receipts.retain(|key, held| {
                if held.busy || held.visible_at_ms - now_ms > AHEAD_MS {
                    return true;
                }
                let over = now_ms - held.taken_ms >= HELD_MAX_MS || held.visible_at_ms <= now_ms;
                let handle = Handle::parse(&held.newest).ok().filter(|_| !over);
                let Some(broker) = handle.map(|handle| handle.broker) else {
                    dropped += 1;
                    return false;
                };
                if found >= DUE_MAX || passed_over(broker) {
                    return true;
                }
                found += 1;
                due.entry(broker.to_owned()).or_default().push(Renewal {
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

    /// Whether a renewal still makes sense. If so, it is then to be reported as `renewed` or `failed`, and
    /// until then the receipt cannot be settled.
    pub fn begin(&mut self, renewal: &Renewal, now_ms: i64) -> bool {
        let Some(held) = self.held(renewal) else { return false };
        held.busy = held.visible_at_ms > now_ms;
        held.busy
    }

    /// The broker hides the message until `visible_at_ms` under the handle `newest`; false when nobody
    /// holds the receipt any more.
    #[must_use]
    pub fn renewed(&mut self, renewal: &Renewal, newest: String, visible_at_ms: i64) -> bool {
        let Some(held) = self.held(renewal) else { return false };
        held.newest = newest;
        held.visible_at_ms = visible_at_ms;
        held.renewals += 1;
        held.failures = 0;
        held.busy = false;
        true
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

    /// Renews nothing any more. Gives those that were renewed: their consumers have a handle that no broker
    /// takes, and nobody else knows the newer one. With the others, they can go to another proxy.
    pub fn end(&mut self) -> Vec<Left> {
        let all = std::mem::take(&mut self.by_client).into_values().flatten();
        self.count = 0;
        all.filter(|(_, held)| held.renewals > 0)
            .map(|(key, held)| Left { group: key.group, topic: held.topic, handle: held.newest })
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
    /// A handle as the consumer got it, and one that the broker gave later.
    const H: &str = "7 1 60000 3 0 b 2 7";
    const NEWER: &str = "7 2 60000 3 0 b 2 7";

    fn taken() -> Receipts {
        let mut receipts = Receipts::default();
        assert!(receipts.take("c", "g", "t", H, 60_000, 0));
        receipts
    }

    /// What is due at every broker.
    fn due(receipts: &mut Receipts, now_ms: i64) -> Vec<Renewal> {
        receipts.due(now_ms, |_| false).into_values().flatten().collect()
    }

    /// The one renewal that is due, begun.
    fn begun(receipts: &mut Receipts, now_ms: i64) -> Renewal {
        let renewal = due(receipts, now_ms).pop().unwrap();
        assert!(receipts.begin(&renewal, now_ms));
        renewal
    }

    #[test]
    fn a_receipt_is_renewed_shortly_before_its_time_in_growing_steps_for_three_hours() {
        let mut receipts = taken();
        assert!(due(&mut receipts, 49_999).is_empty());
        let (mut steps, mut now_ms, mut visible_ms) = (Vec::new(), 50_000, 60_000);
        while let Some(renewal) = due(&mut receipts, now_ms).pop() {
            assert!(receipts.begin(&renewal, now_ms));
            assert!(due(&mut receipts, now_ms).is_empty(), "one renewal at a time");
            steps.push(renewal.invisible_ms / 60_000);
            visible_ms = now_ms + renewal.invisible_ms;
            assert!(receipts.renewed(&renewal, NEWER.to_owned(), visible_ms));
            now_ms = visible_ms - AHEAD_MS;
        }
        assert_eq!(steps, [1, 3, 5, 10, 30, 60, 60, 60]);
        assert!(now_ms >= HELD_MAX_MS && visible_ms < 4 * HOUR_MS && receipts.is_empty());
    }

    #[test]
    fn a_consumer_settles_with_the_handle_it_got_and_the_broker_sees_the_newest() {
        let mut receipts = taken();
        let renewal = begun(&mut receipts, 55_000);
        assert_eq!(receipts.settle("c", "g", H), Settled::Busy);
        assert!(receipts.renewed(&renewal, NEWER.to_owned(), 120_000));
        assert_eq!(receipts.settle("c", "g", H), Settled::Now(NEWER.to_owned()));
        assert_eq!(receipts.settle("c", "g", H), Settled::Unknown);
        assert!(receipts.is_empty() && due(&mut receipts, 115_000).is_empty());
    }

    #[test]
    fn what_waits_for_its_renewal_can_be_settled_and_is_not_renewed_then() {
        let mut receipts = taken();
        let renewal = due(&mut receipts, 55_000).pop().unwrap();
        assert_eq!(receipts.settle("c", "g", H), Settled::Now(H.to_owned()));
        assert!(!receipts.begin(&renewal, 55_000));
        let mut receipts = taken();
        let renewal = due(&mut receipts, 55_000).pop().unwrap();
        assert!(!receipts.begin(&renewal, 60_000), "others may have it by now");
    }

    #[test]
    fn each_broker_has_its_own_renewals_and_one_may_be_passed_over() {
        let mut receipts = taken();
        let other = H.replace('b', "other");
        receipts.take("c", "g", "t", &other, 60_000, 0);
        let brokers = |due: HashMap<String, Vec<Renewal>>| {
            let mut brokers: Vec<_> = due.into_iter().map(|(b, all)| (b, all.len())).collect();
            brokers.sort();
            brokers
        };
        let all = brokers(receipts.due(55_000, |_| false));
        assert_eq!(all, [("b".to_owned(), 1), ("other".to_owned(), 1)]);
        let one = brokers(receipts.due(55_000, |broker| broker == "b"));
        assert_eq!(one, [("other".to_owned(), 1)]);
    }

    #[test]
    fn after_three_failures_or_a_final_one_a_receipt_is_left_to_itself() {
        let mut receipts = taken();
        for round in 1..=FAILURES_MAX {
            let renewal = begun(&mut receipts, 50_000);
            receipts.failed(&renewal, false);
            assert_eq!(receipts.len(), usize::from(round < FAILURES_MAX));
        }
        let mut receipts = taken();
        let renewal = begun(&mut receipts, 50_000);
        receipts.failed(&renewal, true);
        assert!(receipts.is_empty());
    }

    #[test]
    fn whoever_leaves_gives_everything_back() {
        let mut receipts = taken();
        let others = [H.replace('7', "8"), H.replace('7', "9")];
        receipts.take("c", "g", "t", &others[0], 60_000, 0);
        receipts.take("other", "g", "t", &others[1], 60_000, 0);
        let mut left: Vec<_> = receipts.leave("c").into_iter().map(|left| left.handle).collect();
        left.sort();
        assert_eq!(left, [H, &others[0]]);
        assert_eq!(receipts.len(), 1);
    }

    #[test]
    fn who_leaves_during_a_renewal_is_known_to_be_gone_when_it_ends() {
        let mut receipts = taken();
        let renewal = begun(&mut receipts, 55_000);
        let left = receipts.abandon("c", "g", H).unwrap();
        assert_eq!((left.handle.as_str(), receipts.len()), (H, 0));
        assert!(!receipts.renewed(&renewal, NEWER.to_owned(), 120_000));
        assert_eq!(receipts.abandon("c", "g", H), None);
    }

    #[test]
    fn at_the_end_what_was_renewed_is_given_back_and_the_rest_stays_good_elsewhere() {
        let mut receipts = taken();
        let renewal = begun(&mut receipts, 55_000);
        assert!(receipts.renewed(&renewal, NEWER.to_owned(), 120_000));
        receipts.take("c", "g", "t", &H.replace('7', "8"), 120_000, 60_000);
        let left: Vec<_> = receipts.end().into_iter().map(|left| left.handle).collect();
        assert_eq!((left, receipts.len()), (vec![NEWER.to_owned()], 0));
    }

    #[test]
    fn what_is_visible_already_is_not_renewed() {
        let mut receipts = taken();
        assert!(due(&mut receipts, 60_000).is_empty());
        assert!(receipts.is_empty());
    }
}
