//! Which broker a request is meant for, and how long it may wait there.

use std::collections::BTreeSet;
use std::time::Duration;

use protocol::body::LockBatchRequestBody;
use protocol::frame::Command;
use protocol::json;
use protocol::reply::{Refusal, ReplyCode};
use protocol::request::RequestCode;
use serde::Deserialize;

use super::client::{Client, failed};

/// The longest that a client may ask to wait for messages.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// What bodies say that stand for a header.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Named {
    broker_name: Option<String>,
    topic: Option<String>,
}

/// The broker that a request names, or the only one it can be meant for.
pub(super) async fn broker(
    client: &Client,
    code: RequestCode,
    request: &Command<'_>,
) -> Result<String, Refusal> {
    use RequestCode as Code;
    let field = |name: &str| request.fields.get(name).filter(|value| !value.is_empty());
    // The one-letter headers of sends call it `n`.
    if let Some(named) = field("bname").or_else(|| field("n").filter(|_| has_short_names(code))) {
        return Ok(named.to_owned());
    }
    let named = match code {
        Code::LockBatchMq | Code::UnlockBatchMq => {
            let locks: LockBatchRequestBody = json::read(&request.body).unwrap_or_default();
            let first = locks.mq_set.into_iter().next();
            Named { broker_name: first.map(|queue| queue.broker_name), topic: None }
        }
        Code::BatchAckMessage | Code::QueryAssignment | Code::SetMessageRequestMode => {
            json::read(&request.body).unwrap_or_default()
        }
        _ => Named::default(),
    };
    if let Some(broker) = named.broker_name.filter(|name| !name.is_empty()) {
        return Ok(broker);
    }
    // All brokers that have a group's topics know its members; any of them will do.
    if let Some(group) = field("consumerGroup").filter(|_| code == Code::GetConsumerListByGroup) {
        for topic in client.topics_of(group) {
            if let Some(broker) = holders(client, &topic).await.pop_first() {
                return Ok(broker);
            }
        }
    }
    let topic = named.topic.as_deref().or_else(|| field("topic"));
    let topic = topic.or_else(|| field("b").filter(|_| has_short_names(code)));
    if let Some(topic) = topic {
        let mut holders = holders(client, topic).await;
        let any_will_do = code == Code::QueryAssignment;
        if (holders.len() == 1 || any_will_do)
            && let Some(broker) = holders.pop_first()
        {
            return Ok(broker);
        }
    }
    let backend = &client.door.front.backend;
    let mut all = backend.brokers().await.map_err(failed)?;
    if all.is_empty() {
        // The first may have come just now.
        backend.moved();
        all = backend.brokers().await.map_err(failed)?;
    }
    match <[String; 1]>::try_from(all) {
        Ok([only]) => Ok(only),
        Err(_) => {
            let remark = "Request doesn't have field bname";
            Err(Refusal::new(ReplyCode::VersionNotSupported, remark))
        }
    }
}

fn has_short_names(code: RequestCode) -> bool {
    use RequestCode as Code;
    matches!(code, Code::SendMessageV2 | Code::SendBatchMessage | Code::SendReplyMessageV2)
}

/// The brokers that have a topic; none if nobody knows.
pub(super) async fn holders(client: &Client, topic: &str) -> BTreeSet<String> {
    let route = client.door.front.backend.route(topic).await;
    let holders = route.ok().flatten();
    let holders = holders.iter().flat_map(|route| &route.brokers);
    holders.map(|holder| holder.broker.clone()).collect()
}

/// How long a request waits for messages by its own wish.
pub(super) fn waits(code: RequestCode, request: &Command<'_>) -> Duration {
    use RequestCode as Code;
    let field = match code {
        Code::PullMessage | Code::LitePullMessage => "suspendTimeoutMillis",
        Code::PopMessage | Code::Notification => "pollTime",
        // Other clients are asked on the way.
        Code::GetConsumerRunningInfo | Code::ConsumeMessageDirectly => {
            return Duration::from_secs(20);
        }
        _ => return Duration::ZERO,
    };
    let millis = request.fields.get(field).and_then(|millis| millis.parse().ok()).unwrap_or(0);
    Duration::from_millis(millis).min(WAIT_MAX)
}
