//! A broker and a proxy before it, in this process: either as one, or as a cluster with a nameserver.
//! In `fake`, brokers that do what a test wants.
#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    reason = "each test file uses its part of it"
)]
#![allow(clippy::unwrap_used, reason = "a test")]

pub mod fake;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Deref;
use std::time::Duration;

use broker::process::Running as Work;
use prost::Message as ProstMessage;
use protocol::body::SubscriptionGroupConfig;
use protocol::frame::Command;
use protocol::grpc::*;
use protocol::header::Empty;
use protocol::header::topic::CreateTopic;
use protocol::json::{self, Dialect};
use proxy::config::{Config, Listener};
use proxy::process::Running;
use remoting::pool::Pool;
use remoting::process::Shutdown;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

pub const WAIT: Duration = Duration::from_secs(60);

/// Runs stories both ways, on what a function `stage` of the file makes for them.
#[macro_export]
macro_rules! both_ways {
    ($($name:ident)*) => {
        mod inside {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(stage(Way::Inside).await).await;
            })*
        }
        mod cluster {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(stage(Way::Cluster).await).await;
            })*
        }
    };
}

/// How the proxy reaches its broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Inside,
    Cluster,
}

pub struct Stage {
    pub way: Way,
    pub work: Work,
    pub proxy: Running,
    pub pool: Pool,
    caller: Caller,
    shutdown: Shutdown,
    /// Ends the proxy alone.
    door: Shutdown,
    _folder: tempfile::TempDir,
}

/// A client on a connection of its own.
pub struct Caller {
    id: String,
    channel: Channel,
}

/// A stream on which a client has said what it is.
pub struct Telemetry {
    _commands: mpsc::Sender<TelemetryCommand>,
    pub answers: Streaming<TelemetryCommand>,
}

/// The stage is a client, too.
impl Deref for Stage {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

fn any() -> Listener {
    Listener {
        name: String::new(),
        bind: ([127, 0, 0, 1], 0).into(),
        advertise: None,
        optional: false,
    }
}

impl Stage {
    pub async fn new(way: Way) -> Self {
        Self::with(way, Config::default()).await
    }

    pub async fn with(way: Way, mut config: Config) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let shutdown = Shutdown::new();
        let map = nameserver::config::Config::new(&folder.path().join("map"));
        let map = nameserver::start(map, ([127, 0, 0, 1], 0).into(), shutdown.clone());
        let map = map.await.unwrap().address.to_string();
        let root = folder.path().join("store").display().to_string();
        let given = [
            ("storePathRootDir", root.as_str()),
            ("listenPort", "0"),
            ("brokerName", "b-a"),
            ("namesrvAddr", &map),
            ("mappedFileSizeCommitLog", "16777216"),
        ];
        let given = given.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let settings = broker::config::Config::new(given).unwrap();
        let work = broker::process::start(settings, shutdown.clone()).await.unwrap();
        config.nameservers = vec![map];
        config.listeners = vec![any()];
        let door = shutdown.child_token();
        let proxy = match way {
            Way::Inside => proxy::process::start_local(config, &work, door.clone()).unwrap(),
            Way::Cluster => proxy::process::start(config, door.clone()).await.unwrap(),
        };
        let caller = Caller::new(proxy.addresses[0], "tester").await;
        let pool = Pool::new(shutdown.clone());
        Self { way, work, proxy, pool, caller, shutdown, door, _folder: folder }
    }

    /// Another client.
    pub async fn caller(&self, id: &str) -> Caller {
        Caller::new(self.proxy.addresses[0], id).await
    }

    async fn admin(&self, command: Command<'static>) {
        let address = self.work.address.to_string();
        let reply = self.pool.call(&address, command, WAIT).await.unwrap();
        assert_eq!(reply.code, 0, "{:?}", reply.remark);
    }

    pub async fn topic(&self, topic: &str, kind: &str, queues: i32) {
        let header = CreateTopic {
            topic: topic.to_owned(),
            default_topic: "TBW102".to_owned(),
            read_queue_nums: queues,
            write_queue_nums: queues,
            perm: 6,
            topic_filter_type: "SINGLE_TAG".to_owned(),
            topic_sys_flag: None,
            order: false,
            attributes: Some(format!("+message.type={kind}")),
            force: None,
        };
        self.admin(Command::request(17, &header)).await;
    }

    pub async fn group(&self, group: &str, in_order: bool, retries: i32) {
        let config = SubscriptionGroupConfig {
            group_name: group.to_owned(),
            consume_message_orderly: in_order,
            retry_max_times: retries,
            ..SubscriptionGroupConfig::default()
        };
        let body = json::write(&config, Dialect::Standard);
        self.admin(Command::request(200, &Empty {}).with_body(body)).await;
    }

    pub async fn end(self) {
        self.shutdown.cancel();
        tokio::time::timeout(WAIT, self.proxy.finished()).await.unwrap();
        tokio::time::timeout(WAIT, self.work.finished()).await.unwrap().unwrap();
    }

    /// Ends the proxy and leaves the broker.
    pub async fn end_proxy(self) -> Alone {
        let Self { proxy, work, pool, shutdown, door, _folder, .. } = self;
        door.cancel();
        tokio::time::timeout(WAIT, proxy.finished()).await.unwrap();
        Alone { work, pool, shutdown, _folder }
    }
}

/// A broker whose proxy has ended.
pub struct Alone {
    pub work: Work,
    pub pool: Pool,
    shutdown: Shutdown,
    _folder: tempfile::TempDir,
}

impl Alone {
    pub async fn end(self) {
        self.shutdown.cancel();
        tokio::time::timeout(WAIT, self.work.finished()).await.unwrap().unwrap();
    }
}

impl Caller {
    /// Connects to a proxy.
    pub async fn new(proxy: SocketAddr, id: &str) -> Self {
        let uri = format!("http://{proxy}");
        let channel = Channel::from_shared(uri).unwrap().connect().await.unwrap();
        Self { id: id.to_owned(), channel }
    }

    /// The same, for a client that takes only so many bytes before it has read them.
    pub async fn narrow(proxy: SocketAddr, id: &str, bytes: u32) -> Self {
        let endpoint = Channel::from_shared(format!("http://{proxy}")).unwrap();
        let channel = endpoint.initial_stream_window_size(bytes).connect().await.unwrap();
        Self { id: id.to_owned(), channel }
    }

    /// Says what it is, and waits until that is known.
    pub async fn telemetry(&self, settings: Settings) -> Telemetry {
        let (commands, said) = mpsc::channel(8);
        let command = Some(telemetry_command::Command::Settings(settings));
        commands.send(TelemetryCommand { status: None, command }).await.unwrap();
        let request = self.request(ReceiverStream::new(said), None);
        let path = "/apache.rocketmq.v2.MessagingService/Telemetry".parse().unwrap();
        let codec: ProstCodec<TelemetryCommand, TelemetryCommand> = ProstCodec::default();
        let mut client = self.client().await;
        let mut answers = client.streaming(request, path, codec).await.unwrap().into_inner();
        answers.message().await.unwrap().unwrap();
        Telemetry { _commands: commands, answers }
    }

    pub fn request<T>(&self, message: T, timeout: Option<Duration>) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("x-mq-client-id", self.id.parse().unwrap());
        if let Some(timeout) = timeout {
            request.set_timeout(timeout);
        }
        request
    }

    async fn client(&self) -> tonic::client::Grpc<Channel> {
        let mut client =
            tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
        client.ready().await.unwrap();
        client
    }

    /// Asks for one answer.
    pub async fn ask<Q, A>(&self, rpc: &str, message: Q) -> A
    where
        Q: ProstMessage + 'static,
        A: ProstMessage + Default + 'static,
    {
        self.try_ask(rpc, self.request(message, None)).await.unwrap()
    }

    pub async fn try_ask<Q, A>(
        &self,
        rpc: &str,
        request: tonic::Request<Q>,
    ) -> Result<A, tonic::Status>
    where
        Q: ProstMessage + 'static,
        A: ProstMessage + Default + 'static,
    {
        let service =
            if rpc.contains('/') { String::new() } else { "MessagingService/".to_owned() };
        let path = format!("/apache.rocketmq.v2.{service}{rpc}").parse().unwrap();
        let codec: ProstCodec<Q, A> = ProstCodec::default();
        self.client().await.unary(request, path, codec).await.map(|reply| reply.into_inner())
    }

    /// Asks for many answers.
    pub async fn stream<Q, A>(&self, rpc: &str, request: tonic::Request<Q>) -> Streaming<A>
    where
        Q: ProstMessage + 'static,
        A: ProstMessage + Default + 'static,
    {
        let path = format!("/apache.rocketmq.v2.MessagingService/{rpc}").parse().unwrap();
        let codec: ProstCodec<Q, A> = ProstCodec::default();
        self.client().await.server_streaming(request, path, codec).await.unwrap().into_inner()
    }

    /// Says what the client of this test is; returns what it is told to be.
    pub async fn describe(&self, settings: Settings) -> Settings {
        use telemetry_command::Command;
        let said =
            TelemetryCommand { command: Some(Command::Settings(settings)), ..Default::default() };
        let request = self.request(tokio_stream::once(said), None);
        let path = "/apache.rocketmq.v2.MessagingService/Telemetry".parse().unwrap();
        let codec: ProstCodec<TelemetryCommand, TelemetryCommand> = ProstCodec::default();
        let told = self.client().await.streaming(request, path, codec).await.unwrap();
        match told.into_inner().message().await.unwrap().unwrap().command {
            Some(Command::Settings(told)) => told,
            other => panic!("{other:?}"),
        }
    }

    pub async fn send(&self, messages: Vec<Message>) -> SendMessageResponse {
        self.ask("SendMessage", SendMessageRequest { messages }).await
    }

    /// Receives with a time-out of the client's.
    pub async fn receive(
        &self,
        request: ReceiveMessageRequest,
        timeout: Option<Duration>,
    ) -> (Status, Vec<Message>) {
        let request = self.request(request, timeout);
        let mut answers = self.stream::<_, ReceiveMessageResponse>("ReceiveMessage", request).await;
        let (mut status, mut messages) = (None, Vec::new());
        while let Some(answer) = answers.message().await.unwrap() {
            match answer.content.unwrap() {
                receive_message_response::Content::Status(is) => status = Some(is),
                receive_message_response::Content::Message(message) => messages.push(message),
                receive_message_response::Content::DeliveryTimestamp(_) => {}
            }
        }
        (status.unwrap(), messages)
    }

    /// Receives until there are so many.
    pub async fn gather(&self, topic: &str, group: &str, count: usize) -> Vec<Message> {
        let mut all = Vec::new();
        while all.len() < count {
            let (status, messages) = self.receive(receive(topic, group, 5_000), None).await;
            assert_eq!(status.code(), Code::Ok, "{} of {count}: {}", all.len(), status.message);
            all.extend(messages);
        }
        all
    }

    /// A group whose place is known begins there; a new one with what comes from now on.
    pub async fn begun(&self, topic: &str, group: &str) {
        let (status, _) = self.receive(receive(topic, group, 0), None).await;
        assert_eq!(status.code(), Code::MessageNotFound, "{}", status.message);
    }

    /// Hides a message of the topic `t` from the group `g` for so long.
    pub async fn change(
        &self,
        receipt_handle: &str,
        seconds: i64,
    ) -> ChangeInvisibleDurationResponse {
        let request = ChangeInvisibleDurationRequest {
            group: named("g"),
            topic: named("t"),
            receipt_handle: receipt_handle.to_owned(),
            invisible_duration: Some(prost_types::Duration { seconds, nanos: 0 }),
            message_id: String::new(),
            lite_topic: None,
            suspend: None,
        };
        self.ask("ChangeInvisibleDuration", request).await
    }
}

pub const OK: i32 = Code::Ok as i32;

pub fn ack(topic: &str, group: &str, messages: &[Message]) -> AckMessageRequest {
    let entry = |message: &Message| AckMessageEntry {
        message_id: message.system_properties.as_ref().unwrap().message_id.clone(),
        receipt_handle: handle(message),
        lite_topic: None,
    };
    AckMessageRequest {
        group: named(group),
        topic: named(topic),
        entries: messages.iter().map(entry).collect(),
    }
}

/// What a consumer says of itself.
pub fn consumer(group: &str, kind: ClientType) -> Settings {
    let subscription = Subscription { group: named(group), ..Subscription::default() };
    Settings {
        client_type: Some(kind.into()),
        pub_sub: Some(settings::PubSub::Subscription(subscription)),
        ..Settings::default()
    }
}

pub fn named(name: &str) -> Option<Resource> {
    Some(Resource { resource_namespace: String::new(), name: name.to_owned() })
}

pub fn message(topic: &str, body: &str) -> Message {
    Message {
        topic: named(topic),
        body: body.to_owned().into(),
        system_properties: Some(SystemProperties {
            message_id: format!("01{body}"),
            ..SystemProperties::default()
        }),
        ..Message::default()
    }
}

pub fn in_group(mut message: Message, group: &str) -> Message {
    message.system_properties.as_mut().unwrap().message_group = Some(group.to_owned());
    message
}

pub fn receive(topic: &str, group: &str, polling_ms: i32) -> ReceiveMessageRequest {
    let duration = |ms: i32| prost_types::Duration {
        seconds: (ms / 1000).into(),
        nanos: ms % 1000 * 1_000_000,
    };
    ReceiveMessageRequest {
        group: named(group),
        message_queue: Some(MessageQueue {
            topic: named(topic),
            id: -1,
            ..MessageQueue::default()
        }),
        filter_expression: None,
        batch_size: 32,
        invisible_duration: Some(duration(30_000)),
        auto_renew: false,
        long_polling_timeout: Some(duration(polling_ms)),
        attempt_id: None,
    }
}

pub fn handle(message: &Message) -> String {
    message.system_properties.as_ref().unwrap().receipt_handle.clone().unwrap()
}

pub fn body(message: &Message) -> String {
    String::from_utf8(message.body.to_vec()).unwrap()
}

pub fn codes(statuses: impl IntoIterator<Item = Option<Status>>) -> Vec<i32> {
    statuses.into_iter().map(|status| status.unwrap().code).collect()
}

pub type Counts = BTreeMap<String, usize>;
