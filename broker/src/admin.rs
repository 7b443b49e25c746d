//! What operators ask: by subject, one file each.

pub mod attributes;
pub mod groups;
pub mod topics;

use protocol::frame::{Command, FRAME_BYTES_MAX};
use protocol::header::Empty;
use protocol::json::{self, Dialect};
use protocol::record::Record;
use protocol::reply::{Refusal, ReplyCode};
use protocol::request::RequestCode;
use remoting::outbox::Outbox;
use serde::Serialize;
use store::{Access, QueueRef};

use crate::broker::Broker;
use crate::dispatch::{Context, Outcome, answer, blocking, durably};
use crate::offsets::requests::unreadable;

/// Serves one request of an operator; what is not served is said to be so.
pub fn serve(context: &Context<'_>, code: RequestCode, out: &mut Outbox) {
    use RequestCode as Code;
    match code {
        // Topics
        Code::UpdateTopic => durably(context, out, topics::update),
        Code::UpdateTopicList => durably(context, out, topics::update_list),
        Code::DeleteTopicInBroker => durably(context, out, topics::delete),
        Code::GetTopicConfig => answer(context, out, topics::config),
        Code::GetAllTopicConfig => answer(context, out, topics::page),
        Code::GetSystemTopicListFromBroker => answer(context, out, topics::system),
        Code::GetTopicStatsInfo => blocking(context, out, topics::stats),

        // Groups
        Code::UpdateSubscriptionGroup => durably(context, out, groups::update),
        Code::UpdateSubscriptionGroupList => durably(context, out, groups::update_list),
        Code::DeleteSubscriptionGroup => durably(context, out, groups::delete),
        Code::GetSubscriptionGroupConfig => durably(context, out, groups::config),
        Code::GetAllSubscriptionGroupConfig => answer(context, out, groups::page),
        Code::UpdateAndGetGroupForbidden => durably(context, out, groups::forbid),

        code => out.now.refuse(context.to, &Refusal::unsupported(code.to_wire())),
    }
}

/// Success, and nothing else to say.
fn done() -> Command<'static> {
    Command::reply(&Empty {})
}

/// Success with a JSON body.
fn body(value: &impl Serialize) -> Outcome {
    reply(done(), value)
}

/// The same with a header.
fn reply(head: Command<'static>, value: &impl Serialize) -> Outcome {
    let body = json::write(value, Dialect::Fastjson);
    if body.len() > FRAME_BYTES_MAX {
        return Err(failed(format!(
            "the answer has {} bytes, over the limit of {FRAME_BYTES_MAX} of a frame; \
             ask for less at once",
            body.len()
        )));
    }
    Ok(head.with_body(body))
}

fn failed(remark: impl std::fmt::Display) -> Refusal {
    Refusal::new(ReplyCode::SystemError, remark.to_string())
}

/// When the message at an offset of a queue was stored; 0 where there is none. Reads the disk.
fn stored_at(broker: &Broker, queue: QueueRef, offset: i64) -> Result<i64, Refusal> {
    if offset < 0 {
        return Ok(0);
    }
    let (first, units) = broker.store.units(queue, offset, 1).map_err(unreadable)?;
    let Some(unit) = units.first().filter(|_| first == offset) else { return Ok(0) };
    let record = broker.store.message_at(unit.position, Access::Blocking).map_err(unreadable)?;
    let time = record.and_then(|record| Some(Record::decode(&record).ok()?.0.store_timestamp));
    Ok(time.unwrap_or(0))
}
