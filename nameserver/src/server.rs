//! A running nameserver: its state, its start and its end.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use remoting::clock;
use remoting::process::Shutdown;
use remoting::server::Server;
use remoting::tls::{self, Acceptor, Connector};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::config::{Config, NotChanged};
use crate::durable;
use crate::kv;
use crate::notify::{self, Notifier};
use crate::routes::{Departure, Leaving, Notice, Registered, Registration, Rejected, Table};

#[derive(Debug)]
pub(crate) struct NameServer {
    pub(crate) routes: RwLock<Table>,
    pub(crate) kv: kv::Store,
    pub(crate) config: ArcSwap<Config>,
    /// Held while the configuration is changed and kept.
    changing: Mutex<()>,
    notifier: Notifier,
    pub(crate) started_ms: i64,
}

/// A nameserver that listens.
#[derive(Debug)]
pub struct Running {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

/// Starts a nameserver on `listen`; port 0 takes a free one. It ends with `shutdown`.
pub async fn start(
    config: Config,
    listen: SocketAddr,
    shutdown: Shutdown,
) -> anyhow::Result<Running> {
    let path = config.kv_config_path.clone();
    let kv = tokio::task::spawn_blocking(|| kv::Store::open(path)).await??;
    let tls = Acceptor::new(config.tls.clone(), &[])?;
    let connector = Connector::new(&config.tls)?;
    let server = Server::bind(listen).context("the nameserver cannot start")?.with_tls(tls.clone());
    let address = server.address;
    let (notifier, notifying) = notify::notifier(connector, shutdown.clone());
    let nameserver = Arc::new(NameServer {
        routes: RwLock::default(),
        kv,
        config: ArcSwap::from_pointee(config.listening_on(address)),
        changing: Mutex::new(()),
        notifier,
        started_ms: clock::now_ms(),
    });
    let scanning = scan(nameserver.clone(), shutdown.clone());
    let watching = tls.watch(tls::WATCH_PERIOD, shutdown.clone());
    let serving = server.serve(nameserver, shutdown);
    let task = tokio::spawn(async move {
        tokio::join!(serving, scanning, notifying, watching);
    });
    info!(%address, "the nameserver is ready");
    Ok(Running { address, task })
}

impl Running {
    /// Waits until it has answered what was in flight and is gone.
    pub async fn stopped(self) -> anyhow::Result<()> {
        self.task.await.context("the nameserver ended in a panic")
    }
}

async fn scan(nameserver: Arc<NameServer>, shutdown: Shutdown) {
    loop {
        let pause = Duration::from_millis(nameserver.config.load().scan_interval_ms);
        if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
        let departures = nameserver.routes.write().expire(clock::now_ms());
        nameserver.lost(departures, "it was silent for too long");
    }
}

impl NameServer {
    pub(crate) fn register(
        &self,
        registration: &Registration,
        now_ms: i64,
    ) -> Result<Registered, Rejected> {
        let delete_missing = self.config.load().delete_topic_with_broker_registration;
        let mut registered = self.routes.write().register(registration, delete_missing, now_ms)?;
        self.notify(registered.notice.take());
        Ok(registered)
    }

    pub(crate) fn unregister(&self, broker: Leaving) {
        let departures = self.routes.write().leave([broker]);
        for Departure { broker, notice } in departures {
            info!(name = broker.name, address = broker.address, "a broker has unregistered");
            self.notify(notice);
        }
    }

    pub(crate) fn connection_closed(&self, connection: u64) {
        let departures = self.routes.write().connection_closed(connection);
        self.lost(departures, "its connection closed");
    }

    /// Changes the configuration; the inner result is whether the change will survive a restart.
    pub(crate) fn reconfigure(
        &self,
        changes: &BTreeMap<String, String>,
    ) -> Result<io::Result<()>, NotChanged> {
        let _changing = self.changing.lock();
        let config = Arc::new(self.config.load().changed(changes)?);
        self.config.store(config.clone());
        info!(keys = ?changes.keys().collect::<Vec<_>>(), "the configuration is changed");
        Ok(durable::replace(&config.config_store_path, config.text().as_bytes()))
    }

    fn lost(&self, departures: Vec<Departure>, why: &str) {
        for Departure { broker, notice } in departures {
            warn!(name = broker.name, address = broker.address, why, "a broker is lost");
            self.notify(notice);
        }
    }

    fn notify(&self, notice: Option<Notice>) {
        if let Some(notice) = notice.filter(|_| self.config.load().notify_min_broker_id_changed) {
            self.notifier.leave(notice);
        }
    }
}
