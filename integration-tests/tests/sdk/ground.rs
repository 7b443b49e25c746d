//! The servers the SDK is tested against: one of ours for all tests, or those that were named.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use anyhow::{Context, Result};
use client::Options;
use integration_tests::ask;
use integration_tests::wire::Wire;
use protocol::body::SubscriptionGroupConfig;
use protocol::json::{self, Dialect};
use protocol::request::RequestCode;

pub(crate) const PROXY: &str = "FERROMQ_SDK_PROXY";
pub(crate) const BROKER: &str = "FERROMQ_SDK_BROKER";

/// Servers that run while this value lives.
#[derive(Debug)]
pub(crate) struct Ground {
    proxy: String,
    broker: SocketAddr,
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
        let ground = Arc::new(Self::start()?);
        *shared = Arc::downgrade(&ground);
        Ok(ground)
    }

    fn start() -> Result<Self> {
        let proxy = std::env::var(PROXY).with_context(|| format!("{PROXY} is not set"))?;
        let broker = std::env::var(BROKER).with_context(|| format!("{BROKER} is not set"))?;
        Ok(Self { proxy, broker: broker.parse()? })
    }

    pub(crate) fn options(&self) -> Result<Options> {
        Ok(Options::new(&self.proxy)?.plaintext())
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
