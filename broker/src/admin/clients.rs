//! Clients: who is connected, and what they say of themselves when asked.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use protocol::body::{
    Connection, ConsumerConnection, GetConsumerStatusBody, GroupList, ProducerConnection,
    ProducerInfo, ProducerTableInfo, QuerySubscriptionResponseBody, TopicList,
};
use protocol::fields::{Fields, Sink};
use protocol::frame::Command;
use protocol::header::Empty;
use protocol::header::client::{
    ConsumeMessageDirectly, GetConsumerConnectionList, GetConsumerRunningInfo, GetConsumerStatus,
    GetProducerConnectionList,
};
use protocol::header::group::QuerySubscriptionByConsumer;
use protocol::header::topic::{QueryTopicConsumeByWho, QueryTopicsByConsumer};
use protocol::id;
use protocol::json;
use protocol::language::version;
use protocol::reply::{Refusal, ReplyCode};
use protocol::request::RequestCode;
use remoting::peer::{CallError, Peer};
use store::Access;
use tokio::task::JoinSet;
use tracing::warn;

use super::{body, failed};
use crate::answer::{Context, Outcome};
use crate::broker::{Broker, invalid};
use crate::clients::Member;
use crate::offsets::requests::unreadable;

/// How long a client may think about what an operator asks.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long each client of a group may take to say where it stands.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

/// Code 203.
pub fn consumers(context: &Context<'_>) -> Outcome {
    let group = context.header::<GetConsumerConnectionList>()?.consumer_group;
    let Some(known) = context.broker.clients.consumer_group(&group) else {
        let remark = format!("the consumer group[{group}] not online");
        return Err(Refusal::new(ReplyCode::ConsumerNotOnline, remark));
    };
    body(&ConsumerConnection {
        connection_set: known.members.values().map(connection).collect(),
        consume_from_where: known.consume_from_where,
        consume_type: known.consume_type,
        message_model: known.message_model,
        subscription_table: known.subscriptions,
    })
}

/// Code 204.
pub fn producers(context: &Context<'_>) -> Outcome {
    let group = context.header::<GetProducerConnectionList>()?.producer_group;
    let members = context.broker.clients.producer_group(&group);
    if members.is_empty() {
        return Err(failed(format!("the producer group[{group}] not exist")));
    }
    body(&ProducerConnection { connection_set: members.iter().map(connection).collect() })
}

fn connection(member: &Member) -> Connection {
    Connection {
        client_addr: member.peer.remote.to_string(),
        client_id: member.client_id.clone(),
        language: member.language.name().to_owned(),
        version: member.version,
    }
}

/// Code 328.
pub fn all_producers(context: &Context<'_>) -> Outcome {
    let info = |member: &Member| ProducerInfo {
        client_id: member.client_id.clone(),
        language: member.language.name().to_owned(),
        last_update_timestamp: member.heard_ms,
        // As Java prints an address.
        remote_ip: format!("/{}", member.peer.remote),
        version: member.version,
    };
    let groups = context.broker.clients.producer_groups().into_iter();
    let data = groups.map(|(group, members)| (group, members.iter().map(info).collect()));
    body(&ProducerTableInfo { data: data.collect() })
}

/// Code 300: groups that consume a topic now, or did.
pub fn groups_of_topic(context: &Context<'_>) -> Outcome {
    let topic = context.header::<QueryTopicConsumeByWho>()?.topic;
    let now = context.broker.clients.groups_consuming(&topic);
    let ever = context.broker.offsets.groups_of(&topic);
    body(&GroupList { group_list: now.into_iter().chain(ever).collect() })
}

/// Code 343: topics a group has offsets of.
pub fn topics_of_group(context: &Context<'_>) -> Outcome {
    let group = context.header::<QueryTopicsByConsumer>()?.group;
    body(&TopicList {
        broker_addr: Some(context.broker.store_host.to_string()),
        topic_list: context.broker.offsets.topics_of(&group).into_iter().collect::<BTreeSet<_>>(),
    })
}

/// Code 345.
pub fn subscription(context: &Context<'_>) -> Outcome {
    let QuerySubscriptionByConsumer { group, topic } = context.header()?;
    let topic = topic.unwrap_or_default();
    let known = context.broker.clients.subscription(&group, &topic);
    let subscription_data = known.and_then(|(_, subscription)| subscription);
    body(&QuerySubscriptionResponseBody { group, subscription_data, topic })
}

/// Code 307, which the client answers.
pub fn running_info(context: &Context<'_>) -> impl Future<Output = Outcome> + use<> {
    let prepared = context.header::<GetConsumerRunningInfo>().and_then(|request| {
        let (group, client) = (request.consumer_group, request.client_id);
        let member = member(context.broker, &group, &client)?;
        let code = RequestCode::GetConsumerRunningInfo;
        let fields = context.request.fields.clone().into_owned();
        Ok((member, question(code, fields, Vec::new())))
    });
    async move {
        let (member, question) = prepared?;
        ask(&member, question).await
    }
}

/// Code 309: a message is given to one client, which says what became of it.
///
/// The message may have to be read from the disk first.
pub fn consume_directly(context: &Context<'_>) -> impl Future<Output = Outcome> + use<> {
    let broker = context.broker.clone();
    let fields = context.request.fields.clone().into_owned();
    let request: Result<ConsumeMessageDirectly, _> = context.header();
    async move {
        let request = request?;
        let (group, client) = (request.consumer_group, request.client_id.unwrap_or_default());
        let member = member(&broker, &group, &client)?;
        let id = request.msg_id.unwrap_or_default();
        let (_, position) = id::decode_offset_id(&id).map_err(|error| {
            invalid(format_args!("msgId `{id}` is not the offset id of a message: {error}"))
        })?;
        let missing = || failed(format!("no message of this broker has the id {id}"));
        let position = u64::try_from(position).map_err(|_| missing())?;
        let store = broker.store.clone();
        let read = move || store.message_at(position, Access::Blocking);
        let read = tokio::task::spawn_blocking(read).await.map_err(failed)?;
        let record = read.map_err(unreadable)?.ok_or_else(missing)?;
        let mut fields = without(&fields, &["brokerName", "topicSysFlag", "groupSysFlag"]);
        fields.put("brokerName", broker.config.load().name.as_bytes());
        let topic = request.topic.and_then(|topic| broker.topics.get(&topic));
        if let Some(topic) = topic {
            fields = fields.with("topicSysFlag", topic.config.topic_sys_flag.to_string());
        }
        if let Some(config) = broker.groups.get(&group) {
            fields = fields.with("groupSysFlag", config.group_sys_flag.to_string());
        }
        let code = RequestCode::ConsumeMessageDirectly;
        ask(&member, question(code, fields, record.to_vec())).await
    }
}

fn without(fields: &Fields<'_>, names: &[&str]) -> Fields<'static> {
    let mut kept = Fields::default();
    for (name, value) in fields.iter() {
        let name = String::from_utf8_lossy(name);
        if !names.contains(&&*name) {
            kept.put(&name, value);
        }
    }
    kept
}

/// A client of a group that understands such questions.
fn member(broker: &Broker, group: &str, client: &str) -> Result<Member, Refusal> {
    let known = broker.clients.consumer_group(group);
    let mut members = known.into_iter().flat_map(|known| known.members.into_values());
    let Some(member) = members.find(|member| member.client_id == client) else {
        return Err(failed(format!("The Consumer <{group}> <{client}> not online")));
    };
    if member.version < version::V3_1_8_SNAPSHOT {
        return Err(failed(format!(
            "The Consumer <{client}> Version <{}> too low to finish, please upgrade it to \
             V3_1_8_SNAPSHOT",
            version::describe(member.version)
        )));
    }
    Ok(member)
}

fn question(code: RequestCode, fields: Fields<'static>, body: Vec<u8>) -> Command<'static> {
    let question = Command::request(code.to_wire(), &Empty {}).with_body(body);
    Command { fields, ..question }
}

/// Passes a question on, and the answer back.
async fn ask(member: &Member, question: Command<'static>) -> Outcome {
    let client = &member.client_id;
    match member.peer.call(question, CALL_TIMEOUT).await {
        Ok(answer) => {
            let Command { code, remark, fields, body, .. } = answer;
            Ok(Command { code, remark, fields, body, ..super::done() })
        }
        Err(error @ CallError::Timeout { .. }) => {
            let remark = format!("consumer <{client}> Timeout: {error}");
            Err(Refusal::new(ReplyCode::ConsumeMsgTimeout, remark))
        }
        Err(error) => Err(failed(format!("invoke consumer <{client}> Exception: {error}"))),
    }
}

/// Code 223: where each client of a group, or one of them, stands in a topic.
pub fn status(context: &Context<'_>) -> impl Future<Output = Outcome> + use<> {
    let prepared = context.header::<GetConsumerStatus>().and_then(|request| {
        let group = &request.group;
        let known = context.broker.clients.consumer_group(group);
        let members = known.map(|known| known.members).unwrap_or_default();
        if members.is_empty() {
            let remark = format!("No Any Consumer online in the consumer group: [{group}]");
            return Err(failed(remark));
        }
        let old = members.values().find(|member| member.version < version::V3_0_7_SNAPSHOT);
        if let Some(old) = old {
            return Err(too_old(old));
        }
        let one = request.client_addr.clone().filter(|one| !one.trim().is_empty());
        let asked = |member: &Member| one.as_ref().is_none_or(|one| *one == member.client_id);
        let members: Vec<Member> = members.into_values().filter(asked).collect();
        let header = GetConsumerStatus { client_addr: None, ..request };
        Ok((members, header))
    });
    async move {
        let (members, header) = prepared?;
        let mut asking = JoinSet::new();
        for Member { client_id, peer, .. } in members {
            asking.spawn(status_of(client_id, peer, header.clone()));
        }
        let answers = asking.join_all().await.into_iter().flatten();
        let mut all = GetConsumerStatusBody::default();
        all.consumer_table.extend(answers.map(|(id, status)| (id, status.message_queue_table)));
        body(&all)
    }
}

/// What one client says; a client that says nothing useful is left out.
async fn status_of(
    client_id: String,
    peer: Arc<Peer>,
    header: GetConsumerStatus,
) -> Option<(String, GetConsumerStatusBody)> {
    let code = RequestCode::GetConsumerStatusFromClient.to_wire();
    let answer = match peer.call(Command::request(code, &header), STATUS_TIMEOUT).await {
        Ok(answer) if answer.code == ReplyCode::Success.to_wire() => answer,
        Ok(answer) => {
            warn!(client_id, code = answer.code, "a consumer does not say where it stands");
            return None;
        }
        Err(error) => {
            warn!(client_id, %error, "a consumer does not say where it stands");
            return None;
        }
    };
    match json::read(&answer.body) {
        Ok(status) => Some((client_id, status)),
        Err(error) => {
            warn!(client_id, %error, "a consumer said where it stands in a way we cannot read");
            None
        }
    }
}

/// The refusal for a group with a client that cannot be told or asked about its offsets.
pub(super) fn too_old(member: &Member) -> Refusal {
    failed(format!(
        "the client does not support this feature. version={}",
        version::describe(member.version)
    ))
}
