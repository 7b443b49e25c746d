//! Which broker serves which topic, and which brokers are alive. Pure: takes `now`, returns what to do.
//!
//! A group is the brokers of one name: a master (id 0) and its replicas. A member that leaves, falls
//! silent or loses its connection is gone from every answer at once.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use protocol::body::TopicQueueMappingInfo;
use protocol::body::{BrokerData, BrokerMemberGroup, ClusterInfo, DataVersion, QueueData};

mod leave;
mod list;
mod register;
mod route;
#[cfg(test)]
mod tests;

pub use leave::{Departure, Leaving};
pub use list::UnitKind;
pub use register::{Registered, Registration, Rejected};
pub use route::{Route, View};

/// Brokers one nameserver keeps; no more than may be connected.
pub const BROKERS_MAX: usize = 16_000;
/// Topics one nameserver keeps.
pub const TOPICS_MAX: usize = 4_000_000;
/// How long a broker may be silent that does not say so itself.
pub const SILENCE_MAX_MS: i64 = 120_000;

/// The id of a group's master.
pub const MASTER: i64 = 0;
/// The bit of a topic's permission that lets clients send.
pub const PERM_WRITE: i32 = 2;
const PERM_READ: i32 = 4;

/// Everything a nameserver knows.
#[derive(Debug, Default)]
pub struct Table {
    groups: BTreeMap<Arc<str>, Group>,
    clusters: BTreeMap<String, BTreeSet<Arc<str>>>,
    topics: HashMap<Arc<str>, Arc<Topic>>,
    /// The topics of each group, so that a leaving group costs no look at those of others.
    hosted: HashMap<Arc<str>, HashSet<Arc<str>>>,
    /// Static topics: by topic, then by group.
    mappings: HashMap<String, Arc<Mappings>>,
}

/// The queues of one topic by group.
type Topic = BTreeMap<Arc<str>, Queues>;
type Mappings = BTreeMap<String, TopicQueueMappingInfo>;
/// By the address of the broker they belong to.
type FilterServers = BTreeMap<String, Vec<String>>;

/// What one group has of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Queues {
    read: i32,
    write: i32,
    perm: i32,
    sys_flag: i32,
}

#[derive(Debug)]
struct Group {
    /// As routes show it.
    data: Arc<BrokerData>,
    filter_servers: Arc<FilterServers>,
    members: BTreeMap<i64, Member>,
}

#[derive(Debug)]
struct Member {
    address: String,
    ha_address: String,
    version: DataVersion,
    seen_ms: i64,
    silence_max_ms: i64,
    /// Which connection it registered over.
    connection: u64,
}

/// The broker with the lowest id of a group has changed: what to tell whom (905).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    pub min_id: i64,
    pub min_address: String,
    /// The broker that left, if one did.
    pub offline_address: Option<String>,
    /// Where the broker that came replicates, if one came.
    pub ha_address: Option<String>,
    pub recipients: Vec<String>,
}

impl Table {
    /// A sign of life (904 and 322).
    pub fn seen(&mut self, name: &str, address: &str, now_ms: i64) {
        let group = self.groups.get_mut(name);
        let members = group.into_iter().flat_map(|group| group.members.values_mut());
        for member in members.filter(|member| member.address == address) {
            member.seen_ms = now_ms;
        }
    }

    /// Which state of its topics this broker registered last.
    pub fn version(&self, name: &str, address: &str) -> Option<DataVersion> {
        self.groups.get(name)?.member(address).map(|member| member.version)
    }

    /// All groups and clusters (106).
    pub fn clusters(&self) -> ClusterInfo {
        let named =
            |names: &BTreeSet<Arc<str>>| names.iter().map(|name| name.to_string()).collect();
        ClusterInfo {
            broker_addr_table: self
                .groups
                .iter()
                .map(|(name, group)| (name.to_string(), BrokerData::clone(&group.data)))
                .collect(),
            cluster_addr_table: self
                .clusters
                .iter()
                .map(|(cluster, names)| (cluster.clone(), named(names)))
                .collect(),
        }
    }

    /// The members of one group (901); of a group nobody knows there are none.
    pub fn members(&self, cluster: &str, name: &str) -> BrokerMemberGroup {
        let addresses = self.groups.get(name).map(|group| group.data.broker_addrs.clone());
        BrokerMemberGroup {
            broker_addrs: addresses.unwrap_or_default(),
            broker_name: name.to_owned(),
            cluster: cluster.to_owned(),
        }
    }

    /// Takes the right to send to this group from its topics (205), until it registers anew.
    pub fn wipe_write_perm(&mut self, name: &str) -> usize {
        self.change_perms(name, |perm| perm & !PERM_WRITE)
    }

    /// Makes all topics of this group readable and writable (327).
    pub fn add_write_perm(&mut self, name: &str) -> usize {
        self.change_perms(name, |_| PERM_READ | PERM_WRITE)
    }

    /// Adds queues to a topic by hand (217); `false`, and nothing done, if a broker is unknown.
    pub fn add_topic(&mut self, topic: &str, queues: &[QueueData]) -> bool {
        let known = queues.iter().all(|queues| self.groups.contains_key(&*queues.broker_name));
        let room = self.topics.contains_key(topic) || self.topics.len() < TOPICS_MAX;
        if !known || !room {
            return false;
        }
        for queues in queues {
            let (name, _) = self.groups.get_key_value(&*queues.broker_name).expect("just seen");
            self.put_queues(&name.clone(), topic, Queues::from(queues));
        }
        true
    }

    /// Forgets a topic (216), on the groups of one cluster or everywhere.
    pub fn delete_topic(&mut self, topic: &str, cluster: Option<&str>) {
        let names: Vec<Arc<str>> = match (self.topics.get(topic), cluster) {
            (None, _) => return,
            (Some(groups), None) => groups.keys().cloned().collect(),
            (Some(_), Some(cluster)) => {
                self.clusters.get(cluster).into_iter().flatten().cloned().collect()
            }
        };
        for name in names {
            self.remove_queues(&name, topic);
        }
    }

    fn change_perms(&mut self, name: &str, change: impl Fn(i32) -> i32) -> usize {
        let Some(hosted) = self.hosted.get(name) else { return 0 };
        for topic in hosted {
            let topic = self.topics.get_mut(topic).expect("what a group hosts is a topic");
            let queues = Arc::make_mut(topic).get_mut(name).expect("hosted by this group");
            queues.perm = change(queues.perm);
        }
        hosted.len()
    }

    fn put_queues(&mut self, name: &Arc<str>, topic: &str, queues: Queues) {
        if let Some(groups) = self.topics.get_mut(topic) {
            if groups.get(name) == Some(&queues) {
                return;
            }
            if Arc::make_mut(groups).insert(name.clone(), queues).is_some() {
                return;
            }
        }
        let topic: Arc<str> = match self.topics.get_key_value(topic) {
            Some((topic, _)) => topic.clone(),
            None => {
                let topic: Arc<str> = topic.into();
                let groups = BTreeMap::from([(name.clone(), queues)]);
                self.topics.insert(topic.clone(), Arc::new(groups));
                topic
            }
        };
        self.hosted.entry(name.clone()).or_default().insert(topic);
    }

    fn remove_queues(&mut self, name: &str, topic: &str) {
        if let Some(hosted) = self.hosted.get_mut(name) {
            hosted.remove(topic);
        }
        self.remove_from_topic(name, topic);
    }

    /// The half of [`Table::remove_queues`] that does not touch what the group hosts.
    fn remove_from_topic(&mut self, name: &str, topic: &str) {
        let Some(groups) = self.topics.get_mut(topic) else { return };
        if groups.contains_key(name) {
            Arc::make_mut(groups).remove(name);
        }
        if groups.is_empty() {
            self.topics.remove(topic);
            self.mappings.remove(topic);
        }
    }
}

impl Group {
    fn new(name: &str, cluster: &str) -> Self {
        let data = BrokerData {
            broker_name: name.to_owned(),
            cluster: cluster.to_owned(),
            ..BrokerData::default()
        };
        Self { data: Arc::new(data), filter_servers: Arc::default(), members: BTreeMap::new() }
    }

    fn member(&self, address: &str) -> Option<&Member> {
        self.members.values().find(|member| member.address == address)
    }

    fn min_id(&self) -> Option<i64> {
        self.members.keys().next().copied()
    }

    /// Brings what routes show up to date with the members.
    fn show_members(&mut self) {
        let data = Arc::make_mut(&mut self.data);
        data.broker_addrs =
            self.members.iter().map(|(id, member)| (*id, member.address.clone())).collect();
        let gone = |address: &String| self.members.values().all(|it| it.address != *address);
        if self.filter_servers.keys().any(gone) {
            let members = &self.members;
            Arc::make_mut(&mut self.filter_servers)
                .retain(|address, _| members.values().any(|it| it.address == *address));
        }
    }
}

impl From<&QueueData> for Queues {
    fn from(data: &QueueData) -> Self {
        Self {
            read: data.read_queue_nums,
            write: data.write_queue_nums,
            perm: data.perm,
            sys_flag: data.topic_sys_flag,
        }
    }
}
