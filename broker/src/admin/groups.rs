//! Consumer groups: made, changed, deleted, listed, and kept from topics.

use std::collections::BTreeSet;

use protocol::body::{
    GroupForbidden, SubscriptionGroupConfig, SubscriptionGroupList, SubscriptionGroupWrapper,
};
use protocol::frame::Command;
use protocol::header::group::{
    DeleteSubscriptionGroup, GetAllSubscriptionGroup, GetAllSubscriptionGroupReply,
    GetSubscriptionGroupConfig, UpdateGroupForbidden,
};
use protocol::name;
use protocol::reply::{Refusal, ReplyCode};
use tracing::info;

use super::topics::page_of;
use super::{attributes, body, done, failed, reply};
use crate::answer::{Context, Outcome};
use crate::broker::{Broker, invalid};
use crate::event::Event;
use crate::groups::{FORBIDDEN_READ, GROUPS_MAX};
use crate::topics::QUEUES_MAX;

/// Code 200.
pub fn update(context: &Context<'_>) -> Outcome {
    change(context.broker, vec![context.body()?])
}

/// Code 225. All of them, or none.
pub fn update_list(context: &Context<'_>) -> Outcome {
    let request: SubscriptionGroupList = context.body()?;
    change(context.broker, request.group_config_list)
}

/// Makes groups, or changes them; their attributes are the signed changes of a request.
fn change(broker: &Broker, wanted: Vec<SubscriptionGroupConfig>) -> Outcome {
    let _deciding = broker.deciding.lock();
    let mut named = BTreeSet::new();
    let mut events = Vec::new();
    let mut new = 0;
    for wanted in wanted {
        let group = wanted.group_name.clone();
        name::check_group(&group).map_err(invalid)?;
        if !(0..=QUEUES_MAX).contains(&wanted.retry_queue_nums) {
            return Err(invalid(format_args!(
                "retryQueueNums of group {group} is {}; it may be 0 to {QUEUES_MAX}",
                wanted.retry_queue_nums
            )));
        }
        let known = broker.groups.get(&group);
        let current = known.as_ref().map(|known| &known.attributes);
        let attributes = attributes::alter(&attributes::GROUP, current, &wanted.attributes);
        let config = SubscriptionGroupConfig { attributes: attributes.map_err(failed)?, ..wanted };
        if !named.insert(group) {
            return Err(invalid(format_args!(
                "the list names group {} twice; name it once",
                config.group_name
            )));
        }
        new += usize::from(known.is_none());
        if known.is_none_or(|known| *known != config) {
            events.push(Event::Group(config));
        }
    }
    if broker.groups.len() + new > GROUPS_MAX {
        let remark = format!("a broker may have {GROUPS_MAX} groups; delete some first");
        return Err(Refusal::new(ReplyCode::SystemBusy, remark));
    }
    if !events.is_empty() {
        broker.record(&events)?;
        info!(groups = ?named, "groups changed");
    }
    Ok(done())
}

/// Code 207. Its retry and dead-letter topics are topics like others and stay.
pub fn delete(context: &Context<'_>) -> Outcome {
    let request: DeleteSubscriptionGroup = context.header()?;
    let DeleteSubscriptionGroup { group_name: group, clean_offset } = request;
    let broker = context.broker;
    name::check_group(&group).map_err(invalid)?;
    let _deciding = broker.deciding.lock();
    let mut events = Vec::new();
    if broker.groups.get(&group).is_some() {
        events.push(Event::GroupDeleted(group.clone()));
    }
    if clean_offset && !broker.offsets.topics_of(&group).is_empty() {
        events.push(Event::OffsetsRemoved { group: group.clone(), topic: None });
    }
    if !events.is_empty() {
        broker.record(&events)?;
        info!(group, clean_offset, "group deleted");
    }
    Ok(done())
}

/// Code 352. Where groups make themselves, asking for one makes it.
pub fn config(context: &Context<'_>) -> Outcome {
    let request: GetSubscriptionGroupConfig = context.header()?;
    match context.broker.group(&request.group) {
        Ok(config) => body(&*config),
        Err(refusal) if refusal.code == ReplyCode::SubscriptionGroupNotExist => {
            let remark = format!("No group in this broker. group: {}", request.group);
            Err(Refusal::new(ReplyCode::SubscriptionGroupNotExist, remark))
        }
        Err(refusal) => Err(refusal),
    }
}

/// Code 201: all groups for those who know no pages, else one page in the order of their names.
pub fn page(context: &Context<'_>) -> Outcome {
    let request: GetAllSubscriptionGroup = context.header()?;
    let groups = &context.broker.groups;
    let version = groups.version();
    let mut all = groups.all();
    all.sort_unstable_by(|a, b| a.group_name.cmp(&b.group_name));
    let page = match (request.group_seq, &request.data_version, request.max_group_num) {
        (None, None, None) => 0..all.len(),
        (seq, seen, max) => page_of(all.len(), &version, seen.as_deref(), seq, max),
    };
    let head = GetAllSubscriptionGroupReply {
        total_group_num: i32::try_from(all.len()).unwrap_or(i32::MAX),
    };
    let listed = &all[page];
    let mut forbidden_table = groups.all_forbidden();
    forbidden_table.retain(|group, _| {
        listed.binary_search_by(|config| config.group_name.as_str().cmp(group)).is_ok()
    });
    let wrapper = SubscriptionGroupWrapper {
        data_version: version,
        forbidden_table,
        subscription_group_table: listed
            .iter()
            .map(|config| (config.group_name.clone(), config.as_ref().clone()))
            .collect(),
    };
    reply(Command::reply(&head), &wrapper)
}

/// Code 353: says whether a group may read a topic, after changing it where that is asked.
pub fn forbid(context: &Context<'_>) -> Outcome {
    let UpdateGroupForbidden { group, topic, readable } = context.header()?;
    let broker = context.broker;
    if let Some(readable) = readable {
        broker.group(&group)?;
        broker.topic(&topic)?;
        let _deciding = broker.deciding.lock();
        let before = broker.groups.forbidden(&group, &topic);
        let bits = if readable { before & !FORBIDDEN_READ } else { before | FORBIDDEN_READ };
        if bits != before {
            let (group, topic) = (group.clone(), topic.clone());
            broker.record(&[Event::Forbidden { group, topic, bits }])?;
        }
    }
    let forbidden = broker.groups.forbidden(&group, &topic) & FORBIDDEN_READ != 0;
    body(&GroupForbidden { group, readable: Some(!forbidden), topic })
}
