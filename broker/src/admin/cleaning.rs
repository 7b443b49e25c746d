//! Getting rid of what nobody needs any more, when an operator says so.

use protocol::reply::{Refusal, ReplyCode};
use remoting::clock;
use store::Cleaning;
use tracing::info;

use super::{done, failed};
use crate::answer::{Context, Outcome};
use crate::topics;

/// Rounds of deletion one request starts, as many as stock makes of it.
const ROUNDS_MAX: usize = 20;

/// Code 329: log files past their time go now, whatever the hour.
pub fn expired_log(context: &Context<'_>) -> Outcome {
    for _ in 0..ROUNDS_MAX {
        let cleaned = context.broker.store.delete_expired(Cleaning::Manual, clock::now_ms());
        if cleaned.map_err(|error| failed(format!("cannot delete log files: {error}")))?.files == 0
        {
            break;
        }
    }
    Ok(done())
}

/// Code 306. Queues forget along with the log files; there is nothing left over to clean.
pub fn expired_queues(_: &Context<'_>) -> Outcome {
    Ok(done())
}

/// Code 316: messages of topics that are not there any more.
pub fn unused_topics(context: &Context<'_>) -> Outcome {
    let broker = context.broker;
    let _deciding = broker.deciding.lock();
    let config = broker.config.load();
    for topic in broker.store.topics() {
        let queues = broker.store.queues_of(&topic);
        let empty = queues.iter().all(|(_, queue)| broker.store.max_offset(*queue) == 0);
        if empty || broker.topics.get(&topic).is_some() || topics::is_system(&config, &topic) {
            continue;
        }
        broker
            .store
            .delete_topic(&topic, clock::now_ms())
            .map_err(|error| Refusal::new(ReplyCode::ServiceNotAvailable, error.to_string()))?;
        info!(topic = &*topic, "messages of a topic that is no more deleted");
    }
    Ok(done())
}
