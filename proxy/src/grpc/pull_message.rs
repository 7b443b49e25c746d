//! Reads a queue from an offset; nothing is hidden from anybody.

use std::time::Duration;

use protocol::grpc::pull_message_response::Content;
use protocol::grpc::{Code, PullMessageRequest, PullMessageResponse};
use protocol::header::pull::PullMessage;
use protocol::record::Record;
use remoting::clock;

use super::context::Context;
use super::offsets::{Place, place};
use super::status::{Failure, ok, status};
use super::{check, time};
use crate::backend::Pulled;
use crate::front::Front;
use crate::message::{Delivery, from_record};

/// Wait for messages; the subscription stands in the request.
const SUSPEND: i32 = 0x2;
const SUBSCRIPTION: i32 = 0x4;

fn content(content: Content) -> PullMessageResponse {
    PullMessageResponse { content: Some(content) }
}

pub(super) fn failed(failure: Failure) -> Vec<PullMessageResponse> {
    vec![content(Content::Status(failure.status()))]
}

pub(super) async fn pull_message(
    front: &Front,
    context: &Context,
    request: PullMessageRequest,
) -> Result<Vec<PullMessageResponse>, Failure> {
    let started = clock::instant();
    let group = check::group(request.group.as_ref())?;
    let batch = check::batch_size(request.batch_size)?;
    let (kind, expression) = check::filter(request.filter_expression.as_ref())?;
    if request.offset < 0 {
        return Err(Failure::new(Code::IllegalOffset, "the offset is below 0"));
    }
    let queue = request.message_queue.as_ref();
    let Place { topic, broker, queue_id } = place(front, queue).await?;
    let asked = request.long_polling_timeout.as_ref().map_or(0, time::duration_ms).max(0);
    let mut polling = Duration::from_millis(asked.cast_unsigned()).min(front.config.polling_max);
    if let Some(timeout) = context.timeout {
        let spent = started.elapsed() + front.config.polling_reserve;
        polling = polling.min(timeout.saturating_sub(spent));
    }
    let header = PullMessage {
        consumer_group: group.to_owned(),
        topic: topic.to_owned(),
        lite_topic: None,
        queue_id,
        queue_offset: request.offset,
        max_msg_nums: batch,
        sys_flag: SUBSCRIPTION | if polling.is_zero() { 0 } else { SUSPEND },
        commit_offset: 0,
        suspend_timeout_millis: i64::try_from(polling.as_millis()).unwrap_or(i64::MAX),
        subscription: Some(expression.to_owned()),
        sub_version: clock::now_ms(),
        expression_type: Some(kind.to_owned()),
        max_msg_bytes: None,
        request_source: None,
        proxy_froward_client_id: None,
    };
    let (records, next) = match front.backend.pull(&broker, &header, polling).await? {
        Pulled::Found { records, next_offset } => (records, next_offset),
        Pulled::Nothing { next_offset } => {
            let none = status(Code::MessageNotFound, "no message is there");
            return Ok(vec![
                content(Content::Status(none)),
                content(Content::NextOffset(next_offset)),
            ]);
        }
        Pulled::Moved { next_offset } => {
            let moved = status(Code::IllegalOffset, "the queue does not reach there");
            return Ok(vec![
                content(Content::Status(moved)),
                content(Content::NextOffset(next_offset)),
            ]);
        }
    };
    let topic = queue.and_then(|queue| queue.topic.clone()).unwrap_or_default();
    let mut answers = vec![content(Content::Status(ok()))];
    let mut rest = records;
    while let Ok((record, bytes)) = Record::decode(&rest) {
        let attempt = record.reconsume_times.saturating_add(1);
        let delivery = Delivery { topic: topic.clone(), attempt, ..Delivery::default() };
        answers.push(content(Content::Message(from_record(&record, &rest, delivery))));
        rest = rest.slice(bytes..);
    }
    answers.push(content(Content::NextOffset(next)));
    Ok(answers)
}
