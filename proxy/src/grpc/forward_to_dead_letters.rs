//! The message is given up: it goes to the group's dead letters, and is settled when it is there.

use std::sync::Arc;

use protocol::grpc::{
    Code, ForwardMessageToDeadLetterQueueRequest, ForwardMessageToDeadLetterQueueResponse,
};
use protocol::header::send::ConsumerSendMsgBack;
use tracing::debug;

use super::ack_message::readable;
use super::check;
use super::context::Context;
use super::status::{Failure, ok};
use crate::front::Front;
use crate::handle::Handle;

pub(super) async fn forward(
    front: &Arc<Front>,
    context: &Context,
    request: ForwardMessageToDeadLetterQueueRequest,
) -> Result<ForwardMessageToDeadLetterQueueResponse, Failure> {
    let topic = check::topic(request.topic.as_ref())?;
    let group = check::group(request.group.as_ref())?;
    readable(&request.receipt_handle)?;
    let newest = front.settle_one(&context.client_id, group, &request.receipt_handle).await?;
    let handle = readable(&newest)?;
    to_dead_letters(front, group, topic, &handle, &request.message_id).await?;
    Ok(ForwardMessageToDeadLetterQueueResponse { status: Some(ok()) })
}

/// Copies a message to the dead letters of its group and settles it.
pub(super) async fn to_dead_letters(
    front: &Front,
    group: &str,
    topic: &str,
    handle: &Handle<'_>,
    message_id: &str,
) -> Result<(), Failure> {
    let position = handle.position.ok_or_else(|| {
        Failure::new(Code::InvalidReceiptHandle, "the handle does not say where the message lies")
    })?;
    let request = ConsumerSendMsgBack {
        offset: position,
        group: group.to_owned(),
        // Never again.
        delay_level: -1,
        origin_msg_id: Some(message_id.to_owned()),
        origin_topic: Some(handle.real_topic(topic, group).into_owned()),
        unit_mode: false,
        max_reconsume_times: Some(0),
    };
    front.backend.ask(handle.broker, &request, Vec::new()).await?;
    // It is there: a client that heard of a failure would have it put there once more.
    if let Some(Err(failure)) = front.ack(group, topic, &[*handle]).await.pop() {
        debug!(group, topic, message_id, %failure, "a dead letter will be delivered once more");
    }
    Ok(())
}
