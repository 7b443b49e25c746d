//! The client is still there.

use protocol::grpc::{HeartbeatRequest, HeartbeatResponse};
use remoting::clock;

use super::context::Context;
use super::status::{Failure, ok};
use crate::front::Front;

pub(super) async fn heartbeat(
    front: &Front,
    context: &Context,
    request: HeartbeatRequest,
) -> Result<HeartbeatResponse, Failure> {
    let group = match request.group.as_ref().filter(|group| !group.name.is_empty()) {
        Some(group) => Some(super::check::group(Some(group))?),
        None => None,
    };
    if !front.clients.beat(context, request.client_type(), group, clock::instant()) {
        return Err(super::telemetry::too_many_clients());
    }
    Ok(HeartbeatResponse { status: Some(ok()) })
}
