//! A broker on a disk that is full: it starts, remembers what it can, and serves what is there.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use broker::broker::Broker;
use broker::config::Config;
use broker::event::Event;
use broker::offsets::requests::write_pending;
use broker::process::store_settings;
use protocol::fields::Fields;
use protocol::frame::Command;
use protocol::header::Empty;
use protocol::header::pop::{AckMessage, PopMessage};
use protocol::record::Record;
use protocol::reply::ReplyCode;
use remoting::clock;
use remoting::inside::Inside;
use remoting::pool::Pool;
use remoting::process::Shutdown;
use store::{Disk, Room, Store};
use tempfile::TempDir;

const WAIT: Duration = Duration::from_secs(60);
const TOPIC: &str = "orders";
const GROUP: &str = "workers";
const TOTAL_BYTES: u64 = 1000 << 20;
/// Half of the disk; too little by its share; too little for another log file.
const ROOM: u64 = 500 << 20;
const LITTLE: u64 = 90 << 20;
const NOTHING: u64 = 10 << 20;

/// A broker without its background tasks, on a disk as full as is said.
struct Stage {
    broker: Arc<Broker>,
    inside: Inside,
    shutdown: Shutdown,
    available: Arc<AtomicU64>,
    folder: TempDir,
}

impl Stage {
    fn on(folder: TempDir, available_bytes: u64) -> Self {
        let root = folder.path().to_str().unwrap().to_owned();
        let settings = [
            ("storePathRootDir", root.as_str()),
            ("brokerName", "b-a"),
            ("mappedFileSizeCommitLog", "1048576"),
        ];
        let given = settings.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let config = Config::new(given).unwrap();
        let available = Arc::new(AtomicU64::new(available_bytes));
        let seen = available.clone();
        let disk = Disk::new(move |_| {
            let available_bytes = seen.load(Ordering::SeqCst);
            Ok(Room { total_bytes: TOTAL_BYTES, available_bytes })
        });
        let settings = store::Config { disk, maintenance: false, ..store_settings(&config) };
        let store = Store::open(settings).unwrap();
        let shutdown = Shutdown::new();
        let pool = Pool::new(shutdown.clone());
        let host = ([127, 0, 0, 1], 10911).into();
        let broker = Broker::load(config, store, pool, host, shutdown.clone()).unwrap();
        let (inside, _) = Inside::open(&broker, shutdown.clone());
        Self { broker, inside, shutdown, available, folder }
    }

    fn set_available(&self, bytes: u64) {
        self.available.store(bytes, Ordering::SeqCst);
        self.broker.store.observe_disk();
    }

    async fn call(&self, request: Command<'static>) -> Command<'static> {
        self.inside.call(request, WAIT).await.unwrap()
    }

    async fn ask(&self, code: i32, fields: Fields<'static>, body: &[u8]) -> Command<'static> {
        let blank = Command::request(code, &Empty {});
        self.call(Command { fields, ..blank }.with_body(body)).await
    }

    async fn topic(&self) {
        let fields = Fields::default()
            .with("topic", TOPIC)
            .with("defaultTopic", "TBW102")
            .with("readQueueNums", "1")
            .with("writeQueueNums", "1")
            .with("perm", "6")
            .with("topicFilterType", "SINGLE_TAG")
            .with("order", "false");
        let made = self.ask(17, fields, b"").await;
        assert_eq!(made.code, 0, "{:?}", made.remark);
    }

    async fn send(&self, body: &[u8]) -> i32 {
        let fields = Fields::default()
            .with("producerGroup", "p")
            .with("topic", TOPIC)
            .with("defaultTopic", "TBW102")
            .with("defaultTopicQueueNums", "1")
            .with("queueId", "0")
            .with("sysFlag", "0")
            .with("bornTimestamp", "1")
            .with("flag", "0");
        self.ask(10, fields, body).await.code
    }

    /// Offsets and handles of up to 32 messages.
    async fn pop(&self) -> Vec<(i64, String)> {
        let pop = PopMessage {
            consumer_group: GROUP.to_owned(),
            topic: TOPIC.to_owned(),
            queue_id: -1,
            max_msg_nums: 32,
            invisible_time: 60_000,
            poll_time: 0,
            born_time: 0,
            init_mode: 0,
            exp_type: None,
            exp: None,
            order: None,
            attempt_id: None,
        };
        let reply = self.call(Command::request(200_050, &pop)).await;
        if reply.code == ReplyCode::PollingTimeout.to_wire() {
            return Vec::new();
        }
        assert_eq!(reply.code, 0, "{:?}", reply.remark);
        let field = |name: &str| reply.fields.get(name).unwrap().to_owned();
        let (time, hidden, revive) = (field("popTime"), field("invisibleTime"), field("reviveQid"));
        let mut got = Vec::new();
        let mut rest = &reply.body[..];
        while !rest.is_empty() {
            let (record, size) = Record::decode(rest).unwrap();
            rest = &rest[size..];
            let at = record.queue_offset;
            got.push((at, format!("{at} {time} {hidden} {revive} 0 b-a 0 {at}")));
        }
        got
    }

    async fn ack(&self, (offset, handle): &(i64, String)) -> i32 {
        let ack = AckMessage {
            consumer_group: GROUP.to_owned(),
            topic: TOPIC.to_owned(),
            queue_id: 0,
            extra_info: handle.clone(),
            offset: *offset,
            lite_topic: None,
        };
        self.call(Command::request(200_051, &ack)).await.code
    }

    /// The process dies, and another one starts.
    async fn again(self, available_bytes: u64) -> Self {
        let Self { broker, inside, shutdown, folder, .. } = self;
        shutdown.cancel();
        drop(inside);
        while Arc::strong_count(&broker) > 1 {
            tokio::task::yield_now().await;
        }
        drop(broker);
        Self::on(folder, available_bytes)
    }
}

#[tokio::test]
async fn a_broker_starts_on_a_full_disk_and_what_was_popped_is_settled_there() {
    let stage = Stage::on(tempfile::tempdir().unwrap(), ROOM);
    stage.topic().await;
    for _ in 0..8 {
        assert_eq!(stage.send(b"x").await, 0);
    }
    let got = stage.pop().await;
    assert_eq!(got.len(), 8);
    assert_eq!(stage.ack(&got[0]).await, 0);
    stage.broker.pops.write(&stage.broker.store, clock::now_ms(), true).unwrap();
    assert_eq!(stage.ack(&got[1]).await, 0);
    let mut stage = stage;
    for (at, available_bytes) in [(2, LITTLE), (3, NOTHING), (4, NOTHING)] {
        // The last acknowledgement is beside the log only.
        stage = stage.again(available_bytes).await;
        let refused = ReplyCode::ServiceNotAvailable.to_wire();
        assert_eq!(stage.send(b"x").await, refused, "{available_bytes}");
        assert_eq!(stage.pop().await, [], "all are hidden or settled");
        assert_eq!(stage.ack(&got[at]).await, 0, "{available_bytes}");
    }
    let stage = stage.again(ROOM).await;
    assert_eq!(stage.send(b"x").await, 0);
    let next: Vec<i64> = stage.pop().await.iter().map(|(offset, _)| *offset).collect();
    assert_eq!(next, [8]);
    let committed = stage.broker.offsets.committed(GROUP, TOPIC, 0);
    assert_eq!(committed, Some(5), "{}", clock::now_ms());
}

#[tokio::test]
async fn a_new_broker_starts_on_a_full_disk() {
    for available_bytes in [LITTLE, NOTHING] {
        let stage = Stage::on(tempfile::tempdir().unwrap(), available_bytes);
        stage.topic().await;
        assert_eq!(stage.send(b"x").await, ReplyCode::ServiceNotAvailable.to_wire());
        let stage = stage.again(available_bytes).await;
        assert!(stage.broker.topics.get(TOPIC).is_some(), "it was answered to be there");
        stage.set_available(ROOM);
        assert_eq!(stage.send(b"x").await, 0);
    }
}

#[tokio::test]
async fn a_consumer_starts_where_it_was_also_if_nothing_more_can_be_written() {
    let stage = Stage::on(tempfile::tempdir().unwrap(), ROOM);
    stage.topic().await;
    let commit = |offset| Event::Offset {
        group: GROUP.to_owned(),
        topic: TOPIC.to_owned(),
        queue_id: 0,
        offset,
    };
    stage.broker.record(&[commit(1)]).unwrap();
    stage.set_available(NOTHING);
    // The broker's own records take the rest of the log file.
    for count in [1000, 1] {
        let events = vec![commit(2); count];
        while stage.broker.record(&events).is_ok() {}
    }
    stage.broker.offsets.commit_with_pull(GROUP, TOPIC, 0, 3);
    let fields =
        Fields::default().with("consumerGroup", GROUP).with("topic", TOPIC).with("queueId", "0");
    let told = stage.ask(14, fields, b"").await;
    assert_eq!((told.code, told.fields.get("offset")), (0, Some("3")), "{:?}", told.remark);
    let fields = Fields::default()
        .with("consumerGroup", GROUP)
        .with("topic", TOPIC)
        .with("queueId", "0")
        .with("commitOffset", "4");
    let refused = stage.ask(15, fields, b"").await;
    assert_ne!(refused.code, 0, "a commit is answered when it is kept");
    stage.set_available(ROOM);
    write_pending(&stage.broker).unwrap();
    let stage = stage.again(ROOM).await;
    assert_eq!(stage.broker.offsets.committed(GROUP, TOPIC, 0), Some(3));
}
