//! Finding single messages: by position in the log, by key, by unique key.

use protocol::fields::Sink;
use protocol::frame::Command;
use protocol::header::Empty;
use protocol::header::query::{QueryMessage, QueryMessageReply, ViewMessage};
use protocol::reply::{Refusal, ReplyCode};
use remoting::clock;
use store::{Access, KeyKind, KeyQuery};

use crate::answer::{Context, Outcome};
use crate::offsets::requests::unreadable;

/// Messages one query may find, as in the stock broker.
const FOUND_MAX: i32 = 64;
/// Bytes of messages in one answer, below what clients take as a frame.
const BODY_BYTES_MAX: usize = 15 * 1024 * 1024;

/// Code 33: the record at a position that a message id names.
pub fn by_position(context: &Context<'_>) -> Outcome {
    let request: ViewMessage = context.header()?;
    let missing = || {
        let remark = format!("can not find message by offset: {}", request.offset);
        Refusal::new(ReplyCode::SystemError, remark)
    };
    let position = u64::try_from(request.offset).map_err(|_| missing())?;
    let found = context.broker.store.message_at(position, Access::Blocking).map_err(unreadable)?;
    let record = found.ok_or_else(missing)?;
    Ok(Command::reply(&Empty {}).with_body(record))
}

/// Code 12: the newest messages that carry a key, or the one with a unique key.
pub fn by_key(context: &Context<'_>) -> Outcome {
    let request: QueryMessage = context.header()?;
    let broker = context.broker;
    let unique = context.request.fields.get("_UNIQUE_KEY_QUERY") == Some("true");
    let kind = match request.index_type.as_deref() {
        _ if unique => KeyKind::Unique,
        Some("U") => KeyKind::Unique,
        Some("T") => KeyKind::Tags,
        _ => KeyKind::Any,
    };
    let query_max = broker.config.load().query_max;
    let wanted = if unique { query_max } else { request.max_num.clamp(1, FOUND_MAX) };
    let found = broker
        .store
        .query(&KeyQuery {
            topic: &request.topic,
            key: &request.key,
            begin_ms: request.begin_timestamp,
            end_ms: request.end_timestamp,
            max: wanted as usize,
            kind,
        })
        .map_err(unreadable)?;
    let mut reply = Command::reply(&QueryMessageReply {
        index_last_update_timestamp: clock::now_ms(),
        index_last_update_phyoffset: broker.store.appended_position().cast_signed(),
    });
    if found.is_empty() {
        let remark = "can not find message, maybe time range not correct";
        let mut refusal = Command::refusal(Refusal::new(ReplyCode::QueryNotFound, remark));
        for (name, value) in reply.fields.iter() {
            refusal.fields.put(&String::from_utf8_lossy(name), value);
        }
        return Ok(refusal);
    }
    let mut body = Vec::new();
    for record in &found {
        // A client closes its connection at a frame that is too long for it.
        if !body.is_empty() && body.len() + record.len() > BODY_BYTES_MAX {
            break;
        }
        body.extend_from_slice(record);
    }
    reply.body = body.into();
    Ok(reply)
}
