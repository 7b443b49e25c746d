//! The finished parts of a broker, and the few steps that every kind of work shares.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use protocol::body::{SubscriptionGroupConfig, TopicConfig};
use protocol::frame::Command;
use protocol::id::UniqueIds;
use protocol::name;
use protocol::reply::{Refusal, ReplyCode};
use protocol::request::RequestCode;
use remoting::clock;
use remoting::pool::Pool;
use remoting::process::Shutdown;
use store::{Appended, Batch, QueueRef, Store};
use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};

use crate::assignment::Modes;
use crate::clients::{Changed, Clients};
use crate::config::Config;
use crate::config_files::{self, Found};
use crate::durable::Gates;
use crate::event::Event;
use crate::groups::{GROUPS_MAX, Groups};
use crate::journal::{Journal, JournalError, Told};
use crate::locks::Locks;
use crate::offsets::Offsets;
use crate::pop::event::Event as PopEvent;
use crate::pop::{self, Pops};
use crate::registration::Reached;
use crate::stats::Stats;
use crate::topics::{self, TOPICS_MAX, Topic, Topics};
use crate::transaction::{self, Transactions};
use crate::wait::Waiting;

/// One broker.
#[derive(Debug)]
pub struct Broker {
    pub config: ArcSwap<Config>,
    pub store: Arc<Store>,
    pub topics: Topics,
    pub groups: Groups,
    pub offsets: Offsets,
    /// Which groups pop which topics.
    pub modes: Modes,
    /// How far each delay level has been delivered.
    pub delayed: Mutex<BTreeMap<i32, i64>>,
    pub transactions: Transactions,
    pub clients: Clients,
    pub locks: Locks,
    pub waiting: Arc<Waiting>,
    pub gates: Gates,
    pub stats: Stats,
    pub journal: Journal,
    pub pops: Pops,
    pub pool: Pool,
    pub shutdown: Shutdown,
    /// Changes whenever the topic table does, for those who tell others.
    pub topic_changes: watch::Sender<()>,
    /// What nameservers have of the topic table.
    pub registered: watch::Sender<Reached>,
    /// Set off when a delayed message was stored.
    pub delay_arrived: Notify,
    pub store_host: SocketAddr,
    pub started_ms: i64,
    /// Held while a change of topics, groups or settings is decided and recorded, so that two are not
    /// decided on the same ground.
    pub deciding: Mutex<()>,
    unique_ids: Mutex<UniqueIds>,
}

impl Broker {
    /// Puts the parts together and reads the state back.
    pub fn load(
        config: Config,
        store: Arc<Store>,
        pool: Pool,
        store_host: SocketAddr,
        shutdown: Shutdown,
    ) -> Result<Arc<Self>, JournalError> {
        let journal = Journal::open(&store, &config.store_root, store_host)?;
        let pops = Pops::open(&store, &config.store_root, store_host)?;
        let found = config_files::read(&config.store_root);
        let broker = Self {
            store,
            topics: Topics::default(),
            groups: Groups::default(),
            offsets: Offsets::default(),
            modes: Modes::default(),
            delayed: Mutex::default(),
            transactions: Transactions::default(),
            clients: Clients::default(),
            locks: Locks::default(),
            waiting: Arc::default(),
            gates: Gates::default(),
            stats: Stats::new(&config.cluster),
            journal,
            pops,
            pool,
            shutdown,
            topic_changes: watch::Sender::new(()),
            registered: watch::Sender::new(Reached::new()),
            delay_arrived: Notify::new(),
            store_host,
            started_ms: clock::now_ms(),
            deciding: Mutex::new(()),
            unique_ids: Mutex::new(UniqueIds::new(store_host.ip(), std::process::id(), 0)),
            config: ArcSwap::from_pointee(config),
        };
        let (foreign, foreign_offsets) = (found.is_foreign(), found.offsets.foreign);
        broker.restore(found)?;
        transaction::check::load(&broker).map_err(std::io::Error::from)?;
        pop::load(&broker, foreign_offsets, clock::now_ms())?;
        if foreign && let Err(error) = broker.adopt_files() {
            warn!(%error, "the files of another broker would win once more if the next start came before they are written");
        }
        Ok(Arc::new(broker))
    }

    /// The files first, then every event of the log; but a file that a stock broker has written meanwhile
    /// is newer than the log, and replaces what that says.
    fn restore(&self, found: Found) -> Result<(), JournalError> {
        let now_ms = clock::now_ms();
        let (topics, groups) = (found.topics.value.data_version, found.groups.value.data_version);
        self.take_files(&found, now_ms, |_, _| true);
        let mut count = 0usize;
        self.journal.load(&self.store, |told, time| {
            count += 1;
            match told {
                Told::Changed(event) => self.apply(&event, time),
                // The files hold what it said, if they are newer; what comes behind it is newer still.
                Told::Unreadable => {
                    self.take_files(&found, now_ms, |_, written_ms| written_ms >= time);
                }
                Told::Anew => {}
            }
        })?;
        if found.is_foreign() {
            warn!("another broker has changed the files of the state; they win over the log");
            self.forget_for(&found, now_ms);
            self.take_files(&found, now_ms, |foreign, _| foreign);
            self.journal.snapshot(&self.store, now_ms, || self.state())?;
        }
        info!(
            topics = self.topics.len(),
            groups = self.groups.len(),
            events = count,
            "the broker's state is back"
        );
        self.topics.set_version(self.topics.version().max(topics));
        self.groups.set_version(self.groups.version().max(groups));
        let groups =
            name::SYSTEM_GROUPS.into_iter().filter(|group| self.groups.get(group).is_none());
        let groups = groups.map(|group| {
            let group_name = group.to_owned();
            Event::Group(SubscriptionGroupConfig { group_name, ..Default::default() })
        });
        let missing: Vec<Event> = topics::system_topics(&self.config.load())
            .into_iter()
            .filter(|config| {
                // Levels may have been added to the configuration.
                let known = self.topics.get(&config.topic_name);
                known.is_none_or(|known| {
                    config.topic_name == name::SCHEDULE_TOPIC
                        && known.config.write_queue_nums < config.write_queue_nums
                })
            })
            .map(Event::Topic)
            .chain(groups)
            .collect();
        let make = || missing.iter().for_each(|event| self.apply(event, now_ms));
        if missing.is_empty() {
            return Ok(());
        }
        match self.journal.record(&self.store, &missing, now_ms, make) {
            // Every start makes them where they are missing, so they need not be in the log.
            Err(error) if error.is_passing() => {
                warn!(%error, "cannot write down the topics of the broker's own");
                make();
                Ok(())
            }
            recorded => recorded.map(drop),
        }
    }

    /// The log has what another broker has written to the files: it must not win a second time, over what
    /// changes from now on.
    fn adopt_files(&self) -> Result<(), JournalError> {
        self.pops.journal.flush(&self.store, clock::now_ms())?;
        self.store.flush().map_err(std::io::Error::other)?;
        Ok(config_files::adopt(&self.config.load().store_root)?)
    }

    /// Takes over what the files say that are wanted, by whether somebody else wrote them, and when.
    fn take_files(&self, found: &Found, now_ms: i64, wanted: impl Fn(bool, i64) -> bool) {
        let Found { topics, groups, offsets, delays, modes } = found;
        if wanted(topics.foreign, topics.value.data_version.timestamp) {
            for config in topics.value.topic_config_table.values() {
                self.topics.insert(config.clone(), &self.stats, now_ms);
            }
        }
        if wanted(groups.foreign, groups.value.data_version.timestamp) {
            for config in groups.value.subscription_group_table.values() {
                self.groups.insert(config.clone(), now_ms);
            }
            for (group, forbidden) in &groups.value.forbidden_table {
                for (topic, bits) in forbidden {
                    self.groups.set_forbidden(group, topic, *bits, now_ms);
                }
            }
        }
        if wanted(offsets.foreign, offsets.value.data_version.timestamp) {
            for (key, queues) in &offsets.value.offset_table {
                let Some((topic, group)) = key.split_once('@') else { continue };
                queues.iter().for_each(|(queue, offset)| self.take(group, topic, *queue, *offset));
            }
        }
        if wanted(delays.foreign, delays.value.data_version.timestamp) {
            self.delayed.lock().extend(&delays.value.offset_table);
        }
        // They have no time of their own, and are written together with offsets.
        if wanted(modes.foreign, offsets.value.data_version.timestamp) {
            let modes = modes.value.message_request_mode_map.values().flat_map(BTreeMap::values);
            modes.for_each(|mode| self.modes.set(mode.clone()));
        }
    }

    /// Takes over an offset of a file.
    fn take(&self, group: &str, topic: &str, queue_id: i32, offset: i64) {
        // A loss of power may leave the file ahead of the log, whose next messages are not read yet.
        let queue = self.store.find_queue(topic, queue_id);
        let offset = queue.map_or(offset, |queue| offset.min(self.store.max_offset(queue)));
        let (group, topic) = (group.to_owned(), topic.to_owned());
        self.offsets.apply(&Event::Offset { group, topic, queue_id, offset });
    }

    /// Empties the tables that a foreign file replaces.
    fn forget_for(&self, found: &Found, now_ms: i64) {
        if found.topics.foreign {
            for topic in self.topics.all() {
                self.topics.remove(&topic.name, now_ms);
            }
        }
        if found.groups.foreign {
            for group in self.groups.all() {
                self.groups.remove(&group.group_name, now_ms);
            }
        }
        if found.offsets.foreign {
            for key in self.offsets.all().keys() {
                if let Some((topic, group)) = key.split_once('@') {
                    let (group, topic) = (group.to_owned(), Some(topic.to_owned()));
                    self.offsets.apply(&Event::OffsetsRemoved { group, topic });
                }
            }
        }
        if found.delays.foreign {
            self.delayed.lock().clear();
        }
        if found.modes.foreign {
            self.modes.clear();
        }
    }

    /// Makes `events` part of the log and of the tables; returns where the log then ends.
    pub fn record(&self, events: &[Event]) -> Result<u64, Refusal> {
        let now_ms = clock::now_ms();
        let recorded = self.journal.record(&self.store, events, now_ms, || {
            events.iter().for_each(|event| self.apply(event, now_ms));
        });
        recorded.map_err(|error| match error {
            JournalError::Append(error) => refused(error),
            error => Refusal::new(ReplyCode::ServiceNotAvailable, error.to_string()),
        })
    }

    /// Appends messages and what they change of the state as one group.
    pub fn append_with(&self, batch: &mut Batch, events: &[Event]) -> Result<Appended, Refusal> {
        let (now_ms, messages) = (clock::now_ms(), batch.len());
        let recorded = self.journal.record_with(&self.store, batch, events, now_ms, || {
            events.iter().for_each(|event| self.apply(event, now_ms));
        });
        let appended = recorded.map_err(|error| {
            self.stats.flow.put_failed(messages);
            Refusal::new(ReplyCode::ServiceNotAvailable, error.to_string())
        })?;
        self.stats.flow.put(messages, batch.bytes());
        self.arrived(batch);
        Ok(appended)
    }

    fn apply(&self, event: &Event, now_ms: i64) {
        match event {
            Event::Topic(config) => {
                self.topics.insert(config.clone(), &self.stats, now_ms);
                self.topic_changes.send_replace(());
            }
            Event::TopicDeleted(topic) => {
                self.topics.remove(topic, now_ms);
                self.forget_pops(None, Some(topic), now_ms);
                self.modes.forget_topic(topic);
                self.offsets.apply(event);
                self.stats.forget_topic(topic);
                self.topic_changes.send_replace(());
            }
            Event::Group(config) => self.groups.insert(config.clone(), now_ms),
            Event::GroupDeleted(group) => {
                self.groups.remove(group, now_ms);
                self.modes.forget_group(group);
            }
            Event::Forbidden { group, topic, bits } => {
                self.groups.set_forbidden(group, topic, *bits, now_ms);
            }
            Event::Offset { group, topic, queue_id, offset } => {
                self.offsets.apply(event);
                self.move_pops(group, topic, *queue_id, *offset, now_ms);
            }
            Event::OffsetsRemoved { group, topic } => {
                self.offsets.apply(event);
                self.forget_pops(Some(group), topic.as_deref(), now_ms);
            }
            Event::RequestMode(mode) => self.modes.set(mode.clone()),
            Event::Delayed { level, offset } => {
                self.delayed.lock().insert(*level, *offset);
            }
        }
    }

    /// What goes must not come back with another life of the topic, not even after a loss of power.
    fn forget_pops(&self, group: Option<&str>, topic: Option<&str>, now_ms: i64) {
        if self.pops.forget(group, topic, now_ms)
            && let Err(error) = self.pops.journal.flush(&self.store, now_ms)
        {
            warn!(group, topic, %error, "cannot write that nobody pops any more");
        }
    }

    /// A group was told to go on from somewhere else, which counts for what it pops, too.
    fn move_pops(&self, group: &str, topic: &str, queue_id: i32, to: i64, now_ms: i64) {
        let event = |ledger: &pop::ledger::Ledger| {
            (ledger.committed() != to).then_some(PopEvent::Moved { to, at_ms: now_ms })
        };
        let moved = self.pops.moved(group, topic, queue_id, event, now_ms);
        let written = moved.and_then(|moved| {
            // It must not be lost when the power is, since the rest of this change is not.
            let flushed = if moved { self.pops.journal.flush(&self.store, now_ms) } else { Ok(()) };
            flushed.map_err(|error| pop::unwritten(&error))
        });
        if let Err(error) = written {
            warn!(group, topic, queue_id, to, %error, "cannot write that a group that pops was moved");
        }
    }

    /// The whole state as events, for a snapshot.
    pub fn state(&self) -> Vec<Event> {
        let topics = self.topics.all().into_iter().map(|topic| Event::Topic(topic.config.clone()));
        let groups =
            self.groups.all().into_iter().map(|group| Event::Group(group.as_ref().clone()));
        let forbidden = self.groups.all_forbidden().into_iter().flat_map(|(group, topics)| {
            topics.into_iter().map(move |(topic, bits)| Event::Forbidden {
                group: group.clone(),
                topic,
                bits,
            })
        });
        let offsets = self.offsets.all().into_iter().flat_map(|(key, queues)| {
            queues.into_iter().filter_map(move |(queue_id, offset)| {
                let (topic, group) = key.split_once('@')?;
                let (group, topic) = (group.to_owned(), topic.to_owned());
                Some(Event::Offset { group, topic, queue_id, offset })
            })
        });
        let delayed = self.delayed.lock().clone().into_iter();
        let delayed = delayed.map(|(level, offset)| Event::Delayed { level, offset });
        let modes = self.modes.file().message_request_mode_map.into_values();
        let modes = modes.flat_map(BTreeMap::into_values).map(Event::RequestMode);
        let topics = topics.chain(modes);
        topics.chain(groups).chain(forbidden).chain(offsets).chain(delayed).collect()
    }

    /// The only way of messages into the log: append, then wake whoever waits for their queues.
    pub fn append(&self, batch: &mut Batch) -> Result<Appended, Refusal> {
        let appended = self.store.append(batch, clock::now_ms()).map_err(|error| {
            self.stats.flow.put_failed(batch.len());
            refused(error)
        })?;
        self.stats.flow.put(batch.len(), batch.bytes());
        self.arrived(batch);
        Ok(appended)
    }

    /// Wakes whoever waits for what was appended.
    pub fn arrived(&self, batch: &Batch) {
        self.waiting.arrived(batch.entries().map(|entry| entry.queue));
        self.pops.arrived(&self.store, batch.entries().map(|entry| entry.queue));
    }

    /// A unique key for a message that came without one.
    pub fn unique_id(&self) -> String {
        self.unique_ids.lock().next(clock::now_ms()).encode()
    }

    pub fn queue(&self, topic: &str, queue_id: i32) -> Result<QueueRef, Refusal> {
        let queue = self.store.queue(topic, queue_id);
        queue.map_err(|error| Refusal::new(ReplyCode::SystemError, error.to_string()))
    }

    /// A topic that has to be there.
    pub fn topic(&self, topic: &str) -> Result<Arc<Topic>, Refusal> {
        self.topics.get(topic).ok_or_else(|| topic_missing(topic))
    }

    /// A group that has to be there; made now if groups make themselves.
    pub fn group(&self, group: &str) -> Result<Arc<SubscriptionGroupConfig>, Refusal> {
        if let Some(config) = self.groups.get(group) {
            return Ok(config);
        }
        let missing = || {
            let remark = format!("subscription group [{group}] does not exist");
            Refusal::new(ReplyCode::SubscriptionGroupNotExist, remark)
        };
        if !(self.config.load().auto_create_group || name::is_system_group(group)) {
            return Err(missing());
        }
        name::check_group(group).map_err(invalid)?;
        let _deciding = self.deciding.lock();
        if let Some(config) = self.groups.get(group) {
            return Ok(config);
        }
        if self.groups.len() >= GROUPS_MAX {
            let remark = format!("there are {GROUPS_MAX} groups already, the limit of a broker");
            return Err(Refusal::new(ReplyCode::SystemBusy, remark));
        }
        let config = SubscriptionGroupConfig { group_name: group.to_owned(), ..Default::default() };
        self.record(&[Event::Group(config)])?;
        self.groups.get(group).ok_or_else(missing)
    }

    /// Creates a topic that must not yet be there, or finds that somebody else has.
    pub fn create_topic(&self, config: TopicConfig) -> Result<Arc<Topic>, Refusal> {
        let topic = config.topic_name.clone();
        if let Some(known) = self.topics.get(&topic) {
            return Ok(known);
        }
        let _deciding = self.deciding.lock();
        if let Some(known) = self.topics.get(&topic) {
            return Ok(known);
        }
        if self.topics.len() >= TOPICS_MAX {
            let remark = format!("there are {TOPICS_MAX} topics already, the limit of a broker");
            return Err(Refusal::new(ReplyCode::SystemBusy, remark));
        }
        self.record(&[Event::Topic(config)])?;
        info!(topic, "topic created");
        self.topic(&topic)
    }

    /// A topic that is made with so many queues when a consumer or a retry needs it.
    pub fn topic_or_create(
        &self,
        topic: &str,
        queues: i32,
        topic_sys_flag: i32,
    ) -> Result<Arc<Topic>, Refusal> {
        if let Some(known) = self.topics.get(topic) {
            return Ok(known);
        }
        name::check_topic(topic).map_err(invalid)?;
        let read_write = topics::perm::READ | topics::perm::WRITE;
        self.create_topic(TopicConfig {
            topic_sys_flag,
            ..topics::plain(topic, queues, read_write)
        })
    }

    /// Tells the members of groups that membership or subscriptions changed.
    pub fn notify_changed(&self, changes: Vec<Changed>) {
        if !self.config.load().notify_consumer_changes {
            return;
        }
        for Changed { group, members } in changes {
            let wanted = self.groups.get(&group);
            if wanted.is_some_and(|config| !config.notify_consumer_ids_changed_enable) {
                continue;
            }
            let header =
                protocol::header::client::NotifyConsumerIdsChanged { consumer_group: group };
            for peer in members {
                let code = RequestCode::NotifyConsumerIdsChanged.to_wire();
                if let Err(error) = peer.push(Command::request(code, &header)) {
                    debug!(peer = %peer.remote, %error, "cannot tell a consumer of a change");
                }
            }
        }
    }
}

/// Why the log takes nothing, as a client sees it.
pub fn refused(error: store::AppendError) -> Refusal {
    let code = match error {
        store::AppendError::Unsynced { .. } => ReplyCode::SystemBusy,
        _ => ReplyCode::ServiceNotAvailable,
    };
    Refusal::new(code, error.to_string())
}

/// What a client is told whose request met a defect of ours.
pub fn defect() -> Refusal {
    Refusal::new(ReplyCode::SystemError, "the broker met a defect")
}

pub fn invalid(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(ReplyCode::InvalidParameter, error.to_string())
}

pub fn topic_missing(topic: &str) -> Refusal {
    Refusal::new(ReplyCode::TopicNotExist, format!("topic[{topic}] not exist, apply first please!"))
}
