//! Where groups stand: shown, compared, copied.

use std::collections::{BTreeMap, BTreeSet};

use protocol::body::{
    ConsumeStats, ConsumeStatsList, ConsumerOffsetFile, DataVersion, MessageQueue, OffsetWrapper,
    QueryConsumeTimeSpanBody, QueryCorrectionOffsetBody, QueueTimeSpan,
};
use protocol::header::offset::{CloneGroupOffset, QueryCorrectionOffset};
use protocol::header::stats::{GetConsumeStats, GetConsumeStatsInBroker, QueryConsumeTimeSpan};
use protocol::name;
use protocol::reply::{Refusal, ReplyCode};
use remoting::clock;
use tracing::info;

use super::{body, done, stored_at};
use crate::answer::{Context, Outcome};
use crate::broker::{Broker, invalid};
use crate::event::Event;
use crate::stats::kind;
use crate::topics::Topic;

/// Offsets copied in one event record.
const CLONED_AT_ONCE: usize = 10_000;

/// Code 43.
pub fn all(context: &Context<'_>) -> Outcome {
    let broker = context.broker;
    let offset_table = broker.offsets.all();
    let mut group_topic_map = BTreeMap::<String, Vec<String>>::new();
    for key in offset_table.keys() {
        if let Some((topic, group)) = key.split_once('@') {
            group_topic_map.entry(group.to_owned()).or_default().push(topic.to_owned());
        }
    }
    // Whoever copies this compares versions; the log's end says best what it covers.
    let counter = broker.store.appended_position().cast_signed();
    let data_version = DataVersion { counter, state_version: 0, timestamp: broker.started_ms };
    let pull_offset_table = broker.offsets.all_pulled();
    body(&ConsumerOffsetFile { data_version, group_topic_map, offset_table, pull_offset_table })
}

/// Whether a group that is there has nothing to do with a topic any more.
fn unsubscribed(broker: &Broker, group: &str, topic: &str) -> bool {
    let online = broker.clients.consumer_group(group);
    online.is_some_and(|online| {
        !online.subscriptions.is_empty() && !online.subscriptions.contains_key(topic)
    })
}

/// Code 208.
pub fn stats(context: &Context<'_>) -> Outcome {
    let request: GetConsumeStats = context.header()?;
    let (broker, group) = (context.broker, &request.consumer_group);
    let listed = request.topic_list.unwrap_or_default();
    let listed: BTreeSet<String> =
        listed.split(';').filter(|topic| !topic.is_empty()).map(str::to_owned).collect();
    let topics = if listed.is_empty() {
        let mut topics: BTreeSet<String> = match request.topic {
            Some(topic) if !topic.trim().is_empty() => BTreeSet::from([topic]),
            _ => broker.offsets.topics_of(group).into_iter().collect(),
        };
        topics.retain(|topic| !unsubscribed(broker, group, topic));
        topics
    } else {
        listed
    };
    let mut stats = ConsumeStats::default();
    for topic in topics.iter().filter_map(|topic| broker.topics.get(topic)) {
        add(broker, &mut stats, group, &topic, topic.config.read_queue_nums)?;
    }
    body(&stats)
}

fn queue_of(broker: &Broker, topic: &str, queue_id: i32) -> MessageQueue {
    MessageQueue::new(topic, broker.config.load().name.as_str(), queue_id)
}

/// Adds what a group has consumed of a topic.
fn add(
    broker: &Broker,
    stats: &mut ConsumeStats,
    group: &str,
    topic: &Topic,
    queues: i32,
) -> Result<(), Refusal> {
    let committed = broker.offsets.of_topic(group, &topic.name);
    for queue_id in 0..queues {
        let consumer_offset = committed.get(&queue_id).copied().unwrap_or(0).max(0);
        let pulled = broker.offsets.pulled(group, &topic.name, queue_id).unwrap_or(-1);
        let popped = broker.pops.next(group, &topic.name, queue_id).unwrap_or(-1);
        let pull_offset = consumer_offset.max(pulled).max(popped);
        let mut entry = OffsetWrapper { consumer_offset, pull_offset, ..OffsetWrapper::default() };
        if let Some(queue) = broker.store.find_queue(&topic.name, queue_id) {
            entry.broker_offset = broker.store.max_offset(queue);
            entry.last_timestamp = stored_at(broker, queue, consumer_offset - 1)?;
        }
        stats.offset_table.insert(queue_of(broker, &topic.name, queue_id), entry);
    }
    let key = format!("{}@{group}", topic.name);
    let counter = broker.stats.find(kind::GROUP_GET_NUMS, &key);
    let rates = counter.map(|counter| counter.rates(clock::now_ms()));
    stats.consume_tps += rates.and_then(|rates| rates.stats_minute).map_or(0.0, |it| it.tps);
    Ok(())
}

/// Code 317: every group, topic by topic.
pub fn stats_of_all(context: &Context<'_>) -> Outcome {
    let request: GetConsumeStatsInBroker = context.header()?;
    let broker = context.broker;
    let mut list = ConsumeStatsList {
        broker_addr: Some(broker.store_host.to_string()),
        ..ConsumeStatsList::default()
    };
    for config in broker.groups.all() {
        let group = &config.group_name;
        let mut by_topic = Vec::new();
        for topic in broker.offsets.topics_of(group) {
            let Some(topic) = broker.topics.get(&topic) else { continue };
            if request.is_order && !topic.config.order || unsubscribed(broker, group, &topic.name) {
                continue;
            }
            let mut stats = ConsumeStats::default();
            add(broker, &mut stats, group, &topic, topic.config.write_queue_nums)?;
            for entry in stats.offset_table.values() {
                list.total_diff += entry.broker_offset - entry.consumer_offset;
                list.total_inflight_diff += entry.pull_offset - entry.consumer_offset;
            }
            by_topic.push(stats);
        }
        list.consume_stats_list.push(BTreeMap::from([(group.clone(), by_topic)]));
    }
    body(&list)
}

/// Code 303: the same in time.
pub fn time_span(context: &Context<'_>) -> Outcome {
    let QueryConsumeTimeSpan { topic, group } = context.header()?;
    let broker = context.broker;
    let Some(known) = broker.topics.get(&topic) else {
        let remark = format!("topic[{topic}] not exist");
        return Err(Refusal::new(ReplyCode::TopicNotExist, remark));
    };
    let mut spans = QueryConsumeTimeSpanBody::default();
    let now_ms = clock::now_ms();
    for queue_id in 0..known.config.write_queue_nums {
        let message_queue = Some(queue_of(broker, &topic, queue_id));
        let mut span = QueueTimeSpan { message_queue, ..QueueTimeSpan::default() };
        let committed = broker.offsets.committed(&group, &topic, queue_id).unwrap_or(-1);
        // Stock says −1 where there is no message.
        (span.min_time_stamp, span.max_time_stamp, span.consume_time_stamp) = (-1, -1, -1);
        if let Some(queue) = broker.store.find_queue(&topic, queue_id) {
            let (min, max) = (broker.store.min_offset(queue), broker.store.max_offset(queue));
            let time = |offset: i64| {
                if offset < min || offset >= max {
                    Ok(-1)
                } else {
                    stored_at(broker, queue, offset)
                }
            };
            span.min_time_stamp = time(min)?;
            span.max_time_stamp = time(max - 1)?;
            span.consume_time_stamp =
                if committed > 0 { time(committed - 1)? } else { span.min_time_stamp };
            if committed < max {
                let next = time(committed.max(min))?;
                span.delay_time = now_ms - next;
            }
        }
        spans.consume_time_span_set.push(span);
    }
    body(&spans)
}

/// Code 308: by queue, the least offset of all groups but some; the greatest number where the group it is
/// compared with is behind it.
pub fn correction(context: &Context<'_>) -> Outcome {
    let QueryCorrectionOffset { filter_groups, compare_group, topic } = context.header()?;
    let broker = context.broker;
    let passed_over = filter_groups.unwrap_or_default();
    let passed_over: BTreeSet<&str> = passed_over.split(',').collect();
    let mut least = BTreeMap::new();
    for group in broker.offsets.groups_of(&topic) {
        if passed_over.contains(group.as_str()) {
            continue;
        }
        for (queue_id, offset) in broker.offsets.of_topic(&group, &topic) {
            let queue = broker.store.find_queue(&topic, queue_id);
            if offset >= queue.map_or(0, |queue| broker.store.min_offset(queue)) {
                let known = least.entry(queue_id).or_insert(offset);
                *known = offset.min(*known);
            }
        }
    }
    for (queue_id, offset) in broker.offsets.of_topic(&compare_group, &topic) {
        if let Some(known) = least.get_mut(&queue_id)
            && *known > offset
        {
            *known = i64::MAX;
        }
    }
    body(&QueryCorrectionOffsetBody { correction_offsets: least })
}

/// Code 314: one group goes on from where another is.
pub fn clone(context: &Context<'_>) -> Outcome {
    let CloneGroupOffset { src_group, dest_group, topic, offline } = context.header()?;
    let broker = context.broker;
    name::check_group(&dest_group).map_err(invalid)?;
    let topics = match topic {
        Some(topic) if !topic.trim().is_empty() => vec![topic],
        _ => broker.offsets.topics_of(&src_group),
    };
    for topic in topics {
        if broker.topics.get(&topic).is_none()
            || !offline && unsubscribed(broker, &src_group, &topic)
        {
            continue;
        }
        let offsets = broker.offsets.of_topic(&src_group, &topic).into_iter();
        let events: Vec<Event> = offsets
            .map(|(queue_id, offset)| {
                let (group, topic) = (dest_group.clone(), topic.clone());
                Event::Offset { group, topic, queue_id, offset }
            })
            .collect();
        for events in events.chunks(CLONED_AT_ONCE) {
            broker.record(events)?;
        }
        info!(from = src_group, to = dest_group, topic, "offsets copied");
    }
    Ok(done())
}
