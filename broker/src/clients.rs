//! Who is connected: producers and consumers by group, what they subscribe to, when they were last heard.
//!
//! Does no I/O and reads no clock; what it returns says who has to be told of a change.

pub mod requests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use protocol::body::{
    ConsumeFromWhere, ConsumeType, ConsumerData, HeartbeatData, MessageModel, SubscriptionData,
};
use protocol::language::Language;
use remoting::peer::Peer;

/// Groups one client may belong to; a heartbeat with more is refused.
pub const GROUPS_PER_CLIENT_MAX: usize = 10_000;

/// One client of a group.
#[derive(Debug, Clone)]
pub struct Member {
    pub client_id: String,
    pub language: Language,
    pub version: i32,
    pub peer: Arc<Peer>,
    pub heard_ms: i64,
    /// Of the last full heartbeat of this client.
    pub fingerprint: i32,
}

/// A consumer group with members.
#[derive(Debug, Clone)]
pub struct ConsumerGroup {
    pub consume_type: ConsumeType,
    pub message_model: MessageModel,
    pub consume_from_where: ConsumeFromWhere,
    pub subscriptions: BTreeMap<String, SubscriptionData>,
    /// By the id of the member's connection.
    pub members: BTreeMap<u64, Member>,
}

/// Everyone who is connected.
#[derive(Debug, Default)]
pub struct Clients {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    consumers: HashMap<String, ConsumerGroup>,
    producers: HashMap<String, BTreeMap<u64, Member>>,
    /// The groups of each connection, so that one that goes does not have to be looked for in all.
    groups_of: HashMap<u64, Groups>,
}

#[derive(Debug, Default)]
struct Groups {
    consumers: BTreeSet<String>,
    producers: BTreeSet<String>,
}

/// Members of a group whose membership or subscription changed; they have to look again.
#[derive(Debug)]
pub struct Changed {
    pub group: String,
    pub members: Vec<Arc<Peer>>,
}

/// What a heartbeat leads to.
#[derive(Debug, Default)]
pub struct Heard {
    pub changed: Vec<Changed>,
    /// A beat without subscriptions came from a client whose subscriptions are not known.
    pub full_beat_wanted: bool,
}

impl ConsumerGroup {
    fn new(data: &ConsumerData) -> Self {
        Self {
            consume_type: data.consume_type,
            message_model: data.message_model,
            consume_from_where: data.consume_from_where,
            subscriptions: BTreeMap::new(),
            members: BTreeMap::new(),
        }
    }

    /// Takes what a member says; true when that is news. The newest subscription of a topic holds,
    /// and what the member does not name any more is gone.
    fn subscribe(&mut self, data: &ConsumerData) -> bool {
        let mut changed = false;
        for new in &data.subscription_data_set {
            match self.subscriptions.get(&new.topic) {
                Some(old) if old.sub_version >= new.sub_version => {}
                old => {
                    changed |= old.is_none();
                    self.subscriptions.insert(new.topic.clone(), new.clone());
                }
            }
        }
        let named =
            |topic: &String| data.subscription_data_set.iter().any(|new| new.topic == *topic);
        let before = self.subscriptions.len();
        self.subscriptions.retain(|topic, _| named(topic));
        changed || self.subscriptions.len() != before
    }

    fn peers(&self) -> Vec<Arc<Peer>> {
        self.members.values().map(|member| member.peer.clone()).collect()
    }

    pub fn client_ids(&self) -> Vec<String> {
        let mut ids: Vec<String> =
            self.members.values().map(|member| member.client_id.clone()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}

impl Clients {
    /// Takes a heartbeat of `peer`.
    pub fn heard(
        &self,
        data: &HeartbeatData,
        peer: &Arc<Peer>,
        language: Language,
        version: i32,
        now_ms: i64,
    ) -> Heard {
        let mut heard = Heard::default();
        let mut table = self.table.lock();
        let table = &mut *table;
        let member = Member {
            client_id: data.client_id.clone(),
            language,
            version,
            peer: peer.clone(),
            heard_ms: now_ms,
            fingerprint: data.heartbeat_fingerprint,
        };
        for consumer in &data.consumer_data_set {
            let known = table.consumers.get_mut(&consumer.group_name);
            if data.without_sub {
                let same = known.and_then(|group| group.members.get_mut(&peer.id));
                match same.filter(|member| member.fingerprint == data.heartbeat_fingerprint) {
                    Some(member) => member.heard_ms = now_ms,
                    None => heard.full_beat_wanted = true,
                }
                continue;
            }
            let group = match known {
                Some(group) => group,
                None => table
                    .consumers
                    .entry(consumer.group_name.clone())
                    .or_insert_with(|| ConsumerGroup::new(consumer)),
            };
            group.consume_type = consumer.consume_type;
            group.message_model = consumer.message_model;
            group.consume_from_where = consumer.consume_from_where;
            let joined = group.members.insert(peer.id, member.clone()).is_none();
            if joined {
                let groups = table.groups_of.entry(peer.id).or_default();
                groups.consumers.insert(consumer.group_name.clone());
            }
            if group.subscribe(consumer) || joined {
                let members = group.peers();
                heard.changed.push(Changed { group: consumer.group_name.clone(), members });
            }
        }
        for producer in &data.producer_data_set {
            let group = table.producers.entry(producer.group_name.clone()).or_default();
            if group.insert(peer.id, member.clone()).is_none() {
                let groups = table.groups_of.entry(peer.id).or_default();
                groups.producers.insert(producer.group_name.clone());
            }
        }
        heard
    }

    /// A client leaves a producer group, a consumer group or both.
    pub fn left(
        &self,
        peer_id: u64,
        producer_group: Option<&str>,
        consumer_group: Option<&str>,
    ) -> Vec<Changed> {
        let mut table = self.table.lock();
        if let Some(group) = producer_group {
            table.leave_producers(peer_id, group);
        }
        consumer_group.and_then(|group| table.leave_consumers(peer_id, group)).into_iter().collect()
    }

    /// A connection is gone.
    pub fn closed(&self, peer_id: u64) -> Vec<Changed> {
        self.table.lock().leave(peer_id)
    }

    /// Clients that were silent for `expiry_ms`.
    pub fn expire(&self, now_ms: i64, expiry_ms: i64) -> Vec<Changed> {
        let mut table = self.table.lock();
        let silent = |member: &Member| now_ms - member.heard_ms > expiry_ms;
        let consumers = table.consumers.values().flat_map(|group| group.members.values());
        let producers = table.producers.values().flat_map(BTreeMap::values);
        let gone: BTreeSet<u64> =
            consumers.chain(producers).filter(|m| silent(m)).map(|m| m.peer.id).collect();
        gone.into_iter().flat_map(|peer| table.leave(peer)).collect()
    }

    pub fn consumer_group(&self, group: &str) -> Option<ConsumerGroup> {
        self.table.lock().consumers.get(group).cloned()
    }

    /// The subscription of a group to a topic, and how the group consumes.
    pub fn subscription(
        &self,
        group: &str,
        topic: &str,
    ) -> Option<(MessageModel, Option<SubscriptionData>)> {
        let table = self.table.lock();
        let group = table.consumers.get(group)?;
        Some((group.message_model, group.subscriptions.get(topic).cloned()))
    }

    pub fn consumer_groups(&self) -> Vec<(String, ConsumerGroup)> {
        let table = self.table.lock();
        table.consumers.iter().map(|(name, group)| (name.clone(), group.clone())).collect()
    }

    /// Groups with members that subscribe to a topic.
    pub fn groups_consuming(&self, topic: &str) -> Vec<String> {
        let table = self.table.lock();
        let groups =
            table.consumers.iter().filter(|(_, group)| group.subscriptions.contains_key(topic));
        groups.map(|(name, _)| name.clone()).collect()
    }

    pub fn producer_group(&self, group: &str) -> Vec<Member> {
        let table = self.table.lock();
        table
            .producers
            .get(group)
            .map(|group| group.values().cloned().collect())
            .unwrap_or_default()
    }

    pub fn producer_groups(&self) -> Vec<(String, Vec<Member>)> {
        let table = self.table.lock();
        let groups = table.producers.iter();
        groups.map(|(name, group)| (name.clone(), group.values().cloned().collect())).collect()
    }

    /// The connection of a client of any group.
    pub fn find(&self, client_id: &str) -> Option<Arc<Peer>> {
        let table = self.table.lock();
        let consumers = table.consumers.values().flat_map(|group| group.members.values());
        let producers = table.producers.values().flat_map(BTreeMap::values);
        let mut members = consumers.chain(producers);
        members.find(|member| member.client_id == client_id).map(|member| member.peer.clone())
    }
}

impl Table {
    fn leave(&mut self, peer_id: u64) -> Vec<Changed> {
        let Groups { consumers, producers } = self.groups_of.remove(&peer_id).unwrap_or_default();
        producers.iter().for_each(|group| self.leave_producers(peer_id, group));
        consumers.iter().filter_map(|group| self.leave_consumers(peer_id, group)).collect()
    }

    fn leave_producers(&mut self, peer_id: u64, group: &str) {
        if let Some(members) = self.producers.get_mut(group) {
            members.remove(&peer_id);
            if members.is_empty() {
                self.producers.remove(group);
            }
        }
        self.forget(peer_id, |groups| groups.producers.remove(group));
    }

    fn leave_consumers(&mut self, peer_id: u64, group: &str) -> Option<Changed> {
        self.forget(peer_id, |groups| groups.consumers.remove(group));
        let consumers = self.consumers.get_mut(group)?;
        consumers.members.remove(&peer_id)?;
        let changed = Changed { group: group.to_owned(), members: consumers.peers() };
        if consumers.members.is_empty() {
            self.consumers.remove(group);
        }
        Some(changed)
    }

    fn forget(&mut self, peer_id: u64, forget: impl FnOnce(&mut Groups) -> bool) {
        if let Some(groups) = self.groups_of.get_mut(&peer_id) {
            forget(groups);
            if groups.consumers.is_empty() && groups.producers.is_empty() {
                self.groups_of.remove(&peer_id);
            }
        }
    }
}
