//! Messages taken one by one, as remoting clients do it: popped, settled, hidden anew, delivered again.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::time::Duration;

use broker::config::Config;
use broker::process::{self, Running};
use protocol::body::{BatchAckEntry, BatchAckMessageRequestBody};
use protocol::fields::Fields;
use protocol::frame::Command;
use protocol::header::Empty;
use protocol::header::pop::{AckMessage, ChangeInvisibleTime, Notification, PopMessage};
use protocol::header::pull::PeekMessage;
use protocol::json::{self, Dialect};
use protocol::record::Record;
use protocol::reply::ReplyCode;
use remoting::pool::Pool;
use remoting::process::Shutdown;

const WAIT: Duration = Duration::from_secs(60);
const TOPIC: &str = "orders";
const GROUP: &str = "workers";

struct Stage {
    running: Running,
    pool: Pool,
    shutdown: Shutdown,
    folder: tempfile::TempDir,
}

/// A message as a client has it.
#[derive(Clone, Debug)]
struct Got {
    body: String,
    topic: String,
    queue_id: i32,
    offset: i64,
    times: i32,
    /// The receipt handle, made as clients make it.
    handle: String,
}

fn request(code: i32, fields: Fields<'static>, body: &[u8]) -> Command<'static> {
    let blank = Command::request(code, &Empty {});
    Command { fields, ..blank }.with_body(body)
}

fn pop_request() -> PopMessage {
    PopMessage {
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
    }
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
            ("brokerName", "b-a"),
            ("mappedFileSizeCommitLog", "16777216"),
        ];
        let given = settings.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let shutdown = Shutdown::new();
        let running = process::start(Config::new(given).unwrap(), shutdown.clone()).await.unwrap();
        Self { running, pool: Pool::new(shutdown.clone()), shutdown, folder }
    }

    async fn call(&self, request: Command<'static>) -> Command<'static> {
        let address = self.running.address.to_string();
        self.pool.call(&address, request, WAIT).await.unwrap()
    }

    async fn topic(&self, queues: u32) {
        let fields = Fields::default()
            .with("topic", TOPIC)
            .with("defaultTopic", "TBW102")
            .with("readQueueNums", queues.to_string())
            .with("writeQueueNums", queues.to_string())
            .with("perm", "6")
            .with("topicFilterType", "SINGLE_TAG")
            .with("order", "false");
        assert_eq!(self.call(request(17, fields, b"")).await.code, 0);
    }

    async fn send(&self, queue_id: i32, body: &str, tag: &str) {
        let fields = Fields::default()
            .with("producerGroup", "p")
            .with("topic", TOPIC)
            .with("defaultTopic", "TBW102")
            .with("defaultTopicQueueNums", "1")
            .with("queueId", queue_id.to_string())
            .with("sysFlag", "0")
            .with("bornTimestamp", "1")
            .with("flag", "0")
            .with("properties", format!("TAGS\u{1}{tag}"));
        let sent = self.call(request(10, fields, body.as_bytes())).await;
        assert_eq!(sent.code, 0, "{:?}", sent.remark);
    }

    async fn send_all(&self, queue_id: i32, bodies: impl IntoIterator<Item = String>) {
        for body in bodies {
            self.send(queue_id, &body, "t").await;
        }
    }

    async fn pop_raw(&self, request: &PopMessage) -> Command<'static> {
        self.call(Command::request(200_050, request)).await
    }

    async fn pop(&self, request: &PopMessage) -> Vec<Got> {
        let reply = self.pop_raw(request).await;
        if reply.code == ReplyCode::PollingTimeout.to_wire() {
            return Vec::new();
        }
        assert_eq!(reply.code, 0, "{:?}", reply.remark);
        read(&reply)
    }

    async fn ack(&self, got: &Got) -> i32 {
        let ack = AckMessage {
            consumer_group: GROUP.to_owned(),
            topic: got.topic.clone(),
            queue_id: got.queue_id,
            extra_info: got.handle.clone(),
            offset: got.offset,
            lite_topic: None,
        };
        self.call(Command::request(200_051, &ack)).await.code
    }

    /// Returns the code and the new handle.
    async fn hide(&self, got: &Got, invisible_time: i64) -> (i32, Got) {
        let change = ChangeInvisibleTime {
            consumer_group: GROUP.to_owned(),
            topic: got.topic.clone(),
            queue_id: got.queue_id,
            extra_info: got.handle.clone(),
            offset: got.offset,
            invisible_time,
            lite_topic: None,
            suspend: false,
        };
        let reply = self.call(Command::request(200_053, &change)).await;
        let field = |name: &str| reply.fields.get(name).unwrap_or("-").to_owned();
        let retry = i32::from(got.topic != TOPIC);
        let handle = format!(
            "{} {} {} {} {retry} b-a {} {}",
            got.offset,
            field("popTime"),
            field("invisibleTime"),
            field("reviveQid"),
            got.queue_id,
            got.offset
        );
        (reply.code, Got { handle, ..got.clone() })
    }

    async fn committed(&self, queue_id: i32) -> i64 {
        let fields = Fields::default()
            .with("consumerGroup", GROUP)
            .with("topic", TOPIC)
            .with("queueId", queue_id.to_string());
        let reply = self.call(request(14, fields, b"")).await;
        reply.fields.get("offset").unwrap().parse().unwrap()
    }

    async fn end(self) -> tempfile::TempDir {
        self.shutdown.cancel();
        self.running.finished().await.unwrap();
        self.folder
    }

    /// The process dies: what the store and the tails hold is all that is left.
    async fn killed(self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        let (from, to) = (self.folder.path().to_owned(), copy.path().to_owned());
        tokio::task::spawn_blocking(move || copy_all(&from, &to)).await.unwrap();
        self.end().await;
        copy
    }
}

fn copy_all(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &to);
        } else {
            // What is being renamed just now is there under its other name, or will be written again.
            if let Err(error) = std::fs::copy(entry.path(), &to) {
                assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
            }
        }
    }
}

/// What a Java client makes of a reply.
fn read(reply: &Command<'_>) -> Vec<Got> {
    let field = |name: &str| reply.fields.get(name).unwrap_or_default().to_owned();
    let pair = |one: &str| {
        let mut words = one.splitn(3, ' ').map(str::to_owned);
        let key = (words.next().unwrap(), words.next().unwrap());
        (key, words.next().unwrap())
    };
    let starts: BTreeMap<_, _> = field("startOffsetInfo").split(';').map(pair).collect();
    let offsets: BTreeMap<_, _> = field("msgOffsetInfo").split(';').map(pair).collect();
    let mut seen: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut got = Vec::new();
    let mut rest = &reply.body[..];
    while !rest.is_empty() {
        let (record, size) = Record::decode(rest).unwrap();
        rest = &rest[size..];
        let retry = if record.topic.starts_with("%RETRY%") { "1" } else { "0" };
        let key = (retry.to_owned(), record.queue_id.to_string());
        let index = seen.entry(key.clone()).or_default();
        let offset = offsets[&key].split(',').nth(*index).unwrap();
        *index += 1;
        assert_eq!(offset, record.queue_offset.to_string());
        let topic = match retry {
            "1" => format!("%RETRY%{GROUP}_{TOPIC}"),
            _ => TOPIC.to_owned(),
        };
        got.push(Got {
            body: String::from_utf8_lossy(record.body).into_owned(),
            topic,
            queue_id: record.queue_id,
            offset: record.queue_offset,
            times: record.reconsume_times,
            handle: format!(
                "{} {} {} {} {retry} b-a {} {offset}",
                starts[&key],
                field("popTime"),
                field("invisibleTime"),
                field("reviveQid"),
                record.queue_id,
            ),
        });
    }
    got
}

fn bodies(got: &[Got]) -> Vec<&str> {
    let mut bodies: Vec<&str> = got.iter().map(|got| got.body.as_str()).collect();
    bodies.sort_unstable();
    bodies
}

#[tokio::test]
async fn what_is_popped_is_hidden_and_what_is_acknowledged_never_comes_back() {
    let stage = Stage::new().await;
    stage.topic(2).await;
    for queue_id in 0..2 {
        stage.send_all(queue_id, (0..5).map(|at| format!("{queue_id}-{at}"))).await;
    }
    let got = stage.pop(&pop_request()).await;
    assert_eq!(got.len(), 10);
    assert!(got.iter().all(|got| got.times == 0));
    assert!(stage.pop(&pop_request()).await.is_empty(), "all of it is hidden");
    // Out of order: the offset follows only what is settled from the start.
    let of_queue = |queue_id| got.iter().filter(move |got: &&Got| got.queue_id == queue_id);
    for got in of_queue(0).skip(1) {
        assert_eq!(stage.ack(got).await, 0);
    }
    assert_eq!(stage.committed(0).await, 0);
    for got in of_queue(0).take(1).chain(of_queue(1)) {
        assert_eq!(stage.ack(got).await, 0);
        assert_eq!(stage.ack(got).await, 0, "an answer may have been lost");
    }
    assert_eq!((stage.committed(0).await, stage.committed(1).await), (5, 5));
    stage.end().await;
}

#[tokio::test]
async fn what_is_not_acknowledged_comes_again_and_its_old_handle_is_worth_nothing() {
    let stage = Stage::new().await;
    stage.topic(1).await;
    stage.send_all(0, (0..4).map(|at| at.to_string())).await;
    let short = PopMessage { invisible_time: 300, ..pop_request() };
    let first = stage.pop(&short).await;
    assert_eq!(stage.ack(&first[1]).await, 0);
    // The wait ends when the hidden time does.
    let waiting = PopMessage { poll_time: 20_000, ..pop_request() };
    let again = stage.pop(&waiting).await;
    assert_eq!(bodies(&again), ["0", "2", "3"]);
    assert!(again.iter().all(|got| got.times == 1));
    let refused = ReplyCode::NoMessage.to_wire();
    assert_eq!(stage.ack(&first[0]).await, refused, "it was delivered again");
    let (hidden, _) = stage.hide(&first[2], 1).await;
    assert_eq!(hidden, refused);
    assert_eq!(stage.committed(0).await, 0);
    for got in &again {
        assert_eq!(stage.ack(got).await, 0);
    }
    assert_eq!(stage.committed(0).await, 4);
    stage.end().await;
}

#[tokio::test]
async fn a_message_is_hidden_anew_and_given_back_early() {
    let stage = Stage::new().await;
    stage.topic(1).await;
    stage.send_all(0, ["a".to_owned(), "b".to_owned(), "c".to_owned()]).await;
    let got = stage.pop(&PopMessage { invisible_time: 500, ..pop_request() }).await;
    let (code, longer) = stage.hide(&got[1], 60_000).await;
    assert_eq!(code, 0);
    let (code, _) = stage.hide(&got[0], 1).await;
    assert_eq!(code, 0);
    let wait = PopMessage { poll_time: 20_000, max_msg_nums: 1, ..pop_request() };
    assert_eq!(bodies(&stage.pop(&wait).await), ["a"]);
    assert_eq!(bodies(&stage.pop(&wait).await), ["c"]);
    assert!(stage.pop(&pop_request()).await.is_empty());
    assert_ne!(stage.ack(&got[1]).await, 0, "the handle was replaced");
    assert_eq!(stage.ack(&longer).await, 0);
    stage.end().await;
}

#[tokio::test]
async fn who_waits_is_answered_when_a_message_arrives_or_the_time_is_up() {
    let stage = Stage::new().await;
    stage.topic(4).await;
    let wait = PopMessage { poll_time: 30_000, ..pop_request() };
    let (got, ()) = tokio::join!(stage.pop(&wait), async {
        while !waits(&stage).await {
            tokio::task::yield_now().await;
        }
        stage.send(3, "late", "t").await;
    });
    assert_eq!(bodies(&got), ["late"]);
    let nothing = stage.pop_raw(&PopMessage { poll_time: 150, ..pop_request() }).await;
    assert_eq!(nothing.code, ReplyCode::PollingTimeout.to_wire());
    for field in ["popTime", "invisibleTime", "reviveQid", "restNum"] {
        assert!(nothing.fields.get(field).is_some(), "{field}");
    }
    stage.end().await;
}

async fn waits(stage: &Stage) -> bool {
    let fields =
        Fields::default().with("consumerGroup", GROUP).with("topic", TOPIC).with("queueId", "-1");
    let reply = stage.call(request(200_055, fields, b"")).await;
    reply.fields.get("pollingNum").unwrap() != "0"
}

#[tokio::test]
async fn tags_are_filtered_and_what_is_not_wanted_is_passed_over() {
    let stage = Stage::new().await;
    stage.topic(1).await;
    for (body, tag) in [("1", "x"), ("2", "y"), ("3", "x"), ("4", "z")] {
        stage.send(0, body, tag).await;
    }
    let exp = |exp: &str| PopMessage { exp: Some(exp.to_owned()), ..pop_request() };
    let got = stage.pop(&exp("y || z")).await;
    assert_eq!(bodies(&got), ["2", "4"]);
    for got in &got {
        assert_eq!(stage.ack(got).await, 0);
    }
    assert_eq!(stage.committed(0).await, 4);
    assert!(stage.pop(&pop_request()).await.is_empty());
    stage.send(0, "5", "x").await;
    stage.send(0, "6", "y").await;
    let sql = PopMessage { exp_type: Some("SQL92".to_owned()), ..exp("TAGS = 'y'") };
    assert_eq!(stage.pop_raw(&sql).await.code, 1, "it has to be allowed");
    let allow = request(25, Fields::default(), b"enablePropertyFilter=true");
    assert_eq!(stage.call(allow).await.code, 0);
    assert_eq!(bodies(&stage.pop(&sql).await), ["6"]);
    stage.end().await;
}

#[tokio::test]
async fn in_order_a_queue_is_blocked_until_its_batch_is_settled() {
    let stage = Stage::new().await;
    stage.topic(1).await;
    stage.send_all(0, (0..6).map(|at| at.to_string())).await;
    let of = |attempt: &str| PopMessage {
        queue_id: 0,
        max_msg_nums: 2,
        order: Some(true),
        attempt_id: Some(attempt.to_owned()),
        ..pop_request()
    };
    let first = stage.pop(&of("one")).await;
    assert_eq!(bodies(&first), ["0", "1"]);
    assert!(first[0].handle.contains(" 999 0 b-a 0 0"), "{}", first[0].handle);
    assert!(stage.pop(&of("two")).await.is_empty(), "the batch is not settled");
    let same = stage.pop(&of("one")).await;
    assert_eq!(bodies(&same), ["0", "1"], "the answer may have been lost");
    assert!(same.iter().all(|got| got.times == 0));
    assert_eq!(stage.ack(&same[1]).await, 0);
    assert!(stage.pop(&of("two")).await.is_empty());
    let (code, _) = stage.hide(&same[0], 1).await;
    assert_eq!(code, 0);
    let wait = PopMessage { poll_time: 20_000, ..of("two") };
    let raw = stage.pop_raw(&wait).await;
    assert_eq!(raw.fields.get("orderCountInfo"), Some("0 qo0%0 1;0 qo0%1 1"));
    let next = read(&raw);
    assert_eq!(bodies(&next), ["0", "1"], "what follows one that comes again does, too");
    let wait = PopMessage { poll_time: 20_000, ..of("three") };
    let (got, _) = tokio::join!(stage.pop(&wait), async {
        stage.ack(&next[1]).await;
        stage.ack(&next[0]).await
    });
    assert_eq!(bodies(&got), ["2", "3"], "settled in whatever order, if all of it is");
    stage.end().await;
}

#[tokio::test]
async fn after_a_stop_and_after_a_kill_everything_is_where_it_was() {
    let mut folder = None;
    for kill in [false, true, true] {
        let stage = match folder.take() {
            Some(folder) => Stage::on(folder).await,
            None => {
                let stage = Stage::new().await;
                stage.topic(1).await;
                stage.send_all(0, (0..9).map(|at| at.to_string())).await;
                stage
            }
        };
        let got = stage.pop(&PopMessage { max_msg_nums: 3, ..pop_request() }).await;
        assert_eq!(got.len(), 3);
        assert_eq!(stage.ack(&got[0]).await, 0);
        assert_eq!(stage.ack(&got[2]).await, 0);
        let stage = Stage::on(if kill { stage.killed().await } else { stage.end().await }).await;
        let committed = stage.committed(0).await;
        assert_eq!(committed, got[1].offset, "what was acknowledged stays so");
        assert_eq!(stage.ack(&got[1]).await, 0, "handles hold on");
        assert_eq!(stage.committed(0).await, got[2].offset + 1);
        folder = Some(stage.killed().await);
    }
}

#[tokio::test]
async fn after_the_last_attempt_a_message_goes_to_the_dead_letters() {
    let stage = Stage::new().await;
    stage.topic(1).await;
    let config = format!(
        "{{\"groupName\":\"{GROUP}\",\"consumeEnable\":true,\"retryMaxTimes\":1,\"retryQueueNums\":1}}"
    );
    assert_eq!(stage.call(request(200, Fields::default(), config.as_bytes())).await.code, 0);
    stage.send_all(0, ["poison".to_owned()]).await;
    let wait = PopMessage { invisible_time: 1, poll_time: 20_000, ..pop_request() };
    for times in 0..2 {
        let got = stage.pop(&wait).await;
        assert_eq!((got.len(), got[0].times), (1, times));
    }
    let dead = PopMessage { topic: format!("%DLQ%{GROUP}"), ..pop_request() };
    let wait = PopMessage { poll_time: 500, ..wait };
    while stage.running.broker.topics.get(&dead.topic).is_none() {
        assert!(stage.pop(&wait).await.is_empty());
    }
    let dead = PopMessage { consumer_group: "undertaker".to_owned(), poll_time: 20_000, ..dead };
    let reply = stage.pop_raw(&dead).await;
    let (record, _) = Record::decode(&reply.body).unwrap();
    assert_eq!((record.body, record.reconsume_times), (&b"poison"[..], 2));
    while stage.committed(0).await != 1 {
        assert!(stage.pop(&wait).await.is_empty());
    }
    stage.end().await;
}

#[tokio::test]
async fn a_group_that_is_put_elsewhere_pops_from_there() {
    let stage = Stage::new().await;
    stage.topic(1).await;
    stage.send_all(0, (0..6).map(|at| at.to_string())).await;
    let first = stage.pop(&pop_request()).await;
    let put = Fields::default()
        .with("consumerGroup", GROUP)
        .with("topic", TOPIC)
        .with("queueId", "0")
        .with("commitOffset", "4");
    assert_eq!(stage.call(request(15, put, b"")).await.code, 0);
    let wait = PopMessage { poll_time: 1000, ..pop_request() };
    let got = stage.pop(&wait).await;
    assert_eq!(bodies(&got), ["4", "5"]);
    assert_ne!(stage.ack(&first[4]).await, 0, "that delivery is forgotten");
    assert_eq!(stage.ack(&got[1]).await, 0);
    let stage = Stage::on(stage.killed().await).await;
    assert!(stage.pop(&pop_request()).await.is_empty());
    assert_eq!(stage.committed(0).await, 4);
    assert_eq!(stage.ack(&got[0]).await, 0);
    assert_eq!(stage.committed(0).await, 6);
    stage.end().await;
}

#[tokio::test]
async fn a_topic_that_begins_anew_knows_no_old_handles() {
    let stage = Stage::new().await;
    stage.topic(1).await;
    stage.send_all(0, ["old".to_owned()]).await;
    let old = stage.pop(&pop_request()).await;
    let fields = Fields::default().with("topic", TOPIC);
    assert_eq!(stage.call(request(215, fields, b"")).await.code, 0);
    stage.topic(1).await;
    stage.send_all(0, ["new".to_owned()]).await;
    let new = stage.pop(&pop_request()).await;
    assert_eq!(bodies(&new), ["new"]);
    // As if both had been popped in the same millisecond.
    let time = |got: &Got| got.handle.split(' ').nth(1).unwrap().to_owned();
    let forged =
        Got { handle: old[0].handle.replace(&time(&old[0]), &time(&new[0])), ..old[0].clone() };
    assert_eq!(stage.ack(&forged).await, ReplyCode::NoMessage.to_wire());
    assert_eq!(stage.ack(&new[0]).await, 0);
    stage.end().await;
}

#[tokio::test]
async fn what_was_given_back_while_pulling_is_popped() {
    let stage = Stage::new().await;
    stage.topic(1).await;
    stage.send_all(0, ["back".to_owned()]).await;
    let got = stage.pop(&pop_request()).await;
    let record = stage.running.broker.store.find_queue(TOPIC, 0).unwrap();
    let (_, units) = stage.running.broker.store.units(record, 0, 1).unwrap();
    assert_eq!(stage.ack(&got[0]).await, 0);
    let back = Fields::default()
        .with("group", GROUP)
        .with("offset", units[0].position.to_string())
        .with("delayLevel", "1")
        .with("originTopic", TOPIC);
    let reply = stage.call(request(36, back, b"")).await;
    assert_eq!(reply.code, 0, "{:?}", reply.remark);
    let wait = PopMessage { poll_time: 30_000, invisible_time: 300, ..pop_request() };
    for times in 1..3 {
        let got = stage.pop(&wait).await;
        assert_eq!((bodies(&got), got[0].times), (vec!["back"], times));
        if times == 2 {
            assert_eq!(stage.ack(&got[0]).await, 0);
        }
    }
    assert!(stage.pop(&PopMessage { poll_time: 600, ..pop_request() }).await.is_empty());
    stage.end().await;
}

/// What a client puts together that acknowledges many at once.
fn batch(got: &[Got]) -> Vec<u8> {
    let mut acks: Vec<BatchAckEntry> = Vec::new();
    for got in got {
        let words: Vec<&str> = got.handle.split(' ').collect();
        let number = |at: usize| words[at].parse::<i64>().unwrap();
        let (start, pop_time, queue_id) = (number(0), number(1), number(6) as i32);
        let same = |ack: &BatchAckEntry| ack.start_offset == start && ack.queue_id == queue_id;
        let at = acks.iter().position(same).unwrap_or_else(|| {
            acks.push(BatchAckEntry {
                bit_set: Vec::new(),
                consumer_group: GROUP.to_owned(),
                invisible_time: number(2),
                pop_time,
                queue_id,
                retry: words[4].to_owned(),
                revive_queue_id: number(3) as i32,
                start_offset: start,
                topic: TOPIC.to_owned(),
            });
            acks.len() - 1
        });
        let bit = (got.offset - start) as usize;
        let bits = &mut acks[at].bit_set;
        bits.resize(bits.len().max(bit / 8 + 1), 0);
        bits[bit / 8] |= 1 << (bit % 8);
    }
    let body = BatchAckMessageRequestBody { acks, broker_name: Some("b-a".to_owned()) };
    json::write(&body, Dialect::Fastjson)
}

#[tokio::test]
async fn many_are_acknowledged_at_once_and_what_is_not_among_them_stays() {
    let stage = Stage::new().await;
    stage.topic(2).await;
    for queue_id in 0..2 {
        stage.send_all(queue_id, (0..12).map(|at| format!("{queue_id}-{at}"))).await;
    }
    let got = stage.pop(&pop_request()).await;
    let (left, settled): (Vec<Got>, Vec<Got>) =
        got.into_iter().partition(|got| got.offset == 7 && got.queue_id == 1);
    let body = batch(&settled);
    for _ in 0..2 {
        assert_eq!(stage.call(request(200_151, Fields::default(), &body)).await.code, 0);
    }
    assert_eq!((stage.committed(0).await, stage.committed(1).await), (12, 7));
    assert_eq!(stage.ack(&left[0]).await, 0);
    assert_eq!(stage.committed(1).await, 12);
    let nobodys =
        Got { handle: left[0].handle.replacen(" 1 ", " 0 ", 1), offset: 500, ..left[0].clone() };
    let body = batch(&[nobodys]);
    let refused = stage.call(request(200_151, Fields::default(), &body)).await;
    assert_eq!(refused.code, ReplyCode::NoMessage.to_wire());
    stage.end().await;
}

#[tokio::test]
async fn one_can_look_and_be_told_without_taking() {
    let stage = Stage::new().await;
    stage.topic(2).await;
    let watch = |poll_time| Notification {
        consumer_group: GROUP.to_owned(),
        topic: TOPIC.to_owned(),
        queue_id: -1,
        poll_time,
        born_time: 0,
        order: None,
        attempt_id: None,
        exp_type: None,
        exp: None,
    };
    let told = |reply: Command<'static>| reply.fields.get("hasMsg").unwrap().to_owned();
    assert_eq!(told(stage.call(Command::request(200_054, &watch(0))).await), "false");
    let (reply, ()) = tokio::join!(stage.call(Command::request(200_054, &watch(30_000))), async {
        while !waits(&stage).await {
            tokio::task::yield_now().await;
        }
        stage.send(1, "here", "t").await;
    });
    assert_eq!(told(reply), "true");
    let peek = PeekMessage {
        topic: TOPIC.to_owned(),
        queue_id: -1,
        max_msg_nums: 5,
        consumer_group: GROUP.to_owned(),
    };
    for _ in 0..2 {
        let reply = stage.call(Command::request(200_052, &peek)).await;
        assert_eq!(reply.code, 0, "{:?}", reply.remark);
        let (record, _) = Record::decode(&reply.body).unwrap();
        assert_eq!(record.body, b"here");
    }
    assert_eq!(bodies(&stage.pop(&pop_request()).await), ["here"]);
    let none = stage.call(Command::request(200_052, &peek)).await;
    assert_eq!(none.code, ReplyCode::PullNotFound.to_wire());
    assert_eq!(told(stage.call(Command::request(200_054, &watch(0))).await), "false");
    stage.end().await;
}

#[tokio::test]
async fn what_cannot_be_served_is_refused_as_the_stock_broker_does() {
    let stage = Stage::new().await;
    stage.topic(2).await;
    stage.send(0, "a", "t").await;
    let got = stage.pop(&pop_request()).await;
    let code = |request: PopMessage| {
        let stage = &stage;
        async move { stage.pop_raw(&request).await.code }
    };
    assert_eq!(code(PopMessage { max_msg_nums: 33, ..pop_request() }).await, 29);
    assert_eq!(code(PopMessage { queue_id: 2, ..pop_request() }).await, 29);
    assert_eq!(code(PopMessage { topic: "none".into(), ..pop_request() }).await, 17);
    assert_eq!(code(PopMessage { born_time: 1, ..pop_request() }).await, 210);
    assert_eq!(code(PopMessage { exp: Some("||".into()), ..pop_request() }).await, 23);
    let at = |queue_id: i32, offset: i64| Got { queue_id, offset, ..got[0].clone() };
    assert_eq!(stage.ack(&at(2, 0)).await, 13);
    assert_eq!(stage.ack(&at(0, 1)).await, 208);
    assert_eq!(stage.ack(&at(0, -1)).await, 208);
    assert_eq!(stage.ack(&Got { handle: "garbage".into(), ..got[0].clone() }).await, 29);
    assert_eq!(stage.hide(&at(0, 1), 10).await.0, 208);
    assert_eq!(stage.ack(&got[0]).await, 0);
    stage.end().await;
}

#[tokio::test]
async fn a_group_changes_between_pulling_and_popping_and_loses_nothing() {
    let stage = Stage::new().await;
    stage.topic(1).await;
    stage.send_all(0, (0..8).map(|at| at.to_string())).await;
    let commit = |offset: i64| {
        Fields::default()
            .with("consumerGroup", GROUP)
            .with("topic", TOPIC)
            .with("queueId", "0")
            .with("queueOffset", offset.to_string())
            .with("maxMsgNums", "1")
            .with("sysFlag", "5")
            .with("commitOffset", offset.to_string())
            .with("suspendTimeoutMillis", "0")
            .with("subscription", "*")
            .with("subVersion", "0")
    };
    // Pulled up to 2.
    let pulled = stage.call(request(11, commit(2), b"")).await;
    assert_eq!(pulled.code, 0, "{:?}", pulled.remark);
    let got = stage.pop(&PopMessage { max_msg_nums: 3, ..pop_request() }).await;
    assert_eq!(bodies(&got), ["2", "3", "4"]);
    assert_eq!(stage.ack(&got[1]).await, 0);
    assert_eq!(stage.ack(&got[0]).await, 0);
    assert_eq!(stage.committed(0).await, 4);
    let stats = Fields::default().with("consumerGroup", GROUP).with("topic", TOPIC);
    let stats = stage.call(request(208, stats, b"")).await;
    let stats = String::from_utf8_lossy(&stats.body).into_owned();
    for part in ["\"consumerOffset\":4", "\"pullOffset\":5", "\"brokerOffset\":8"] {
        assert!(stats.contains(part), "{part} in {stats}");
    }
    // Pulled on up to 7, and popped again.
    assert_eq!(stage.call(request(11, commit(7), b"")).await.code, 0);
    let got = stage.pop(&pop_request()).await;
    assert_eq!(bodies(&got), ["7"]);
    // One that is behind does not put back those who pop.
    assert_eq!(stage.call(request(11, commit(5), b"")).await.code, 0);
    assert_eq!(stage.ack(&got[0]).await, 0);
    assert_eq!(stage.committed(0).await, 8);
    stage.end().await;
}

#[tokio::test]
async fn how_a_group_consumes_is_told_and_kept() {
    let stage = Stage::new().await;
    stage.topic(3).await;
    let mode = format!(
        "{{\"consumerGroup\":\"{GROUP}\",\"mode\":\"POP\",\"popShareQueueNum\":0,\"topic\":\"{TOPIC}\"}}"
    );
    let set = |body: &str| request(401, Fields::default(), body.as_bytes());
    for (made_when_missing, code) in [(false, 26), (true, 0)] {
        let setting = format!("autoCreateSubscriptionGroup={made_when_missing}");
        assert_eq!(stage.call(request(25, Fields::default(), setting.as_bytes())).await.code, 0);
        assert_eq!(stage.call(set(&mode)).await.code, code, "{setting}");
    }
    assert_eq!(stage.call(set(&mode.replace(TOPIC, "none"))).await.code, 17);
    assert_eq!(stage.call(set(&mode.replace(TOPIC, "%RETRY%x"))).await.code, 16);
    let beat = format!(
        "{{\"clientID\":\"c1\",\"consumerDataSet\":[{{\"groupName\":\"{GROUP}\",\
         \"consumeType\":\"CONSUME_PASSIVELY\",\"messageModel\":\"CLUSTERING\",\
         \"consumeFromWhere\":\"CONSUME_FROM_LAST_OFFSET\",\"subscriptionDataSet\":[]}}],\
         \"producerDataSet\":[]}}"
    );
    let ask = format!(
        "{{\"clientId\":\"c1\",\"consumerGroup\":\"{GROUP}\",\"messageModel\":\"CLUSTERING\",\
         \"strategyName\":\"AVG\",\"topic\":\"{TOPIC}\"}}"
    );
    let mut stage = stage;
    for _ in 0..2 {
        assert_eq!(stage.call(request(34, Fields::default(), beat.as_bytes())).await.code, 0);
        let reply = stage.call(request(400, Fields::default(), ask.as_bytes())).await;
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        let all = text.matches("\"queueId\":-1").count();
        assert_eq!((all, text.contains("\"mode\":\"POP\"")), (1, true), "{text}");
        let file = stage.call(request(402, Fields::default(), b"")).await;
        assert!(String::from_utf8_lossy(&file.body).contains("messageRequestModeMap"));
        stage = Stage::on(stage.end().await).await;
    }
    let file = stage.folder.path().join("config/messageRequestMode.json");
    assert!(std::fs::read_to_string(file).unwrap().contains("\"popShareQueueNum\":0"));
    stage.end().await;
}

#[tokio::test]
async fn a_message_that_was_consumed_costs_few_bytes_of_log() {
    const COUNT: usize = 640;
    for (batch_size, bytes_max) in [(32, 4.0), (1, 24.0)] {
        let stage = Stage::new().await;
        stage.topic(1).await;
        stage.send_all(0, (0..COUNT).map(|at| at.to_string())).await;
        let store = &stage.running.broker.store;
        let before = store.appended_position();
        let pop = PopMessage { max_msg_nums: batch_size, ..pop_request() };
        for _ in 0..COUNT / batch_size as usize {
            let got = stage.pop(&pop).await;
            let body = batch(&got);
            assert_eq!(stage.call(request(200_151, Fields::default(), &body)).await.code, 0);
        }
        assert_eq!(stage.committed(0).await, COUNT as i64);
        let broker = stage.running.broker.clone();
        broker.pops.write(&broker.store, remoting::clock::now_ms(), true).unwrap();
        let bytes = (store.appended_position() - before) as f64 / COUNT as f64;
        println!("in batches of {batch_size}: {bytes:.2} bytes of log a message");
        assert!(bytes <= bytes_max, "{bytes} bytes in batches of {batch_size}");
        stage.end().await;
    }
}
