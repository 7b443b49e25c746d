//! The start and the end of a broker: open the store, listen, work; drain, flush, leave.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use remoting::clock;
use remoting::pool::Pool;
use remoting::process::{DropGuard, Shutdown};
use remoting::server::Server;
use remoting::tls::{self, Acceptor, Connector};
use remoting::workers::Workers;
use store::{Flush, Retention, Store};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::broker::Broker;
use crate::config::Config;
use crate::config_files::Writer;
use crate::{delay, offsets, registration, transaction};

/// How often clients that went silent are looked for.
const EXPIRY_PERIOD: Duration = Duration::from_secs(10);
/// How often counters are sampled.
const SAMPLE_PERIOD: Duration = Duration::from_secs(10);
/// How often the tables are compared with their files, and loose commits enter the log.
const FILES_PERIOD: Duration = Duration::from_secs(1);

/// A record of the broker's own may have this many bytes, however small messages have to be.
const OWN_RECORD_BYTES_MAX: usize = 4 << 20;
/// How often what was popped is looked at.
const POPS_PERIOD: Duration = Duration::from_millis(50);

/// A broker that serves.
#[derive(Debug)]
pub struct Running {
    pub broker: Arc<Broker>,
    pub address: SocketAddr,
    /// The threads connections are served on, for others of this process, too.
    pub workers: Arc<Workers>,
    serving: JoinSet<()>,
    /// Ends our own connections, after everything that may use them.
    calls: DropGuard,
    files: tokio::task::JoinHandle<()>,
}

/// Opens the store and listens; when this returns, the broker serves.
pub async fn start(config: Config, shutdown: Shutdown) -> anyhow::Result<Running> {
    let path = config.changes_path();
    let mut config = config
        .with_kept_changes()
        .with_context(|| format!("cannot use what {} says", path.display()))?;
    if !config.changed.is_empty() {
        info!(
            changed = ?config.changed,
            path = %path.display(),
            "settings that were changed while running hold over the configuration file"
        );
    }
    let (tuning, unserved) = config.without_effect();
    if !tuning.is_empty() {
        warn!(keys = tuning.join(" "), "keys that only tune a JVM have no effect");
    }
    if !unserved.is_empty() {
        warn!(keys = unserved.join(" "), "keys of what is not served yet have no effect");
    }
    let tls = Acceptor::new(config.tls.clone(), &[])?;
    let server = Server::bind(SocketAddr::new(config.bind_ip, config.port))?.with_tls(tls.clone());
    config.port = server.address.port();
    config.values.insert("listenPort".to_owned(), config.port.to_string());
    let store_host = SocketAddr::new(config.advertised_ip, config.port);
    warn_of_address(config.advertised_ip, config.bind_ip);
    let settings = store_settings(&config);
    let store = tokio::task::spawn_blocking(move || Store::open(settings)).await??;
    let calls = Shutdown::new();
    let pool = Pool::new(calls.clone()).with_tls(Connector::new(&config.tls)?);
    let opened = store.clone();
    let root = config.store_root.clone();
    let (for_broker, port) = (shutdown.clone(), config.port);
    let fast = port.checked_sub(2).map(|port| SocketAddr::new(config.bind_ip, port));
    let broker = tokio::task::spawn_blocking(move || {
        Broker::load(config, opened, pool, store_host, for_broker)
    })
    .await?
    .context("cannot read the broker's state")?;
    let mut serving = JoinSet::new();
    let address = server.address;
    let workers = Arc::new(Workers::start().context("cannot start threads")?);
    serving.spawn(serve(server, &workers, &broker, &shutdown));
    // Old clients send through the port two below; not being able to listen there harms nobody else.
    match fast.map(Server::bind) {
        Some(Ok(server)) => {
            serving.spawn(serve(server.with_tls(tls.clone()), &workers, &broker, &shutdown));
        }
        Some(Err(error)) => info!(%error, "the fast port of old clients is not served"),
        None => {}
    }
    serving.spawn(tls.watch(tls::WATCH_PERIOD, shutdown));
    serving.spawn(registration::run(broker.clone()));
    serving.spawn(delay::run(broker.clone()));
    serving.spawn(transaction::check::run(broker.clone()));
    serving.spawn(expire_clients(broker.clone()));
    serving.spawn(write_pops(broker.clone()));
    let files = tokio::spawn(write_files(broker.clone(), root));
    Ok(Running { broker, address, workers, serving, calls: calls.drop_guard(), files })
}

fn serve(
    server: Server,
    workers: &Arc<Workers>,
    broker: &Arc<Broker>,
    shutdown: &Shutdown,
) -> impl Future<Output = ()> + Send + use<> {
    let (workers, broker, shutdown) = (workers.clone(), broker.clone(), shutdown.clone());
    async move { server.serve_on(&workers, broker, shutdown).await }
}

impl Running {
    /// Waits for the shutdown, drains, and leaves the store as a clean start wants it.
    pub async fn finished(mut self) -> anyhow::Result<()> {
        self.broker.shutdown.cancelled().await;
        self.broker.waiting.wake_all();
        self.broker.pops.wake_all();
        while self.serving.join_next().await.is_some() {}
        drop(self.calls);
        self.files.await?;
        let broker = self.broker.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = broker.pops.write(&broker.store, clock::now_ms(), true) {
                warn!(%error, "what was popped last is not in the log; the next start finds it beside it");
            }
            broker.store.close()
        })
        .await??;
        info!("the store is closed");
        Ok(())
    }
}

/// How the store of a broker with this configuration is opened.
pub fn store_settings(config: &Config) -> store::Config {
    let clock = store::Clock::new(clock::now_ms, || {
        static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        START.get_or_init(clock::instant).elapsed().as_nanos() as u64
    });
    let mut settings = store::Config::new(&config.store_root, clock);
    if let Some(commit_log) = &config.commit_log {
        settings.commit_log = PathBuf::from(commit_log);
    }
    settings.segment_bytes = config.segment_bytes;
    settings.flush = if config.sync_flush {
        Flush::Sync
    } else {
        let Flush::Async { bytes, .. } = Flush::ASYNC else { unreachable!("it is asynchronous") };
        Flush::Async { interval: config.flush_interval, bytes }
    };
    // What a client may send is checked before; what a broker has to remember is not less for that.
    let message_bytes_max = config.message_bytes_max.max(OWN_RECORD_BYTES_MAX);
    settings.message_bytes_max = message_bytes_max + 64 * 1024;
    settings.group_bytes_max = settings.group_bytes_max.max(settings.message_bytes_max * 2);
    settings.delay_levels_ms.clone_from(&config.delay_levels_ms);
    settings.check_bodies = config.check_crc_on_recover;
    settings.retention = retention(config);
    settings
}

/// How long messages are kept, by the configuration.
pub fn retention(config: &Config) -> Retention {
    let [clean_ratio, force, full_ratio] =
        config.disk_ratios.map(|percent| f64::from(percent) / 100.0);
    let hours = config.delete_when.split(';').filter_map(|hour| hour.trim().parse().ok());
    Retention {
        reserved_ms: (config.reserved_hours * 3_600_000).cast_signed(),
        hours: hours.filter(|hour| *hour < 24).collect(),
        clean_ratio,
        force_ratio: if config.force_cleaning { force } else { 1.0 },
        full_ratio,
        ..Retention::default()
    }
}

/// An address that only this machine can reach, told to clients of a server that listens to others.
fn warn_of_address(advertised: IpAddr, bound: IpAddr) {
    if advertised.is_loopback() && !bound.is_loopback() {
        warn!(
            %advertised,
            %bound,
            "clients on other machines are told an address they cannot reach; set brokerIP1"
        );
    }
}

/// Brings what was popped and settled into the log.
async fn write_pops(broker: Arc<Broker>) {
    let mut period = tokio::time::interval(POPS_PERIOD);
    loop {
        tokio::select! {
            _ = period.tick() => {}
            () = broker.shutdown.cancelled() => return,
        }
        let for_step = broker.clone();
        let step = tokio::task::spawn_blocking(move || {
            for_step.pops.write(&for_step.store, clock::now_ms(), false)
        });
        match step.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "cannot write what was popped"),
            Err(defect) => error!(%defect, "writing what was popped met a defect"),
        }
    }
}

async fn expire_clients(broker: Arc<Broker>) {
    let mut period = tokio::time::interval(EXPIRY_PERIOD);
    loop {
        tokio::select! {
            _ = period.tick() => {}
            () = broker.shutdown.cancelled() => return,
        }
        let expiry_ms = broker.config.load().channel_expiry_ms;
        let changes = broker.clients.expire(clock::now_ms(), expiry_ms);
        broker.notify_changed(changes);
        broker.locks.expire(clock::now_ms());
        debug_assert!(SAMPLE_PERIOD == EXPIRY_PERIOD, "one tick serves both");
        broker.stats.sample(clock::now_ms());
    }
}

/// Keeps the files of the state up to date, and once more at the end.
async fn write_files(broker: Arc<Broker>, root: PathBuf) {
    let mut writer = Writer::default();
    let mut period = tokio::time::interval(FILES_PERIOD);
    let mut offsets_due = 0u32;
    loop {
        let last = tokio::select! {
            _ = period.tick() => false,
            () = broker.shutdown.cancelled() => true,
        };
        let utc_offset_ms = broker.store.retention().utc_offset_ms;
        broker.stats.flow.sample(clock::now_ms(), utc_offset_ms);
        let offsets_every = broker.config.load().flush_offsets_interval.as_secs().max(1);
        offsets_due += 1;
        let with_offsets = last || u64::from(offsets_due) >= offsets_every;
        if with_offsets {
            offsets_due = 0;
        }
        let (for_step, for_root) = (broker.clone(), root.clone());
        let step = tokio::task::spawn_blocking(move || {
            if let Err(error) = write_once(&for_step, &for_root, &mut writer, with_offsets) {
                warn!(%error, "cannot write the files of the state; the log has it all");
            }
            writer
        });
        match step.await {
            Ok(again) => writer = again,
            Err(defect) => {
                error!(%defect, "writing the files of the state met a defect");
                writer = Writer::default();
            }
        }
        if last {
            return;
        }
    }
}

fn write_once(
    broker: &Broker,
    root: &std::path::Path,
    writer: &mut Writer,
    with_offsets: bool,
) -> anyhow::Result<()> {
    // What the log does not take now may still find its way into a file.
    let pending = offsets::requests::write_pending(broker);
    // The files first: what a snapshot leaves out must not come back from an older file.
    writer.write_tables(broker, root)?;
    let now_ms = clock::now_ms();
    let snapshot = if broker.journal.wants_snapshot(&broker.store, now_ms) {
        broker.journal.snapshot(&broker.store, now_ms, || broker.state())
    } else {
        Ok(())
    };
    if with_offsets {
        writer.write_offsets(broker, root, clock::now_ms())?;
    }
    pending?;
    Ok(snapshot?)
}
