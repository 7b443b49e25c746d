//! The calls of a consumer: receive, acknowledge, hide for longer, give up.

use std::time::Duration;

use protocol::grpc::receive_message_response::Content;
use protocol::grpc::{self, Code};
use tracing::{trace, warn};

use crate::core::Core;
use crate::delivery::Delivery;
use crate::endpoints::{self, Address};
use crate::error::{self, Error};
use crate::retry::to_wire;
use crate::session::Stub;
use crate::settings::Filter;

/// How much longer than its poll a receive may take.
const POLL_GRACE: Duration = Duration::from_secs(3);

/// What to receive, and from where.
#[derive(Debug, Clone)]
pub(crate) struct Wanted<'a> {
    pub(crate) group: &'a str,
    pub(crate) queue: grpc::MessageQueue,
    pub(crate) filter: &'a Filter,
    pub(crate) batch: usize,
    /// `None` lets the server choose, and renew receipts for as long as this client lives.
    pub(crate) invisible: Option<Duration>,
    pub(crate) polling: Duration,
    /// Names this receive, so that repeating it gives the same messages of an ordered queue.
    pub(crate) attempt_id: Option<String>,
}

/// What a receive brought.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) messages: Vec<Delivery>,
    /// Messages that cannot be used, with what is wrong with them.
    pub(crate) damaged: Vec<(Delivery, String)>,
}

/// Waits for messages; none is no error.
pub(crate) async fn receive(core: &Core, wanted: Wanted<'_>) -> Result<Received, Error> {
    let topic = wanted.queue.topic.clone().unwrap_or_default().name;
    let proxies = queue_proxies(&wanted.queue);
    let request = grpc::ReceiveMessageRequest {
        group: Some(core.resource(wanted.group)),
        message_queue: Some(wanted.queue),
        filter_expression: Some(wanted.filter.to_wire()),
        batch_size: i32::try_from(wanted.batch).unwrap_or(i32::MAX),
        invisible_duration: wanted.invisible.map(to_wire),
        auto_renew: wanted.invisible.is_none(),
        long_polling_timeout: Some(to_wire(wanted.polling)),
        attempt_id: wanted.attempt_id,
    };
    let timeout = wanted.polling + core.options.request_timeout.max(POLL_GRACE);
    let call = |mut stub: Stub, request| async move {
        let mut stream = stub.receive_message(request).await?.into_inner();
        let mut contents = Vec::new();
        // What came before an error is received all the same: the server counts it as delivered.
        loop {
            match stream.message().await {
                Ok(Some(answer)) => contents.extend(answer.content),
                Ok(None) => return Ok(contents),
                Err(status) if contents.iter().any(is_message) => {
                    warn!(%status, "a receive broke off; taking what has come");
                    return Ok(contents);
                }
                Err(status) => return Err(status),
            }
        }
    };
    let (proxy, contents) = core.call_within(timeout, &proxies, request, call).await?;
    sort(contents, &proxy, &topic)
}

fn is_message(content: &Content) -> bool {
    matches!(content, Content::Message(_))
}

fn sort(contents: Vec<Content>, proxy: &Address, topic: &str) -> Result<Received, Error> {
    let mut received = Received::default();
    let mut status = None;
    for content in contents {
        match content {
            Content::Status(said) => status = Some(said),
            Content::DeliveryTimestamp(_) => {}
            Content::Message(message) => match Delivery::open(message, proxy) {
                (delivery, None) => received.messages.push(delivery),
                (delivery, Some(damage)) => received.damaged.push((delivery, damage.to_string())),
            },
        }
    }
    let count = received.messages.len() + received.damaged.len();
    trace!(topic, count, "received");
    if count > 0 {
        return Ok(received);
    }
    let nothing = status.as_ref().is_some_and(|status| status.code == Code::MessageNotFound as i32);
    if !nothing {
        error::check(status.as_ref(), topic)?;
    }
    Ok(received)
}

/// Says that messages have been dealt with; each has an outcome of its own. All are of one topic and proxy.
pub(crate) async fn acknowledge(
    core: &Core,
    group: &str,
    deliveries: &[&Delivery],
) -> Result<Vec<Result<(), Error>>, Error> {
    let Some(first) = deliveries.first() else { return Ok(Vec::new()) };
    let topic = first.topic.as_str();
    let entry = |delivery: &&Delivery| grpc::AckMessageEntry {
        message_id: delivery.message_id.clone(),
        receipt_handle: delivery.receipt_handle.clone(),
        lite_topic: None,
    };
    let request = grpc::AckMessageRequest {
        group: Some(core.resource(group)),
        topic: Some(core.resource(topic)),
        entries: deliveries.iter().map(entry).collect(),
    };
    let call = |mut stub: Stub, request| async move {
        stub.ack_message(request).await.map(tonic::Response::into_inner)
    };
    let proxies = std::slice::from_ref(&first.proxy);
    let (_, answer) = core.call(proxies, request, call).await?;
    if answer.entries.len() != deliveries.len() {
        error::check(answer.status.as_ref(), topic)?;
        let entries = answer.entries.len();
        return Err(Error::Answer(format!("{entries} entries for {} messages", deliveries.len())));
    }
    // In the order of the request, or named by their handles.
    let outcome = |(at, delivery): (usize, &&Delivery)| {
        let same =
            |entry: &&grpc::AckMessageResultEntry| entry.receipt_handle == delivery.receipt_handle;
        let entry = Some(&answer.entries[at]).filter(same);
        let entry = entry.or_else(|| answer.entries.iter().find(same));
        let entry = entry.unwrap_or(&answer.entries[at]);
        error::check(entry.status.as_ref(), topic)
    };
    Ok(deliveries.iter().enumerate().map(outcome).collect())
}

/// Hides a message for so long from now; gives its new handle.
pub(crate) async fn hide(
    core: &Core,
    group: &str,
    delivery: &Delivery,
    invisible: Duration,
) -> Result<String, Error> {
    let topic = delivery.topic.as_str();
    let request = grpc::ChangeInvisibleDurationRequest {
        group: Some(core.resource(group)),
        topic: Some(core.resource(topic)),
        receipt_handle: delivery.receipt_handle.clone(),
        invisible_duration: Some(to_wire(invisible)),
        message_id: delivery.message_id.clone(),
        ..Default::default()
    };
    let call = |mut stub: Stub, request| async move {
        stub.change_invisible_duration(request).await.map(tonic::Response::into_inner)
    };
    let proxies = std::slice::from_ref(&delivery.proxy);
    let (_, answer) = core.call(proxies, request, call).await?;
    error::check(answer.status.as_ref(), topic)?;
    Ok(answer.receipt_handle)
}

/// Moves a message to the group's dead letters.
pub(crate) async fn give_up(
    core: &Core,
    group: &str,
    delivery: &Delivery,
    attempt: u32,
    attempts_max: u32,
) -> Result<(), Error> {
    let topic = delivery.topic.as_str();
    let count = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
    let request = grpc::ForwardMessageToDeadLetterQueueRequest {
        group: Some(core.resource(group)),
        topic: Some(core.resource(topic)),
        receipt_handle: delivery.receipt_handle.clone(),
        message_id: delivery.message_id.clone(),
        delivery_attempt: count(attempt),
        max_delivery_attempts: count(attempts_max),
        lite_topic: None,
    };
    let call = |mut stub: Stub, request| async move {
        let answer = stub.forward_message_to_dead_letter_queue(request).await;
        answer.map(tonic::Response::into_inner)
    };
    let proxies = std::slice::from_ref(&delivery.proxy);
    let (_, answer) = core.call(proxies, request, call).await?;
    error::check(answer.status.as_ref(), topic)
}

fn queue_proxies(queue: &grpc::MessageQueue) -> Vec<Address> {
    let broker = queue.broker.as_ref();
    endpoints::from_wire(broker.and_then(|broker| broker.endpoints.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: Code) -> Content {
        Content::Status(grpc::Status { code: code.into(), message: String::new() })
    }

    #[test]
    fn an_empty_poll_is_no_error_and_a_refused_one_is() {
        let proxy: Address = "a:1".parse().unwrap();
        let sort = |contents| sort(contents, &proxy, "orders");
        assert!(sort(vec![status(Code::MessageNotFound)]).unwrap().messages.is_empty());
        assert!(sort(vec![status(Code::Ok)]).unwrap().messages.is_empty());
        assert!(matches!(sort(vec![status(Code::TooManyRequests)]), Err(Error::Throttled { .. })));
        assert!(sort(vec![]).is_err());
        let message = Content::Message(grpc::Message::default());
        let received = sort(vec![status(Code::InternalError), message]).unwrap();
        assert_eq!(received.messages.len(), 1, "what came counts");
    }
}
