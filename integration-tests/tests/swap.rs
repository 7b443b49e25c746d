//! Half of the cluster is stock, half is ours; or one after the other on one store. Runs with `FERROMQ_CLIENT_SUITES=1`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic and tell, in its helpers too"
)]

use std::net::SocketAddr;

use integration_tests::ask;
use integration_tests::cluster::{self, PATIENCE, Process};
use integration_tests::stock;
use integration_tests::wire::Wire;
use protocol::body::{HeartbeatData, ProducerData};
use protocol::fields::Sink;
use protocol::frame::Command;
use protocol::header::offset::GetMaxOffset;
use protocol::header::send::SendMessageReply;
use protocol::header::topic::CreateTopic;
use protocol::header::transaction::{CheckTransactionState, EndTransaction};
use protocol::id;
use protocol::json::{self, Dialect};
use protocol::message::{BatchEntry, batch_entries};
use protocol::record::{Record, sys_flag};
use protocol::reply::ReplyCode;
use protocol::request::RequestCode;
use remoting::clock;

/// Something of everything that passes through both halves.
const CASES: &str = "send-sync,send-async,send-one-way,send-batch,send-creates-topic,\
                     send-create-topic-call,consume-rebalance,consume-tags,consume-broadcast,\
                     order-by-key,pull-statuses,query-by-key,retry-then-dead-letter,delay-levels,\
                     offset-over-restart,request-reply";

#[test]
fn a_stock_broker_works_with_our_nameserver() {
    if !stock::wanted() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let (map, namesrv) = cluster::nameserver(&data.path().join("ours")).unwrap();
    let (_work, broker) =
        stock::broker(&data.path().join("stock"), namesrv, "stock-broker").unwrap();
    works(namesrv, broker, "stock-broker");
    assert!(!map.said().contains("panicked"), "{}", map.said());
}

#[test]
fn our_broker_works_with_a_stock_nameserver() {
    if !stock::wanted() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let (_map, namesrv) = stock::nameserver(&data.path().join("stock")).unwrap();
    let settings = [("brokerName", "our-broker")];
    let (work, broker) =
        cluster::broker(&data.path().join("ours"), &namesrv.to_string(), &settings).unwrap();
    works(namesrv, broker, "our-broker");
    assert!(!work.said().contains("panicked"), "{}", work.said());
}

/// Clients produce and consume, and `mqadmin` sees the broker and its topics.
fn works(namesrv: SocketAddr, broker: SocketAddr, name: &str) {
    registered(namesrv, name);
    let address = namesrv.to_string();
    let said = stock::suite(&["java", "5.5.0", &address, "--only", CASES], &[]);
    println!("{name}: {}", said.unwrap().lines().last().unwrap());
    let clusters = stock::mqadmin(&["clusterList", "-n", &address]).unwrap();
    for word in ["DefaultCluster", name, &broker.to_string()] {
        assert!(clusters.contains(word), "{clusters}");
    }
    let topics = stock::mqadmin(&["topicList", "-n", &address]).unwrap();
    for topic in ["DefaultCluster", name, "TBW102", "SCHEDULE_TOPIC_XXXX"] {
        assert!(topics.lines().any(|line| line.trim() == topic), "{topic} in {topics}");
    }
}

const TOPIC: &str = "both";
const LATER: &str = "later";
/// Keeps each batch as one record.
const WHOLE: &str = "whole";
const QUEUES: i32 = 3;
const PRODUCERS: &str = "both-producers";

#[test]
fn one_store_is_served_by_ours_then_by_stock_then_by_ours_again() {
    if !stock::wanted() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("store");
    let (_map, namesrv) = cluster::nameserver(&home.path().join("map")).unwrap();
    let consumed = ("both-readers".to_owned(), TOPIC.to_owned(), 1);
    let ours = |timeout| {
        let settings = [
            ("brokerName", "one"),
            ("transactionTimeOut", timeout),
            ("transactionCheckInterval", "1000"),
        ];
        cluster::broker(&root, &namesrv.to_string(), &settings).unwrap()
    };
    let mut sent = Sent::default();

    // Ours: messages, an offset, one message that comes later, two transactions that have not ended.
    let (mut process, address) = ours("600000");
    let mut wire = Wire::connect(address).unwrap();
    for topic in [ask::topic(TOPIC, QUEUES), ask::topic(LATER, QUEUES), whole_topic()] {
        wire.ask(&topic).unwrap();
    }
    ask::make_group(&mut wire, &consumed.0).unwrap();
    sent.some(&mut wire, "ours");
    wire.ask(&ask::update_offset(&consumed, 5)).unwrap();
    let later = send(&mut wire, LATER, "later", "DELAY\u{1}4\u{2}");
    assert_eq!(later.queue_offset, 0);
    let by_stock = half(&mut wire, "begun by ours, ended with stock");
    let by_ours = half(&mut wire, "begun by ours, ended by ours");
    drop(wire);
    stop(&mut process);
    let exported = cluster::ferromq().args(["store", "export"]).arg(&root).status().unwrap();
    assert!(exported.success());

    // Stock: finds all that, adds to it, ends one transaction and begins another.
    let (mut process, address) = stock::broker(home.path(), namesrv, "one").unwrap();
    let mut wire = Wire::connect(address).unwrap();
    sent.are_there(&mut wire);
    assert_eq!(wire.ask(&ask::query_offset(&consumed)).unwrap().0.offset, 5);
    sent.some(&mut wire, "stock");
    wire.ask(&ask::update_offset(&consumed, 8)).unwrap();
    sent.expect(&by_stock);
    end(&mut wire, &by_stock);
    let across = half(&mut wire, "begun with stock, ended by ours");
    sent.are_there(&mut wire);
    // Stock writes down that a transaction has ended some seconds later.
    let op = GetMaxOffset { topic: OP_TOPIC.to_owned(), queue_id: 0, committed: true };
    let started = clock::instant();
    while wire.ask(&op).unwrap().0.offset == 0 {
        assert!(started.elapsed() < PATIENCE, "stock never wrote the end of a transaction");
        cluster::a_moment();
    }
    drop(wire);
    stop(&mut process);

    // Ours again.
    let (mut process, address) = ours("1000");
    let mut wire = Wire::connect(address).unwrap();
    sent.are_there(&mut wire);
    assert_eq!(wire.ask(&ask::query_offset(&consumed)).unwrap().0.offset, 8);
    let again = wire.call(ask::request(&by_stock.end)).unwrap();
    assert_ne!(again.code, 0, "it has ended with stock");
    // Stock may have asked about the others meanwhile, in vain; ours asks again.
    for asked in questions(address, 2) {
        let half = [&by_ours, &across].into_iter().find(|half| half.body == asked).unwrap();
        sent.expect(half);
    }
    sent.some(&mut wire, "ours again");
    sent.are_there(&mut wire);
    let started = clock::instant();
    while read(&mut wire, LATER).is_empty() {
        assert!(started.elapsed() < PATIENCE * 2, "the message that was to come later never came");
        cluster::a_moment();
    }
    assert_eq!(read(&mut wire, LATER), [(0, 0, "later".to_owned())]);
    stop(&mut process);
    assert!(!process.said().contains("panicked"), "{}", process.said());
}

const OP_TOPIC: &str = "RMQ_SYS_TRANS_OP_HALF_TOPIC";

/// What was sent to the topic, by queue, and the first offsets of batches that are kept whole.
#[derive(Debug, Default)]
struct Sent {
    bodies: [Vec<String>; QUEUES as usize],
    batches: Vec<i64>,
}

impl Sent {
    fn some(&mut self, wire: &mut Wire, who: &str) {
        for number in 0..30 {
            let queue_id = number % QUEUES;
            let body = format!("{who} {number}");
            let reply = taken(wire, || ask::plain_send(TOPIC, queue_id, body.as_bytes()));
            let told: SendMessageReply = reply.fields.read().unwrap();
            let bodies = &mut self.bodies[queue_id as usize];
            assert_eq!(
                told.queue_offset,
                bodies.len() as i64,
                "{who} goes on where the other ended"
            );
            bodies.push(body);
        }
        for _ in 0..2 {
            let offset = send_batch(wire);
            assert_eq!(offset, (self.batches.len() * BATCH.len()) as i64, "{who} goes on");
            self.batches.push(offset);
        }
    }

    fn expect(&mut self, half: &Half) {
        self.bodies[0].push(half.body.clone());
    }

    fn are_there(&self, wire: &mut Wire) {
        let expected: Vec<_> = (0..)
            .zip(&self.bodies)
            .flat_map(|(queue, bodies)| {
                (0..).zip(bodies).map(move |(offset, body)| (queue, offset, body.clone()))
            })
            .collect();
        assert_eq!(read(wire, TOPIC), expected);
        assert_eq!(batches(wire), self.batches);
    }
}

fn whole_topic() -> CreateTopic {
    let attributes = Some("+queue.type=BatchCQ".to_owned());
    CreateTopic { attributes, ..ask::topic(WHOLE, 1) }
}

/// A transaction that has begun, and how to end it.
#[derive(Debug)]
struct Half {
    body: String,
    end: EndTransaction,
}

fn half(wire: &mut Wire, body: &str) -> Half {
    let properties = format!("TRAN_MSG\u{1}true\u{2}PGROUP\u{1}{PRODUCERS}\u{2}");
    let told = send(wire, TOPIC, body, &properties);
    let (_, position) = id::decode_offset_id(&told.msg_id).unwrap();
    let end = EndTransaction {
        topic: Some(TOPIC.to_owned()),
        producer_group: PRODUCERS.to_owned(),
        tran_state_table_offset: told.queue_offset,
        commit_log_offset: position,
        commit_or_rollback: sys_flag::TRANSACTION_COMMIT,
        from_transaction_check: Some(false),
        msg_id: String::new(),
        transaction_id: None,
    };
    Half { body: body.to_owned(), end }
}

fn end(wire: &mut Wire, half: &Half) {
    taken(wire, || ask::request(&half.end));
}

/// Commits whatever the broker asks about, in this order.
fn questions(broker: SocketAddr, count: usize) -> Vec<String> {
    let mut wire = Wire::connect(broker).unwrap();
    let beat = HeartbeatData {
        client_id: "both-producer".to_owned(),
        producer_data_set: [ProducerData { group_name: PRODUCERS.to_owned() }].into(),
        ..HeartbeatData::default()
    };
    wire.ask_plain(RequestCode::Heartbeat, json::write(&beat, Dialect::Standard)).unwrap();
    let mut bodies = Vec::new();
    while bodies.len() < count {
        let question = wire.receive().unwrap();
        if question.code != RequestCode::CheckTransactionState.to_wire() {
            continue;
        }
        let asked: CheckTransactionState = question.fields.read().unwrap();
        let (record, _) = Record::decode(&question.body).unwrap();
        let body = String::from_utf8_lossy(record.body).into_owned();
        let end = EndTransaction {
            topic: None,
            producer_group: PRODUCERS.to_owned(),
            tran_state_table_offset: asked.tran_state_table_offset,
            commit_log_offset: asked.commit_log_offset,
            commit_or_rollback: sys_flag::TRANSACTION_COMMIT,
            from_transaction_check: Some(true),
            msg_id: String::new(),
            transaction_id: None,
        };
        if wire.call(ask::request(&end)).unwrap().code == 0 {
            bodies.push(body);
        }
    }
    bodies
}

/// Asks until it is taken: a stock broker that has just started is busy for a while.
fn taken<'c>(wire: &mut Wire, request: impl Fn() -> Command<'c>) -> Command<'static> {
    let started = clock::instant();
    loop {
        let reply = wire.call(request()).unwrap();
        if reply.code != ReplyCode::SystemBusy.to_wire() {
            assert_eq!(reply.code, 0, "{reply:?}");
            return reply;
        }
        assert!(started.elapsed() < PATIENCE, "{reply:?}");
    }
}

fn send(wire: &mut Wire, topic: &str, body: &str, properties: &str) -> SendMessageReply {
    let reply = taken(wire, || {
        let mut request = ask::plain_send(topic, 0, body.as_bytes());
        request.fields.put("i", properties.as_bytes());
        request.fields.put("g", clock::now_ms().to_string().as_bytes());
        request
    });
    reply.fields.read().unwrap()
}

const BATCH: [&str; 3] = ["a", "b", "c"];

/// Sends a batch; the first of its offsets.
fn send_batch(wire: &mut Wire) -> i64 {
    let mut batch = Vec::new();
    for body in BATCH {
        let entry = BatchEntry { flag: 0, body: body.as_bytes(), properties: b"" };
        entry.encode_into(&mut batch).unwrap();
    }
    let reply = taken(wire, || {
        let mut request = ask::plain_send(WHOLE, 0, &batch);
        request.code = RequestCode::SendBatchMessage.to_wire();
        request.fields.put("i", "UNIQ_KEY\u{1}of-the-batch\u{2}".as_bytes());
        request.fields.put("m", b"true");
        request
    });
    let told: SendMessageReply = reply.fields.read().unwrap();
    assert_eq!(told.batch_uniq_id.as_deref(), Some("of-the-batch"));
    told.queue_offset
}

/// The first offset of each batch.
fn batches(wire: &mut Wire) -> Vec<i64> {
    let consumed = ("both-readers".to_owned(), WHOLE.to_owned(), 0);
    let reply = wire.call(ask::request(&ask::pull(&consumed, 0))).unwrap();
    let (mut found, mut rest) = (Vec::new(), reply.body.as_ref());
    while !rest.is_empty() {
        let (record, size) = Record::decode(rest).unwrap();
        assert_eq!(batch_entries(record.body).count(), BATCH.len());
        found.push(record.queue_offset);
        rest = &rest[size..];
    }
    found
}

/// Every message of a topic: queue, offset, body.
fn read(wire: &mut Wire, topic: &str) -> Vec<(i32, i64, String)> {
    let mut all = Vec::new();
    for queue_id in 0..QUEUES {
        let mut next = 0;
        loop {
            let consumed = ("both-readers".to_owned(), topic.to_owned(), queue_id);
            let reply = wire.call(ask::request(&ask::pull(&consumed, next))).unwrap();
            let mut rest = reply.body.as_ref();
            if rest.is_empty() {
                break;
            }
            while !rest.is_empty() {
                let (record, size) = Record::decode(rest).unwrap();
                let body = String::from_utf8_lossy(record.body).into_owned();
                all.push((queue_id, record.queue_offset, body));
                next = record.queue_offset + 1;
                rest = &rest[size..];
            }
        }
    }
    all
}

/// Ends a process as an operator would.
fn stop(process: &mut Process) {
    process.terminate().unwrap();
    process.ended().unwrap();
}

/// Waits until the nameserver knows the broker; nothing announces it.
fn registered(namesrv: SocketAddr, name: &str) {
    let mut wire = Wire::connect(namesrv).unwrap();
    let started = clock::instant();
    loop {
        let body = wire.ask_plain(RequestCode::GetBrokerClusterInfo, Vec::new()).unwrap();
        if String::from_utf8_lossy(&body).contains(name) {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{name} never registered");
        cluster::a_moment();
    }
}
