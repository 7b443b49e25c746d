//! The servers the SDK is tested against: ours, started for the tests, or those that were named.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use anyhow::Result;
use client::Options;
use integration_tests::ask;
use integration_tests::cluster::{self, Process};
use integration_tests::wire::Wire;
use protocol::body::SubscriptionGroupConfig;
use protocol::json::{self, Dialect};
use protocol::request::RequestCode;
use tempfile::TempDir;

pub(crate) const PROXY: &str = "FERROMQ_SDK_PROXY";
pub(crate) const BROKER: &str = "FERROMQ_SDK_BROKER";

/// Servers that run while this value lives.
#[derive(Debug)]
pub(crate) struct Ground {
    /// What clients are given.
    pub(crate) endpoints: String,
    broker: SocketAddr,
    /// Killed in this order, before their store goes.
    pub(crate) proxies: Mutex<Vec<Process>>,
    _servers: Mutex<Vec<Process>>,
    _store: Option<TempDir>,
}

/// What a topic is made for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Normal,
    Fifo,
    Delay,
    Transaction,
}

impl Ground {
    /// The servers all tests of this process share.
    pub(crate) fn shared() -> Result<Arc<Self>> {
        static SHARED: Mutex<Weak<Ground>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ground) = shared.upgrade() {
            return Ok(ground);
        }
        let ground = Arc::new(match (std::env::var(PROXY), std::env::var(BROKER)) {
            (Ok(proxy), Ok(broker)) => Self::named(proxy, &broker)?,
            _ => Self::start(1)?,
        });
        *shared = Arc::downgrade(&ground);
        Ok(ground)
    }

    fn named(endpoints: String, broker: &str) -> Result<Self> {
        let broker = broker.parse()?;
        let (proxies, servers) = (Mutex::default(), Mutex::default());
        Ok(Self { endpoints, broker, proxies, _servers: servers, _store: None })
    }

    /// A nameserver, a broker and so many proxies of ours.
    pub(crate) fn start(proxies: usize) -> Result<Self> {
        let store = tempfile::tempdir()?;
        let (nameserver, namesrv) = cluster::nameserver(&store.path().join("nameserver"))?;
        // Orphaned transactions are asked about after a second.
        let settings = [("transactionTimeOut", "1000"), ("transactionCheckInterval", "1000")];
        let (process, broker) =
            cluster::broker(&store.path().join("broker"), &namesrv.to_string(), &settings)?;
        let mut addresses = Vec::new();
        let mut started = Vec::new();
        for _ in 0..proxies {
            let (process, address) = cluster::proxy(namesrv, &[])?;
            addresses.push(format!("127.0.0.1:{}", address.port()));
            started.push(process);
        }
        Ok(Self {
            endpoints: addresses.join(";"),
            broker,
            proxies: Mutex::new(started),
            _servers: Mutex::new(vec![process, nameserver]),
            _store: Some(store),
        })
    }

    pub(crate) fn options(&self) -> Result<Options> {
        Ok(Options::new(&self.endpoints)?.plaintext())
    }

    /// `kill -9` of one proxy.
    pub(crate) fn kill_proxy(&self, number: usize) {
        self.proxies.lock().unwrap_or_else(PoisonError::into_inner)[number].kill();
    }

    /// Makes a topic of a name of its own.
    pub(crate) fn topic(&self, name: &str, kind: Kind) -> Result<String> {
        let kind = match kind {
            Kind::Normal => "NORMAL",
            Kind::Fifo => "FIFO",
            Kind::Delay => "DELAY",
            Kind::Transaction => "TRANSACTION",
        };
        let name = unique(name);
        let mut topic = ask::topic(&name, 4);
        topic.attributes = Some(format!("+message.type={kind}"));
        Wire::connect(self.broker)?.ask(&topic)?;
        Ok(name)
    }

    /// Makes a group of a name of its own, whose messages are tried again so often.
    pub(crate) fn group(&self, name: &str, fifo: bool, retries: i32) -> Result<String> {
        let name = unique(name);
        let config = SubscriptionGroupConfig {
            group_name: name.clone(),
            consume_message_orderly: fifo,
            retry_max_times: retries,
            ..Default::default()
        };
        let body = json::write(&config, Dialect::Standard);
        let mut wire = Wire::connect(self.broker)?;
        wire.ask_plain(RequestCode::UpdateSubscriptionGroup, body)?;
        Ok(name)
    }
}

fn unique(name: &str) -> String {
    format!("sdk-{name}-{}", remoting::clock::now_ms())
}
