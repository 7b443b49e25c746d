//! Reads the queues of halves and ends, and asks producers about what has not ended.

use std::sync::Arc;
use std::time::Duration;

use protocol::fields::Sink;
use protocol::frame::Command;
use protocol::header::transaction::CheckTransactionState;
use protocol::id;
use protocol::name;
use protocol::properties::{self, name as property};
use protocol::record::Record;
use protocol::reply::Refusal;
use protocol::request::RequestCode;
use remoting::clock;
use store::{Access, Batch, Limits, NewMessage, ReadError, Status};
use tracing::{debug, error, info, warn};

use super::ledger::{Due, End, Half, Ledger, Rules, State};
use super::{GROUP, QUEUE, copy, first_offset, own_immunity_ms, push_end, since_ms};
use crate::broker::Broker;
use crate::config::Config;
use crate::offsets::requests::unreadable;
use crate::send::not_pushed;

/// How often the queue of halves is looked at when nothing is due before.
const LOOK_MS: i64 = 1000;
/// Half messages dealt with in one step, well below what may wait to be written to one producer.
const STEP_MESSAGES: usize = 256;
/// What is due and did not fit into a step waits this long, so that producers take the questions.
const STEP_MS: i64 = 20;
/// After a failure a half message rests this long.
const REST_MS: i64 = 1000;

/// Reads what was ended among the half messages that are not done with.
pub fn load(broker: &Broker) -> Result<(), ReadError> {
    // A queue that began again has less than what was noted of it.
    let committed = |topic| {
        let noted = broker.offsets.committed(GROUP, topic, QUEUE).unwrap_or(0);
        noted.min(end_of(broker, topic))
    };
    let mut ledger = Ledger::new(committed(name::TRANSACTION_HALF_TOPIC));
    let mut from = committed(name::TRANSACTION_OP_TOPIC);
    loop {
        let next = read(broker, name::TRANSACTION_OP_TOPIC, from, |record| {
            let offsets = std::str::from_utf8(record.body).unwrap_or_default().split(',');
            offsets.filter_map(|offset| offset.parse().ok()).for_each(|at| ledger.end_read(at));
        })?;
        match next {
            Some(next) => from = next,
            None => break,
        }
    }
    *broker.transactions.ledger.lock() = ledger;
    Ok(())
}

/// Tells some records of one of the two queues, from an offset on; returns where to go on, if there is more.
fn read(
    broker: &Broker,
    topic: &str,
    from: i64,
    mut see: impl FnMut(&Record<'_>),
) -> Result<Option<i64>, ReadError> {
    let Some(queue) = broker.store.find_queue(topic, QUEUE) else { return Ok(None) };
    let limits = Limits { messages: STEP_MESSAGES, bytes: 4 << 20, scan: STEP_MESSAGES };
    let read = broker.store.read(queue, from, limits, Access::Blocking, store::All)?;
    if matches!(read.status, Status::Empty | Status::AtEnd | Status::BeyondEnd) {
        return Ok(None);
    }
    for slice in &read.slices {
        let mut rest = slice.as_ref();
        while let Ok((record, size)) = Record::decode(rest) {
            see(&record);
            rest = &rest[size..];
        }
    }
    Ok((read.next_offset != from).then_some(read.next_offset))
}

/// Asks about what is due until the process ends.
pub async fn run(broker: Arc<Broker>) {
    loop {
        let for_step = broker.clone();
        let step = tokio::task::spawn_blocking(move || step(&for_step)).await;
        let now_ms = clock::now_ms();
        let next_ms = step.unwrap_or_else(|defect| {
            error!(%defect, "the check of transactions met a defect");
            now_ms + REST_MS
        });
        let wait_ms = (next_ms - now_ms).clamp(0, LOOK_MS);
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(wait_ms.unsigned_abs())) => {}
            () = broker.shutdown.cancelled() => return,
        }
    }
}

/// Reads what has come, asks about what is due, and notes what is done with; returns when to come again.
fn step(broker: &Broker) -> i64 {
    let rules = rules(&broker.config.load());
    if let Err(error) = read_halves(broker, &rules) {
        warn!(%error, "cannot read the half messages");
        return clock::now_ms() + REST_MS;
    }
    let now_ms = clock::now_ms();
    let due = broker.transactions.ledger.lock().due(now_ms, STEP_MESSAGES, &rules);
    for (half, what) in &due {
        if let Err(refusal) = settle(broker, half, *what, &rules) {
            warn!(offset = half.offset, error = %refusal, "a half message has to wait");
            broker.transactions.ledger.lock().put_off(half.first, now_ms + REST_MS);
        }
    }
    note_done(broker);
    if due.len() == STEP_MESSAGES {
        return clock::now_ms() + STEP_MS;
    }
    let next_ms = broker.transactions.ledger.lock().next_due();
    next_ms.unwrap_or(i64::MAX)
}

fn rules(config: &Config) -> Rules {
    Rules {
        interval_ms: config.transaction_check_interval_ms,
        checks_max: config.transaction_checks_max,
        reserved_ms: (config.reserved_hours * 3_600_000).cast_signed(),
    }
}

fn read_halves(broker: &Broker, rules: &Rules) -> Result<(), ReadError> {
    let timeout_ms = broker.config.load().transaction_timeout_ms;
    while !broker.shutdown.is_cancelled() {
        let from = broker.transactions.ledger.lock().next();
        let mut halves = Vec::new();
        let next = read(broker, name::TRANSACTION_HALF_TOPIC, from, |record| {
            halves.push(half(record, timeout_ms).not_after(clock::now_ms()));
        })?;
        let Some(next) = next else { return Ok(()) };
        let mut ledger = broker.transactions.ledger.lock();
        halves.into_iter().for_each(|half| ledger.read(half, rules));
        ledger.skip_to(next);
    }
    Ok(())
}

fn half(record: &Record<'_>, timeout_ms: i64) -> Half {
    let checks = property::TRANSACTION_CHECK_TIMES;
    Half {
        first: first_offset(record),
        offset: record.queue_offset,
        position: record.physical_offset.cast_unsigned(),
        since_ms: since_ms(record),
        stored_ms: record.store_timestamp,
        immune_ms: own_immunity_ms(record).unwrap_or(timeout_ms),
        checks: properties::get_number(record.properties, checks).unwrap_or(0),
    }
}

/// Does what is due with one half message.
fn settle(broker: &Broker, half: &Half, what: Due, rules: &Rules) -> Result<(), Refusal> {
    let record = broker.store.message_at(half.position, Access::Blocking).map_err(unreadable)?;
    let message = record.as_deref().and_then(|record| Record::decode(record).ok());
    let Some((message, _)) = message.filter(|(it, _)| it.queue_offset == half.offset) else {
        warn!(offset = half.offset, "a half message was deleted before it ended");
        return give_up(broker, half, Batch::new());
    };
    let mut properties = message.properties.to_vec();
    let first = property::TRANSACTION_PREPARED_QUEUE_OFFSET;
    let mut batch = Batch::new();
    if what == Due::GiveUp {
        properties::remove(&mut properties, first);
        let topic = broker.topic_or_create(name::TRANSACTION_EXPIRED_TOPIC, 1, 0)?;
        let queue = topic.queue(&broker.store, 0)?;
        let last = NewMessage { properties: &[&properties], ..copy(broker, &message) };
        broker.store.push(&mut batch, queue, &last).map_err(not_pushed)?;
        let topic = properties::get_str(&properties, property::REAL_TOPIC).unwrap_or_default();
        info!(topic, checks = half.checks, "a transaction is given up; nobody knows how it ended");
        return give_up(broker, half, batch);
    }
    properties::set(&mut properties, first, half.first.to_string().as_bytes());
    let mut renewed = *half;
    if let Due::Ask(times) = what {
        renewed.checks = times;
        let checks = property::TRANSACTION_CHECK_TIMES;
        properties::set(&mut properties, checks, times.to_string().as_bytes());
    }
    let again = NewMessage { properties: &[&properties], ..copy(broker, &message) };
    let queue = broker.queue(name::TRANSACTION_HALF_TOPIC, QUEUE)?;
    broker.store.push(&mut batch, queue, &again).map_err(not_pushed)?;
    push_end(broker, &mut batch, half.offset)?;
    {
        let mut ledger = broker.transactions.ledger.lock();
        if ledger.state(half.first, half.offset) != (State::Waiting { offset: half.offset }) {
            // It has ended meanwhile.
            return Ok(());
        }
        renewed.stored_ms = broker.append(&mut batch)?.store_timestamp;
        let stored = batch.entries().next().expect("it was just appended");
        (renewed.offset, renewed.position) = (stored.queue_offset, stored.position);
        ledger.renewed(renewed, rules);
    }
    if let Due::Ask(_) = what {
        ask(broker, &renewed, &Record { properties: &properties, ..message });
    }
    Ok(())
}

/// Ends a transaction that nobody ended; `batch` holds what is left of it.
fn give_up(broker: &Broker, half: &Half, mut batch: Batch) -> Result<(), Refusal> {
    push_end(broker, &mut batch, half.offset)?;
    let mut ledger = broker.transactions.ledger.lock();
    if ledger.state(half.first, half.offset) == (State::Waiting { offset: half.offset }) {
        broker.append(&mut batch)?;
        ledger.ended(half.first, half.offset, End::GivenUp);
    }
    Ok(())
}

/// Sends the question to one of the producers of the group, another one each time.
fn ask(broker: &Broker, half: &Half, message: &Record<'_>) {
    let text = |name| properties::get_str(message.properties, name).unwrap_or_default();
    let (group, topic) = (text(property::PRODUCER_GROUP), text(property::REAL_TOPIC));
    let mut body = Vec::new();
    let asked = Record {
        topic,
        queue_id: properties::get_number(message.properties, property::REAL_QUEUE_ID).unwrap_or(0),
        queue_offset: half.offset,
        physical_offset: half.position.cast_signed(),
        store_timestamp: half.stored_ms,
        store_host: broker.store_host,
        ..message.clone()
    };
    if let Err(error) = asked.encode_into(&mut body) {
        warn!(group, topic, %error, "cannot ask about a half message");
        return;
    }
    let unique_key = Some(text(property::UNIQ_KEY).to_owned());
    let header = CheckTransactionState {
        topic: Some(name::TRANSACTION_HALF_TOPIC.to_owned()),
        tran_state_table_offset: half.offset,
        commit_log_offset: half.position.cast_signed(),
        msg_id: unique_key.clone(),
        transaction_id: unique_key,
        offset_msg_id: Some(id::encode_offset_id(broker.store_host, asked.physical_offset)),
    };
    let code = RequestCode::CheckTransactionState.to_wire();
    let mut question = Command::request(code, &header).with_body(body);
    question.fields.put("bname", broker.config.load().name.as_bytes());
    let members = broker.clients.producer_group(group);
    let start = half.offset.unsigned_abs() as usize;
    for at in 0..members.len() {
        match members[(start + at) % members.len()].peer.push(question.clone()) {
            Ok(()) => return,
            Err(error) => debug!(group, %error, "cannot ask a producer about a half message"),
        }
    }
    debug!(group, topic, "no producer of this group is connected that could be asked");
}

fn end_of(broker: &Broker, topic: &str) -> i64 {
    broker.store.find_queue(topic, QUEUE).map_or(0, |queue| broker.store.max_offset(queue))
}

/// Writes down from where a start has to read. Loses nothing if it is lost.
fn note_done(broker: &Broker) {
    // The ends first: an end that is there by then is about a half message that was there before.
    let ends = end_of(broker, name::TRANSACTION_OP_TOPIC);
    let halves = end_of(broker, name::TRANSACTION_HALF_TOPIC);
    let (halves, ends) = {
        let mut ledger = broker.transactions.ledger.lock();
        ledger.mark(halves, ends);
        ledger.done()
    };
    let topics = [(name::TRANSACTION_HALF_TOPIC, Some(halves)), (name::TRANSACTION_OP_TOPIC, ends)];
    for (topic, done) in topics {
        let known = broker.offsets.committed(GROUP, topic, QUEUE).unwrap_or(0);
        if let Some(done) = done.filter(|done| *done > known) {
            broker.offsets.commit_with_pull(GROUP, topic, QUEUE, done);
        }
    }
}
