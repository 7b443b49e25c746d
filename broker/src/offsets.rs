//! How far each group has consumed each queue: what is committed, and what it was told to go back to.

pub mod requests;

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;

use crate::event::Event;

/// Offsets of all groups.
#[derive(Debug, Default)]
pub struct Offsets {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// Group, topic, queue.
    committed: HashMap<String, HashMap<String, BTreeMap<i32, i64>>>,
    /// Where the last pull began; what tools call the pull offset.
    pulled: HashMap<String, HashMap<String, BTreeMap<i32, i64>>>,
    /// Where a group has to go on from at its next pull, whatever it asks for.
    reset: HashMap<(String, String, i32), i64>,
    /// Committed along with pulls, not yet in the log.
    unwritten: HashMap<(String, String, i32), i64>,
}

impl Table {
    fn set(&mut self, group: &str, topic: &str, queue_id: i32, offset: i64) {
        let topics = entry(&mut self.committed, group);
        entry(topics, topic).insert(queue_id, offset);
    }
}

/// The entry of `key`, whose text is copied only when it is new.
fn entry<'m, V: Default>(map: &'m mut HashMap<String, V>, key: &str) -> &'m mut V {
    if !map.contains_key(key) {
        map.insert(key.to_owned(), V::default());
    }
    map.get_mut(key).expect("it was inserted if it was missing")
}

impl Offsets {
    /// What is committed, if anything was.
    pub fn committed(&self, group: &str, topic: &str, queue_id: i32) -> Option<i64> {
        self.table.lock().committed.get(group)?.get(topic)?.get(&queue_id).copied()
    }

    /// What is committed on each queue of a topic.
    pub fn of_topic(&self, group: &str, topic: &str) -> BTreeMap<i32, i64> {
        let table = self.table.lock();
        let queues = table.committed.get(group).and_then(|topics| topics.get(topic));
        queues.cloned().unwrap_or_default()
    }

    /// Topics a group has offsets for.
    pub fn topics_of(&self, group: &str) -> Vec<String> {
        let table = self.table.lock();
        table
            .committed
            .get(group)
            .map(|topics| topics.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// Groups that have offsets for a topic.
    pub fn groups_of(&self, topic: &str) -> Vec<String> {
        let table = self.table.lock();
        let groups = table.committed.iter().filter(|(_, topics)| topics.contains_key(topic));
        groups.map(|(group, _)| group.clone()).collect()
    }

    /// Everything, as `topic@group` to queue to offset.
    pub fn all(&self) -> BTreeMap<String, BTreeMap<i32, i64>> {
        // One group at a time: pulls and commits must not wait for a copy of everything.
        let groups: Vec<String> = self.table.lock().committed.keys().cloned().collect();
        let mut all = BTreeMap::new();
        for group in groups {
            if let Some(topics) = self.table.lock().committed.get(&group) {
                let queues = |(topic, queues): (&String, &BTreeMap<i32, i64>)| {
                    (format!("{topic}@{group}"), queues.clone())
                };
                all.extend(topics.iter().map(queues));
            }
        }
        all
    }

    /// Applies what the log says.
    pub fn apply(&self, event: &Event) {
        let mut table = self.table.lock();
        match event {
            Event::Offset { group, topic, queue_id, offset } => {
                table.set(group, topic, *queue_id, *offset);
                // It is newer than what a pull left to be written.
                if !table.unwritten.is_empty() {
                    table.unwritten.remove(&(group.clone(), topic.clone(), *queue_id));
                }
            }
            Event::OffsetsRemoved { group, topic } => {
                let of = |key: &(String, String, i32)| {
                    key.0 == *group && topic.as_ref().is_none_or(|topic| key.1 == *topic)
                };
                table.reset.retain(|key, _| !of(key));
                table.unwritten.retain(|key, _| !of(key));
                let Table { committed, pulled, .. } = &mut *table;
                for offsets in [committed, pulled] {
                    match topic {
                        None => drop(offsets.remove(group)),
                        Some(topic) => {
                            if let Some(topics) = offsets.get_mut(group) {
                                topics.remove(topic);
                            }
                        }
                    }
                }
            }
            Event::TopicDeleted(topic) => {
                let Table { committed, pulled, .. } = &mut *table;
                for offsets in [committed, pulled] {
                    offsets.retain(|_, topics| {
                        topics.remove(topic);
                        !topics.is_empty()
                    });
                }
                table.reset.retain(|key, _| key.1 != *topic);
                table.unwritten.retain(|key, _| key.1 != *topic);
            }
            _ => {}
        }
    }

    /// A commit that came along with a pull: it counts at once and is written soon, since nobody was
    /// promised that it is kept. Ignored while a reset is pending.
    pub fn commit_with_pull(&self, group: &str, topic: &str, queue_id: i32, offset: i64) {
        let mut table = self.table.lock();
        let known = table.committed.get(group).and_then(|topics| topics.get(topic));
        if known.and_then(|queues| queues.get(&queue_id)) == Some(&offset) {
            return;
        }
        let key = (group.to_owned(), topic.to_owned(), queue_id);
        if !table.reset.contains_key(&key) {
            table.set(group, topic, queue_id, offset);
            table.unwritten.insert(key, offset);
        }
    }

    /// How far a group has come that pops; its ledgers are in the log.
    pub fn popped(&self, group: &str, topic: &str, queue_id: i32, offset: i64) {
        let mut table = self.table.lock();
        table.set(group, topic, queue_id, offset);
        if !table.unwritten.is_empty() {
            table.unwritten.remove(&(group.to_owned(), topic.to_owned(), queue_id));
        }
        // Who pops has gone back already.
        if !table.reset.is_empty() {
            table.reset.remove(&(group.to_owned(), topic.to_owned(), queue_id));
        }
    }

    /// Commits that have to be written to the log now.
    pub fn take_unwritten(&self) -> Vec<Event> {
        let unwritten = std::mem::take(&mut self.table.lock().unwritten);
        let event =
            |((group, topic, queue_id), offset)| Event::Offset { group, topic, queue_id, offset };
        unwritten.into_iter().map(event).collect()
    }

    /// They could not be written; what has not changed meanwhile waits again.
    pub fn put_unwritten_back(&self, events: Vec<Event>) {
        let mut table = self.table.lock();
        for event in events {
            let Event::Offset { group, topic, queue_id, offset } = event else { continue };
            let known = table.committed.get(&group).and_then(|topics| topics.get(&topic));
            if known.and_then(|queues| queues.get(&queue_id)) == Some(&offset) {
                table.unwritten.insert((group, topic, queue_id), offset);
            }
        }
    }

    pub fn has_unwritten(&self) -> bool {
        !self.table.lock().unwritten.is_empty()
    }

    /// Whether a reset is pending: commits are ignored until the group has gone back.
    pub fn reset_pending(&self, group: &str, topic: &str, queue_id: i32) -> bool {
        let table = self.table.lock();
        !table.reset.is_empty()
            && table.reset.contains_key(&(group.to_owned(), topic.to_owned(), queue_id))
    }

    /// The next pull of this queue goes on from `offset`.
    pub fn set_reset(&self, group: &str, topic: &str, queue_id: i32, offset: i64) {
        let mut table = self.table.lock();
        // What was pulled before is not on its way to anybody any more.
        if let Some(queues) = table.pulled.get_mut(group).and_then(|topics| topics.get_mut(topic)) {
            queues.remove(&queue_id);
        }
        table.reset.insert((group.to_owned(), topic.to_owned(), queue_id), offset);
    }

    /// The pending reset of a queue, which is over with this.
    pub fn take_reset(&self, group: &str, topic: &str, queue_id: i32) -> Option<i64> {
        let mut table = self.table.lock();
        if table.reset.is_empty() {
            return None;
        }
        table.reset.remove(&(group.to_owned(), topic.to_owned(), queue_id))
    }

    /// Notes where a pull began.
    pub fn set_pulled(&self, group: &str, topic: &str, queue_id: i32, offset: i64) {
        let mut table = self.table.lock();
        entry(entry(&mut table.pulled, group), topic).insert(queue_id, offset);
    }

    /// Where pulls began, as `topic@group` to queue to offset.
    pub fn all_pulled(&self) -> BTreeMap<String, BTreeMap<i32, i64>> {
        let mut all = BTreeMap::new();
        for (group, topics) in &self.table.lock().pulled {
            let queues = topics.iter();
            all.extend(queues.map(|(topic, queues)| (format!("{topic}@{group}"), queues.clone())));
        }
        all
    }

    pub fn pulled(&self, group: &str, topic: &str, queue_id: i32) -> Option<i64> {
        self.table.lock().pulled.get(group)?.get(topic)?.get(&queue_id).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(queue_id: i32, offset: i64) -> Event {
        Event::Offset { group: "g".into(), topic: "t".into(), queue_id, offset }
    }

    #[test]
    fn commits_are_kept_by_group_topic_and_queue_until_removed() {
        let offsets = Offsets::default();
        offsets.apply(&offset(0, 5));
        offsets.apply(&offset(1, 7));
        assert_eq!(offsets.of_topic("g", "t"), BTreeMap::from([(0, 5), (1, 7)]));
        assert_eq!(offsets.committed("g", "t", 2), None);
        assert_eq!(offsets.groups_of("t"), ["g"]);
        offsets.apply(&Event::OffsetsRemoved { group: "g".into(), topic: Some("t".into()) });
        assert_eq!(offsets.committed("g", "t", 0), None);
    }

    #[test]
    fn a_commit_with_a_pull_counts_at_once_and_is_written_once() {
        let offsets = Offsets::default();
        offsets.commit_with_pull("g", "t", 0, 5);
        offsets.commit_with_pull("g", "t", 0, 6);
        assert_eq!(offsets.committed("g", "t", 0), Some(6));
        assert_eq!(offsets.take_unwritten(), [offset(0, 6)]);
        offsets.commit_with_pull("g", "t", 0, 6);
        assert!(!offsets.has_unwritten());
        offsets.put_unwritten_back(vec![offset(0, 5), offset(0, 6), offset(1, 6)]);
        assert_eq!(offsets.take_unwritten(), [offset(0, 6)], "only what still holds");
    }

    #[test]
    fn a_commit_of_its_own_replaces_what_a_pull_left_to_be_written() {
        let offsets = Offsets::default();
        offsets.commit_with_pull("g", "t", 0, 5);
        offsets.apply(&offset(0, 6));
        assert_eq!(offsets.take_unwritten(), []);
        assert_eq!(offsets.committed("g", "t", 0), Some(6));
    }

    #[test]
    fn a_pending_reset_wins_over_commits_and_is_taken_once() {
        let offsets = Offsets::default();
        offsets.set_reset("g", "t", 0, 2);
        offsets.commit_with_pull("g", "t", 0, 9);
        assert_eq!(offsets.committed("g", "t", 0), None);
        assert_eq!(offsets.take_reset("g", "t", 0), Some(2));
        assert_eq!(offsets.take_reset("g", "t", 0), None);
    }
}
