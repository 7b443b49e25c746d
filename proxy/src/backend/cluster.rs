//! Brokers behind sockets, found through nameservers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::ThreadId;
use std::time::Duration;

use parking_lot::Mutex;
use protocol::body::{ClusterInfo, SubscriptionGroupConfig, TopicConfig, TopicRouteData};
use protocol::frame::Command;
use protocol::header::group::GetSubscriptionGroupConfig;
use protocol::header::pop::{AckMessage, PopMessage};
use protocol::header::pull::PullMessage;
use protocol::header::route::GetRouteInfo;
use protocol::header::topic::GetTopicConfig;
use protocol::json;
use protocol::reply::ReplyCode;
use protocol::request::{Request, RequestCode};
use remoting::outbox::Outbox;
use remoting::pool::{Pool, read_reply, successful};
use remoting::process::Shutdown;
use remoting::tls::Connector;

use super::cache::{Cache, Rules};
use super::commands::{ack, batch_ack, popped, pulled, sending, stored};
use super::route::Route;
use super::waiting::Waiting;
use super::{ANSWER_TIMEOUT, Failed, Outgoing, Pop, Pulled, Stored, refused};
use crate::handle::Handle;

/// Brokers and the way to them.
#[derive(Debug)]
pub struct Cluster {
    nameservers: Vec<String>,
    /// The nameserver that answered last.
    answered: AtomicUsize,
    /// For what is asked seldom, and for what brokers ask.
    pool: Pool,
    /// For what is asked for every message: to wake another thread for it would cost more than to ask.
    links: Mutex<HashMap<ThreadId, Arc<Link>>>,
    tls: Option<Connector>,
    shutdown: Shutdown,
    routes: Cache<Route>,
    topics: Cache<TopicConfig>,
    groups: Cache<SubscriptionGroupConfig>,
    clusters: Cache<ClusterInfo>,
}

/// Connections to brokers that one thread uses and serves.
#[derive(Debug)]
struct Link {
    pool: Pool,
    waiting: Waiting,
}

const RULES: Rules = Rules {
    refresh: Duration::from_secs(20),
    expire: Duration::from_secs(300),
    entries_max: 20_000,
};

impl Cluster {
    /// Brokers that these nameservers know; `incoming` serves what brokers ask.
    pub fn new(
        nameservers: Vec<String>,
        shutdown: Shutdown,
        incoming: impl Fn(Command<'_>, &mut Outbox) + Send + Sync + 'static,
    ) -> Self {
        Self {
            nameservers,
            answered: AtomicUsize::new(0),
            pool: Pool::serving(shutdown.clone(), incoming),
            links: Mutex::default(),
            tls: None,
            shutdown,
            routes: Cache::new(RULES),
            topics: Cache::new(RULES),
            groups: Cache::new(RULES),
            clusters: Cache::new(Rules { entries_max: 1, ..RULES }),
        }
    }

    /// The same over encrypted connections, if there is something to encrypt them with.
    pub fn with_tls(self, tls: Option<Connector>) -> Self {
        Self { pool: self.pool.with_tls(tls.clone()), tls, ..self }
    }

    /// The connections of this thread.
    fn link(&self) -> Arc<Link> {
        let open = || {
            let pool = Pool::new(self.shutdown.clone()).with_tls(self.tls.clone());
            let waiting = Waiting::new(&self.shutdown).with_tls(self.tls.as_ref());
            Arc::new(Link { pool, waiting })
        };
        self.links.lock().entry(std::thread::current().id()).or_insert_with(open).clone()
    }

    pub(super) async fn route(&self, topic: &str) -> Result<Option<Arc<Route>>, Failed> {
        let route = self.routes.get(topic, || Box::pin(self.fetch_route(topic))).await?;
        Ok(route.filter(|route| !route.brokers.is_empty()))
    }

    async fn fetch_route(&self, topic: &str) -> Result<Option<Route>, Failed> {
        let request =
            GetRouteInfo { topic: topic.to_owned(), accept_standard_json_only: Some(true) };
        let command = Command::request(RequestCode::GetRouteInfo.to_wire(), &request);
        match self.nameserver(command).await {
            Ok(reply) => Ok(Some(Route::new(&read::<TopicRouteData>(&reply)?))),
            Err(error) if says(&error, ReplyCode::TopicNotExist) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn topic(&self, topic: &str) -> Result<Option<Arc<TopicConfig>>, Failed> {
        self.topics.get(topic, || Box::pin(self.fetch_topic(topic))).await
    }

    async fn fetch_topic(&self, topic: &str) -> Result<Option<TopicConfig>, Failed> {
        let Some(route) = self.route(topic).await? else { return Ok(None) };
        let mut failure = None;
        for holder in &route.brokers {
            let request = GetTopicConfig { topic: topic.to_owned() };
            match self.pool.ask(&holder.address, &request, Vec::new(), ANSWER_TIMEOUT).await {
                Ok((_, reply)) => return read(&reply).map(Some),
                Err(error) if says(&error, ReplyCode::TopicNotExist) => {}
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(None), Err)
    }

    pub(super) async fn group(&self, group: &str) -> Result<Arc<SubscriptionGroupConfig>, Failed> {
        let config = self.groups.get(group, || Box::pin(self.fetch_group(group))).await?;
        config.ok_or_else(|| {
            let remark = format!("no broker knows the group `{group}`");
            refused(ReplyCode::SubscriptionGroupNotExist, remark)
        })
    }

    async fn fetch_group(&self, group: &str) -> Result<Option<SubscriptionGroupConfig>, Failed> {
        let mut failure = None;
        for broker in self.brokers().await? {
            let request = GetSubscriptionGroupConfig { group: group.to_owned() };
            match self.ask(&broker, &request, Vec::new(), ANSWER_TIMEOUT).await {
                Ok((_, reply)) => return read(&reply).map(Some),
                Err(error) if says(&error, ReplyCode::SubscriptionGroupNotExist) => {}
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(None), Err)
    }

    async fn cluster(&self) -> Result<Arc<ClusterInfo>, Failed> {
        let fetch = async {
            let code = RequestCode::GetBrokerClusterInfo.to_wire();
            let reply = self.nameserver(Command::request(code, &protocol::header::Empty {})).await;
            read(&reply?).map(Some)
        };
        let cluster = self.clusters.get("", || Box::pin(fetch)).await?;
        cluster.ok_or_else(|| refused(ReplyCode::SystemError, "there is no cluster"))
    }

    pub(super) async fn brokers(&self) -> Result<Vec<String>, Failed> {
        let cluster = self.cluster().await?;
        let masters = cluster.broker_addr_table.values();
        let masters = masters.filter(|broker| broker.broker_addrs.contains_key(&0));
        Ok(masters.map(|broker| broker.broker_name.clone()).collect())
    }

    pub(super) async fn broker_at(&self, address: &str) -> Option<String> {
        let cluster = self.cluster().await.ok()?;
        let mut brokers = cluster.broker_addr_table.values();
        let found = brokers.find(|b| b.broker_addrs.values().any(|known| known == address));
        found.map(|broker| broker.broker_name.clone())
    }

    pub(super) fn moved(&self) {
        self.clusters.doubt("");
    }

    /// The address of a broker's master.
    pub(super) async fn address(&self, broker: &str) -> Result<String, Failed> {
        for again in [false, true] {
            let cluster = self.cluster().await?;
            let found = cluster.broker_addr_table.get(broker);
            let found = found.and_then(|broker| broker.broker_addrs.first_key_value());
            if let Some((_, address)) = found {
                return Ok(address.clone());
            }
            if !again {
                // It may have come just now.
                self.clusters.doubt("");
            }
        }
        Err(refused(ReplyCode::BrokerNotExist, format!("there is no broker `{broker}`")))
    }

    /// Asks the nameserver that answered last, then the others.
    pub(super) async fn nameserver(
        &self,
        command: Command<'static>,
    ) -> Result<Command<'static>, Failed> {
        let first = self.answered.load(Ordering::Relaxed);
        let mut failure = None;
        for step in 0..self.nameservers.len() {
            let at = (first + step) % self.nameservers.len();
            let reply =
                self.pool.call(&self.nameservers[at], command.clone(), ANSWER_TIMEOUT).await;
            match reply {
                Ok(reply) => {
                    self.answered.store(at, Ordering::Relaxed);
                    return successful(reply);
                }
                Err(error) => failure = Some(error.into()),
            }
        }
        Err(failure
            .unwrap_or_else(|| refused(ReplyCode::SystemError, "no nameserver is configured")))
    }

    pub(super) async fn send(
        &self,
        broker: &str,
        outgoing: Outgoing<'_>,
    ) -> Result<Vec<Stored>, Failed> {
        let address = self.address(broker).await?;
        let count = outgoing.messages.len();
        let link = self.link();
        let reply = link.pool.call(&address, sending(&outgoing)?, ANSWER_TIMEOUT).await?;
        stored(&reply, count)
    }

    pub(super) async fn pop(
        &self,
        broker: &str,
        request: &PopMessage,
        timeout: Duration,
    ) -> Result<Pop, Failed> {
        let address = self.address(broker).await?;
        let command = Command::request(PopMessage::CODE.to_wire(), request);
        match self.link().waiting.call(&address, command, timeout).await? {
            Some(reply) => popped(read_reply::<PopMessage>(reply)),
            None => Ok(Pop::Full),
        }
    }

    pub(super) async fn ack(
        &self,
        broker: &str,
        group: &str,
        topic: &str,
        handles: &[Handle<'_>],
    ) -> Vec<Result<(), Failed>> {
        let command = match handles {
            [one] => Command::request(AckMessage::CODE.to_wire(), &ack(group, topic, one)),
            _ => batch_ack(broker, group, topic, handles),
        };
        let settle = async {
            let address = self.address(broker).await?;
            successful(self.link().pool.call(&address, command, ANSWER_TIMEOUT).await?)?;
            Ok(())
        };
        let outcome = settle.await;
        // A broker gives one answer for all: it refuses only if nothing of it could be settled.
        vec![outcome; handles.len()]
    }

    pub(super) async fn pull(
        &self,
        broker: &str,
        request: &PullMessage,
        polling: Duration,
    ) -> Result<Pulled, Failed> {
        let address = self.address(broker).await?;
        let command = Command::request(RequestCode::PullMessage.to_wire(), request);
        let link = self.link();
        let reply = link.waiting.call(&address, command, polling + ANSWER_TIMEOUT).await?;
        let full =
            || refused(ReplyCode::SystemBusy, "too many consumers wait for messages already");
        pulled(reply.ok_or_else(full)?)
    }

    pub(super) async fn ask<R: Request>(
        &self,
        broker: &str,
        request: &R,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<(R::Reply, Command<'static>), Failed> {
        let address = self.address(broker).await?;
        self.pool.ask(&address, request, body, timeout).await
    }

    pub(super) async fn command(
        &self,
        broker: &str,
        command: Command<'static>,
        timeout: Duration,
    ) -> Result<Command<'static>, Failed> {
        let address = self.address(broker).await?;
        successful(self.pool.call(&address, command, timeout).await?)
    }
}

/// Whether whoever was asked refused with this code.
fn says(failed: &Failed, wanted: ReplyCode) -> bool {
    matches!(failed, Failed::Refused { code, .. } if *code == wanted.to_wire())
}

fn read<T: serde::de::DeserializeOwned>(reply: &Command<'_>) -> Result<T, Failed> {
    json::read(&reply.body).map_err(|error| Failed::Unreadable(error.to_string()))
}
