//! How far a group has read a queue, and where a queue begins and ends.

use protocol::grpc::{
    Code, GetOffsetRequest, GetOffsetResponse, MessageQueue, QueryOffsetPolicy, QueryOffsetRequest,
    QueryOffsetResponse, UpdateOffsetRequest, UpdateOffsetResponse,
};
use protocol::header::offset::{
    GetMaxOffset, GetMinOffset, QueryConsumerOffset, SearchOffset, UpdateConsumerOffset,
};
use protocol::reply::ReplyCode;
use remoting::pool::Failed;

use super::status::{Failure, ok};
use super::{check, time};
use crate::front::Front;

/// A queue by name: its topic, its broker, its number.
pub(super) struct Place<'a> {
    pub(super) topic: &'a str,
    pub(super) broker: String,
    pub(super) queue_id: i32,
}

/// The queue a request names; it has to be there.
pub(super) async fn place<'a>(
    front: &Front,
    queue: Option<&'a MessageQueue>,
) -> Result<Place<'a>, Failure> {
    let topic = check::topic(queue.and_then(|queue| queue.topic.as_ref()))?;
    let route = front.route(topic).await?;
    let bad = |message: String| Failure::new(Code::BadRequest, message);
    let queue = queue.ok_or_else(|| bad("the message queue is missing".to_owned()))?;
    let name = queue.broker.as_ref().map(|broker| broker.name.as_str()).unwrap_or_default();
    let holder = match route.holder(name) {
        Some(holder) => holder,
        None if name.is_empty() && route.brokers.len() == 1 => &route.brokers[0],
        None => return Err(bad(format!("the topic `{topic}` is not on a broker `{name}`"))),
    };
    if !(0..holder.read_queues.max(holder.write_queues)).contains(&queue.id) {
        return Err(bad(format!("the topic `{topic}` has no queue {} there", queue.id)));
    }
    Ok(Place { topic, broker: holder.broker.clone(), queue_id: queue.id })
}

pub(super) async fn update(
    front: &Front,
    request: UpdateOffsetRequest,
) -> Result<UpdateOffsetResponse, Failure> {
    let group = check::group(request.group.as_ref())?;
    if request.offset < 0 {
        return Err(Failure::new(Code::IllegalOffset, "the offset is below 0"));
    }
    let Place { topic, broker, queue_id } = place(front, request.message_queue.as_ref()).await?;
    let header = UpdateConsumerOffset {
        consumer_group: group.to_owned(),
        topic: topic.to_owned(),
        queue_id,
        commit_offset: request.offset,
    };
    front.backend.ask(&broker, &header, Vec::new()).await?;
    Ok(UpdateOffsetResponse { status: Some(ok()) })
}

pub(super) async fn get(
    front: &Front,
    request: GetOffsetRequest,
) -> Result<GetOffsetResponse, Failure> {
    let group = check::group(request.group.as_ref())?;
    let Place { topic, broker, queue_id } = place(front, request.message_queue.as_ref()).await?;
    let header = QueryConsumerOffset {
        consumer_group: group.to_owned(),
        topic: topic.to_owned(),
        queue_id,
        set_zero_if_not_found: Some(false),
    };
    match front.backend.ask(&broker, &header, Vec::new()).await {
        Ok((reply, _)) => Ok(GetOffsetResponse { status: Some(ok()), offset: reply.offset }),
        Err(Failed::Refused { code, .. }) if code == ReplyCode::QueryNotFound.to_wire() => {
            let message = format!("the group `{group}` has no offset in this queue");
            Err(Failure::new(Code::OffsetNotFound, message))
        }
        Err(failed) => Err(failed.into()),
    }
}

pub(super) async fn query(
    front: &Front,
    request: QueryOffsetRequest,
) -> Result<QueryOffsetResponse, Failure> {
    let Place { topic, broker, queue_id } = place(front, request.message_queue.as_ref()).await?;
    let topic = topic.to_owned();
    let offset = match request.query_offset_policy() {
        QueryOffsetPolicy::Beginning => {
            let header = GetMinOffset { topic, queue_id };
            front.backend.ask(&broker, &header, Vec::new()).await?.0.offset
        }
        QueryOffsetPolicy::End => {
            let header = GetMaxOffset { topic, queue_id, committed: true };
            front.backend.ask(&broker, &header, Vec::new()).await?.0.offset
        }
        QueryOffsetPolicy::Timestamp => {
            let timestamp = request.timestamp.as_ref().map(time::timestamp_ms);
            let timestamp = timestamp
                .ok_or_else(|| Failure::new(Code::BadRequest, "the timestamp is missing"))?;
            let header =
                SearchOffset { topic, lite_topic: None, queue_id, timestamp, boundary_type: None };
            front.backend.ask(&broker, &header, Vec::new()).await?.0.offset
        }
    };
    Ok(QueryOffsetResponse { status: Some(ok()), offset })
}
