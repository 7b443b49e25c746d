//! Transactions: half messages wait in a queue of their own until their producer says how they end.
//!
//! Three kinds of records are all there is, in the topics where a stock broker looks for them: the half
//! message, the end that names its offset, and the message itself when it was committed. An end and what
//! it leads to are one group in the log. What is in memory, the [`Ledger`], is read from those records.

pub mod check;
pub mod ledger;

use parking_lot::Mutex;
use protocol::frame::Command;
use protocol::header::Empty;
use protocol::header::transaction::{EndTransaction, ResumeCheckHalfMessage};
use protocol::id;
use protocol::name;
use protocol::properties::{self, name as property};
use protocol::record::{Record, sys_flag};
use protocol::reply::{Refusal, ReplyCode};
use remoting::clock;
use store::{Access, Batch, NewMessage};

use crate::answer::{Context, Outcome};
use crate::broker::{Broker, invalid};
use crate::config::Config;
use crate::offsets::requests::unreadable;
use crate::send::not_pushed;
use ledger::{End, Ledger, State};

/// The group whose offsets say how far the queues of halves and ends are done with.
pub const GROUP: &str = "CID_RMQ_SYS_TRANS";
/// Both topics have one queue that is used.
const QUEUE: i32 = 0;

/// Transactions of a broker.
#[derive(Debug, Default)]
pub struct Transactions {
    ledger: Mutex<Ledger>,
}

impl Transactions {
    /// Whether another half message may come.
    pub fn is_full(&self) -> bool {
        self.ledger.lock().is_full()
    }
}

/// The properties of a half message: what its own topic and queue were, and its id.
pub fn half(properties: &[u8], unique_key: &[u8], topic: &str, queue_id: i32) -> Vec<u8> {
    let mut half = properties.to_vec();
    properties::set(&mut half, property::TRANSACTION_ID, unique_key);
    properties::set(&mut half, property::REAL_TOPIC, topic.as_bytes());
    properties::set(&mut half, property::REAL_QUEUE_ID, queue_id.to_string().as_bytes());
    half
}

/// Code 37. Reads the half message, which may have to wait for the disk.
pub fn end(context: &Context<'_>) -> Outcome {
    let request: EndTransaction = context.header()?;
    let broker = context.broker;
    let wanted = match request.commit_or_rollback {
        sys_flag::TRANSACTION_COMMIT => End::Committed,
        sys_flag::TRANSACTION_ROLLBACK => End::RolledBack,
        // Its producer does not know yet; it is asked again.
        _ => return Ok(Command::reply(&Empty {})),
    };
    let missing =
        || Refusal::new(ReplyCode::SystemError, "Find prepared transaction message failed");
    let position = u64::try_from(request.commit_log_offset).map_err(|_| missing())?;
    let record = broker.store.message_at(position, Access::Blocking).map_err(unreadable)?;
    let record = record.ok_or_else(missing)?;
    let (message, _) = Record::decode(&record).map_err(|_| missing())?;
    if message.topic != name::TRANSACTION_HALF_TOPIC {
        return Err(missing());
    }
    check(&request, &message)?;
    let asked = request.from_transaction_check == Some(true);
    if !asked && too_late(&message, &broker.config.load(), clock::now_ms()) {
        let remark = "its time of immunity is over; the producer will be asked how it ended";
        return Err(Refusal::new(ReplyCode::IllegalOperation, remark));
    }
    end_once(broker, &message, wanted)?;
    Ok(Command::reply(&Empty {}))
}

/// Whether the request means this half message.
fn check(request: &EndTransaction, half: &Record<'_>) -> Result<(), Refusal> {
    let wrong = |what: &'static str| Err(Refusal::new(ReplyCode::SystemError, what));
    let group = properties::get_str(half.properties, property::PRODUCER_GROUP);
    if group != Some(&*request.producer_group) {
        return wrong("The producer group wrong");
    }
    if half.queue_offset != request.tran_state_table_offset {
        return wrong("The transaction state table offset wrong");
    }
    if half.physical_offset != request.commit_log_offset {
        return wrong("The commit log offset wrong");
    }
    Ok(())
}

/// Writes the end, and the message if it is committed, unless that was done before.
fn end_once(broker: &Broker, half: &Record<'_>, end: End) -> Result<(), Refusal> {
    let mut batch = Batch::new();
    if end == End::Committed {
        push_committed(broker, &mut batch, half)?;
    }
    let first = first_offset(half);
    let mut ledger = broker.transactions.ledger.lock();
    match ledger.state(first, half.queue_offset) {
        State::Waiting { offset } => {
            push_end(broker, &mut batch, offset)?;
            broker.append(&mut batch)?;
            ledger.ended(first, offset, end);
            Ok(())
        }
        State::Ended(Some(before)) if before == end => Ok(()),
        State::Ended(before) => {
            let how = match before {
                Some(End::Committed) => "was committed",
                Some(End::RolledBack) => "was rolled back",
                Some(End::GivenUp) => "was given up after too many questions",
                None => "has ended",
            };
            let remark = format!("the transaction {how} already");
            Err(Refusal::new(ReplyCode::SystemError, remark))
        }
    }
}

/// The message that consumers see.
fn push_committed(broker: &Broker, batch: &mut Batch, half: &Record<'_>) -> Result<(), Refusal> {
    let topic = properties::get_str(half.properties, property::REAL_TOPIC).unwrap_or_default();
    let queue_id = properties::get_number(half.properties, property::REAL_QUEUE_ID).unwrap_or(0);
    let topic = broker.topic(topic)?;
    let queue_id = if queue_id < topic.queue_count() { queue_id } else { 0 };
    let queue = topic.queue(&broker.store, queue_id)?;
    let mut properties = half.properties.to_vec();
    for own in
        [property::REAL_TOPIC, property::REAL_QUEUE_ID, property::TRANSACTION_PREPARED_QUEUE_OFFSET]
    {
        properties::remove(&mut properties, own);
    }
    let flags = sys_flag::with_transaction(half.sys_flag, sys_flag::TRANSACTION_COMMIT);
    let message = NewMessage {
        sys_flag: flags,
        prepared_transaction_offset: half.physical_offset,
        properties: &[&properties],
        ..copy(broker, half)
    };
    broker.store.push(batch, queue, &message).map_err(not_pushed)?;
    topic.put.add(1);
    topic.put_bytes.add(half.body.len() as u64);
    Ok(())
}

/// The record of an end.
fn push_end(broker: &Broker, batch: &mut Batch, half_offset: i64) -> Result<(), Refusal> {
    const PROPERTIES: &[u8] = b"WAIT\x01true\x02TAGS\x01d\x02";
    let body = format!("{half_offset},");
    let message = NewMessage {
        flag: 0,
        sys_flag: 0,
        born_timestamp: clock::now_ms(),
        born_host: broker.store_host,
        store_host: broker.store_host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: body.as_bytes(),
        properties: &[PROPERTIES],
    };
    let queue = broker.queue(name::TRANSACTION_OP_TOPIC, QUEUE)?;
    broker.store.push(batch, queue, &message).map_err(not_pushed)
}

/// Another message with the content of this one.
pub(crate) fn copy<'r>(broker: &Broker, record: &Record<'r>) -> NewMessage<'r> {
    NewMessage {
        flag: record.flag,
        sys_flag: record.sys_flag & !(sys_flag::BORN_HOST_V6 | sys_flag::STORE_HOST_V6),
        born_timestamp: record.born_timestamp,
        born_host: record.born_host,
        store_host: broker.store_host,
        reconsume_times: record.reconsume_times,
        prepared_transaction_offset: 0,
        body: record.body,
        properties: &[],
    }
}

/// Where the first copy of a half message is in the queue of halves.
fn first_offset(half: &Record<'_>) -> i64 {
    let first = property::TRANSACTION_PREPARED_QUEUE_OFFSET;
    properties::get_number(half.properties, first).unwrap_or(half.queue_offset)
}

/// When the first copy was stored; a later one knows only what the clock of its producer said.
fn since_ms(half: &Record<'_>) -> i64 {
    let copied = properties::contains(half.properties, property::TRANSACTION_PREPARED_QUEUE_OFFSET)
        || properties::contains(half.properties, property::TRANSACTION_CHECK_TIMES);
    if copied { half.born_timestamp.min(half.store_timestamp) } else { half.store_timestamp }
}

/// How long nobody asks about a half message, if it says so itself.
fn own_immunity_ms(half: &Record<'_>) -> Option<i64> {
    let seconds = property::CHECK_IMMUNITY_TIME_IN_SECONDS;
    let seconds: i64 = properties::get_number(half.properties, seconds)?;
    (seconds >= 0).then(|| seconds.saturating_mul(1000))
}

/// With an immunity of its own, a message may be ended unasked only while that lasts.
fn too_late(half: &Record<'_>, config: &Config, now_ms: i64) -> bool {
    let named = property::CHECK_IMMUNITY_TIME_IN_SECONDS;
    let immune_ms = own_immunity_ms(half).unwrap_or(0).max(config.transaction_timeout_ms);
    properties::contains(half.properties, named) && now_ms - since_ms(half) > immune_ms
}

/// Code 323: a half message that was asked about too often is asked about again.
pub fn resume(context: &Context<'_>) -> Outcome {
    let request: ResumeCheckHalfMessage = context.header()?;
    let broker = context.broker;
    let id = request.msg_id.unwrap_or_default();
    let (_, position) = id::decode_offset_id(&id)
        .map_err(|error| invalid(format_args!("msgId `{id}` is no offset id: {error}")))?;
    let failed = |why: &str| {
        let remark = format!("Put message back to RMQ_SYS_TRANS_HALF_TOPIC failed: {why}");
        Refusal::new(ReplyCode::SystemError, remark)
    };
    let missing = || failed("there is no such message");
    let position = u64::try_from(position).map_err(|_| missing())?;
    let record = broker.store.message_at(position, Access::Blocking).map_err(unreadable)?;
    let record = record.ok_or_else(missing)?;
    let (message, _) = Record::decode(&record).map_err(|_| missing())?;
    if message.topic != name::TRANSACTION_EXPIRED_TOPIC {
        return Err(failed("only messages of TRANS_CHECK_MAX_TIME_TOPIC can be asked about again"));
    }
    let mut properties = message.properties.to_vec();
    properties::set(&mut properties, property::TRANSACTION_CHECK_TIMES, b"0");
    let mut batch = Batch::new();
    let copy = NewMessage { properties: &[&properties], ..copy(broker, &message) };
    let queue = broker.queue(name::TRANSACTION_HALF_TOPIC, QUEUE)?;
    broker.store.push(&mut batch, queue, &copy).map_err(not_pushed)?;
    broker.append(&mut batch)?;
    Ok(Command::reply(&Empty {}))
}
