//! Batches of a topic whose queues keep each as one record: sent, pulled, told to be what they are.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use broker::config::Config;
use broker::process::{self, Running};
use protocol::fields::Fields;
use protocol::frame::Command;
use protocol::header::Empty;
use protocol::header::pull::PullMessage;
use protocol::message::{BatchEntry, batch_entries};
use protocol::record::{Record, sys_flag};
use protocol::reply::ReplyCode;
use remoting::pool::Pool;
use remoting::process::Shutdown;

const WAIT: Duration = Duration::from_secs(20);
const KEY: &str = "UNIQ_KEY\u{1}0A0B0C\u{2}";

struct Stage {
    _running: Running,
    address: String,
    pool: Pool,
    _folder: tempfile::TempDir,
}

impl Stage {
    /// A broker with the topics `whole` and `plain`.
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = [
            ("storePathRootDir", folder.path().to_str().unwrap()),
            ("listenPort", "0"),
            ("mappedFileSizeCommitLog", "16777216"),
        ];
        let given = settings.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let shutdown = Shutdown::new();
        let running = process::start(Config::new(given).unwrap(), shutdown.clone()).await.unwrap();
        let address = running.address.to_string();
        let stage = Self { _running: running, address, pool: Pool::new(shutdown), _folder: folder };
        for (topic, attributes) in [("whole", "+queue.type=BatchCQ"), ("plain", "")] {
            let fields = Fields::default()
                .with("topic", topic)
                .with("defaultTopic", "TBW102")
                .with("readQueueNums", "1")
                .with("writeQueueNums", "1")
                .with("perm", "6")
                .with("topicFilterType", "SINGLE_TAG")
                .with("attributes", attributes)
                .with("order", "false");
            assert_eq!(stage.call(17, fields, b"").await.code, 0);
        }
        stage
    }

    async fn call(&self, code: i32, fields: Fields<'static>, body: &[u8]) -> Command<'static> {
        let request = Command { fields, ..Command::request(code, &Empty {}) }.with_body(body);
        self.pool.call(&self.address, request, WAIT).await.unwrap()
    }

    async fn send(&self, topic: &str, properties: &str, sys_flag: i32) -> Command<'static> {
        let fields = Fields::default()
            .with("producerGroup", "p")
            .with("topic", topic)
            .with("defaultTopic", "TBW102")
            .with("defaultTopicQueueNums", "1")
            .with("queueId", "0")
            .with("sysFlag", sys_flag.to_string())
            .with("bornTimestamp", "1")
            .with("flag", "0")
            .with("batch", "true")
            .with("properties", properties);
        self.call(320, fields, &batch()).await
    }

    async fn pull(&self, topic: &str, from: i64, messages: i32) -> (Command<'static>, i64) {
        let pull = PullMessage::everything("g", topic, 0, from, messages);
        let request = Command::request(11, &pull);
        let reply = self.pool.call(&self.address, request, WAIT).await.unwrap();
        let next = field(&reply, "nextBeginOffset").parse().unwrap();
        (reply, next)
    }
}

fn field(reply: &Command<'_>, name: &str) -> String {
    reply.fields.get(name).unwrap_or_default().to_owned()
}

/// Three messages.
fn batch() -> Vec<u8> {
    let mut bytes = Vec::new();
    for body in [b"a", b"b", b"c"] {
        BatchEntry { flag: 0, body, properties: b"" }.encode_into(&mut bytes).unwrap();
    }
    bytes
}

#[tokio::test]
async fn a_batch_is_one_record_that_takes_an_offset_for_each_message() {
    let stage = Stage::new().await;
    for number in 0..4 {
        // What the client says of the number is not believed.
        let sent = stage.send("whole", &format!("{KEY}INNER_NUM\u{1}9\u{2}"), 0).await;
        assert_eq!(sent.code, 0, "{:?}", sent.remark);
        assert_eq!(field(&sent, "queueOffset"), (number * 3).to_string());
        assert_eq!(field(&sent, "batchUniqId"), "0A0B0C");
        assert!(!field(&sent, "msgId").contains(','));
    }
    // From within the second batch, at most one message: that batch whole, and nothing of another.
    let (pulled, next) = stage.pull("whole", 4, 1).await;
    assert_eq!((field(&pulled, "maxOffset").as_str(), next), ("12", 6));
    let (record, size) = Record::decode(&pulled.body).unwrap();
    assert_eq!(size, pulled.body.len());
    let inner = sys_flag::INNER_BATCH | sys_flag::NEED_UNWRAP;
    assert_eq!((record.queue_offset, record.sys_flag & inner), (3, inner));
    assert_eq!(batch_entries(record.body).count(), 3);
    let properties = String::from_utf8(record.properties.to_vec()).unwrap();
    assert!(properties.contains("INNER_NUM\u{1}3\u{2}"), "{properties:?}");
    assert!(properties.contains("INNER_BASE\u{1}0000000000000000003\u{2}"), "{properties:?}");
    assert!(!properties.contains("INNER_NUM\u{1}9"), "{properties:?}");
}

#[tokio::test]
async fn a_batch_is_taken_apart_where_topic_or_client_do_not_know_better() {
    let stage = Stage::new().await;
    for (topic, properties) in [("plain", KEY), ("whole", "")] {
        let sent = stage.send(topic, properties, 0).await;
        assert_eq!(sent.code, 0, "{:?}", sent.remark);
        assert_eq!(field(&sent, "msgId").split(',').count(), 3);
        assert_eq!(field(&sent, "batchUniqId"), "");
        let (pulled, next) = stage.pull(topic, 0, 2).await;
        assert_eq!(next, 2);
        assert_eq!(Record::decode(&pulled.body).unwrap().0.body, b"a");
    }
}

#[tokio::test]
async fn who_calls_a_message_an_inner_batch_is_refused() {
    let stage = Stage::new().await;
    for topic in ["plain", "whole"] {
        let sent = stage.send(topic, KEY, sys_flag::INNER_BATCH).await;
        assert_eq!(sent.code, ReplyCode::MessageIllegal.to_wire());
    }
}
