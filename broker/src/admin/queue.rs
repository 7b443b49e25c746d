//! Code 321: a stretch of a consume queue, entry by entry.

use protocol::body::{ConsumeQueueData, QueryConsumeQueueResponseBody};
use protocol::header::query::QueryConsumeQueue;

use super::{body, failed};
use crate::answer::{Context, Outcome};
use crate::offsets::requests::unreadable;

/// Entries in one answer.
const ENTRIES_MAX: usize = 10_000;

pub fn entries(context: &Context<'_>) -> Outcome {
    let request: QueryConsumeQueue = context.header()?;
    let broker = context.broker;
    let topic = request.topic.unwrap_or_default();
    let Some(queue) = broker.store.find_queue(&topic, request.queue_id) else {
        return Err(failed(format!("{}@{topic} is not exist!", request.queue_id)));
    };
    let mut found = QueryConsumeQueueResponseBody {
        max_queue_index: broker.store.max_offset(queue),
        min_queue_index: broker.store.min_offset(queue),
        ..QueryConsumeQueueResponseBody::default()
    };
    if let Some(group) = request.consumer_group {
        let known = broker.clients.subscription(&group, &topic);
        found.subscription_data = known.and_then(|(_, subscription)| subscription);
        found.filter_data = Some(match &found.subscription_data {
            Some(_) => "null".to_owned(),
            None => format!("{group}@{topic} is not online!"),
        });
    }
    let index = request.index;
    if !(found.min_queue_index..found.max_queue_index).contains(&index) {
        let remark = format!("Index {index} of {}@{topic} is not exist!", request.queue_id);
        return Ok(body(&found)?.with_remark(remark));
    }
    let count = usize::try_from(request.count).unwrap_or(0).min(ENTRIES_MAX);
    let (first, units) = broker.store.units(queue, index, count).map_err(unreadable)?;
    let wanted = units.iter().zip(first..).take_while(|(_, at)| at - index < count as i64);
    let data = wanted.filter(|(unit, _)| !unit.is_hole()).map(|(unit, _)| ConsumeQueueData {
        physic_offset: unit.position.cast_signed(),
        physic_size: unit.size.cast_signed(),
        tags_code: unit.tags_code,
        ..ConsumeQueueData::default()
    });
    found.queue_data = Some(data.collect());
    body(&found)
}
