//! Tells every nameserver what this broker is and which topics it has: regularly, and at once on change.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use protocol::body::{
    RegisterBrokerBody, TopicConfig, TopicConfigAndMappingSerializeWrapper, body_crc32,
};
use protocol::header::route::{RegisterBroker, UnregisterBroker};
use remoting::pool::Failed;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use crate::broker::Broker;
use crate::topics::perm;

/// Changes within this time go out together.
const GATHER: Duration = Duration::from_millis(2);
/// How long whoever changes a topic waits for the nameservers.
const CATCH_UP_MAX: Duration = Duration::from_secs(2);
/// How long a nameserver has to take our leave when the process ends.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);
/// How soon a nameserver that did not answer is asked again, at first; then twice as late each time.
const AGAIN: Duration = Duration::from_secs(1);

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
    let (mut known, mut again) = (false, AGAIN);
    loop {
        changes.mark_unchanged();
        let generation = broker.topics.generation();
        let outcome = tokio::select! {
            outcome = register(&broker, &address) => outcome,
            () = broker.shutdown.cancelled() => break,
        };
        let reached = outcome.is_ok();
        match outcome {
            Ok(()) if !known => info!(nameserver = address, "registered"),
            Ok(()) => {}
            Err(error) => warn!(nameserver = address, %error, "cannot register"),
        }
        broker.registered.send_modify(|all| {
            all.insert(address.clone(), reached.then_some(generation));
        });
        known = reached;
        let period = broker.config.load().register_period;
        let wait = if reached { period } else { again.min(period) };
        again = if reached { AGAIN } else { again.saturating_mul(2).min(period) };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = changes.changed(), if reached => tokio::time::sleep(GATHER).await,
            () = broker.shutdown.cancelled() => break,
        }
    }
    if known {
        unregister(&broker, &address).await;
    }
}

/// Waits until clients can find what the topic table holds now, at every nameserver that answers.
pub async fn caught_up(broker: &Broker) {
    let wanted = broker.topics.generation();
    let mut registered = broker.registered.subscribe();
    let caught_up =
        registered.wait_for(|all| all.values().flatten().all(|generation| *generation >= wanted));
    // The change is made all the same; a nameserver that is away learns of it when it is back.
    let _ = tokio::time::timeout(CATCH_UP_MAX, caught_up).await;
}

async fn register(broker: &Arc<Broker>, address: &str) -> Result<(), Failed> {
    let config = broker.config.load_full();
    let (with_topics, compressed) = (broker.clone(), config.compressed_register);
    let encode = move || registration(&with_topics).encode(compressed);
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
        compressed: config.compressed_register,
        body_crc32: Some(body_crc32(&body)),
    };
    broker.pool.ask(address, &header, body, config.register_timeout).await.map(drop)
}

/// Every topic as nameservers are to know it: what the broker does not permit, no topic permits.
fn registration(broker: &Broker) -> RegisterBrokerBody {
    let permission = broker.config.load().permission;
    let version = broker.topics.version();
    let shown = |config: &TopicConfig| {
        let both = perm::may_read(permission) && perm::may_write(permission);
        let perm = if both { config.perm } else { config.perm & permission };
        TopicConfig { perm, ..config.clone() }
    };
    let topics = broker.topics.all();
    let table = topics.iter().map(|topic| (topic.name.to_string(), shown(&topic.config))).collect();
    RegisterBrokerBody {
        filter_server_list: Vec::new(),
        topic_config_serialize_wrapper: TopicConfigAndMappingSerializeWrapper {
            data_version: version,
            topic_config_table: table,
            ..Default::default()
        },
    }
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
