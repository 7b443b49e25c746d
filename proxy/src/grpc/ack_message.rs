//! The messages were consumed.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use protocol::grpc::{
    AckMessageEntry, AckMessageRequest, AckMessageResponse, AckMessageResultEntry, Code,
};
use remoting::clock;

use super::check;
use super::context::Context;
use super::status::{Failure, ok, overall};
use crate::front::Front;
use crate::handle::Handle;

/// Messages of one request.
const ENTRIES_MAX: usize = 1024;

pub(super) async fn ack_message(
    front: &Arc<Front>,
    context: &Context,
    request: AckMessageRequest,
) -> Result<AckMessageResponse, Failure> {
    let topic = check::topic(request.topic.as_ref())?;
    let group = check::group(request.group.as_ref())?;
    if request.entries.len() > ENTRIES_MAX {
        let message = format!("more than {ENTRIES_MAX} entries in one request");
        return Err(Failure::new(Code::BadRequest, message));
    }
    let mut outcomes: FuturesOrdered<_> =
        request.entries.iter().map(|entry| ack(front, context, group, topic, entry)).collect();
    let mut entries = Vec::with_capacity(request.entries.len());
    while let Some(outcome) = outcomes.next().await {
        let AckMessageEntry { message_id, receipt_handle, .. } = &request.entries[entries.len()];
        entries.push(AckMessageResultEntry {
            message_id: message_id.clone(),
            receipt_handle: receipt_handle.clone(),
            status: Some(outcome.map_or_else(Failure::status, |()| ok())),
        });
    }
    let status = Some(overall(entries.iter().map(|entry| &entry.status)));
    Ok(AckMessageResponse { status, entries })
}

async fn ack(
    front: &Front,
    context: &Context,
    group: &str,
    topic: &str,
    entry: &AckMessageEntry,
) -> Result<(), Failure> {
    let newest = front.settle(&context.client_id, group, &entry.receipt_handle).await;
    let handle = readable(&newest)?;
    if handle.visible_at_ms() < clock::now_ms() {
        return Err(Failure::new(Code::InvalidReceiptHandle, "the receipt handle has expired"));
    }
    front.ack(group, topic, &handle).await
}

/// A handle as its client sent it.
pub(super) fn readable(text: &str) -> Result<Handle<'_>, Failure> {
    let malformed = |error: crate::handle::Malformed| {
        Failure::new(Code::InvalidReceiptHandle, error.to_string())
    };
    Handle::parse(text).map_err(malformed)
}
