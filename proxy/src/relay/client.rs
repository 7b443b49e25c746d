//! One remoting client: its connections to brokers, and what brokers have to know of it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use protocol::body::HeartbeatData;
use protocol::frame::Command;
use protocol::header::Empty;
use protocol::json;
use protocol::reply::{Refusal, ReplyCode};
use protocol::request::{RequestCode, Server};
use remoting::connection;
use remoting::outbox::{Chunk, Outbox, ReplyTo};
use remoting::peer::{CallError, Peer};
use remoting::process::Shutdown;
use remoting::server;
use tokio::net::lookup_host;
use tokio::sync::OnceCell;
use tracing::debug;

use super::{Door, Outcome, route, target};
use crate::backend::Failed;

/// How long a broker may take for what does not wait for messages, and how much longer for what does.
const ANSWER_MAX: Duration = Duration::from_secs(10);
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// Brokers one client may be connected to.
const LINKS_MAX: usize = 1024;

/// Connections by broker; each is made by whoever needs it first, the others wait for that.
type Links = HashMap<String, Arc<OnceCell<Arc<Peer>>>>;

/// A client that is connected here.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) door: Arc<Door>,
    pub(super) peer: Arc<Peer>,
    links: Mutex<Links>,
    heard: Mutex<Heard>,
    ended: Shutdown,
}

/// What the client said of itself last.
#[derive(Debug, Default)]
struct Heard {
    heartbeat: Option<Command<'static>>,
    /// The topics of each consumer group.
    topics: HashMap<String, BTreeSet<String>>,
}

impl Client {
    pub(super) fn new(door: Arc<Door>, peer: Arc<Peer>) -> Arc<Self> {
        let ended = door.calls.child_token();
        let (links, heard) = (Mutex::default(), Mutex::default());
        Arc::new(Self { door, peer, links, heard, ended })
    }

    /// The client is gone: so it is for the brokers.
    pub(super) fn end(&self) {
        self.ended.cancel();
    }

    pub(super) async fn serve(&self, request: Command<'static>) -> Outcome {
        use RequestCode as Code;
        let Some(code) = Code::from_wire(request.code) else {
            return Err(Refusal::unsupported(request.code));
        };
        match code {
            Code::GetRouteInfo => route::answer(self, request).await,
            Code::Heartbeat => self.heartbeat(request).await,
            Code::UnregisterClient => self.unregister(request).await,
            // A filter is as good for one broker as for another; before any is known, there is no harm in it.
            Code::CheckClientConfig => match self.linked().pop_first() {
                Some(broker) => self.ask(&broker, request, ANSWER_MAX).await.map_err(gone),
                None => Ok(Command::reply(&Empty {})),
            },
            code if code.server() == Server::NameServer => {
                let reply = self.door.front.backend.nameserver(request).await;
                reply.map_err(failed)
            }
            code => {
                let broker = target::broker(self, code, &request).await?;
                let timeout = ANSWER_MAX + target::waits(code, &request);
                self.ask(&broker, request, timeout).await.map_err(gone)
            }
        }
    }

    /// Everything that brokers do for a client depends on this: it goes to all that have its topics.
    async fn heartbeat(&self, request: Command<'static>) -> Outcome {
        let data: HeartbeatData = json::read(&request.body).map_err(|error| {
            let remark = format!("the body of the heartbeat is malformed: {error}");
            Refusal::new(ReplyCode::SystemError, remark)
        })?;
        let mut brokers = self.linked();
        let mut wanted = BTreeSet::new();
        {
            let mut heard = self.heard.lock();
            for group in data.consumer_data_set {
                let topics = group.subscription_data_set.into_iter().map(|it| it.topic);
                let known = heard.topics.entry(group.group_name).or_default();
                if !data.without_sub {
                    *known = topics.collect();
                }
                wanted.extend(known.iter().cloned());
            }
            heard.heartbeat = Some(request.clone());
        }
        for topic in wanted {
            brokers.extend(target::holders(self, &topic).await);
        }
        let told = brokers.iter().map(|broker| self.ask(broker, request.clone(), ANSWER_MAX));
        first_success(join_all(told).await)
    }

    async fn unregister(&self, request: Command<'static>) -> Outcome {
        let linked = self.linked();
        let told = linked.iter().map(|broker| self.ask(broker, request.clone(), ANSWER_MAX));
        first_success(join_all(told).await)
    }

    /// The topics of a consumer group of this client.
    pub(super) fn topics_of(&self, group: &str) -> BTreeSet<String> {
        self.heard.lock().topics.get(group).cloned().unwrap_or_default()
    }

    fn linked(&self) -> BTreeSet<String> {
        self.links.lock().keys().cloned().collect()
    }

    /// Passes a request on to a broker.
    async fn ask(
        &self,
        broker: &str,
        request: Command<'static>,
        timeout: Duration,
    ) -> Result<Command<'static>, CallError> {
        let link = self.link(broker).await?;
        if request.is_oneway() {
            link.tell(request, timeout).await?;
            return Ok(Command::reply(&Empty {}));
        }
        link.call(request, timeout).await
    }

    /// The connection to a broker, made now if there is none.
    async fn link(&self, broker: &str) -> Result<Arc<Peer>, CallError> {
        let cell = {
            let mut links = self.links.lock();
            links.retain(|_, link| link.get().is_none_or(|link| !link.is_closed()));
            if links.len() >= LINKS_MAX && !links.contains_key(broker) {
                let reason = format!("a client may use {LINKS_MAX} brokers");
                return Err(CallError::Connect { address: broker.to_owned(), reason });
            }
            links.entry(broker.to_owned()).or_default().clone()
        };
        let link = cell.get_or_try_init(|| self.connect(broker)).await.cloned();
        if link.is_err() {
            // It may never come back, and need not be told of heartbeats then.
            self.links.lock().retain(|_, link| link.initialized() || !Arc::ptr_eq(link, &cell));
        }
        link
    }

    async fn connect(&self, broker: &str) -> Result<Arc<Peer>, CallError> {
        let failed = |reason: String| CallError::Connect { address: broker.to_owned(), reason };
        let connecting = async {
            let address = self.door.front.backend.address(broker).await;
            let address = address.map_err(|error| failed(error.to_string()))?;
            let mut resolved = lookup_host(&address).await.map_err(|e| failed(e.to_string()))?;
            let resolved =
                resolved.next().ok_or_else(|| failed(format!("{address} is nowhere")))?;
            let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
            let session = Asking(self.peer.clone());
            let link = server::connect_for(
                self.peer.remote,
                host,
                resolved,
                self.door.tls.as_ref(),
                session,
                self.ended.clone(),
            );
            let link = link.await;
            link.map_err(|error| {
                self.door.front.backend.moved();
                failed(error.to_string())
            })
        };
        let link = tokio::time::timeout(CONNECT_MAX, connecting);
        let link =
            link.await.map_err(|_| failed(format!("no connection within {CONNECT_MAX:?}")))??;
        // The broker knows the client before it is asked for anything.
        let heartbeat = self.heard.lock().heartbeat.clone();
        if let Some(heartbeat) = heartbeat
            && let Err(error) = link.call(heartbeat, ANSWER_MAX).await
        {
            debug!(broker, %error, "a broker did not take a heartbeat");
        }
        Ok(link)
    }
}

/// Success if any broker says so; nobody to ask is as good.
fn first_success(replies: Vec<Result<Command<'static>, CallError>>) -> Outcome {
    let success = ReplyCode::Success.to_wire();
    let mut failure = None;
    for reply in replies {
        match reply {
            // What else a broker says of itself, it does not say of the others.
            Ok(reply) if reply.code == success => return Ok(Command::reply(&Empty {})),
            Ok(reply) => failure = Some(Ok(reply)),
            Err(error) => failure = Some(Err(gone(error))),
        }
    }
    failure.unwrap_or_else(|| Ok(Command::reply(&Empty {})))
}

pub(super) fn gone(error: CallError) -> Refusal {
    Refusal::new(ReplyCode::ServiceNotAvailable, error.to_string())
}

pub(super) fn failed(failure: Failed) -> Refusal {
    match failure {
        Failed::Refused { code, remark } => {
            let code = ReplyCode::from_wire(code).unwrap_or(ReplyCode::SystemError);
            Refusal::new(code, remark)
        }
        other => Refusal::new(ReplyCode::ServiceNotAvailable, other.to_string()),
    }
}

/// What a broker asks of the client.
#[derive(Debug)]
struct Asking(Arc<Peer>);

impl connection::Session for Asking {
    fn request(&mut self, request: Command<'_>, out: &mut Outbox) {
        let to = ReplyTo::new(&request);
        let (client, request) = (self.0.clone(), request.into_owned());
        if to.oneway {
            if let Err(error) = client.push(request) {
                debug!(%error, "a client does not take what a broker sends");
            }
            return;
        }
        out.later(async move {
            let mut chunk = Chunk::default();
            match client.call(request, ANSWER_MAX).await {
                Ok(reply) => chunk.answer(to, reply),
                Err(error) => chunk.refuse(to, &gone(error)),
            }
            chunk
        });
    }

    fn flush(&mut self, _: &mut Outbox) {}

    fn closed(&mut self) {}
}
