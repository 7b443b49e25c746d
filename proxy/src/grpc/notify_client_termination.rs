//! The client leaves: what it held comes back soon.

use std::sync::Arc;

use super::context::Context;
use crate::front::Front;

pub(super) async fn notify(front: &Arc<Front>, context: &Context) {
    front.clients.remove(&context.client_id);
    super::telemetry::return_receipts(front, &context.client_id).await;
}
