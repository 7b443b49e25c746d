//! Starting the roles: configuration from files and flags, then the process until it is told to stop.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use broker::config::Config;
use remoting::process;
use tracing::info;

use crate::{BrokerRole, Role, Standalone};

/// Runs a role on a runtime of its own, with the log on standard error.
pub fn run(role: impl Future<Output = Result<()>>) -> Result<()> {
    let level = std::env::var("FERROMQ_LOG").unwrap_or_else(|_| "info".to_owned());
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(level))
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(role)
}

/// Everything there is, in one process.
pub async fn standalone(args: Standalone) -> Result<()> {
    let shutdown = process::shutdown_on_signal()?;
    let mut given = file_pairs(args.config.as_deref())?;
    given.push(("storePathRootDir".to_owned(), args.data.display().to_string()));
    given.push(("namesrvAddr".to_owned(), format!("127.0.0.1:{}", args.nameserver_port)));
    if let Some(port) = args.broker_port {
        given.push(("listenPort".to_owned(), port.to_string()));
    }
    given.extend(flag_pairs(&args.settings)?);
    let running = broker::process::start(Config::new(given)?, shutdown).await?;
    info!(address = %running.address, store = %args.data.display(), "broker ready");
    running.finished().await
}

/// A nameserver.
pub async fn nameserver(_args: Role) -> Result<()> {
    bail!("later")
}

/// A broker.
pub async fn broker(args: BrokerRole) -> Result<()> {
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

/// The pairs of a properties file.
fn file_pairs(path: Option<&Path>) -> Result<Vec<(String, String)>> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let pairs = protocol::java_properties::read(&text);
    Ok(pairs.into_iter().collect())
}

fn flag_pairs(settings: &[String]) -> Result<Vec<(String, String)>> {
    let pair = |text: &String| match text.split_once('=') {
        Some((key, value)) => Ok((key.trim().to_owned(), value.to_owned())),
        None => bail!("`{text}` is not KEY=VALUE"),
    };
    settings.iter().map(pair).collect()
}
