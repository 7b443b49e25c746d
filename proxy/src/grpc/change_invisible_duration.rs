//! Hides a message for longer, or gives it back sooner.

use std::sync::Arc;

use protocol::grpc::{ChangeInvisibleDurationRequest, ChangeInvisibleDurationResponse};

use super::ack_message::readable;
use super::context::Context;
use super::status::{Failure, ok};
use super::{check, time};
use crate::front::Front;

pub(super) async fn change(
    front: &Arc<Front>,
    context: &Context,
    request: ChangeInvisibleDurationRequest,
) -> Result<ChangeInvisibleDurationResponse, Failure> {
    let topic = check::topic(request.topic.as_ref())?;
    let group = check::group(request.group.as_ref())?;
    let invisible_ms = request.invisible_duration.as_ref().map_or(0, time::duration_ms);
    check::invisible_on_change(&front.config, invisible_ms)?;
    readable(&request.receipt_handle)?;
    let newest = front.settle_one(&context.client_id, group, &request.receipt_handle).await?;
    let handle = readable(&newest)?;
    let suspend = request.suspend();
    let receipt_handle = front.hide(group, topic, &handle, invisible_ms, suspend).await?;
    Ok(ChangeInvisibleDurationResponse { status: Some(ok()), receipt_handle })
}
