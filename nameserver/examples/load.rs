//! How fast routes are answered, also while a large broker registers: `load ADDRESS SECONDS [TOPICS]`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::future::join_all;
use protocol::body::{RegisterBrokerBody, TopicConfig};
use protocol::frame::Command;
use protocol::header::route::{GetRouteInfo, RegisterBroker};
use remoting::clock;
use remoting::peer::Peer;
use remoting::pool::{Pool, successful};
use remoting::process::Shutdown;

const CONNECTIONS: usize = 4;
const IN_FLIGHT: usize = 16;
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main]
#[expect(clippy::print_stdout, reason = "this program prints its measurements")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, seconds, rest @ ..] = arguments.as_slice() else {
        bail!("usage: load ADDRESS SECONDS [TOPICS]");
    };
    let duration = Duration::from_secs(seconds.parse()?);
    let topics = rest.first().map_or(Ok(16_000), |it| it.parse())?;
    let broker = Pool::new(Shutdown::new());
    let took = register(&broker, address, topics, 1).await?;
    println!("first registration of {topics} topics: {took:?}");
    let quiet = ask(address, duration, topics).await?;
    println!("routes, quiet:                {quiet}");
    let busy = Arc::new(AtomicBool::new(true));
    let registering = async {
        let (mut count, mut worst) = (0, Duration::ZERO);
        while busy.load(Ordering::Relaxed) {
            count += 1;
            worst = worst.max(register(&broker, address, topics, 1 + count).await?);
        }
        anyhow::Ok((count, worst))
    };
    let asking = async {
        let measured = ask(address, duration, topics).await;
        busy.store(false, Ordering::Relaxed);
        measured
    };
    let ((count, worst), measured) = tokio::try_join!(registering, asking)?;
    println!("routes, while registering:    {measured}");
    println!("{count} registrations meanwhile, the slowest in {worst:?}");
    Ok(())
}

async fn register(pool: &Pool, at: &str, topics: i64, counter: i64) -> anyhow::Result<Duration> {
    let mut body = RegisterBrokerBody::default();
    let wrapper = &mut body.topic_config_serialize_wrapper;
    wrapper.data_version.counter = counter;
    for topic in 0..topics {
        let topic_name = format!("topic-of-some-length-{topic:08}");
        let config = TopicConfig { topic_name: topic_name.clone(), ..TopicConfig::default() };
        wrapper.topic_config_table.insert(topic_name, config);
    }
    let header = RegisterBroker {
        broker_name: "load".into(),
        broker_addr: "127.0.0.1:1".into(),
        cluster_name: "Load".into(),
        ha_server_addr: "127.0.0.1:2".into(),
        broker_id: 0,
        heartbeat_timeout_millis: None,
        enable_acting_master: None,
        compressed: false,
        body_crc32: None,
    };
    let body = body.encode(false);
    let started = clock::instant();
    pool.ask(at, &header, body, PATIENCE).await?;
    Ok(started.elapsed())
}

async fn ask(at: &str, duration: Duration, topics: i64) -> anyhow::Result<String> {
    let pools: Vec<Pool> = (0..CONNECTIONS).map(|_| Pool::new(Shutdown::new())).collect();
    let mut peers = Vec::new();
    for pool in &pools {
        peers.push(pool.peer(at).await?);
    }
    let started = clock::instant();
    let callers = peers.iter().flat_map(|peer| std::iter::repeat_n(peer, IN_FLIGHT));
    let tasks = callers
        .enumerate()
        .map(|(seed, peer)| tokio::spawn(ask_in_turn(peer.clone(), duration, topics, seed as i64)));
    let mut latencies = Vec::new();
    for task in join_all(tasks).await {
        latencies.extend(task??);
    }
    let elapsed = started.elapsed();
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    let rate = latencies.len() as f64 / elapsed.as_secs_f64();
    Ok(format!(
        "{rate:.0}/s, p50 {:?}, p99 {:?}, p99.9 {:?}, max {:?}",
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    ))
}

async fn ask_in_turn(
    peer: Arc<Peer>,
    duration: Duration,
    topics: i64,
    seed: i64,
) -> anyhow::Result<Vec<Duration>> {
    let (started, mut latencies, mut number) = (clock::instant(), Vec::new(), seed);
    while started.elapsed() < duration {
        number = (number * 31 + 7) % topics;
        let topic = format!("topic-of-some-length-{number:08}");
        let header = GetRouteInfo { topic, accept_standard_json_only: Some(true) };
        let asked = clock::instant();
        let reply = peer.call(Command::request(105, &header), PATIENCE).await;
        successful(reply?).context("asking for a route")?;
        latencies.push(asked.elapsed());
    }
    Ok(latencies)
}
