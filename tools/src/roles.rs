//! Starting the roles: configuration from files and flags, then the process until it is told to stop.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use broker::config::Config;
use remoting::{clock, process};
use tracing::{info, warn};

use crate::{BrokerRole, ProxyRole, Role, Standalone};

/// Runs a role on a runtime of its own, with the log on standard error.
pub(crate) fn run(role: impl Future<Output = Result<()>>) -> Result<()> {
    let level = std::env::var("FERROMQ_LOG").unwrap_or_else(|_| "info".to_owned());
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(level))
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(role)
}

/// Everything there is, in one process.
pub(crate) async fn standalone(args: Standalone) -> Result<()> {
    let started = clock::instant();
    let shutdown = process::shutdown_on_signal()?;
    let config = nameserver::config::Config::new(&args.data.join("nameserver"));
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, args.nameserver_port));
    let map = nameserver::start(config, listen, shutdown.clone()).await?;

    let mut given = file_pairs(args.config.as_deref())?;
    if !given.iter().any(|(key, _)| key == "storePathRootDir") {
        let store = args.data.join("store");
        given.push(("storePathRootDir".to_owned(), store.display().to_string()));
    }
    given.push(("namesrvAddr".to_owned(), map.address.to_string()));
    if let Some(port) = args.broker_port {
        given.push(("listenPort".to_owned(), port.to_string()));
    }
    given.extend(flag_pairs(&args.settings)?);
    let config = Config::new(given)?;
    let store = config.store_root.clone();
    let work = broker::process::start(config, shutdown.clone()).await?;
    // What the proxy still has to answer needs the broker: it is told to end first.
    let mut over = vec![("grpcServerPort".to_owned(), args.proxy_port.to_string())];
    if args.proxy_port == 0 {
        // Whoever takes any port does not want the well-known one beside it.
        over.push(("remotingListenPort".to_owned(), "0".to_owned()));
    }
    let door = proxy_config(args.proxy_config.as_deref(), over)?;
    let door = proxy::process::start_local(door, &work, shutdown)?;
    greet(map.address, work.address, &door.addresses, &store, started.elapsed());
    door.finished().await;
    work.finished().await?;
    map.stopped().await
}

/// What a newcomer wants to know: where everything is, and what to type next.
#[expect(clippy::print_stdout, reason = "this is what the command says")]
fn greet(map: SocketAddr, work: SocketAddr, door: &[SocketAddr], store: &Path, took: Duration) {
    println!("ferromq is ready after {} ms", took.as_millis());
    println!("  nameserver  {map}");
    println!("  broker      {work}");
    for door in door {
        println!("  proxy       {door} (gRPC and remoting)");
    }
    println!("  store       {}", store.display());
    println!("Try:");
    println!("  ferromq bench send --namesrv {map} --topic demo --count 100000");
    println!("  mqadmin clusterList -n {map}");
    println!("  mqadmin topicStatus -n {map} -t demo");
}

/// A nameserver.
pub(crate) async fn nameserver(args: Role) -> Result<()> {
    let shutdown = process::shutdown_on_signal()?;
    let home = args.data;
    let mut pairs: BTreeMap<String, String> =
        file_pairs(args.config.as_deref())?.into_iter().collect();
    pairs.extend(flag_pairs(&args.settings)?);
    let text =
        protocol::java_properties::write(pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())));
    let (config, without_effect) = nameserver::config::Config::read(&text, &home)?;
    if !without_effect.is_empty() {
        warn!(keys = without_effect.join(" "), "keys that only tune a JVM have no effect");
    }
    let listen = config.listen;
    nameserver::start(config, listen, shutdown).await?.stopped().await
}

/// A broker.
pub(crate) async fn broker(args: BrokerRole) -> Result<()> {
    let shutdown = process::shutdown_on_signal()?;
    let mut given = file_pairs(args.config.as_deref())?;
    if let Some(namesrv) = args.namesrv {
        given.push(("namesrvAddr".to_owned(), namesrv));
    }
    given.extend(flag_pairs(&args.settings)?);
    let config = Config::new(given)?;
    let store = config.store_root.clone();
    let running = broker::process::start(config, shutdown).await?;
    info!(address = %running.address, store = %store.display(), "broker ready");
    running.finished().await
}

/// A proxy.
pub(crate) async fn proxy(args: ProxyRole) -> Result<()> {
    let shutdown = process::shutdown_on_signal()?;
    let mut over = flag_pairs(&args.settings)?;
    if let Some(namesrv) = args.namesrv {
        over.push(("namesrvAddr".to_owned(), namesrv));
    }
    if let Some(port) = args.port {
        over.push(("grpcServerPort".to_owned(), port.to_string()));
    }
    let config = proxy_config(args.config.as_deref(), over)?;
    let running = proxy::process::start(config, shutdown).await?;
    for address in &running.addresses {
        info!(%address, "proxy ready");
    }
    running.finished().await;
    Ok(())
}

/// What an rmq-proxy.json says, with some pairs over it.
fn proxy_config(path: Option<&Path>, over: Vec<(String, String)>) -> Result<proxy::config::Config> {
    let text = match path {
        Some(path) => std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?,
        None => String::new(),
    };
    let (config, without_effect) = proxy::config::Config::read(&text, over)?;
    if !without_effect.is_empty() {
        warn!(keys = without_effect.join(" "), "keys of the stock proxy that have no effect here");
    }
    Ok(config)
}

/// The pairs of a properties file.
fn file_pairs(path: Option<&Path>) -> Result<Vec<(String, String)>> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let pairs = protocol::java_properties::read(&text);
    Ok(pairs.into_iter().collect())
}

pub(crate) fn flag_pairs(settings: &[String]) -> Result<Vec<(String, String)>> {
    let pair = |text: &String| match text.split_once('=') {
        Some((key, value)) => Ok((key.trim().to_owned(), value.to_owned())),
        None => bail!("`{text}` is not KEY=VALUE"),
    };
    settings.iter().map(pair).collect()
}
