//! The messages were consumed.

use std::sync::Arc;

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
    let handles: Vec<&str> = request.entries.iter().map(|it| it.receipt_handle.as_str()).collect();
    let newest = front.settle(&context.client_id, group, &handles).await;
    let now_ms = clock::now_ms();
    let read: Vec<Result<Handle<'_>, Failure>> = newest
        .iter()
        .map(|newest| newest.as_ref().map_err(Failure::clone).and_then(|it| usable(it, now_ms)))
        .collect();
    let good: Vec<Handle<'_>> = read.iter().flatten().copied().collect();
    let mut outcomes = front.ack(group, topic, &good).await.into_iter();
    let mut entries = Vec::with_capacity(request.entries.len());
    for (entry, read) in request.entries.into_iter().zip(&read) {
        let outcome = match read {
            Ok(_) => outcomes.next().unwrap_or(Ok(())),
            Err(failure) => Err(failure.clone()),
        };
        let AckMessageEntry { message_id, receipt_handle, .. } = entry;
        let status = Some(outcome.map_or_else(Failure::status, |()| ok()));
        entries.push(AckMessageResultEntry { message_id, receipt_handle, status });
    }
    let status = Some(overall(entries.iter().map(|entry| &entry.status)));
    Ok(AckMessageResponse { status, entries })
}

/// A handle that can be read and whose message is still hidden.
fn usable(text: &str, now_ms: i64) -> Result<Handle<'_>, Failure> {
    let handle = readable(text)?;
    if handle.visible_at_ms() < now_ms {
        return Err(Failure::new(Code::InvalidReceiptHandle, "the receipt handle has expired"));
    }
    Ok(handle)
}

/// A handle as its client sent it.
pub(super) fn readable(text: &str) -> Result<Handle<'_>, Failure> {
    let malformed = |error: crate::handle::Malformed| {
        Failure::new(Code::InvalidReceiptHandle, error.to_string())
    };
    Handle::parse(text).map_err(malformed)
}
