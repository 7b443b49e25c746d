//! A nameserver behind a real socket, asked over real connections.

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nameserver::Running;
use nameserver::config::Config;
use protocol::body::{
    ClusterInfo, DataVersion, KVTable, RegisterBrokerBody, TopicConfig, TopicList, TopicRouteData,
};
use protocol::frame::Command;
use protocol::header::Empty;
use protocol::header::route::*;
use protocol::json::{self, Dialect};
use protocol::request::{Request, RequestCode};
use remoting::connection::Session;
use remoting::outbox::{Outbox, ReplyTo};
use remoting::peer::Peer;
use remoting::pool::{Failed, Pool};
use remoting::process::Shutdown;
use remoting::server::{Server, Service};
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(10);

/// A nameserver on a free port.
struct Served {
    address: String,
    running: Running,
    shutdown: Shutdown,
}

impl Served {
    async fn start(folder: &Path, settings: &str) -> Self {
        let (config, _) = Config::read(settings, folder).unwrap();
        let shutdown = Shutdown::new();
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let running = nameserver::start(config, listen, shutdown.clone()).await.unwrap();
        Self { address: running.address.to_string(), running, shutdown }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.running.stopped()).await.unwrap().unwrap();
    }
}

/// Connections of one process; gone with it.
struct Caller {
    pool: Pool,
    shutdown: Shutdown,
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Caller {
    fn new() -> Self {
        let shutdown = Shutdown::new();
        Self { pool: Pool::new(shutdown.clone()), shutdown }
    }

    async fn ask<R: Request>(
        &self,
        at: &Served,
        request: &R,
        body: Vec<u8>,
    ) -> Result<(R::Reply, Command<'static>), Failed> {
        self.pool.ask(&at.address, request, body, PATIENCE).await
    }

    async fn register(&self, at: &Served, header: &RegisterBroker, topics: &[&str]) -> Reply {
        let body = body_of(topics, 1).encode(header.compressed);
        self.ask(at, header, body).await.unwrap()
    }

    async fn route(&self, at: &Served, topic: &str) -> Option<TopicRouteData> {
        let request = GetRouteInfo { topic: topic.into(), accept_standard_json_only: None };
        match self.ask(at, &request, Vec::new()).await {
            Ok((_, reply)) => Some(json::read(&reply.body).unwrap()),
            Err(Failed::Refused { code: 17, .. }) => None,
            Err(other) => panic!("{other}"),
        }
    }

    /// Asks until the topic is known or unknown as wanted.
    async fn route_until(&self, at: &Served, topic: &str, known: bool) {
        let asking = async {
            while self.route(at, topic).await.is_some() != known {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, asking).await.expect("the route should have changed");
    }
}

type Reply = (RegisterBrokerReply, Command<'static>);

fn broker(id: i64) -> RegisterBroker {
    RegisterBroker {
        broker_name: "a".into(),
        broker_addr: format!("127.0.0.1:{}", 1000 + id),
        cluster_name: "C".into(),
        ha_server_addr: format!("127.0.0.1:{}", 2000 + id),
        broker_id: id,
        heartbeat_timeout_millis: None,
        enable_acting_master: None,
        compressed: false,
        body_crc32: None,
    }
}

fn body_of(topics: &[&str], counter: i64) -> RegisterBrokerBody {
    let mut body = RegisterBrokerBody::default();
    let wrapper = &mut body.topic_config_serialize_wrapper;
    wrapper.data_version = DataVersion { counter, state_version: 0, timestamp: 1 };
    for topic in topics {
        let config = TopicConfig { topic_name: (*topic).into(), ..TopicConfig::default() };
        wrapper.topic_config_table.insert((*topic).into(), config);
    }
    body
}

fn refused(outcome: Result<impl Sized, Failed>) -> (i32, String) {
    match outcome.err().expect("this should be refused") {
        Failed::Refused { code, remark } => (code, remark),
        other => panic!("{other}"),
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_register_with_several_nameservers_and_leave_them() {
    let data = folder();
    let served = [Served::start(data.path(), "").await, Served::start(data.path(), "").await];
    let (of_broker, client) = (Caller::new(), Caller::new());
    for (at, compressed) in served.iter().zip([false, true]) {
        let header = RegisterBroker { compressed, ..broker(0) };
        let (reply, _) = of_broker.register(at, &header, &["T", "U"]).await;
        assert_eq!(reply.master_addr, None);
        let replica = RegisterBroker { enable_acting_master: Some(true), ..broker(1) };
        let (reply, _) = of_broker.register(at, &replica, &["T", "U"]).await;
        assert_eq!(reply.master_addr.as_deref(), Some("127.0.0.1:1000"));
        assert_eq!(reply.ha_server_addr.as_deref(), Some("127.0.0.1:2000"));
        let route = client.route(at, "T").await.unwrap();
        assert_eq!(route.queue_datas.len(), 1);
        assert_eq!(route.broker_datas[0].broker_addrs.len(), 2);
        let group = GetBrokerMemberGroup { cluster_name: "C".into(), broker_name: "a".into() };
        let (_, reply) = client.ask(at, &group, Vec::new()).await.unwrap();
        assert_eq!(
            String::from_utf8_lossy(&reply.body),
            r#"{"brokerMemberGroup":{"brokerAddrs":{0:"127.0.0.1:1000",1:"127.0.0.1:1001"},"brokerName":"a","cluster":"C"}}"#
        );
    }
    let RegisterBroker { broker_name, broker_addr, cluster_name, .. } = broker(0);
    let goodbye = UnregisterBroker { broker_name, broker_addr, cluster_name, broker_id: 0 };
    of_broker.ask(&served[0], &goodbye, Vec::new()).await.unwrap();
    let left = client.route(&served[0], "T").await.unwrap();
    assert_eq!(left.broker_datas[0].broker_addrs.len(), 1);
    // Its process ends: both nameservers learn it by the closed connections.
    drop(of_broker);
    for at in &served {
        client.route_until(at, "T", false).await;
        let code = RequestCode::GetBrokerClusterInfo;
        let reply = client.pool.ask_plain(&at.address, code, Vec::new(), PATIENCE).await.unwrap();
        let clusters: ClusterInfo = json::read(&reply.body).unwrap();
        assert_eq!(clusters, ClusterInfo::default());
    }
    for at in served {
        at.stop().await;
    }
}

#[tokio::test]
async fn a_silent_broker_is_gone_after_the_time_it_promised_and_heartbeats_keep_it() {
    let data = folder();
    let at = Served::start(data.path(), "scanNotActiveBrokerInterval=20").await;
    let caller = Caller::new();
    let header = RegisterBroker { heartbeat_timeout_millis: Some(400), ..broker(0) };
    caller.register(&at, &header, &["T", "U"]).await;
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let RegisterBroker { broker_name, broker_addr, cluster_name, .. } = broker(0);
        let beat = Command::request(904, &Empty {});
        let mut beat = beat;
        beat.fields = protocol::fields::Fields::of(&BrokerHeartbeat {
            cluster_name,
            broker_addr,
            broker_name,
            broker_id: Some(0),
            epoch: None,
            max_offset: None,
            confirm_offset: None,
            heartbeat_timeout_mills: None,
            election_priority: None,
        });
        assert_eq!(caller.pool.call(&at.address, beat, PATIENCE).await.unwrap().code, 0);
        assert!(caller.route(&at, "T").await.is_some());
    }
    caller.route_until(&at, "T", false).await;
    at.stop().await;
}

#[tokio::test]
async fn routes_come_in_the_form_the_client_reads() {
    let data = folder();
    let at = Served::start(data.path(), "orderMessageEnable=true").await;
    let caller = Caller::new();
    let order = PutKvConfig {
        namespace: "ORDER_TOPIC_CONFIG".into(),
        key: "T".into(),
        value: "a:4".into(),
    };
    caller.ask(&at, &order, Vec::new()).await.unwrap();
    let (_, reply) = caller.register(&at, &broker(0), &["T", "U"]).await;
    let table: KVTable = json::read(&reply.body).unwrap();
    assert_eq!(table.table["T"], "a:4");
    let standard = r#"{"brokerDatas":[{"brokerAddrs":{"0":"127.0.0.1:1000"},"brokerName":"a","cluster":"C","enableActingMaster":false}],"filterServerTable":{},"orderTopicConf":"a:4","queueDatas":[{"brokerName":"a","perm":6,"readQueueNums":16,"topicSysFlag":0,"writeQueueNums":16}]}"#;
    let fastjson = standard.replace(r#""0""#, "0");
    for (version, only_standard, expected) in [
        (401, None, standard),
        (400, None, fastjson.as_str()),
        (0, Some(true), standard),
        (0, Some(false), fastjson.as_str()),
    ] {
        let header = GetRouteInfo { topic: "T".into(), accept_standard_json_only: only_standard };
        let mut request = Command::request(105, &header);
        request.version = version;
        let reply = caller.pool.call(&at.address, request, PATIENCE).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&reply.body), expected);
    }
    let unknown = GetRouteInfo { topic: "V".into(), accept_standard_json_only: None };
    assert_eq!(
        refused(caller.ask(&at, &unknown, Vec::new()).await),
        (
            17,
            "No topic route info in name server for the topic: V\nSee \
             https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details."
                .into()
        )
    );
    at.stop().await;
}

#[tokio::test]
async fn registrations_that_do_not_count_say_why() {
    let data = folder();
    let at = Served::start(data.path(), "").await;
    let caller = Caller::new();
    let body = body_of(&["T", "U"], 1).encode(false);
    let broken = RegisterBroker { body_crc32: Some(7), ..broker(0) };
    let told = refused(caller.ask(&at, &broken, body.clone()).await);
    assert_eq!(told, (1, "crc32 not match".into()));
    let single = body_of(&["T"], 1).encode(false);
    let told = refused(caller.ask(&at, &broker(0), single).await);
    assert_eq!(told, (1, "register broker failed".into()));
    let nameless = RegisterBroker { broker_name: String::new(), ..broker(0) };
    let told = refused(caller.ask(&at, &nameless, body.clone()).await);
    assert_eq!(told, (1, "the field `brokerName` is empty".into()));
    let right = protocol::body::body_crc32(&body);
    let right = RegisterBroker { body_crc32: Some(right), ..broker(0) };
    caller.ask(&at, &right, body).await.unwrap();
    // A broker older than 3.0.11 sends its topics without anything around them.
    let of_old = body_of(&["V", "W"], 1).topic_config_serialize_wrapper;
    let header = RegisterBroker {
        broker_name: "old".into(),
        broker_addr: "127.0.0.1:9".into(),
        ..broker(0)
    };
    let mut request = Command::request(103, &header);
    request.version = 36;
    request = request.with_body(json::write(&of_old, Dialect::Fastjson));
    assert_eq!(caller.pool.call(&at.address, request, PATIENCE).await.unwrap().code, 0);
    assert!(caller.route(&at, "V").await.is_some());
    at.stop().await;
}

#[tokio::test]
async fn versions_are_compared_and_permissions_wiped_and_restored() {
    let data = folder();
    let at = Served::start(data.path(), "").await;
    let caller = Caller::new();
    caller.register(&at, &broker(0), &["T", "U"]).await;
    let RegisterBroker { broker_name, broker_addr, cluster_name, .. } = broker(0);
    let query = QueryDataVersion { broker_name, broker_addr, cluster_name, broker_id: 0 };
    for (counter, changed) in [(1, false), (2, true)] {
        let asked = DataVersion { counter, state_version: 0, timestamp: 1 };
        let body = json::write(&asked, Dialect::Fastjson);
        let (reply, command) = caller.ask(&at, &query, body).await.unwrap();
        assert_eq!(reply.changed, changed);
        assert_eq!(&*command.body, br#"{"counter":1,"stateVersion":0,"timestamp":1}"#);
    }
    let stranger = QueryDataVersion { broker_addr: "127.0.0.1:1".into(), ..query };
    let (reply, command) = caller.ask(&at, &stranger, b"{}".to_vec()).await.unwrap();
    assert!(reply.changed && command.body.is_empty());

    let perm = async || caller.route(&at, "T").await.unwrap().queue_datas[0].perm;
    let wipe = WipeWritePermOfBroker { broker_name: "a".into() };
    let (reply, _) = caller.ask(&at, &wipe, Vec::new()).await.unwrap();
    assert_eq!((reply.wipe_topic_count, perm().await), (2, 4));
    let add = AddWritePermOfBroker { broker_name: "a".into() };
    let (reply, _) = caller.ask(&at, &add, Vec::new()).await.unwrap();
    assert_eq!((reply.add_topic_count, perm().await), (2, 6));
    at.stop().await;
}

#[tokio::test]
async fn topics_are_listed_added_and_deleted() {
    let data = folder();
    let at = Served::start(data.path(), "").await;
    let caller = Caller::new();
    caller.register(&at, &broker(0), &["C", "T", "a"]).await;
    let body =
        br#"{"queueDatas":[{"brokerName":"a","perm":6,"readQueueNums":1,"writeQueueNums":1}]}"#;
    caller.ask(&at, &RegisterTopic { topic: "V".into() }, body.to_vec()).await.unwrap();
    let delete = DeleteTopicFromNamesrv { topic: "T".into(), cluster_name: Some("C".into()) };
    caller.ask(&at, &delete, Vec::new()).await.unwrap();
    let expected: [(RequestCode, &[&str]); 5] = [
        (RequestCode::GetAllTopicList, &["C", "V", "a"]),
        (RequestCode::GetSystemTopicListFromNs, &["C", "a"]),
        (RequestCode::GetUnitTopicList, &[]),
        (RequestCode::GetHasUnitSubTopicList, &[]),
        (RequestCode::GetHasUnitSubUnunitTopicList, &[]),
    ];
    for (code, names) in expected {
        let reply = caller.pool.ask_plain(&at.address, code, Vec::new(), PATIENCE).await.unwrap();
        let list: TopicList = json::read(&reply.body).unwrap();
        assert!(list.topic_list.iter().eq(names), "{code:?}: {list:?}");
    }
    let of_cluster = GetTopicsByCluster { cluster: "C".into() };
    let (_, reply) = caller.ask(&at, &of_cluster, Vec::new()).await.unwrap();
    assert_eq!(json::read::<TopicList>(&reply.body).unwrap().topic_list.len(), 3);
    at.stop().await;
}

#[tokio::test]
async fn key_value_configuration_survives_a_restart() {
    let data = folder();
    let at = Served::start(data.path(), "").await;
    let caller = Caller::new();
    let put = |key: &str| PutKvConfig {
        namespace: "N".into(),
        key: key.into(),
        value: format!("value of {key}"),
    };
    caller.ask(&at, &put("1"), Vec::new()).await.unwrap();
    caller.ask(&at, &put("2"), Vec::new()).await.unwrap();
    let delete = DeleteKvConfig { namespace: "N".into(), key: "2".into() };
    caller.ask(&at, &delete, Vec::new()).await.unwrap();
    at.stop().await;
    let at = Served::start(data.path(), "").await;
    let get = |key: &str| GetKvConfig { namespace: "N".into(), key: key.into() };
    let (reply, _) = caller.ask(&at, &get("1"), Vec::new()).await.unwrap();
    assert_eq!(reply.value.as_deref(), Some("value of 1"));
    assert_eq!(
        refused(caller.ask(&at, &get("2"), Vec::new()).await),
        (22, "No config item, Namespace: N Key: 2".into())
    );
    let list = GetKvListByNamespace { namespace: "N".into() };
    let (_, reply) = caller.ask(&at, &list, Vec::new()).await.unwrap();
    assert_eq!(&*reply.body, br#"{"table":{"1":"value of 1"}}"#);
    let list = GetKvListByNamespace { namespace: "M".into() };
    assert_eq!(
        refused(caller.ask(&at, &list, Vec::new()).await),
        (22, "No config item, Namespace: M".into())
    );
    at.stop().await;
}

#[tokio::test]
async fn settings_are_shown_changed_kept_and_protected() {
    let data = folder();
    let at = Served::start(data.path(), "waitSecondsForService=3600").await;
    let caller = Caller::new();
    let plain = async |code, body: &str| {
        caller.pool.ask_plain(&at.address, code, body.as_bytes().to_vec(), PATIENCE).await
    };
    let update = RequestCode::UpdateNamesrvConfig;
    plain(update, "enableAllTopicList=false\nneedWaitForService=true\n").await.unwrap();
    let told = refused(plain(RequestCode::GetAllTopicList, "").await);
    assert_eq!(told, (1, "disable".into()));
    let route = GetRouteInfo { topic: "T".into(), accept_standard_json_only: None };
    let told = refused(caller.ask(&at, &route, Vec::new()).await);
    assert_eq!(told, (1, "name server not ready".into()));
    let told = refused(plain(update, "kvConfigPath=/tmp/x").await);
    assert_eq!(told, (16, "Can not update config in black list.".into()));
    let told = refused(plain(update, "enableTopicLists=true").await);
    assert_eq!(
        told,
        (29, "unknown key `enableTopicLists`, did you mean `enableTopicList`?".into())
    );
    let shown = plain(RequestCode::GetNamesrvConfig, "").await.unwrap();
    let shown = String::from_utf8(shown.body.into_owned()).unwrap();
    assert!(shown.contains("enableAllTopicList=false\n"), "{shown}");
    assert!(shown.contains(&format!("listenPort={}\n", at.running.address.port())), "{shown}");
    let kept = std::fs::read_to_string(data.path().join("namesrv/namesrv.properties")).unwrap();
    assert_eq!(kept, shown);
    at.stop().await;
}

/// A broker's own port: gives what comes in to the test.
struct Inbox(mpsc::UnboundedSender<Command<'static>>);

impl Service for Inbox {
    type Session = Incoming;
    fn open(self: &Arc<Self>, _: &Arc<Peer>) -> Incoming {
        Incoming(self.0.clone())
    }
}

struct Incoming(mpsc::UnboundedSender<Command<'static>>);

impl Session for Incoming {
    fn request(&mut self, request: Command<'_>, out: &mut Outbox) {
        out.now.reply(ReplyTo::new(&request), &Empty {}, &[]);
        self.0.send(request.into_owned()).unwrap();
    }
    fn flush(&mut self, _: &mut Outbox) {}
    fn closed(&mut self) {}
}

#[tokio::test]
async fn the_rest_of_a_group_is_told_on_their_own_ports_when_the_lowest_id_changes() {
    let data = folder();
    let at = Served::start(data.path(), "notifyMinBrokerIdChanged=true").await;
    let (sender, mut inbox) = mpsc::unbounded_channel();
    let shutdown = Shutdown::new();
    let replica = Server::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let replica_address = replica.address.to_string();
    tokio::spawn(replica.serve(Arc::new(Inbox(sender)), shutdown.clone()));
    let (of_master, of_replica) = (Caller::new(), Caller::new());
    let header = |id, address: &str| RegisterBroker {
        broker_addr: address.into(),
        enable_acting_master: Some(true),
        ..broker(id)
    };
    of_replica.register(&at, &header(1, &replica_address), &["T", "U"]).await;
    of_master.register(&at, &header(0, "127.0.0.1:1"), &["T", "U"]).await;
    let mut told = async || {
        let request = tokio::time::timeout(PATIENCE, inbox.recv()).await.unwrap().unwrap();
        assert!(request.code == 905 && request.is_oneway());
        request.fields.read::<NotifyMinBrokerIdChange>().unwrap()
    };
    let arrival = told().await;
    assert_eq!(arrival.min_broker_id, Some(0));
    assert_eq!(arrival.min_broker_addr.as_deref(), Some("127.0.0.1:1"));
    assert_eq!(arrival.ha_broker_addr.as_deref(), Some("127.0.0.1:2000"));
    drop(of_master);
    let departure = told().await;
    assert_eq!(departure.min_broker_id, Some(1));
    assert_eq!(departure.min_broker_addr, Some(replica_address));
    assert_eq!(departure.offline_broker_addr.as_deref(), Some("127.0.0.1:1"));
    shutdown.cancel();
    at.stop().await;
}

/// Every code with every kind of bad input is answered, and nothing else suffers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_request_ends_alone_whatever_its_code_and_body() {
    let data = folder();
    let at = Served::start(data.path(), "").await;
    let (caller, of_broker) = (Caller::new(), Caller::new());
    of_broker.register(&at, &broker(0), &["T", "U"]).await;
    let mut bodies: BTreeMap<&str, Vec<u8>> = BTreeMap::from([
        ("empty", Vec::new()),
        ("an empty object", b"{}".to_vec()),
        ("null", b"null".to_vec()),
        ("garbage", (0..=255).collect()),
        ("half an object", br#"{"topicConfigSerializeWrapper":{"dataVersion":{"#.to_vec()),
        ("other types", br#"{"topicConfigSerializeWrapper":7,"queueDatas":{"a":[]}}"#.to_vec()),
        ("deep", "[".repeat(100_000).into_bytes()),
    ]);
    let compressed = body_of(&["T", "U"], 1).encode(true);
    bodies.insert("half a compressed body", compressed[..compressed.len() / 2].to_vec());
    bodies.insert("a compressed body", compressed);
    let full = protocol::fields::Fields::of(&broker(5))
        .with("topic", "T")
        .with("namespace", "N")
        .with("key", "K")
        .with("cluster", "C");
    let mut codes: Vec<i32> = RequestCode::ALL.iter().map(|code| code.to_wire()).collect();
    codes.extend([-1, 0, 9999, i32::MAX, i32::MIN]);
    for code in codes {
        for (what, body) in &bodies {
            for (version, compressed) in [(513, "true"), (513, "false"), (0, "false")] {
                for fields in [Default::default(), full.clone().with("compressed", compressed)] {
                    let mut request = Command::request(code, &Empty {}).with_body(body.clone());
                    request.version = version;
                    request.fields = fields;
                    let reply = caller.pool.call(&at.address, request, PATIENCE).await;
                    let reply = reply.unwrap_or_else(|error| panic!("{code}, {what}: {error}"));
                    let known = RequestCode::from_wire(code).map(RequestCode::server);
                    if known != Some(protocol::request::Server::NameServer)
                        && code != 901
                        && code != 904
                    {
                        assert_eq!(reply.code, 3, "{code}");
                        let remark = format!(" request type {code} not supported");
                        assert_eq!(reply.remark.as_deref(), Some(remark.as_str()));
                    }
                }
            }
        }
    }
    of_broker.register(&at, &broker(0), &["T", "U"]).await;
    assert!(caller.route(&at, "U").await.is_some());
    at.stop().await;
}
