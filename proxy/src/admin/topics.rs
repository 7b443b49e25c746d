//! Topics: what they take, where they are, single messages of them.

use protocol::body::{BrokerData, QueueData, TopicRouteData};
use protocol::frame::Command;
use protocol::grpc::list_message_request::SearchKey;
use protocol::grpc::{
    Code, DescribeTopicStatusRequest, DescribeTopicStatusResponse, GetTopicRouteRequest,
    GetTopicRouteResponse, ListMessageRequest, ListMessageResponse, Message, MessageType, Resource,
};
use protocol::header::query::QueryMessage;
use protocol::json::{self, Dialect};
use protocol::record::Record;
use protocol::reply::ReplyCode;
use protocol::request::RequestCode;
use remoting::pool::Failed;

use crate::front::Front;
use crate::grpc::status::{Failure, ok};
use crate::grpc::{check, time};
use crate::message::{Delivery, from_record};

const READ: i32 = 4;
const WRITE: i32 = 2;
/// Messages one query may find.
const FOUND_MAX: i32 = 64;

pub(super) async fn describe(
    front: &Front,
    request: DescribeTopicStatusRequest,
) -> Result<DescribeTopicStatusResponse, Failure> {
    let topic = check::topic(request.topic.as_ref())?;
    front.route(topic).await?;
    let accepted = front.accepted(topic).await;
    let kind = match accepted.as_slice() {
        [one] => *one,
        // The protocol has no word for topics that take several kinds.
        _ => MessageType::Unspecified,
    };
    Ok(DescribeTopicStatusResponse {
        status: Some(ok()),
        topic_message_type: kind.into(),
        ..DescribeTopicStatusResponse::default()
    })
}

pub(super) async fn route(
    front: &Front,
    request: GetTopicRouteRequest,
) -> Result<GetTopicRouteResponse, Failure> {
    let topic = check::topic(request.topic.as_ref())?;
    let route = front.route(topic).await?;
    let holders = &route.brokers;
    let perm = |yes: bool, bit| if yes { bit } else { 0 };
    let data = TopicRouteData {
        broker_datas: holders
            .iter()
            .map(|holder| BrokerData {
                broker_addrs: [(0, holder.address.clone())].into(),
                broker_name: holder.broker.clone(),
                cluster: holder.cluster.clone(),
                ..BrokerData::default()
            })
            .collect(),
        queue_datas: holders
            .iter()
            .map(|holder| QueueData {
                broker_name: holder.broker.clone(),
                perm: perm(holder.readable, READ) | perm(holder.writable, WRITE),
                read_queue_nums: holder.read_queues,
                write_queue_nums: holder.write_queues,
                topic_sys_flag: 0,
            })
            .collect(),
        ..TopicRouteData::default()
    };
    let text = String::from_utf8_lossy(&json::write(&data, Dialect::Standard)).into_owned();
    Ok(GetTopicRouteResponse { status: Some(ok()), topic_route_data: text })
}

pub(super) async fn messages(
    front: &Front,
    request: ListMessageRequest,
) -> Result<ListMessageResponse, Failure> {
    let topic = check::topic(request.topic.as_ref())?;
    let (key, unique) = match request.search_key {
        Some(SearchKey::MessageId(id)) => (id, true),
        Some(SearchKey::MessageKey(key)) => (key, false),
        _ => {
            let message = "messages are found by their id or a key";
            return Err(Failure::new(Code::Unsupported, message));
        }
    };
    let route = front.route(topic).await?;
    let header = QueryMessage {
        topic: topic.to_owned(),
        key,
        max_num: request.max_message_nums.clamp(1, FOUND_MAX),
        begin_timestamp: request.begin_timestamp.as_ref().map_or(0, time::timestamp_ms),
        end_timestamp: request.end_timestamp.as_ref().map_or(i64::MAX, time::timestamp_ms),
        index_type: None,
        last_key: None,
    };
    let mut messages = Vec::new();
    let wanted = |name: &str| request.broker_name.as_deref().is_none_or(|wanted| wanted == name);
    for holder in route.brokers.iter().filter(|holder| wanted(&holder.broker)) {
        let mut command = Command::request(RequestCode::QueryMessage.to_wire(), &header);
        command.fields = command.fields.with("_UNIQUE_KEY_QUERY", unique.to_string());
        match front.backend.command(&holder.broker, command).await {
            Ok(reply) => {
                read(&reply.body.into_owned().into(), request.topic.as_ref(), &mut messages)
            }
            Err(Failed::Refused { code, .. }) if code == ReplyCode::QueryNotFound.to_wire() => {}
            Err(failed) => return Err(failed.into()),
        }
    }
    if let Some(queue) = request.queue_id {
        let of_queue = |message: &Message| {
            message.system_properties.as_ref().is_some_and(|system| system.queue_id == queue)
        };
        messages.retain(of_queue);
    }
    messages.truncate(usize::try_from(header.max_num).unwrap_or(0));
    if messages.is_empty() {
        return Err(Failure::new(Code::MessageNotFound, "no such message"));
    }
    Ok(ListMessageResponse { status: Some(ok()), messages, scroll_id: String::new() })
}

fn read(records: &bytes::Bytes, topic: Option<&Resource>, messages: &mut Vec<Message>) {
    let mut rest = records.clone();
    while let Ok((record, bytes)) = Record::decode(&rest) {
        let topic = topic.cloned().unwrap_or_default();
        let attempt = record.reconsume_times.saturating_add(1);
        let delivery = Delivery { topic, attempt, ..Delivery::default() };
        messages.push(from_record(&record, &rest, delivery));
        rest = rest.slice(bytes..);
    }
}
