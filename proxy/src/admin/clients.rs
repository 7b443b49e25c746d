//! Who is connected, what they subscribe to, and questions to one of them.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use protocol::body::ConsumerConnection;
use protocol::grpc::describe_subscription_response::ClientSubscriptionInfo;
use protocol::grpc::settings::PubSub;
use protocol::grpc::telemetry_command::Command;
use protocol::grpc::*;
use protocol::header::client::GetConsumerConnectionList;
use protocol::json;
use protocol::reply::ReplyCode;
use remoting::pool::Failed;

use crate::clients::Client;
use crate::front::Front;
use crate::grpc::check;
use crate::grpc::status::{Failure, ok, status};

/// How long a client may take to answer a question.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What one client subscribes to, as far as it fits what is asked for.
fn subscribed<'c>(
    client: &'c Client,
    topic: Option<&Resource>,
    group: Option<&Resource>,
) -> impl Iterator<Item = (&'c Resource, &'c SubscriptionEntry)> {
    let subscription = match client.settings.as_deref().and_then(|it| it.pub_sub.as_ref()) {
        Some(PubSub::Subscription(subscription)) => Some(subscription),
        _ => None,
    };
    let fits = |wanted: Option<&Resource>, it: &Resource| {
        wanted.is_none_or(|wanted| wanted.name.is_empty() || wanted.name == it.name)
    };
    let own = subscription.and_then(|it| it.group.as_ref()).filter(|own| fits(group, own));
    let entries = subscription.map(|it| it.subscriptions.as_slice()).unwrap_or_default();
    let entries: Vec<_> = match own {
        Some(own) => entries
            .iter()
            .filter(|entry| entry.topic.as_ref().is_some_and(|it| fits(topic, it)))
            .map(|entry| (own, entry))
            .collect(),
        None => Vec::new(),
    };
    entries.into_iter()
}

fn info(group: &Resource, entry: &SubscriptionEntry) -> SubscriptionInfo {
    SubscriptionInfo {
        group: Some(group.clone()),
        topic: entry.topic.clone(),
        expression: entry.expression.clone(),
        online: true,
        last_update_timestamp: None,
        message_model: MessageModel::Clustering.into(),
        subscription_consistency: true,
    }
}

pub(super) fn subscriptions(
    front: &Front,
    request: &ListSubscriptionRequest,
) -> ListSubscriptionResponse {
    // By group and topic; where members differ, they are not consistent.
    let mut found: BTreeMap<(String, String), SubscriptionInfo> = BTreeMap::new();
    for (_, client) in front.clients.all() {
        for (group, entry) in subscribed(&client, request.topic.as_ref(), request.group.as_ref()) {
            let topic = entry.topic.as_ref().map(|topic| topic.name.clone()).unwrap_or_default();
            let known =
                found.entry((group.name.clone(), topic)).or_insert_with(|| info(group, entry));
            known.subscription_consistency &= known.expression == entry.expression;
        }
    }
    let subscription_info = found.into_values().collect();
    ListSubscriptionResponse { status: Some(ok()), subscription_info }
}

pub(super) fn describe_subscription(
    front: &Front,
    request: &DescribeSubscriptionRequest,
) -> DescribeSubscriptionResponse {
    let mut found = Vec::new();
    for (id, client) in front.clients.all() {
        for (group, entry) in subscribed(&client, request.topic.as_ref(), request.group.as_ref()) {
            found.push(ClientSubscriptionInfo {
                client_info: Some(client_info(&id, &client)),
                subscription_info: Some(info(group, entry)),
            });
        }
    }
    DescribeSubscriptionResponse { status: Some(ok()), client_subscription_info: found }
}

fn client_info(id: &str, client: &Client) -> ClientInfo {
    let agent = client.settings.as_deref().and_then(|settings| settings.user_agent.as_ref());
    ClientInfo {
        client_id: id.to_owned(),
        version: client.version.clone(),
        language: client.language.clone(),
        hostname: agent.map(|agent| agent.hostname.clone()).unwrap_or_default(),
        egress_ip: client.remote.clone(),
        message_model: MessageModel::Clustering.into(),
    }
}

/// Those who are connected here, and those who are connected to brokers themselves.
pub(super) async fn connections(
    front: &Front,
    request: ListConsumerConnectionRequest,
) -> Result<ListConsumerConnectionResponse, Failure> {
    let group = check::group(request.group.as_ref())?;
    let mut found: BTreeMap<String, ClientInfo> = BTreeMap::new();
    for (id, client) in front.clients.all() {
        if client.group.as_deref() == Some(group) {
            found.insert(id.clone(), client_info(&id, &client));
        }
    }
    for broker in front.backend.brokers().await? {
        let header = GetConsumerConnectionList { consumer_group: group.to_owned() };
        let reply = match front.backend.ask(&broker, &header, Vec::new()).await {
            Ok((_, reply)) => reply,
            Err(Failed::Refused { code, .. }) if code == ReplyCode::ConsumerNotOnline.to_wire() => {
                continue;
            }
            Err(failed) => return Err(failed.into()),
        };
        let body: ConsumerConnection = json::read(&reply.body)
            .map_err(|error| Failure::new(Code::InternalServerError, error.to_string()))?;
        for connection in body.connection_set {
            found.entry(connection.client_id.clone()).or_insert_with(|| ClientInfo {
                client_id: connection.client_id,
                version: connection.version.to_string(),
                language: connection.language,
                hostname: String::new(),
                egress_ip: connection.client_addr,
                message_model: MessageModel::Clustering.into(),
            });
        }
    }
    let client_info = found.into_values().collect();
    Ok(ListConsumerConnectionResponse { status: Some(ok()), client_info })
}

fn away(client_id: &str) -> Failure {
    let id: String = client_id.chars().take(200).collect();
    Failure::new(Code::NotFound, format!("the client `{id}` is not here, or does not answer"))
}

pub(super) async fn stack_trace(
    front: &Front,
    request: PrintThreadStackTraceRequest,
) -> Result<PrintThreadStackTraceResponse, Failure> {
    let command = |nonce| {
        let command = PrintThreadStackTraceCommand { nonce };
        let command = Some(Command::PrintThreadStackTraceCommand(command));
        TelemetryCommand { status: Some(ok()), command }
    };
    let told = front.clients.ask(&request.client_id, command, ANSWER_MAX).await;
    let told = told.ok_or_else(|| away(&request.client_id))?;
    Ok(PrintThreadStackTraceResponse {
        status: Some(told.status.unwrap_or_else(ok)),
        thread_stack_trace: told.text,
    })
}

/// Has one consumer consume one message, and says how it went.
pub(super) async fn verify(
    front: &Front,
    request: VerifyMessageRequest,
) -> Result<VerifyMessageResponse, Failure> {
    check::group(request.group.as_ref())?;
    let query = ListMessageRequest {
        topic: request.topic.clone(),
        max_message_nums: 1,
        search_key: Some(list_message_request::SearchKey::MessageId(request.message_id)),
        ..ListMessageRequest::default()
    };
    let message = super::topics::messages(front, query).await?.messages.pop();
    let command = |nonce| {
        let command = Some(Command::VerifyMessageCommand(VerifyMessageCommand { nonce, message }));
        TelemetryCommand { status: Some(ok()), command }
    };
    let told = front.clients.ask(&request.client_id, command, ANSWER_MAX).await;
    let told = told.ok_or_else(|| away(&request.client_id))?;
    let silent = || status(Code::Ok, "the client does not say how it went");
    Ok(VerifyMessageResponse { status: Some(told.status.unwrap_or_else(silent)) })
}

pub(super) fn runtime_stats(front: &Front) -> GetProxyRuntimeStatsResponse {
    let clients = front.clients.all();
    let count = |consumes: bool| {
        let of_kind = clients.iter().filter(|(_, client)| match client.kind {
            ClientType::Unspecified => false,
            ClientType::Producer => !consumes,
            _ => consumes,
        });
        i64::try_from(of_kind.count()).unwrap_or(i64::MAX)
    };
    let (in_tps, out_tps) = *front.stats.rates.lock();
    GetProxyRuntimeStatsResponse {
        status: Some(ok()),
        proxy_name: front.own_id.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        in_tps,
        out_tps,
        connections: front.stats.connections.load(Ordering::Relaxed).cast_signed(),
        producers: count(false),
        consumers: count(true),
    }
}
