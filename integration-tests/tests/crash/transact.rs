//! Transactions that a crash falls into: what was committed is there once, what was rolled back never.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use integration_tests::ask;
use integration_tests::wire::{ANSWER_TIMEOUT, Wire};
use protocol::body::{HeartbeatData, ProducerData};
use protocol::frame::Command;
use protocol::header::Empty;
use protocol::header::send::{Send, SendMessageReply};
use protocol::header::transaction::{CheckTransactionState, EndTransaction};
use protocol::id;
use protocol::json::{self, Dialect};
use protocol::record::{Record, sys_flag};
use protocol::reply::ReplyCode;
use protocol::request::RequestCode;
use rand::{Rng, rngs::StdRng};
use remoting::clock;

use crate::check::read_queue;
use crate::history::{Content, History, QUEUES, Seen, first_number, number_of};
use crate::load::Task;

/// Where committed messages arrive.
pub(crate) const TOPIC: &str = "crash-transactions";
const GROUP: &str = "crash-producers";

/// How the transaction of this number ends, and whether its producer says so unasked.
fn end_of(number: u64) -> (i32, bool) {
    let how = if number.is_multiple_of(2) {
        sys_flag::TRANSACTION_COMMIT
    } else {
        sys_flag::TRANSACTION_ROLLBACK
    };
    (how, !(number / 2).is_multiple_of(4))
}

fn commits(number: u64) -> bool {
    end_of(number).0 == sys_flag::TRANSACTION_COMMIT
}

/// Begins and ends transactions until the connection breaks, and answers when it is asked.
pub(crate) fn transact(task: &Task, random: &mut StdRng, seen: &mut Seen) -> Result<()> {
    let mut wire = connect(task.broker)?;
    let window = [1, 16][random.random_range(0..2)];
    let mut halves: HashMap<i32, u64> = HashMap::new();
    let mut ends: HashMap<i32, u64> = HashMap::new();
    let mut next = first_number(task.round, task.number);
    loop {
        while halves.len() < window {
            halves.insert(wire.push(half(next)), next);
            next += 1;
        }
        wire.flush()?;
        let said = wire.receive()?;
        if !said.is_reply() {
            answer(&mut wire, &said)?;
        } else if said.code != ReplyCode::Success.to_wire() {
            // While it stops it takes nothing more.
            let stops = [ReplyCode::ServiceNotAvailable, ReplyCode::GoAway];
            let stops = stops.map(ReplyCode::to_wire).contains(&said.code);
            assert!(stops, "refused: {said:?}");
            *seen.refused.entry(said.code).or_default() += 1;
            halves.remove(&said.opaque);
        } else if let Some(number) = halves.remove(&said.opaque) {
            seen.halves.push(number);
            if end_of(number).1 {
                let told: SendMessageReply = said.fields.read()?;
                let (_, position) = id::decode_offset_id(&told.msg_id)?;
                let end = end(number, told.queue_offset, position, false);
                ends.insert(wire.push(ask::request(&end)), number);
            }
            task.answered(seen, 1);
        } else if let Some(number) = ends.remove(&said.opaque) {
            seen.ended.push(number);
            task.answered(seen, 1);
        }
    }
}

/// A connection of a producer of the group.
fn connect(broker: SocketAddr) -> Result<Wire> {
    let mut wire = Wire::connect(broker)?;
    let beat = HeartbeatData {
        client_id: "crash-producer".to_owned(),
        producer_data_set: [ProducerData { group_name: GROUP.to_owned() }].into(),
        ..HeartbeatData::default()
    };
    wire.ask_plain(RequestCode::Heartbeat, json::write(&beat, Dialect::Standard))?;
    Ok(wire)
}

fn half(number: u64) -> Command<'static> {
    let queue_id = (number % QUEUES as u64) as i32;
    let Content { body, mut properties } = Content::of(number, TOPIC, queue_id);
    properties.push_str(&format!("TRAN_MSG\u{1}true\u{2}PGROUP\u{1}{GROUP}\u{2}"));
    let send = Send {
        producer_group: GROUP,
        topic: TOPIC,
        default_topic: "TBW102",
        default_topic_queue_nums: 4,
        queue_id,
        sys_flag: sys_flag::TRANSACTION_PREPARED,
        born_timestamp: clock::now_ms(),
        flag: 0,
        properties: Some(&properties),
        reconsume_times: Some(0),
        unit_mode: false,
        max_reconsume_times: None,
        batch: false,
        broker_name: None,
    };
    ask::send(RequestCode::SendMessageV2, &send, body)
}

fn end(number: u64, half_offset: i64, position: i64, asked: bool) -> EndTransaction {
    EndTransaction {
        topic: Some(TOPIC.to_owned()),
        producer_group: GROUP.to_owned(),
        tran_state_table_offset: half_offset,
        commit_log_offset: position,
        commit_or_rollback: end_of(number).0,
        from_transaction_check: Some(asked),
        msg_id: String::new(),
        transaction_id: None,
    }
}

/// Says how the transaction ends that the broker asks about, as clients do: without waiting.
fn answer(wire: &mut Wire, question: &Command<'_>) -> Result<()> {
    if question.code != RequestCode::CheckTransactionState.to_wire() {
        return Ok(());
    }
    let asked: CheckTransactionState = question.fields.read()?;
    let (record, _) = Record::decode(&question.body)?;
    let number = number_of(record.body).context("a question about a message nobody sent")?;
    let content = Content::of(number, TOPIC, record.queue_id);
    assert!(content.is(record.body, record.properties), "asked about {number:x}, which changed");
    let end = end(number, asked.tran_state_table_offset, asked.commit_log_offset, true);
    let mut end = ask::request(&end);
    end.set_oneway();
    wire.push(end);
    wire.flush()
}

/// Reads what was committed: nothing twice, nothing that was rolled back, all that was promised.
pub(crate) fn check(wire: &mut Wire, history: &History) -> Result<usize> {
    let found = committed(wire)?;
    for number in history.ended.iter().filter(|number| commits(**number)) {
        ensure!(found.contains(number), "{number:x} was committed and is not there");
    }
    Ok(found.len())
}

fn committed(wire: &mut Wire) -> Result<HashSet<u64>> {
    let mut found = HashSet::new();
    for queue_id in 0..QUEUES {
        read_queue(wire, &(TOPIC.to_owned(), queue_id), |record| {
            let number = number_of(record.body).context("a message nobody sent")?;
            let content = Content::of(number, TOPIC, queue_id);
            ensure!(content.is(record.body, record.properties), "{number:x} changed");
            ensure!(commits(number), "{number:x} was rolled back, and is there");
            ensure!(found.insert(number), "{number:x} is there twice");
            Ok(())
        })?;
    }
    Ok(found)
}

/// Answers until every half message that was acknowledged has ended as it should.
pub(crate) fn ends(broker: SocketAddr, history: &History) -> Result<()> {
    let wanted: HashSet<u64> = history.halves.iter().copied().filter(|it| commits(*it)).collect();
    let mut producer = connect(broker)?;
    let mut reader = Wire::connect(broker)?;
    let started = clock::instant();
    loop {
        let found = committed(&mut reader)?;
        let mut missing = wanted.difference(&found);
        let Some(one) = missing.next() else { return Ok(()) };
        let count = missing.count() + 1;
        ensure!(started.elapsed() < ANSWER_TIMEOUT, "{count} never ended, among them {one:x}");
        // The next question, or whatever is answered to this one.
        let opaque = producer.push(Command::request(RequestCode::Heartbeat.to_wire(), &Empty {}));
        producer.flush()?;
        loop {
            let said = producer.receive()?;
            if said.is_reply() && said.opaque == opaque {
                break;
            }
            answer(&mut producer, &said)?;
        }
    }
}
