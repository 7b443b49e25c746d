//! Topics: made, changed, deleted, listed, and how far they reach.

use std::collections::BTreeSet;

use protocol::body::{
    CreateTopicListRequestBody, DataVersion, MessageQueue, TopicConfig,
    TopicConfigAndMappingSerializeWrapper, TopicFilterType, TopicList, TopicOffset,
    TopicStatsTable,
};
use protocol::frame::Command;
use protocol::header::topic::{
    CreateTopic, DeleteTopic, GetAllTopicConfig, GetAllTopicConfigReply, GetTopicConfig,
    GetTopicStatsInfo,
};
use protocol::json;
use protocol::name;
use protocol::reply::{Refusal, ReplyCode};
use remoting::clock;
use tracing::info;

use super::{attributes, body, done, failed, reply};
use crate::answer::{Context, Outcome};
use crate::broker::{Broker, invalid};
use crate::event::Event;
use crate::topics::{self, TOPICS_MAX};

/// Topics or groups in one page of a listing, if the asker does not want fewer.
pub(super) const PAGE_MAX: usize = 2000;

/// Code 17.
pub fn update(context: &Context<'_>) -> Outcome {
    let request: CreateTopic = context.header()?;
    let filters = [TopicFilterType::SingleTag, TopicFilterType::MultiTag];
    let filter = filters.into_iter().find(|filter| filter.name() == request.topic_filter_type);
    let Some(topic_filter_type) = filter else {
        return Err(invalid(format_args!(
            "topicFilterType of topic {} is `{}`; it may be SINGLE_TAG or MULTI_TAG",
            request.topic, request.topic_filter_type
        )));
    };
    let changes = request.attributes.as_deref().unwrap_or_default();
    let wanted = TopicConfig {
        attributes: attributes::parse(changes).map_err(failed)?,
        order: request.order,
        perm: request.perm,
        read_queue_nums: request.read_queue_nums,
        topic_filter_type,
        topic_name: request.topic,
        topic_sys_flag: request.topic_sys_flag.unwrap_or(0),
        write_queue_nums: request.write_queue_nums,
    };
    change(context.broker, vec![wanted])
}

/// Code 18. All of them, or none.
pub fn update_list(context: &Context<'_>) -> Outcome {
    let request: CreateTopicListRequestBody = context.body()?;
    change(context.broker, request.topic_config_list)
}

/// Makes topics, or changes them; their attributes are the signed changes of a request.
fn change(broker: &Broker, wanted: Vec<TopicConfig>) -> Outcome {
    let _deciding = broker.deciding.lock();
    let mut named = BTreeSet::new();
    let mut events = Vec::new();
    let mut new = 0;
    for wanted in wanted {
        let topic = wanted.topic_name.clone();
        topics::check_config(&wanted).map_err(invalid)?;
        check_not_system(broker, &topic)?;
        let known = broker.topics.get(&topic);
        let current = known.as_ref().map(|known| &known.config.attributes);
        let attributes = attributes::alter(&attributes::TOPIC, current, &wanted.attributes);
        let config = TopicConfig { attributes: attributes.map_err(failed)?, ..wanted };
        check_served(broker, &config)?;
        if !named.insert(topic) {
            return Err(invalid(format_args!(
                "the list names topic {} twice; name it once",
                config.topic_name
            )));
        }
        new += usize::from(known.is_none());
        if known.is_none_or(|known| known.config != config) {
            events.push(Event::Topic(config));
        }
    }
    if broker.topics.len() + new > TOPICS_MAX {
        let remark = format!("a broker may have {TOPICS_MAX} topics; delete some first");
        return Err(Refusal::new(ReplyCode::SystemBusy, remark));
    }
    if !events.is_empty() {
        broker.record(&events)?;
        info!(topics = ?named, "topics changed");
    }
    Ok(done())
}

/// The system's own topics are not for operators to change.
fn check_not_system(broker: &Broker, topic: &str) -> Result<(), Refusal> {
    let config = broker.config.load();
    let own = topic.starts_with(name::OWN_PREFIX);
    if own || config.protect_system_topics && topics::is_system(&config, topic) {
        return Err(invalid(format_args!("The topic[{topic}] is conflict with system topic.")));
    }
    Ok(())
}

/// What an attribute promises and this broker does not do is better refused than forgotten.
fn check_served(broker: &Broker, config: &TopicConfig) -> Result<(), Refusal> {
    let is = |name: &str, value| config.attributes.get(name).is_some_and(|is| is == value);
    if is(attributes::MESSAGE_TYPE, "MIXED") && !broker.config.load().mixed_message_type {
        return Err(invalid("MIXED message type is not supported."));
    }
    if is(attributes::CLEANUP_POLICY, "COMPACTION") {
        return Err(invalid(format_args!(
            "cleanup.policy of topic {} is COMPACTION, which this broker does not serve yet; \
             it would delete what compaction keeps",
            config.topic_name
        )));
    }
    Ok(())
}

/// Code 215: the topic, its messages, what groups had read of it, and its retry topics of pops.
pub fn delete(context: &Context<'_>) -> Outcome {
    let topic = context.header::<DeleteTopic>()?.topic;
    let broker = context.broker;
    name::check_topic(&topic).map_err(invalid)?;
    check_not_system(broker, &topic)?;
    let _deciding = broker.deciding.lock();
    let mut gone = vec![topic.clone()];
    if broker.config.load().clear_retry_topics {
        for group in broker.offsets.groups_of(&topic) {
            let retry = name::retry_topic(&group);
            let of_pops = [format!("{retry}+{topic}"), format!("{retry}_{topic}")];
            gone.extend(of_pops.into_iter().filter(|topic| broker.topics.get(topic).is_some()));
        }
    }
    for topic in gone {
        // First nobody can send to it any more, then the messages go.
        broker.record(&[Event::TopicDeleted(topic.clone())])?;
        if let Err(error) = broker.store.delete_topic(&topic, clock::now_ms()) {
            return Err(Refusal::new(ReplyCode::ServiceNotAvailable, error.to_string()));
        }
        info!(topic, "topic deleted");
    }
    Ok(done())
}

/// Code 351.
pub fn config(context: &Context<'_>) -> Outcome {
    let request: GetTopicConfig = context.header()?;
    let Some(topic) = context.broker.topics.get(&request.topic) else {
        let remark = format!("No topic in this broker. topic: {}", request.topic);
        return Err(Refusal::new(ReplyCode::TopicNotExist, remark));
    };
    body(&topic.config)
}

/// Code 21: all topics for those who know no pages, else one page in the order of their names.
pub fn page(context: &Context<'_>) -> Outcome {
    let request: GetAllTopicConfig = context.header()?;
    let topics = &context.broker.topics;
    let version = topics.version();
    let mut all = topics.all();
    all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let page = match (request.topic_seq, &request.data_version, request.max_topic_num) {
        (None, None, None) => 0..all.len(),
        (seq, seen, max) => page_of(all.len(), &version, seen.as_deref(), seq, max),
    };
    let head = GetAllTopicConfigReply { total_topic_num: i32::try_from(all.len()).ok() };
    let table = all[page].iter().map(|topic| (topic.name.to_string(), topic.config.clone()));
    let wrapper = TopicConfigAndMappingSerializeWrapper {
        data_version: version,
        topic_config_table: table.collect(),
        ..Default::default()
    };
    reply(Command::reply(&head), &wrapper)
}

/// Which of `count` entries stand on a page; who has seen another state begins again.
pub(super) fn page_of(
    count: usize,
    version: &DataVersion,
    seen: Option<&str>,
    first: Option<i32>,
    max: Option<i32>,
) -> std::ops::Range<usize> {
    let seen = seen.and_then(|text| json::read::<DataVersion>(text.as_bytes()).ok());
    let same = seen.is_some_and(|seen| seen == *version);
    let from = first.filter(|_| same).and_then(|first| usize::try_from(first).ok()).unwrap_or(0);
    let size = max.and_then(|max| usize::try_from(max).ok()).unwrap_or(PAGE_MAX).min(PAGE_MAX);
    from.min(count)..from.saturating_add(size).min(count)
}

/// Code 305.
pub fn system(context: &Context<'_>) -> Outcome {
    let broker = context.broker;
    let config = broker.config.load();
    let own = broker.topics.all().into_iter().map(|topic| topic.name.to_string());
    let own = own.filter(|topic| topics::is_system(&config, topic));
    let always = name::SYSTEM_TOPICS.into_iter().map(str::to_owned);
    body(&TopicList { broker_addr: None, topic_list: own.chain(always).collect() })
}

/// Code 202.
pub fn stats(context: &Context<'_>) -> Outcome {
    let topic = context.header::<GetTopicStatsInfo>()?.topic;
    let broker = context.broker;
    let Some(known) = broker.topics.get(&topic) else {
        let remark = format!("topic[{topic}] not exist");
        return Err(Refusal::new(ReplyCode::TopicNotExist, remark));
    };
    let mut table = TopicStatsTable::default();
    for queue_id in 0..known.queue_count() {
        let offset = match broker.store.find_queue(&topic, queue_id) {
            None => TopicOffset::default(),
            Some(queue) => {
                let max_offset = broker.store.max_offset(queue);
                TopicOffset {
                    last_update_timestamp: super::stored_at(broker, queue, max_offset - 1)?,
                    max_offset,
                    min_offset: broker.store.min_offset(queue),
                }
            }
        };
        let queue = MessageQueue::new(topic.as_str(), &*broker.config.load().name, queue_id);
        table.offset_table.insert(queue, offset);
    }
    let rates = known.put.rates(clock::now_ms());
    table.topic_put_tps = rates.stats_minute.map_or(0.0, |minute| minute.tps);
    body(&table)
}
