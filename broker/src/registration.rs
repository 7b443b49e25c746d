//! Tells every nameserver what this broker is and which topics it has: regularly, and at once on change.

use std::sync::Arc;
use std::time::Duration;

use protocol::body::{
    RegisterBrokerBody, TopicConfig, TopicConfigAndMappingSerializeWrapper, body_crc32,
};
use protocol::header::route::{RegisterBroker, UnregisterBroker};
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

/// Registers until the process ends, then unregisters.
pub async fn run(broker: Arc<Broker>) {
    let mut reached = false;
    let mut again = AGAIN;
    loop {
        let generation = broker.topics.generation();
        let outcome = register(&broker).await;
        if outcome {
            broker.registered.send_replace(generation);
        }
        if outcome && !reached {
            info!(nameservers = ?broker.config.load().nameservers, "registered");
        }
        reached = outcome;
        let period = broker.config.load().register_period;
        let wait = if reached { period } else { again.min(period) };
        again = if reached { AGAIN } else { again.saturating_mul(2).min(period) };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = broker.register_now.notified() => tokio::time::sleep(GATHER).await,
            () = broker.shutdown.cancelled() => break,
        }
    }
    unregister(&broker).await;
}

/// Waits until clients can find what the topic table holds now, as long as nameservers answer.
pub async fn caught_up(broker: &Broker) {
    let wanted = broker.topics.generation();
    let mut registered = broker.registered.subscribe();
    let caught_up = registered.wait_for(|generation| *generation >= wanted);
    // The change is made all the same; nameservers that are away learn of it when they are back.
    let _ = tokio::time::timeout(CATCH_UP_MAX, caught_up).await;
}

/// True when every nameserver has taken it.
async fn register(broker: &Arc<Broker>) -> bool {
    let config = broker.config.load_full();
    let (with_topics, compressed) = (broker.clone(), config.compressed_register);
    let encode = move || registration(&with_topics).encode(compressed);
    // Many topics take a while.
    let Ok(body) = tokio::task::spawn_blocking(encode).await else { return false };
    let host = config.advertised_ip;
    let header = RegisterBroker {
        broker_name: config.name.clone(),
        broker_addr: broker.store_host.to_string(),
        cluster_name: config.cluster.clone(),
        ha_server_addr: std::net::SocketAddr::new(host, config.ha_port).to_string(),
        broker_id: config.id,
        heartbeat_timeout_millis: None,
        enable_acting_master: Some(false),
        compressed: config.compressed_register,
        body_crc32: Some(body_crc32(&body)),
    };
    let mut calls = JoinSet::new();
    for address in config.nameservers.clone() {
        let (broker, header, body) = (broker.clone(), header.clone(), body.clone());
        let timeout = config.register_timeout;
        calls.spawn(async move {
            match broker.pool.ask(&address, &header, body, timeout).await {
                Ok(_) => true,
                Err(error) => {
                    warn!(nameserver = address, %error, "cannot register");
                    false
                }
            }
        });
    }
    calls.join_all().await.into_iter().all(|reached| reached)
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

async fn unregister(broker: &Broker) {
    let config = broker.config.load_full();
    let header = UnregisterBroker {
        broker_name: config.name.clone(),
        broker_addr: broker.store_host.to_string(),
        cluster_name: config.cluster.clone(),
        broker_id: config.id,
    };
    for address in &config.nameservers {
        if let Err(error) = broker.pool.ask(address, &header, Vec::new(), LEAVE_TIMEOUT).await {
            debug!(nameserver = address, %error, "cannot unregister");
        }
    }
}
