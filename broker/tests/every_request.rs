//! Every request there is, asked of a running broker: which are served, and that none harms it.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use broker::config::Config;
use broker::process::{self, Running};
use protocol::fields::Fields;
use protocol::frame::{Command, Encoding};
use protocol::header::Empty;
use protocol::header::pull::PullMessage;
use protocol::reply::ReplyCode;
use protocol::request::{RequestCode, Server};
use remoting::pool::Pool;
use remoting::process::Shutdown;

const WAIT: Duration = Duration::from_secs(20);

/// What belongs to other kinds of brokers, to what is not there yet, or to nobody any more.
const UNSERVED: &[i32] = &[
    13, 22, 23, 27, 47, 60, 61, 209, 210, 211, 212, 213, 214, 301, 302, 354, 355, 370, 513, 902,
    903, 905, 908, 1007, 1008, 2001, 2002, 2003, 2004, 3001, 3002, 3003, 3004, 3005, 3006, 3007,
    3008, 3009, 3010, 5001, 200056, 200070, 200071, 200072, 200074, 200075, 200076, 200077, 200078,
    200079,
];

struct Stage {
    running: Running,
    pool: Pool,
    shutdown: Shutdown,
    folder: tempfile::TempDir,
}

impl Stage {
    async fn new() -> Self {
        Self::on(tempfile::tempdir().unwrap()).await
    }

    async fn on(folder: tempfile::TempDir) -> Self {
        let root = folder.path().to_str().unwrap().to_owned();
        let settings = [
            ("storePathRootDir", root.as_str()),
            ("listenPort", "0"),
            ("mappedFileSizeCommitLog", "16777216"),
        ];
        let given = settings.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let shutdown = Shutdown::new();
        let running = process::start(Config::new(given).unwrap(), shutdown.clone()).await.unwrap();
        Self { running, pool: Pool::new(shutdown.clone()), shutdown, folder }
    }

    async fn call(&self, request: Command<'static>) -> Command<'static> {
        let address = self.running.address.to_string();
        let code = request.code;
        match self.pool.call(&address, request, WAIT).await {
            Ok(answer) => {
                let remark = answer.remark.as_deref().unwrap_or_default();
                assert!(!remark.contains("met a defect"), "request {code} met a defect");
                answer
            }
            Err(error) => panic!("no answer to {code}: {error}"),
        }
    }

    /// Sends a message, and says where it is in its queue.
    async fn send(&self) -> i64 {
        let send = Fields::default()
            .with("producerGroup", "p")
            .with("topic", "still_serves")
            .with("defaultTopic", "TBW102")
            .with("defaultTopicQueueNums", "1")
            .with("queueId", "0")
            .with("sysFlag", "0")
            .with("bornTimestamp", "1")
            .with("flag", "0");
        let sent = self.call(request(10, send, b"hello")).await;
        assert_eq!(sent.code, 0, "{:?}", sent.remark);
        sent.fields.get("queueOffset").unwrap().parse().unwrap()
    }

    /// A message goes in and comes out.
    async fn still_serves(&self) {
        let offset = self.send().await;
        let pull = PullMessage::everything("g", "still_serves", 0, offset, 1);
        let pulled = self.call(Command::request(11, &pull)).await;
        assert_eq!(pulled.code, 0, "{:?}", pulled.remark);
        assert!(pulled.body.windows(5).any(|part| part == b"hello"));
    }

    async fn end(self) -> tempfile::TempDir {
        self.shutdown.cancel();
        self.running.finished().await.unwrap();
        self.folder
    }
}

fn request(code: i32, fields: Fields<'static>, body: &[u8]) -> Command<'static> {
    let blank = Command::request(code, &Empty {});
    Command { fields, ..blank }.with_body(body)
}

#[tokio::test]
async fn what_is_not_served_says_so_and_is_listed_here() {
    let stage = Stage::new().await;
    let mut unserved = Vec::new();
    for &code in RequestCode::ALL {
        let answer = stage.call(request(code.to_wire(), Fields::default(), b"")).await;
        let refused = answer.code == ReplyCode::RequestCodeNotSupported.to_wire();
        if code.server() == Server::Broker && refused {
            unserved.push(code.to_wire());
        } else if code.server() != Server::Broker {
            assert!(refused, "{code:?} is not for a broker");
        }
    }
    let mut expected = UNSERVED.to_vec();
    expected.sort_unstable();
    unserved.sort_unstable();
    assert_eq!(unserved, expected);
    stage.end().await;
}

/// Field values that a careless, an old or a hostile client might send under every name there is.
fn odd_headers() -> Vec<Fields<'static>> {
    const NAMES: [&str; 44] = [
        "topic",
        "group",
        "consumerGroup",
        "producerGroup",
        "groupName",
        "srcGroup",
        "destGroup",
        "compareGroup",
        "filterGroups",
        "queueId",
        "offset",
        "queueOffset",
        "commitOffset",
        "timestamp",
        "isForce",
        "index",
        "count",
        "key",
        "maxNum",
        "beginTimestamp",
        "endTimestamp",
        "msgId",
        "clientId",
        "clientID",
        "statsName",
        "statsKey",
        "isOrder",
        "readQueueNums",
        "writeQueueNums",
        "perm",
        "topicFilterType",
        "order",
        "attributes",
        "defaultTopic",
        "topicSeq",
        "groupSeq",
        "dataVersion",
        "maxTopicNum",
        "delayLevel",
        "maxMsgNums",
        "sysFlag",
        "suspendTimeoutMillis",
        "subVersion",
        "readable",
    ];
    let odd = ["", "0", "-1", "9223372036854775807", "x y\n\u{1}", "TBW102", "null", "{}", "é+="];
    let all = odd
        .map(|value| NAMES.iter().fold(Fields::default(), |fields, name| fields.with(name, value)));
    let plain = |value: &str| {
        let topic = ["topic", "defaultTopic"];
        NAMES.iter().fold(Fields::default(), |fields, name| {
            let named = topic.contains(name) || name.to_lowercase().contains("group");
            fields.with(name, if named { "odd" } else { value })
        })
    };
    let mut headers = all.to_vec();
    headers.extend([plain("-1"), plain("0"), plain("2147483648"), Fields::default()]);
    headers
}

/// Bodies likewise: among them a lock request of clients that know no `onlyThisBroker`.
const ODD_BODIES: [&[u8]; 12] = [
    b"",
    b"{}",
    b"[]",
    b"null",
    b"0",
    b"\x00\xff\xfe garbage",
    b"{\"clientId\":\"c\",\"consumerGroup\":\"g\",\"mqSet\":[{\"brokerName\":\"b\",\"queueId\":0,\"topic\":\"t\"}]}",
    b"{\"clientID\":\"\",\"consumerDataSet\":[{}],\"producerDataSet\":[{}]}",
    b"{\"groupName\":\"a b\",\"attributes\":{\"x\":\"\",\"\":\"y\"}}",
    b"{\"topicConfigList\":[{\"topicName\":\"t\",\"readQueueNums\":-1},{}],\"groupConfigList\":[{}]}",
    b"{\"offsetTable\":{{}:{}}}",
    b"listenPort=1\nnobody=2\n=\n\\u",
];

#[tokio::test]
async fn no_request_however_odd_is_left_without_answer_or_stops_the_broker() {
    let stage = Stage::new().await;
    let mut deep = Vec::new();
    deep.resize(100_000, b'[');
    for &code in RequestCode::ALL {
        let code = code.to_wire();
        for header in odd_headers() {
            // A refused lock, a refused pull: whatever it is, it is an answer.
            stage.call(request(code, header.clone(), b"{}")).await;
            let binary = Command { encoding: Encoding::Binary, ..request(code, header, b"") };
            stage.call(binary).await;
        }
        for body in ODD_BODIES {
            stage.call(request(code, Fields::default(), body)).await;
            let named = Fields::default().with("topic", "t").with("consumerGroup", "g");
            let old = Command { version: 0, ..request(code, named, body) };
            stage.call(old).await;
        }
        stage.call(request(code, Fields::default(), &deep)).await;
    }
    stage.call(request(i32::MAX, Fields::default(), b"")).await;
    stage.still_serves().await;
    stage.end().await;
}

#[tokio::test]
async fn what_an_operator_changed_is_there_after_a_restart() {
    let stage = Stage::new().await;
    stage.still_serves().await;
    let change = |text: &'static str| request(25, Fields::default(), text.as_bytes());
    assert_eq!(
        stage.call(change("fileReservedTime=48\nautoCreateTopicEnable=false")).await.code,
        0
    );
    let refused = stage.call(change("autoCreateTopicEnabled=true")).await;
    assert_eq!(refused.code, ReplyCode::InvalidParameter.to_wire());
    assert_eq!(stage.running.broker.store.retention().reserved_ms, 48 * 3_600_000);
    let topic = |topic: &str| Fields::default().with("topic", topic);
    let made = topic("made")
        .with("defaultTopic", "TBW102")
        .with("readQueueNums", "3")
        .with("writeQueueNums", "3")
        .with("perm", "6")
        .with("topicFilterType", "SINGLE_TAG")
        .with("order", "false")
        .with("attributes", "+message.type=FIFO");
    assert_eq!(stage.call(request(17, made, b"")).await.code, 0);
    assert_eq!(stage.call(request(215, topic("still_serves"), b"")).await.code, 0);

    let stage = Stage::on(stage.end().await).await;
    let config = stage.running.broker.config.load_full();
    assert!(!config.auto_create_topic);
    assert_eq!(stage.running.broker.store.retention().reserved_ms, 48 * 3_600_000);
    let made = stage.call(request(351, topic("made"), b"")).await;
    assert!(String::from_utf8_lossy(&made.body).contains("\"message.type\":\"FIFO\""));
    let gone = stage.call(request(351, topic("still_serves"), b"")).await;
    assert_eq!(gone.code, ReplyCode::TopicNotExist.to_wire());
    let queue = stage.running.broker.store.find_queue("still_serves", 0);
    assert_eq!(queue.map_or(0, |queue| stage.running.broker.store.max_offset(queue)), 0);
    stage.end().await;
}

#[tokio::test]
async fn what_a_stock_broker_wrote_to_the_files_in_between_wins_over_the_log() {
    let stage = Stage::new().await;
    for _ in 0..5 {
        stage.still_serves().await;
    }
    let key = || Fields::default().with("consumerGroup", "g").with("topic", "still_serves");
    let commit = key().with("queueId", "0").with("commitOffset", "5");
    assert_eq!(stage.call(request(15, commit, b"")).await.code, 0);
    let folder = stage.end().await;
    let file = folder.path().join("config/consumerOffset.json");
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(written.contains("5"), "{written}");
    std::fs::write(&file, r#"{"offsetTable":{"still_serves@g":{0:2}}}"#).unwrap();

    // The second restart finds the same in the log.
    let mut folder = folder;
    for _ in 0..2 {
        let stage = Stage::on(folder).await;
        let told = stage.call(request(14, key().with("queueId", "0"), b"")).await;
        assert_eq!(told.fields.get("offset"), Some("2"));
        // Files that nobody else wrote do not win.
        assert!(stage.running.broker.topics.get("still_serves").is_some());
        folder = stage.end().await;
    }
}

#[tokio::test]
async fn who_waits_for_messages_is_sent_back_by_a_reset_meanwhile() {
    let stage = Stage::new().await;
    stage.still_serves().await;
    let commit = Fields::default()
        .with("consumerGroup", "g")
        .with("topic", "still_serves")
        .with("queueId", "0")
        .with("commitOffset", "1");
    assert_eq!(stage.call(request(15, commit, b"")).await.code, 0);
    let mut pull = PullMessage::everything("g", "still_serves", 0, 1, 1);
    pull.suspend_timeout_millis = 20_000;
    pull.sys_flag |= 2; // It may wait.
    let (pulled, ()) = tokio::join!(stage.call(Command::request(11, &pull)), async {
        while stage.running.broker.waiting.count() == 0 {
            tokio::task::yield_now().await;
        }
        let reset = Fields::default()
            .with("topic", "still_serves")
            .with("group", "g")
            .with("timestamp", "0")
            .with("isForce", "true");
        let reset = stage.call(request(222, reset, b"")).await;
        assert_eq!(reset.code, 0, "{:?}", reset.remark);
        stage.send().await;
    });
    assert_eq!(pulled.code, ReplyCode::PullOffsetMoved.to_wire());
    assert_eq!(pulled.fields.get("nextBeginOffset"), Some("0"));
    stage.end().await;
}

#[tokio::test]
async fn a_group_that_broadcasts_is_found_by_the_route_of_its_retries() {
    let stage = Stage::new().await;
    let beat = br#"{"clientID":"c","consumerDataSet":[{"groupName":"loud","consumeType":"CONSUME_PASSIVELY",
        "messageModel":"BROADCASTING","consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","subscriptionDataSet":[]}],
        "producerDataSet":[]}"#;
    assert_eq!(stage.call(request(34, Fields::default(), beat)).await.code, 0);
    assert!(stage.running.broker.topics.get("%RETRY%loud").is_some());
    stage.end().await;
}
