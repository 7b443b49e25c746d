//! What operators ask: by subject, one file each.

pub mod attributes;
pub mod cleaning;
pub mod clients;
pub mod config;
pub mod groups;
pub mod offsets;
pub mod queue;
pub mod reset;
pub mod runtime;
pub mod topics;

use protocol::frame::{Command, FRAME_BYTES_MAX};
use protocol::header::Empty;
use protocol::json::{self, Dialect};
use protocol::reply::{Refusal, ReplyCode};
use protocol::request::RequestCode;
use remoting::outbox::Outbox;
use serde::Serialize;
use store::QueueRef;

use crate::answer::{
    Context, Outcome, announced, answer, blocking, blocking_durably, durably, later,
};
use crate::broker::Broker;
use crate::offsets::requests::unreadable;

/// Serves one request of an operator; what is not served is said to be so.
pub fn serve(context: &Context<'_>, code: RequestCode, out: &mut Outbox) {
    use RequestCode as Code;
    match code {
        // Topics
        Code::UpdateTopic => announced(context, out, topics::update),
        Code::UpdateTopicList => announced(context, out, topics::update_list),
        Code::DeleteTopicInBroker => announced(context, out, topics::delete),
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

        // Where groups stand
        Code::GetConsumeStats => blocking(context, out, offsets::stats),
        Code::GetBrokerConsumeStats => blocking(context, out, offsets::stats_of_all),
        Code::QueryConsumeTimeSpan => blocking(context, out, offsets::time_span),
        Code::QueryCorrectionOffset => answer(context, out, offsets::correction),
        Code::GetAllConsumerOffset => answer(context, out, offsets::all),
        Code::CloneGroupOffset => durably(context, out, offsets::clone),
        Code::InvokeBrokerToResetOffset => blocking_durably(context, out, reset::reset),

        // Clients
        Code::GetConsumerConnectionList => answer(context, out, clients::consumers),
        Code::GetProducerConnectionList => answer(context, out, clients::producers),
        Code::GetAllProducerInfo => answer(context, out, clients::all_producers),
        Code::QueryTopicConsumeByWho => answer(context, out, clients::groups_of_topic),
        Code::QueryTopicsByConsumer => answer(context, out, clients::topics_of_group),
        Code::QuerySubscriptionByConsumer => answer(context, out, clients::subscription),
        Code::GetConsumerRunningInfo => later(context, out, clients::running_info(context)),
        Code::ConsumeMessageDirectly => later(context, out, clients::consume_directly(context)),
        Code::InvokeBrokerToGetConsumerStatus => later(context, out, clients::status(context)),

        // The broker itself
        Code::GetBrokerRuntimeInfo => blocking(context, out, runtime::info),
        Code::ViewBrokerStatsData => answer(context, out, runtime::counter),
        Code::ExchangeBrokerHaInfo => answer(context, out, runtime::exchange_ha_info),
        Code::GetBrokerHaStatus => answer(context, out, runtime::ha_status),
        Code::GetBrokerConfig => answer(context, out, config::get),
        Code::UpdateBrokerConfig => blocking(context, out, config::update),

        // Transactions
        Code::ResumeCheckHalfMessage => blocking_durably(context, out, crate::transaction::resume),

        // The store
        Code::QueryConsumeQueue => blocking(context, out, queue::entries),
        Code::DeleteExpiredCommitLog => blocking(context, out, cleaning::expired_log),
        Code::CleanExpiredConsumeQueue => answer(context, out, cleaning::expired_queues),
        Code::CleanUnusedTopic => blocking_durably(context, out, cleaning::unused_topics),

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
    Ok(broker.store.store_time_at(queue, offset).map_err(unreadable)?.unwrap_or(0))
}
