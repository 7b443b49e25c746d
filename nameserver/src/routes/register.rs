//! A broker says who it is and what topics it has.

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::body::{DataVersion, TopicConfig, TopicQueueMappingInfo};

use super::{
    BROKERS_MAX, Group, MASTER, Member, Notice, PERM_WRITE, Queues, SILENCE_MAX_MS, TOPICS_MAX,
    Table,
};

/// What a broker says of itself (103).
#[derive(Debug, Clone, Default)]
pub struct Registration {
    pub cluster: String,
    pub name: String,
    pub id: i64,
    pub address: String,
    pub ha_address: String,
    pub zone: Option<String>,
    /// How long it may be silent; brokers of old do not say.
    pub silence_max_ms: Option<i64>,
    /// Whether a replica may stand in for the master; brokers of old do not say.
    pub acting_master: Option<bool>,
    pub version: DataVersion,
    pub topics: BTreeMap<String, TopicConfig>,
    pub mappings: BTreeMap<String, TopicQueueMappingInfo>,
    /// `None` leaves those it named before.
    pub filter_servers: Option<Vec<String>>,
    pub connection: u64,
}

/// What a broker is told, and what to do besides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registered {
    /// Whether it was not known before under this id.
    pub first: bool,
    /// For a replica: where its master is, and where that replicates.
    pub master: Option<Master>,
    pub notice: Option<Notice>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Master {
    pub address: String,
    pub ha_address: String,
}

/// Why a registration counts for nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    #[error("register broker failed")]
    TopicBeforeBroker,
    #[error("{holder} holds this broker's id with the later state version {version}")]
    Outdated { holder: String, version: i64 },
    #[error("a nameserver keeps at most {BROKERS_MAX} brokers")]
    TooManyBrokers,
    #[error("a nameserver keeps at most {TOPICS_MAX} topics")]
    TooManyTopics,
}

impl Table {
    /// Takes a registration in, whole or not at all.
    ///
    /// The master of a group says what its topics are; without one, the replica with the lowest id
    /// does if it is of a kind that can stand in. `delete_missing` drops topics it no longer names.
    pub fn register(
        &mut self,
        registration: &Registration,
        delete_missing: bool,
        now_ms: i64,
    ) -> Result<Registered, Rejected> {
        self.refuse(registration)?;
        let Registration { cluster, name, id, address, .. } = registration;
        let name: Arc<str> = match self.groups.get_key_value(name.as_str()) {
            Some((name, _)) => name.clone(),
            None => name.as_str().into(),
        };
        self.clusters.entry(cluster.clone()).or_default().insert(name.clone());
        let group = self.groups.entry(name.clone()).or_insert_with(|| Group::new(&name, cluster));
        let lowest_before = group.min_id();
        let known_version = group.member(address).map(|member| member.version);
        // One address is one broker: a replica that became the master is no replica any more.
        group.members.retain(|other, member| member.address != *address || other == id);
        let first = group.members.insert(*id, Member::new(registration, now_ms)).is_none();
        group.describe(registration);
        let lowest = group.min_id() == Some(*id);
        let stands_in = registration.acting_master.is_some() && *id != MASTER && lowest;
        let read_only = stands_in && registration.acting_master == Some(true);
        let answer = Registered {
            first,
            master: group.master_for(*id),
            notice: lowest_before.filter(|before| id < before).map(|_| group.notice_of_arrival()),
        };
        if *id == MASTER || stands_in {
            let changed = first || known_version != Some(registration.version);
            // A single topic is an addition, not the whole of what a broker has.
            let full = registration.mappings.is_empty() && registration.topics.len() != 1;
            if delete_missing && full {
                self.delete_missing(&name, &registration.topics);
            }
            self.take_topics(&name, registration, changed, read_only);
        }
        Ok(answer)
    }

    fn refuse(&mut self, registration: &Registration) -> Result<(), Rejected> {
        let Registration { name, id, address, version, topics, .. } = registration;
        let holder = self.groups.get(name.as_str()).and_then(|group| group.members.get(id));
        match holder {
            Some(holder) if holder.address == *address => {}
            Some(holder) if holder.version.state_version > version.state_version => {
                let rejected = Rejected::Outdated {
                    holder: holder.address.clone(),
                    version: holder.version.state_version,
                };
                // It gave up the id it had by claiming this one.
                self.leave_quietly(name, address);
                return Err(rejected);
            }
            Some(_) => {}
            None if topics.len() == 1 => return Err(Rejected::TopicBeforeBroker),
            None if self.groups.values().map(|it| it.members.len()).sum::<usize>()
                >= BROKERS_MAX =>
            {
                return Err(Rejected::TooManyBrokers);
            }
            None => {}
        }
        if self.topics.len() + topics.len() > TOPICS_MAX {
            let new = topics.keys().filter(|topic| !self.topics.contains_key(topic.as_str()));
            if self.topics.len() + new.count() > TOPICS_MAX {
                return Err(Rejected::TooManyTopics);
            }
        }
        Ok(())
    }

    fn take_topics(
        &mut self,
        name: &Arc<str>,
        registration: &Registration,
        changed: bool,
        read_only: bool,
    ) {
        for (key, config) in &registration.topics {
            let topic = if config.topic_name.is_empty() { key } else { &config.topic_name };
            let hosted = self.hosted.get(name).is_some_and(|it| it.contains(topic.as_str()));
            if changed || !hosted {
                let mut queues = Queues::from(config);
                if read_only {
                    queues.perm &= !PERM_WRITE;
                }
                self.put_queues(name, topic, queues);
            }
        }
        if changed {
            // A mapping in another broker's name could outlive that broker.
            let own = registration.mappings.iter().filter(|(_, it)| *it.bname == **name);
            for (topic, mapping) in own {
                let mappings = self.mappings.entry(topic.clone()).or_default();
                Arc::make_mut(mappings).insert(mapping.bname.clone(), mapping.clone());
            }
        }
    }

    fn delete_missing(&mut self, name: &str, topics: &BTreeMap<String, TopicConfig>) {
        let hosted = self.hosted.get(name).into_iter().flatten();
        let missing: Vec<Arc<str>> =
            hosted.filter(|topic| !topics.contains_key(&***topic)).cloned().collect();
        for topic in missing {
            self.remove_queues(name, &topic);
        }
    }
}

impl Group {
    fn describe(&mut self, registration: &Registration) {
        let data = Arc::make_mut(&mut self.data);
        data.enable_acting_master = registration.acting_master == Some(true);
        data.zone_name.clone_from(&registration.zone);
        if let Some(servers) = &registration.filter_servers {
            let by_address = Arc::make_mut(&mut self.filter_servers);
            if servers.is_empty() {
                by_address.remove(&registration.address);
            } else {
                by_address.insert(registration.address.clone(), servers.clone());
            }
        }
        self.show_members();
    }

    fn master_for(&self, id: i64) -> Option<Master> {
        let master = self.members.get(&MASTER).filter(|_| id != MASTER)?;
        Some(Master { address: master.address.clone(), ha_address: master.ha_address.clone() })
    }

    /// What to tell the others of a broker that came with the lowest id.
    fn notice_of_arrival(&self) -> Notice {
        let (min_id, arrived) = self.members.iter().next().expect("a broker has just come");
        let others = self.members.iter().filter(|(id, _)| self.members.len() == 1 || *id != min_id);
        Notice {
            min_id: *min_id,
            min_address: arrived.address.clone(),
            offline_address: None,
            ha_address: Some(arrived.ha_address.clone()),
            recipients: others.map(|(_, member)| member.address.clone()).collect(),
        }
    }
}

impl Member {
    fn new(registration: &Registration, now_ms: i64) -> Self {
        Self {
            address: registration.address.clone(),
            ha_address: registration.ha_address.clone(),
            version: registration.version,
            seen_ms: now_ms,
            silence_max_ms: registration.silence_max_ms.unwrap_or(SILENCE_MAX_MS),
            connection: registration.connection,
        }
    }
}

impl From<&TopicConfig> for Queues {
    fn from(config: &TopicConfig) -> Self {
        Self {
            read: config.read_queue_nums,
            write: config.write_queue_nums,
            perm: config.perm,
            sys_flag: config.topic_sys_flag,
        }
    }
}
