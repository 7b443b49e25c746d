//! Tells every nameserver what this broker is and which topics it has: regularly, and at once on change.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use protocol::body::{
    DataVersion, QueueData, RegisterBrokerBody, TopicConfig, TopicConfigAndMappingSerializeWrapper,
    TopicRouteData, body_crc32,
};
use protocol::header::route::{QueryDataVersion, RegisterBroker, RegisterTopic, UnregisterBroker};
use protocol::json::{self, Dialect};
use remoting::pool::Failed;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use crate::broker::Broker;
use crate::config::Config;
use crate::topics::{News, perm};

/// Changes within this time go out together.
const GATHER: Duration = Duration::from_millis(2);
/// How long whoever changes a topic waits for the nameservers.
const CATCH_UP_MAX: Duration = Duration::from_secs(2);
/// How long a nameserver has to take our leave when the process ends.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);
/// How soon a nameserver that did not answer is asked again, at first; then twice as late each time.
const AGAIN: Duration = Duration::from_secs(1);

/// Topics of one registration: their text stays well below the size of a frame.
const PART_TOPICS_MAX: usize = 20_000;
/// Up to so many topics the whole table is told every time; of a larger one changes, and whether it is known.
const SMALL_TABLE_TOPICS: usize = 2_000;
/// How often a sign of life will do before a large table is told whole again, in case a topic was lost.
const WHOLE_AFTER_SIGNS: u32 = 20;
/// Changed topics that are told one by one; for more, everything is told.
const SINGLE_TOPICS_MAX: usize = 64;
/// Topics of a whole table that cost as much as one told alone.
const TOPICS_PER_SINGLE: usize = 32;

/// What each nameserver has: the generation of the topic table it took last, or nothing while it is away.
pub type Reached = BTreeMap<String, Option<u64>>;

/// Registers with every nameserver, each on its own, until the process ends; then unregisters.
pub async fn run(broker: Arc<Broker>) {
    let nameservers = broker.config.load().nameservers.clone();
    // Nobody has anything yet, which is worth waiting for; who turns out to be away is not.
    broker.registered.send_replace(nameservers.iter().map(|it| (it.clone(), Some(0))).collect());
    let mut loops = JoinSet::new();
    for address in nameservers {
        loops.spawn(keep_registered(broker.clone(), address));
    }
    while loops.join_next().await.is_some() {}
}

async fn keep_registered(broker: Arc<Broker>, address: String) {
    let mut changes = broker.topic_changes.subscribe();
    let mut ledger = Ledger::default();
    let (mut known, mut again) = (false, AGAIN);
    loop {
        changes.mark_unchanged();
        let outcome = tokio::select! {
            outcome = tell(&broker, &address, &mut ledger) => outcome,
            () = broker.shutdown.cancelled() => break,
        };
        let reached = outcome.is_ok();
        match outcome {
            Ok(()) if !known => info!(nameserver = address, "registered"),
            Ok(()) => {}
            Err(error) => {
                ledger = Ledger::default();
                warn!(nameserver = address, %error, "cannot register");
            }
        }
        broker.registered.send_modify(|all| {
            all.insert(address.clone(), ledger.has);
        });
        known = reached;
        let period = broker.config.load().register_period;
        let wait = if reached { period } else { again.min(period) };
        again = if reached { AGAIN } else { again.saturating_mul(2).min(period) };
        tokio::select! {
            () = tokio::time::sleep(wait) => ledger.due = true,
            _ = changes.changed(), if reached => tokio::time::sleep(GATHER).await,
            () = broker.shutdown.cancelled() => break,
        }
    }
    if known {
        unregister(&broker, &address).await;
    }
}

/// What one nameserver was told.
#[derive(Debug, Default)]
struct Ledger {
    /// The generation of the topic table that it has.
    has: Option<u64>,
    /// A period has passed: it is time for a sign of life.
    due: bool,
    /// Signs of life since it was told the whole table.
    signs: u32,
}

/// Tells a nameserver what is new to it, and at times everything.
async fn tell(broker: &Arc<Broker>, address: &str, ledger: &mut Ledger) -> Result<(), Failed> {
    let News { generation, version, topics } = broker.topics.news(ledger.has);
    let due = std::mem::take(&mut ledger.due);
    let config = broker.config.load_full();
    let small = broker.topics.len() <= SMALL_TABLE_TOPICS;
    let singles_max = SINGLE_TOPICS_MAX.max(broker.topics.len() / TOPICS_PER_SINGLE);
    match topics {
        Some(changed) if !changed.is_empty() && changed.len() <= singles_max => {
            let found: Vec<TopicConfig> = changed
                .iter()
                .filter_map(|topic| broker.topics.get(topic))
                .map(|topic| shown(&config, &topic.config))
                .collect();
            // That a topic is gone only a whole table says, which can wait if it is a large one.
            if found.len() < changed.len() && small {
                register_all(broker, address, version).await?;
            } else if config.single_topic_register {
                register_queues(broker, address, &found).await?;
            } else {
                register_singly(broker, address, found, version).await?;
            }
        }
        Some(changed) if changed.is_empty() && !due => {}
        Some(changed) if changed.is_empty() && !(config.force_register && small) => {
            ledger.signs += 1;
            let whole = config.force_register && ledger.signs >= WHOLE_AFTER_SIGNS;
            if whole || lacks(broker, address, version).await? {
                register_all(broker, address, version).await?;
                ledger.signs = 0;
            }
        }
        _ => register_all(broker, address, version).await?,
    }
    ledger.has = Some(generation);
    Ok(())
}

/// Waits until clients can find what the topic table holds now, at every nameserver that answers.
pub fn caught_up(broker: &Broker) -> impl Future<Output = ()> + Send + 'static {
    let wanted = broker.topics.generation();
    let mut registered = broker.registered.subscribe();
    async move {
        let caught_up = registered
            .wait_for(|all| all.values().flatten().all(|generation| *generation >= wanted));
        // The change is made all the same; a nameserver that is away learns of it when it is back.
        let _ = tokio::time::timeout(CATCH_UP_MAX, caught_up).await;
    }
}

/// Tells the whole table, in as many parts as it takes.
async fn register_all(
    broker: &Arc<Broker>,
    address: &str,
    version: DataVersion,
) -> Result<(), Failed> {
    let config = broker.config.load_full();
    let topics = broker.topics.all();
    let size = config.split_registration.unwrap_or(PART_TOPICS_MAX).min(PART_TOPICS_MAX);
    let parts = topics.len().div_ceil(size).max(1);
    for (at, part) in topics.chunks(topics.len().div_ceil(parts).max(1)).enumerate() {
        let part = part.iter().map(|topic| shown(&config, &topic.config)).collect();
        register(broker, address, part, unlike(version, parts - 1 - at)).await?;
    }
    Ok(())
}

/// Tells topics one by one. A nameserver takes a single topic for an addition; of several it may think
/// that there are no others.
async fn register_singly(
    broker: &Arc<Broker>,
    address: &str,
    topics: Vec<TopicConfig>,
    version: DataVersion,
) -> Result<(), Failed> {
    let count = topics.len();
    for (at, topic) in topics.into_iter().enumerate() {
        register(broker, address, vec![topic], unlike(version, count - 1 - at)).await?;
    }
    Ok(())
}

/// The version of a part that so many others follow. A nameserver overlooks changes that come under the
/// version it has, and must not believe it has this one before the last part is there.
fn unlike(version: DataVersion, following: usize) -> DataVersion {
    match i64::try_from(following) {
        Ok(0) | Err(_) => version,
        Ok(following) => DataVersion { counter: -following, ..version },
    }
}

async fn register(
    broker: &Arc<Broker>,
    address: &str,
    topics: Vec<TopicConfig>,
    version: DataVersion,
) -> Result<(), Failed> {
    let config = broker.config.load_full();
    let compressed = config.compressed_register;
    let encode = move || {
        let table = topics.into_iter().map(|topic| (topic.topic_name.clone(), topic)).collect();
        let topic_config_serialize_wrapper = TopicConfigAndMappingSerializeWrapper {
            data_version: version,
            topic_config_table: table,
            ..Default::default()
        };
        let filter_server_list = Vec::new();
        RegisterBrokerBody { filter_server_list, topic_config_serialize_wrapper }.encode(compressed)
    };
    // Many topics take a while.
    let encoded = tokio::task::spawn_blocking(encode).await;
    let body = encoded.map_err(|error| Failed::Unreadable(error.to_string()))?;
    let header = RegisterBroker {
        broker_name: config.name.clone(),
        broker_addr: broker.store_host.to_string(),
        cluster_name: config.cluster.clone(),
        ha_server_addr: SocketAddr::new(config.advertised_ip, config.ha_port).to_string(),
        broker_id: config.id,
        heartbeat_timeout_millis: None,
        enable_acting_master: Some(false),
        compressed,
        body_crc32: Some(body_crc32(&body)),
    };
    broker.pool.ask(address, &header, body, config.register_timeout).await.map(drop)
}

/// Adds topics without a word of the broker (217), as `enableSingleTopicRegister` wants it.
async fn register_queues(
    broker: &Broker,
    address: &str,
    topics: &[TopicConfig],
) -> Result<(), Failed> {
    let config = broker.config.load_full();
    for topic in topics {
        let queues = QueueData {
            broker_name: config.name.clone(),
            perm: topic.perm,
            read_queue_nums: topic.read_queue_nums,
            write_queue_nums: topic.write_queue_nums,
            topic_sys_flag: topic.topic_sys_flag,
        };
        let route = TopicRouteData { queue_datas: vec![queues], ..Default::default() };
        let body = json::write(&route, Dialect::Fastjson);
        let header = RegisterTopic { topic: topic.topic_name.clone() };
        broker.pool.ask(address, &header, body, config.register_timeout).await?;
    }
    Ok(())
}

/// A sign of life that asks whether the nameserver has another state of the table (322).
async fn lacks(broker: &Broker, address: &str, version: DataVersion) -> Result<bool, Failed> {
    let config = broker.config.load_full();
    let header = QueryDataVersion {
        broker_name: config.name.clone(),
        broker_addr: broker.store_host.to_string(),
        cluster_name: config.cluster.clone(),
        broker_id: config.id,
    };
    let body = json::write(&version, Dialect::Fastjson);
    let (reply, _) = broker.pool.ask(address, &header, body, config.register_timeout).await?;
    Ok(reply.changed)
}

/// A topic as nameservers are to know it: what the broker does not permit, no topic permits.
fn shown(config: &Config, topic: &TopicConfig) -> TopicConfig {
    let both = perm::may_read(config.permission) && perm::may_write(config.permission);
    let perm = if both { topic.perm } else { topic.perm & config.permission };
    TopicConfig { perm, ..topic.clone() }
}

async fn unregister(broker: &Broker, address: &str) {
    let config = broker.config.load_full();
    let header = UnregisterBroker {
        broker_name: config.name.clone(),
        broker_addr: broker.store_host.to_string(),
        cluster_name: config.cluster.clone(),
        broker_id: config.id,
    };
    if let Err(error) = broker.pool.ask(address, &header, Vec::new(), LEAVE_TIMEOUT).await {
        debug!(nameserver = address, %error, "cannot unregister");
    }
}
