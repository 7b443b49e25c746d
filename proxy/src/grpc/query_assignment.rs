//! Which queues a push consumer is to read: in order, each of them; else one stand-in for all of a broker's.

use protocol::grpc::{Assignment, Permission, QueryAssignmentRequest, QueryAssignmentResponse};

use super::check;
use super::context::Context;
use super::query_route::{broker, endpoints, queue};
use super::status::{Failure, ok};
use crate::front::Front;

pub(super) async fn query_assignment(
    front: &Front,
    context: &Context,
    request: QueryAssignmentRequest,
) -> Result<QueryAssignmentResponse, Failure> {
    let topic = check::topic(request.topic.as_ref())?;
    let group = check::group(request.group.as_ref())?;
    let endpoints = endpoints(context, request.endpoints.as_ref())?;
    let route = front.route(topic).await?;
    let in_order = front.backend.group(group).await?.consume_message_orderly;
    let accepted: Vec<i32> = front.accepted(topic).await.into_iter().map(i32::from).collect();
    let resource = request.topic.unwrap_or_default();
    let mut assignments = Vec::new();
    for holder in route.brokers.iter().filter(|holder| holder.readable) {
        let ids = if in_order { 0..holder.read_queues } else { -1..0 };
        for id in ids {
            let broker = broker(&holder.broker, &endpoints);
            let queue = queue(&resource, id, Permission::Read, broker, &accepted);
            assignments.push(Assignment { message_queue: Some(queue) });
        }
    }
    Ok(QueryAssignmentResponse { status: Some(ok()), assignments })
}
