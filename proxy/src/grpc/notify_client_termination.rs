//! The client leaves: what it held comes back soon.

use std::sync::Arc;

use super::context::Context;
use crate::front::Front;

pub(super) async fn notify(front: &Arc<Front>, context: &Context) {
    front.clients.remove(&context.client_id);
    let left = front.receipts.lock().leave(&context.client_id);
    if left.is_empty() {
        return;
    }
    let front = front.clone();
    // By itself: the client may not wait for the answer, and nobody else knows of these messages.
    let returned = tokio::spawn(async move { front.give_back(left).await });
    let _ = returned.await;
}
