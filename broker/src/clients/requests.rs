//! What clients say about themselves and ask about each other.

use std::collections::BTreeSet;

use protocol::body::{
    CheckClientRequestBody, GetConsumerListByGroupResponseBody, HeartbeatData,
    LockBatchRequestBody, LockBatchResponseBody, UnlockBatchRequestBody,
};
use protocol::fields::Sink;
use protocol::frame::Command;
use protocol::header::Empty;
use protocol::header::client::{GetConsumerListByGroup, UnregisterClient};
use protocol::json::{self, Dialect};
use protocol::name;
use protocol::reply::{Refusal, ReplyCode};
use remoting::clock;
use tracing::debug;

use super::GROUPS_PER_CLIENT_MAX;
use crate::answer::{Context, Outcome};
use crate::broker::invalid;
use crate::filter::Wanted;

/// Code 34. Makes the groups and their retry topics that it names.
pub fn heartbeat(context: &Context<'_>) -> Outcome {
    let mut data: HeartbeatData = context.body()?;
    let broker = context.broker;
    if data.client_id.is_empty() {
        return Err(invalid("a heartbeat names its client in `clientID`"));
    }
    let groups = data.consumer_data_set.len() + data.producer_data_set.len();
    if groups > GROUPS_PER_CLIENT_MAX {
        return Err(invalid(format_args!(
            "the heartbeat of {} names {groups} groups, over the limit of {GROUPS_PER_CLIENT_MAX}",
            data.client_id
        )));
    }
    let mut unknown = BTreeSet::new();
    // What could not be written down now, which the client is told when the rest of its groups is known.
    let mut unwritten = None;
    for consumer in &data.consumer_data_set {
        let group = &consumer.group_name;
        let found = name::check_group(group).map_err(invalid).and_then(|()| broker.group(group));
        let config = match found {
            Ok(config) => config,
            Err(refusal) => {
                // The client's other groups count all the same; it is told when this one pulls.
                debug!(group, client = data.client_id, %refusal, "passing over a consumer group");
                unknown.insert(group.clone());
                if is_passing(refusal.code) {
                    unwritten = Some(refusal);
                }
                continue;
            }
        };
        // Broadcasting groups give nothing back, but tools find a group by the route of its retries.
        if config.retry_queue_nums > 0 {
            let unit_subscription = if consumer.unit_mode { 2 } else { 0 };
            let retry = name::retry_topic(group);
            let made = broker.topic_or_create(&retry, config.retry_queue_nums, unit_subscription);
            unwritten = made.err().or(unwritten);
        }
    }
    data.consumer_data_set.retain(|consumer| !unknown.contains(&consumer.group_name));
    let request = context.request;
    let heard = broker.clients.heard(
        &data,
        context.peer,
        request.language,
        request.version,
        clock::now_ms(),
    );
    broker.notify_changed(heard.changed);
    if let Some(refusal) = unwritten {
        return Err(refusal);
    }
    let mut reply = Command::reply(&Empty {});
    reply.fields.put("IS_SUPPORT_HEART_BEAT_V2", b"true");
    if data.heartbeat_fingerprint != 0 {
        let wanted = if heard.full_beat_wanted { "true" } else { "false" };
        reply.fields.put("IS_SUB_CHANGE", wanted.as_bytes());
    }
    Ok(reply)
}

/// Whether the same request may be served later: the disk is full, or behind.
fn is_passing(code: ReplyCode) -> bool {
    matches!(code, ReplyCode::ServiceNotAvailable | ReplyCode::SystemBusy)
}

/// Code 35.
pub fn unregister(context: &Context<'_>) -> Outcome {
    let request: UnregisterClient = context.header()?;
    let changes = context.broker.clients.left(
        context.peer.id,
        request.producer_group.as_deref(),
        request.consumer_group.as_deref(),
    );
    context.broker.notify_changed(changes);
    Ok(Command::reply(&Empty {}))
}

/// Code 46: whether a subscription can be read.
pub fn check_config(context: &Context<'_>) -> Outcome {
    let body: CheckClientRequestBody = context.body()?;
    if let Some(subscription) = body.subscription_data {
        let by_properties = context.broker.config.load().property_filter;
        Wanted::parse(&subscription.expression_type, &subscription.sub_string, by_properties)?;
    }
    Ok(Command::reply(&Empty {}))
}

/// Code 38.
pub fn consumer_list(context: &Context<'_>) -> Outcome {
    let request: GetConsumerListByGroup = context.header()?;
    let group = request.consumer_group;
    let ids = context.broker.clients.consumer_group(&group).map(|group| group.client_ids());
    match ids {
        Some(consumer_id_list) if !consumer_id_list.is_empty() => {
            let body = GetConsumerListByGroupResponseBody { consumer_id_list };
            Ok(Command::reply(&Empty {}).with_body(json::write(&body, Dialect::Fastjson)))
        }
        _ => {
            let remark = format!("no consumer for this group, {group}");
            Err(Refusal::new(ReplyCode::SystemError, remark))
        }
    }
}

/// Code 41.
pub fn lock(context: &Context<'_>) -> Outcome {
    let body: LockBatchRequestBody = context.body()?;
    let granted = context.broker.locks.lock(
        &body.consumer_group,
        &body.client_id,
        body.mq_set,
        clock::now_ms(),
    );
    let body = LockBatchResponseBody { lock_ok_mq_set: granted };
    Ok(Command::reply(&Empty {}).with_body(json::write(&body, Dialect::Fastjson)))
}

/// Code 42.
pub fn unlock(context: &Context<'_>) -> Outcome {
    let body: UnlockBatchRequestBody = context.body()?;
    let queues: BTreeSet<_> = body.mq_set;
    context.broker.locks.unlock(&body.consumer_group, &body.client_id, &queues);
    Ok(Command::reply(&Empty {}))
}
