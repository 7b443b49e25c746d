//! Brokers that do what a test wants, and a nameserver that knows them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use protocol::body::{
    BrokerData, ClusterInfo, QueueData, SubscriptionGroupConfig, TopicConfig, TopicRouteData,
};
use protocol::frame::Command;
use protocol::header::Empty;
use protocol::json::{self, Dialect};
use protocol::reply::Refusal;
use protocol::request::RequestCode;
use proxy::config::Config;
use proxy::process::Running;
use remoting::connection::Session;
use remoting::outbox::{Outbox, ReplyTo};
use remoting::peer::Peer;
use remoting::process::{DropGuard, Shutdown};
use remoting::server::{Server, Service};

/// What a broker does with a request, which came from that peer.
type Serve = dyn Fn(u64, Command<'_>, &mut Outbox) + Send + Sync;

/// A process that serves; ended when dropped.
pub struct Fake {
    pub address: SocketAddr,
    _ended: DropGuard,
}

struct Serving(Box<Serve>);

struct Connected(Arc<Serving>, Arc<Peer>);

impl Service for Serving {
    type Session = Connected;

    fn open(self: &Arc<Self>, peer: &Arc<Peer>) -> Connected {
        Connected(self.clone(), peer.clone())
    }
}

impl Session for Connected {
    fn request(&mut self, request: Command<'_>, out: &mut Outbox) {
        (self.0.0)(self.1.id, request, out);
    }
    fn flush(&mut self, _: &mut Outbox) {}
    fn closed(&mut self) {}
}

impl Fake {
    pub fn serving(serve: impl Fn(u64, Command<'_>, &mut Outbox) + Send + Sync + 'static) -> Self {
        let server = Server::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let (address, shutdown) = (server.address, Shutdown::new());
        tokio::spawn(server.serve(Arc::new(Serving(Box::new(serve))), shutdown.clone()));
        Self { address, _ended: shutdown.drop_guard() }
    }

    /// A nameserver of these brokers, each with two queues of every topic.
    pub fn map(brokers: &[(&str, SocketAddr)]) -> Self {
        let brokers: BTreeMap<String, BrokerData> = brokers
            .iter()
            .map(|(name, address)| {
                let broker_addrs = [(0, address.to_string())].into();
                let broker_name = (*name).to_owned();
                (
                    broker_name.clone(),
                    BrokerData { broker_addrs, broker_name, ..Default::default() },
                )
            })
            .collect();
        Self::serving(move |_, request, out| {
            let body = if request.code == RequestCode::GetRouteInfo.to_wire() {
                let queues = |broker: &BrokerData| QueueData {
                    broker_name: broker.broker_name.clone(),
                    perm: 6,
                    read_queue_nums: 2,
                    write_queue_nums: 2,
                    topic_sys_flag: 0,
                };
                let route = TopicRouteData {
                    queue_datas: brokers.values().map(queues).collect(),
                    broker_datas: brokers.values().cloned().collect(),
                    ..TopicRouteData::default()
                };
                json::write(&route, Dialect::Standard)
            } else {
                let broker_addr_table = brokers.clone();
                let info = ClusterInfo { broker_addr_table, ..ClusterInfo::default() };
                json::write(&info, Dialect::Standard)
            };
            out.now.reply(ReplyTo::new(&request), &Empty {}, &[Bytes::from(body)]);
        })
    }

    /// A broker that knows every topic and every group, and does the rest as it is told.
    pub fn broker(serve: impl Fn(u64, Command<'_>, &mut Outbox) + Send + Sync + 'static) -> Self {
        Self::serving(move |peer, request, out| {
            let to = ReplyTo::new(&request);
            let body = match RequestCode::from_wire(request.code) {
                Some(RequestCode::GetTopicConfig) => {
                    json::write(&TopicConfig::default(), Dialect::Standard)
                }
                Some(RequestCode::GetSubscriptionGroupConfig) => {
                    json::write(&SubscriptionGroupConfig::default(), Dialect::Standard)
                }
                _ => return serve(peer, request, out),
            };
            out.now.reply(to, &Empty {}, &[Bytes::from(body)]);
        })
    }
}

/// What nobody asked a fake to do.
pub fn refuse(request: &Command<'_>, out: &mut Outbox) {
    out.now.refuse(ReplyTo::new(request), &Refusal::unsupported(request.code));
}

/// A proxy before a fake nameserver.
pub async fn proxy(map: &Fake, config: Config) -> (Running, Shutdown) {
    let shutdown = Shutdown::new();
    let nameservers = vec![map.address.to_string()];
    let config = Config { listeners: vec![super::any()], nameservers, ..config };
    (proxy::process::start(config, shutdown.clone()).await.unwrap(), shutdown)
}

/// Which codes came from which peers.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<(i32, u64)>>>);

impl Log {
    pub fn note(&self, code: i32, peer: u64) {
        self.0.lock().push((code, peer));
    }

    pub fn count(&self, code: RequestCode) -> usize {
        self.0.lock().iter().filter(|(noted, _)| *noted == code.to_wire()).count()
    }

    /// The peers that sent this code, each once.
    pub fn peers(&self, code: RequestCode) -> Vec<u64> {
        let noted = self.0.lock();
        let mut peers: Vec<u64> =
            noted.iter().filter(|(noted, _)| *noted == code.to_wire()).map(|it| it.1).collect();
        peers.sort_unstable();
        peers.dedup();
        peers
    }
}
