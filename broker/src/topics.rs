//! Which topics this broker has, how they are laid out, and where their queues are in the store.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use protocol::body::{DataVersion, TopicConfig};
use protocol::name;
use protocol::reply::{Refusal, ReplyCode};
use store::{QueueRef, Store};

use crate::admin::attributes::QUEUE_TYPE;
use crate::config::Config;
use crate::stats::{Counter, Stats, kind};

/// Permission bits of topics and brokers.
pub mod perm {
    pub const READ: i32 = 4;
    pub const WRITE: i32 = 2;
    pub const INHERIT: i32 = 1;

    pub const fn may_read(perm: i32) -> bool {
        perm & READ != 0
    }
    pub const fn may_write(perm: i32) -> bool {
        perm & WRITE != 0
    }
    pub const fn may_inherit(perm: i32) -> bool {
        perm & INHERIT != 0
    }
}

/// Queues a topic may have.
pub const QUEUES_MAX: i32 = 65_535;
/// Topics a broker may have.
pub const TOPICS_MAX: usize = 1_000_000;

/// One topic; replaced whole when its configuration changes.
#[derive(Debug)]
pub struct Topic {
    pub name: Arc<str>,
    pub config: TopicConfig,
    /// Messages put, and their bytes.
    pub put: Arc<Counter>,
    pub put_bytes: Arc<Counter>,
    /// The store's queues, looked up once each.
    queues: Box<[OnceLock<QueueRef>]>,
}

impl Topic {
    pub fn queue_count(&self) -> i32 {
        self.config.read_queue_nums.max(self.config.write_queue_nums)
    }

    /// A batch that comes to this topic is kept as one record, which consumers take apart.
    pub fn keeps_batches_whole(&self) -> bool {
        keeps_batches_whole(&self.config)
    }

    /// The store's queue of this number, which must be one of the topic's.
    pub fn queue(&self, store: &Store, queue_id: i32) -> Result<QueueRef, Refusal> {
        let place = usize::try_from(queue_id).ok().and_then(|at| self.queues.get(at));
        let Some(place) = place else {
            let (topic, count) = (&self.name, self.queue_count());
            let remark =
                format!("queueId[{queue_id}] is illegal, topic:[{topic}] has {count} queues");
            return Err(Refusal::new(ReplyCode::InvalidParameter, remark));
        };
        if let Some(queue) = place.get() {
            return Ok(*queue);
        }
        let queue = store.queue(&self.name, queue_id);
        let queue =
            queue.map_err(|error| Refusal::new(ReplyCode::SystemError, error.to_string()))?;
        Ok(*place.get_or_init(|| queue))
    }
}

/// Whether a topic's batches are one record each.
pub fn keeps_batches_whole(config: &TopicConfig) -> bool {
    config.attributes.get(QUEUE_TYPE).is_some_and(|kind| kind == "BatchCQ")
}

/// All topics of this broker.
#[derive(Debug, Default)]
pub struct Topics {
    by_name: RwLock<HashMap<Arc<str>, Arc<Topic>>>,
    changes: Mutex<Changes>,
    /// Counts changes, so that whoever keeps a topic knows when to look again.
    generation: AtomicU64,
}

/// How the table came to be as it is.
#[derive(Debug, Default)]
struct Changes {
    version: DataVersion,
    /// The newest changes, one for each generation: its topic, or nothing if it was of all topics.
    newest: VecDeque<Option<Arc<str>>>,
}

/// Changes that are remembered by topic.
const CHANGES_MAX: usize = 1024;

/// What is new to somebody.
#[derive(Debug)]
pub struct News {
    /// The state that these lead to.
    pub generation: u64,
    pub version: DataVersion,
    /// The topics that were changed or removed since, each once; nothing when that is not known.
    pub topics: Option<Vec<Arc<str>>>,
}

impl Topics {
    pub fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.by_name.read().get(name).cloned()
    }

    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub fn version(&self) -> DataVersion {
        self.changes.lock().version
    }

    /// What changed since a generation; nothing of it is newer than the version that comes with it.
    pub fn news(&self, since: Option<u64>) -> News {
        let changes = self.changes.lock();
        let generation = self.generation();
        let topics = since.and_then(|since| {
            let count = usize::try_from(generation.checked_sub(since)?).ok()?;
            let first = changes.newest.len().checked_sub(count)?;
            let changed = changes.newest.range(first..).cloned();
            let mut topics = changed.collect::<Option<Vec<_>>>()?;
            topics.sort_unstable();
            topics.dedup();
            Some(topics)
        });
        News { generation, version: changes.version, topics }
    }

    pub fn len(&self) -> usize {
        self.by_name.read().len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_name.read().is_empty()
    }

    /// Every topic, in no order.
    pub fn all(&self) -> Vec<Arc<Topic>> {
        self.by_name.read().values().cloned().collect()
    }

    /// Sets a topic up, or anew.
    pub fn insert(&self, config: TopicConfig, stats: &Stats, now_ms: i64) {
        let name: Arc<str> = config.topic_name.as_str().into();
        let count = config.read_queue_nums.max(config.write_queue_nums).clamp(0, QUEUES_MAX);
        let topic = Topic {
            put: stats.counter(kind::TOPIC_PUT_NUMS, &name),
            put_bytes: stats.counter(kind::TOPIC_PUT_SIZE, &name),
            queues: std::iter::repeat_with(OnceLock::new).take(count as usize).collect(),
            name: name.clone(),
            config,
        };
        self.by_name.write().insert(name.clone(), Arc::new(topic));
        self.changed(Some(name), now_ms);
    }

    pub fn remove(&self, name: &str, now_ms: i64) {
        let removed = self.by_name.write().remove(name);
        if let Some(topic) = removed {
            self.changed(Some(topic.name.clone()), now_ms);
        }
    }

    /// The broker's own permission changed, which nameservers take for a change of every topic.
    pub fn permission_changed(&self, now_ms: i64) {
        self.changed(None, now_ms);
    }

    /// Takes over a version that was kept elsewhere.
    pub fn set_version(&self, version: DataVersion) {
        self.changes.lock().version = version;
    }

    fn changed(&self, topic: Option<Arc<str>>, now_ms: i64) {
        let mut changes = self.changes.lock();
        changes.version.next_version(0, now_ms);
        if changes.newest.len() == CHANGES_MAX {
            changes.newest.pop_front();
        }
        changes.newest.push_back(topic);
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}

/// What a topic is made from that a client sends to and nobody has created.
pub fn inherited(
    template: &TopicConfig,
    topic: &str,
    queues_wanted: i32,
    topic_sys_flag: i32,
) -> Option<TopicConfig> {
    if !perm::may_inherit(template.perm) {
        return None;
    }
    let queues = queues_wanted.clamp(0, template.write_queue_nums);
    Some(TopicConfig {
        topic_name: topic.to_owned(),
        read_queue_nums: queues,
        write_queue_nums: queues,
        perm: template.perm & !perm::INHERIT,
        topic_filter_type: template.topic_filter_type,
        topic_sys_flag,
        ..TopicConfig::default()
    })
}

/// A topic with so many queues, readable and writable.
pub fn plain(topic: &str, queues: i32, perm: i32) -> TopicConfig {
    TopicConfig {
        topic_name: topic.to_owned(),
        read_queue_nums: queues,
        write_queue_nums: queues,
        perm,
        ..TopicConfig::default()
    }
}

/// The topics every broker has; clients and tools look for them by these names.
pub fn system_topics(config: &Config) -> Vec<TopicConfig> {
    const READ_WRITE: i32 = perm::READ | perm::WRITE;
    const ALL: i32 = READ_WRITE | perm::INHERIT;
    let cluster_perm = if config.cluster_topic { ALL } else { perm::INHERIT };
    let broker_perm = if config.broker_topic { ALL } else { perm::INHERIT };
    let levels = config.delay_levels_ms.len() as i32;
    let own = |topic: &str, queues, perm| plain(topic, queues, perm);
    let mut topics = vec![
        own(name::SELF_TEST_TOPIC, 1, READ_WRITE),
        own(name::BENCHMARK_TOPIC, 1024, READ_WRITE),
        own(&config.cluster, 16, cluster_perm),
        own(&config.name, 1, broker_perm),
        own(name::OFFSET_MOVED_TOPIC, 1, READ_WRITE),
        own(name::SCHEDULE_TOPIC, levels, READ_WRITE),
        own(&format!("{}_REPLY_TOPIC", config.cluster), 1, READ_WRITE),
        own(name::TRANSACTION_HALF_TOPIC, 1, READ_WRITE),
        own(name::TRANSACTION_OP_TOPIC, 1, READ_WRITE),
        own(name::TIMER_TOPIC, 1, READ_WRITE),
        own(&format!("rmq_sys_REVIVE_LOG_{}", config.cluster), 8, READ_WRITE),
        own(&format!("rmq_sys_SYNC_BROKER_MEMBER_{}", config.name), 1, perm::INHERIT),
        own(crate::journal::TOPIC, 1, READ_WRITE),
    ];
    if config.auto_create_topic {
        topics.push(own(name::DEFAULT_TOPIC, config.default_topic_queues, ALL));
    }
    if let Some(trace) = &config.trace_topic {
        topics.push(own(trace, 1, READ_WRITE));
    }
    topics
}

/// Topics the system made, which tools list apart from users' own.
pub fn is_system(config: &Config, topic: &str) -> bool {
    name::is_system_topic(topic)
        || topic == config.cluster
        || topic == config.name
        || topic.strip_suffix("_REPLY_TOPIC") == Some(&config.cluster)
}

/// A configuration an operator asked for, checked.
pub fn check_config(config: &TopicConfig) -> Result<(), String> {
    name::check_topic(&config.topic_name).map_err(|error| error.to_string())?;
    for (what, queues) in
        [("readQueueNums", config.read_queue_nums), ("writeQueueNums", config.write_queue_nums)]
    {
        if !(0..=QUEUES_MAX).contains(&queues) {
            return Err(format!("{what} of {queues} is not within 0 and {QUEUES_MAX}"));
        }
    }
    if config.perm & !7 != 0 {
        return Err(format!(
            "perm {} is not made of 4 (read), 2 (write), 1 (inherit)",
            config.perm
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_name_each_changed_topic_once_as_far_back_as_they_are_remembered() {
        let (topics, stats) = (Topics::default(), Stats::new("c"));
        let set = |name: &str| topics.insert(plain(name, 1, 6), &stats, 1);
        let names = |since| topics.news(since).topics.map(|it| it.join(" "));
        assert_eq!(names(None), None);
        assert_eq!(names(Some(0)).as_deref(), Some(""));
        ["b", "a", "b"].into_iter().for_each(set);
        topics.remove("a", 1);
        assert_eq!(names(Some(0)).as_deref(), Some("a b"));
        assert_eq!(names(Some(3)).as_deref(), Some("a"));
        assert_eq!(topics.news(None).version, topics.version());
        topics.permission_changed(1);
        assert_eq!(names(Some(3)), None);
        assert_eq!(names(Some(5)).as_deref(), Some(""));
        (0..CHANGES_MAX).for_each(|_| set("c"));
        assert_eq!(names(Some(5)).as_deref(), Some("c"));
        assert_eq!(names(Some(4)), None);
        assert_eq!(names(Some(u64::MAX)), None, "nobody can know more than there is");
    }
}
