//! Consumer groups: how far they are, and putting them elsewhere.

use std::collections::BTreeMap;

use protocol::body::{ConsumeStats, QueryConsumeTimeSpanBody};
use protocol::grpc::describe_group_accumulation_response::GroupAccumulation;
use protocol::grpc::query_time_span_response::QueueTimeSpan;
use protocol::grpc::{
    Broker, Code, DescribeGroupAccumulationRequest, DescribeGroupAccumulationResponse,
    MessageQueue, QueryTimeSpanRequest, QueryTimeSpanResponse, ResetGroupOffsetRequest,
    ResetGroupOffsetResponse, Resource,
};
use protocol::header::offset::ResetOffset;
use protocol::header::stats::{GetConsumeStats, QueryConsumeTimeSpan};
use protocol::json;
use remoting::clock;

use crate::front::Front;
use crate::grpc::status::{Failure, ok};
use crate::grpc::{check, time};

/// Topics one request may name.
const TOPICS_MAX: usize = 1024;

/// The topics a request names; they have to be named.
fn topics(named: &[Resource]) -> Result<Vec<&str>, Failure> {
    if named.is_empty() || named.len() > TOPICS_MAX {
        let message = format!("from 1 to {TOPICS_MAX} topics have to be named");
        return Err(Failure::new(Code::BadRequest, message));
    }
    named.iter().map(|topic| check::topic(Some(topic))).collect()
}

fn unreadable(error: json::JsonError) -> Failure {
    Failure::new(Code::InternalServerError, error.to_string())
}

pub(super) async fn accumulation(
    front: &Front,
    request: DescribeGroupAccumulationRequest,
) -> Result<DescribeGroupAccumulationResponse, Failure> {
    let group = check::group(request.group.as_ref())?;
    let (mut all, mut by_topic) = (GroupAccumulation::default(), BTreeMap::new());
    for topic in topics(&request.topics)? {
        let route = front.route(topic).await?;
        let mut sum = GroupAccumulation::default();
        for holder in &route.brokers {
            let header = GetConsumeStats {
                consumer_group: group.to_owned(),
                topic: Some(topic.to_owned()),
                topic_list: None,
            };
            let (_, reply) = front.backend.ask(&holder.broker, &header, Vec::new()).await?;
            let stats: ConsumeStats = json::read(&reply.body).map_err(unreadable)?;
            add(&mut sum, &stats, clock::now_ms());
        }
        all = total(all, &sum);
        by_topic.insert(topic.to_owned(), sum);
    }
    Ok(DescribeGroupAccumulationResponse {
        status: Some(ok()),
        accumulation: Some(all),
        topic_accumulation: by_topic.into_iter().collect(),
        ..DescribeGroupAccumulationResponse::default()
    })
}

fn add(sum: &mut GroupAccumulation, stats: &ConsumeStats, now_ms: i64) {
    let mut late_ms = sum.deliver_delay_time.as_ref().map_or(0, time::duration_ms);
    for queue in stats.offset_table.values() {
        let behind = (queue.broker_offset - queue.consumer_offset).max(0);
        let taken = (queue.pull_offset - queue.consumer_offset).clamp(0, behind);
        sum.accumulation += behind;
        sum.inflight_messages += taken;
        sum.ready_messages += behind - taken;
        sum.last_consume_timestamp = sum.last_consume_timestamp.max(queue.last_timestamp);
        if behind > 0 && queue.last_timestamp > 0 {
            late_ms = late_ms.max(now_ms - queue.last_timestamp);
        }
    }
    sum.deliver_delay_time = Some(time::duration(late_ms));
}

fn total(one: GroupAccumulation, other: &GroupAccumulation) -> GroupAccumulation {
    let late = |of: &GroupAccumulation| of.deliver_delay_time.as_ref().map_or(0, time::duration_ms);
    GroupAccumulation {
        inflight_messages: one.inflight_messages + other.inflight_messages,
        ready_messages: one.ready_messages + other.ready_messages,
        accumulation: one.accumulation + other.accumulation,
        deliver_delay_time: Some(time::duration(late(&one).max(late(other)))),
        last_consume_timestamp: one.last_consume_timestamp.max(other.last_consume_timestamp),
    }
}

pub(super) async fn reset(
    front: &Front,
    request: ResetGroupOffsetRequest,
) -> Result<ResetGroupOffsetResponse, Failure> {
    let group = check::group(request.group.as_ref())?;
    let topic = check::topic(request.topic.as_ref())?;
    let at = request.reset_timestamp.as_ref();
    let at = at.ok_or_else(|| Failure::new(Code::BadRequest, "the time is missing"))?;
    let route = front.route(topic).await?;
    for holder in &route.brokers {
        let header = ResetOffset {
            group: group.to_owned(),
            topic: topic.to_owned(),
            queue_id: -1,
            offset: None,
            timestamp: time::timestamp_ms(at),
            is_force: true,
        };
        let command = protocol::frame::Command::request(
            protocol::request::RequestCode::InvokeBrokerToResetOffset.to_wire(),
            &header,
        );
        front.backend.command(&holder.broker, command).await?;
    }
    Ok(ResetGroupOffsetResponse { status: Some(ok()) })
}

pub(super) async fn time_span(
    front: &Front,
    request: QueryTimeSpanRequest,
) -> Result<QueryTimeSpanResponse, Failure> {
    let group = check::group(request.group.as_ref())?;
    let mut spans = Vec::new();
    for topic in topics(&request.topics)? {
        let route = front.route(topic).await?;
        for holder in &route.brokers {
            let header = QueryConsumeTimeSpan { topic: topic.to_owned(), group: group.to_owned() };
            let (_, reply) = front.backend.ask(&holder.broker, &header, Vec::new()).await?;
            let body: QueryConsumeTimeSpanBody = json::read(&reply.body).map_err(unreadable)?;
            spans.extend(body.consume_time_span_set.into_iter().map(|span| {
                let queue = span.message_queue.unwrap_or_default();
                let broker = Broker { name: holder.broker.clone(), ..Broker::default() };
                let name = topic.to_owned();
                QueueTimeSpan {
                    message_queue: Some(MessageQueue {
                        topic: Some(Resource { name, ..Resource::default() }),
                        id: queue.queue_id,
                        broker: Some(broker),
                        ..MessageQueue::default()
                    }),
                    min_timestamp: span.min_time_stamp,
                    max_timestamp: span.max_time_stamp,
                    consume_timestamp: span.consume_time_stamp,
                    delay_time_ms: span.delay_time,
                }
            }));
        }
    }
    Ok(QueryTimeSpanResponse { status: Some(ok()), queue_time_span_list: spans })
}
