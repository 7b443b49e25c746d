//! Stores one or many messages of one topic; as many entries in the answer as messages were sent.

use std::sync::atomic::Ordering;
use std::time::Duration;

use protocol::grpc::{
    Code, Message, MessageType, SendMessageRequest, SendMessageResponse, SendResultEntry,
};
use protocol::record::JavaHash;
use protocol::reply::ReplyCode;
use remoting::clock;

use super::context::Context;
use super::end_transaction::TransactionId;
use super::status::{Failure, ok, overall, status};
use super::{check, time};
use crate::backend::route::{Route, consistent_hash};
use crate::backend::{Entry, Failed, Outgoing, Stored};
use crate::front::Front;
use crate::message::{self, Delays};

/// Messages of one request.
const MESSAGES_MAX: usize = 1024;

/// Messages that go to the broker together.
struct Part {
    /// Their places in the request.
    places: Vec<usize>,
    entries: Vec<Entry>,
    /// Who decides on the queue, if anybody does.
    message_group: Option<String>,
    flags: i32,
    alone: bool,
}

pub(super) async fn send_message(
    front: &Front,
    context: &Context,
    request: SendMessageRequest,
) -> Result<SendMessageResponse, Failure> {
    let now_ms = clock::now_ms();
    let Some(first) = request.messages.first() else {
        return Err(Failure::new(Code::MessageCorrupted, "there is no message in the request"));
    };
    if request.messages.len() > MESSAGES_MAX {
        let message = format!("more than {MESSAGES_MAX} messages in one request");
        return Err(Failure::new(Code::BadRequest, message));
    }
    let topic = check::topic(first.topic.as_ref())?.to_owned();
    if request.messages.iter().any(|message| message.topic != first.topic) {
        return Err(Failure::new(Code::MessageCorrupted, "the messages are not of one topic"));
    }
    for message in &request.messages {
        check::message(&front.config, message, now_ms)?;
    }
    let route = front.route(&topic).await?;
    if front.config.check_message_type {
        check_kinds(front, &topic, &request.messages).await?;
    }
    let count = request.messages.len();
    front.stats.messages_in.fetch_add(count as u64, Ordering::Relaxed);
    let born_ms = born_ms(first, now_ms);
    let remote = context.connection.remote.ip().to_string();
    let ids: Vec<(String, MessageType)> = request.messages.iter().map(id_and_kind).collect();
    let mut entries = vec![SendResultEntry::default(); count];
    let levels_ms = front.config.delay_levels_ms.as_deref();
    let delays = Delays { levels_ms, now_ms };
    for part in parts(request.messages, &topic, &remote, &delays) {
        let outcome = send_part(front, &topic, &route, born_ms, &part).await;
        for (at, place) in part.places.iter().enumerate() {
            let (id, kind) = &ids[*place];
            entries[*place] = match &outcome {
                Ok((broker, stored)) => entry(id, *kind, broker, &stored[at]),
                Err(failure) => SendResultEntry {
                    status: Some(failure.clone().status()),
                    ..SendResultEntry::default()
                },
            };
        }
    }
    let status = Some(overall(entries.iter().map(|entry| &entry.status)));
    Ok(SendMessageResponse { status, entries })
}

fn born_ms(message: &Message, now_ms: i64) -> i64 {
    let system = message.system_properties.as_ref();
    let born = system.and_then(|system| system.born_timestamp.as_ref()).map(time::timestamp_ms);
    born.filter(|born| *born > 0).unwrap_or(now_ms)
}

fn id_and_kind(message: &Message) -> (String, MessageType) {
    let system = message.system_properties.as_ref();
    let id = system.map(|system| system.message_id.clone()).unwrap_or_default();
    (id, check::kind(message))
}

/// Whether the topic takes messages like these.
async fn check_kinds(front: &Front, topic: &str, messages: &[Message]) -> Result<(), Failure> {
    let accepted = front.accepted(topic).await;
    // Nobody could say what the topic takes: the broker decides.
    if accepted == [MessageType::Unspecified] {
        return Ok(());
    }
    for message in messages {
        let kind = check::kind(message);
        if !accepted.contains(&kind) {
            let names: Vec<&str> = accepted.iter().map(MessageType::as_str_name).collect();
            let message = format!(
                "the topic `{topic}` takes {} messages, this one is {}",
                names.join(", "),
                kind.as_str_name()
            );
            return Err(Failure::new(Code::MessagePropertyConflictWithType, message));
        }
    }
    Ok(())
}

/// Splits a request by queue: messages of one group stay together and in order; what a broker stores only
/// one at a time goes alone.
fn parts(messages: Vec<Message>, topic: &str, remote: &str, delays: &Delays<'_>) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for (place, message) in messages.into_iter().enumerate() {
        let flags = message::sys_flags(&message);
        let kind = check::kind(&message);
        let system = message.system_properties.as_ref();
        let group = system.and_then(|system| system.message_group.clone());
        let message_group = group.filter(|group| !group.is_empty());
        let alone = !matches!(kind, MessageType::Normal | MessageType::Fifo);
        let entry = message::to_entry(message, topic, remote, delays);
        let fitting = parts.iter_mut().find(|part| {
            !alone && !part.alone && part.flags == flags && part.message_group == message_group
        });
        match fitting {
            Some(part) => {
                part.places.push(place);
                part.entries.push(entry);
            }
            None => {
                let (places, entries) = (vec![place], vec![entry]);
                parts.push(Part { places, entries, message_group, flags, alone });
            }
        }
    }
    parts
}

/// Sends to the queue of the message group, or to any; to another broker only if the first was not reached.
async fn send_part(
    front: &Front,
    topic: &str,
    route: &Route,
    born_ms: i64,
    part: &Part,
) -> Result<(String, Vec<Stored>), Failure> {
    let mut failure = None;
    for attempt in 0..ATTEMPTS_MAX {
        let Some((holder, queue_id)) = queue(front, route, part) else { break };
        let broker = &route.brokers[holder].broker;
        let messages =
            Outgoing { topic, queue_id, sys_flag: part.flags, born_ms, messages: &part.entries };
        let started = clock::instant();
        let outcome = front.backend.send(broker, messages).await;
        let took = started.elapsed();
        let answered = matches!(outcome, Ok(_) | Err(Failed::Refused { .. }));
        front.faults.note(broker, took, answered, clock::instant());
        match outcome {
            Ok(stored) => return Ok((broker.clone(), stored)),
            // The broker has more to do than it can; in a moment it may take the message.
            Err(error) if is_busy(&error) => {
                failure = Some(error.into());
                tokio::time::sleep(BUSY_PAUSE * (attempt as u32 + 1)).await;
            }
            Err(error) if not_sent(&error) && part.message_group.is_none() => {
                failure = Some(error.into());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(failure.unwrap_or_else(|| {
        Failure::new(Code::Forbidden, format!("no queue of the topic `{topic}` takes messages"))
    }))
}

/// Brokers tried for one part.
const ATTEMPTS_MAX: usize = 3;

/// How long a busy broker is left alone first, and again as long each time after.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// Whether a broker refused because it was busy: it has stored nothing.
fn is_busy(failed: &Failed) -> bool {
    matches!(failed, Failed::Refused { code, .. } if *code == ReplyCode::SystemBusy.to_wire())
}

/// Whether the message has not left this process.
fn not_sent(failed: &Failed) -> bool {
    use remoting::peer::CallError;
    matches!(failed, Failed::Call(CallError::Connect { .. } | CallError::Full(_)))
}

/// The queue for a part: by its message group, or the next whose broker is not to be avoided.
fn queue(front: &Front, route: &Route, part: &Part) -> Option<(usize, i32)> {
    let count = route.writable.len();
    if count == 0 {
        return None;
    }
    if let Some(group) = &part.message_group {
        let hash = i64::from(JavaHash::default().with(group.as_bytes()).0);
        let buckets = i32::try_from(count).unwrap_or(i32::MAX);
        return route.writable.get(consistent_hash(hash, buckets) as usize).copied();
    }
    let turn = front.turn.fetch_add(1, Ordering::Relaxed);
    if route.brokers.len() == 1 {
        return Some(route.writable[turn % count]);
    }
    let now = clock::instant();
    let in_turn = (0..count).map(|step| route.writable[(turn + step) % count]);
    let mut good = in_turn.filter(|(at, _)| !front.faults.avoids(&route.brokers[*at].broker, now));
    // When all are bad, any is as good.
    good.next().or_else(|| Some(route.writable[turn % count]))
}

/// What is said of a message that the broker has.
fn entry(message_id: &str, kind: MessageType, broker: &str, stored: &Stored) -> SendResultEntry {
    let code = match ReplyCode::from_wire(stored.code) {
        Some(ReplyCode::Success) => None,
        Some(ReplyCode::FlushDiskTimeout) => Some(Code::MasterPersistenceTimeout),
        Some(ReplyCode::FlushSlaveTimeout) => Some(Code::SlavePersistenceTimeout),
        _ => Some(Code::HaNotAvailable),
    };
    if let Some(code) = code {
        let status = status(code, "the message is stored, but not as safely as it should be");
        return SendResultEntry { status: Some(status), ..SendResultEntry::default() };
    }
    let transaction_id = match kind {
        MessageType::Transaction => TransactionId {
            message_id,
            broker,
            position: stored.position,
            queue_offset: stored.queue_offset,
        }
        .to_string(),
        _ => String::new(),
    };
    SendResultEntry {
        status: Some(ok()),
        message_id: message_id.to_owned(),
        transaction_id,
        offset: stored.queue_offset,
        recall_handle: stored.recall_handle.clone().unwrap_or_default(),
    }
}
