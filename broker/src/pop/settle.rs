//! Settling: acknowledgements, hiding anew, and what was delivered too often.

use std::sync::Arc;

use protocol::header::pop::ChangeInvisibleTimeReply;
use protocol::record::Record;
use protocol::reply::{Refusal, ReplyCode};
use remoting::clock;
use store::{Access, Limits};
use tracing::{info, warn};

use super::basket::{Dead, records};
use super::event::Event;
use super::handle::{Handle, ORDER_REVIVE_QUEUE};
use super::ledger::{IN_FLIGHT_MAX, Run, Runs};
use super::{Consumption, Kind, Place};
use crate::broker::Broker;
use crate::offsets::requests::unreadable;
use crate::retry;

/// How soon a message is tried again that could not be moved to the dead letters.
const BURY_AGAIN_MS: i64 = 10_000;

/// Messages of one queue that came with one delivery.
#[derive(Clone, Debug)]
pub struct Ack<'a> {
    pub group: &'a str,
    /// As it was popped; not that of retries.
    pub topic: &'a str,
    pub kind: Kind,
    pub queue_id: i32,
    pub popped_ms: i64,
    pub revive_queue: i32,
    pub messages: Runs,
}

impl<'a> Ack<'a> {
    /// An acknowledgement of the message that a handle is for.
    pub fn of(handle: &Handle, group: &'a str, topic: &'a str, offset: i64) -> Self {
        let Handle { popped_ms, revive_queue, queue_id, retry, .. } = *handle;
        let kind = if retry { Kind::Retry } else { Kind::Topic };
        let messages = Runs::from_slice(&[Run { first: offset, bits: 1 }]);
        Self { group, topic, kind, queue_id, popped_ms, revive_queue, messages }
    }
}

fn find(
    broker: &Broker,
    group: &str,
    topic: &str,
    key: (Kind, i32),
    revive_queue: i32,
) -> Option<(Arc<Consumption>, Arc<Place>)> {
    let consumption = broker.pops.find(group, topic)?;
    let known = revive_queue == consumption.nonce || revive_queue == ORDER_REVIVE_QUEUE;
    let place = consumption.place(key).filter(|_| known)?;
    Some((consumption, place))
}

/// Settles messages; returns how many could not be, since they were delivered again or never. When everything
/// is acknowledged that came with a request, [`keep`] has to be called before it is answered.
pub fn ack(broker: &Broker, ack: &Ack<'_>) -> Result<u32, Refusal> {
    let Ack { group, topic, kind, queue_id, popped_ms, revive_queue, messages } = ack;
    let all = || messages.iter().map(|run| run.count() as u32).sum();
    let found = find(broker, group, topic, (*kind, *queue_id), *revive_queue);
    let Some((consumption, place)) = found else { return Ok(all()) };
    let now_ms = clock::now_ms();
    let mut stale = 0;
    let mut runs = Runs::new();
    let mut ledger = place.ledger.lock();
    for run in messages {
        let settled = ledger.settle(*run, *popped_ms);
        stale += settled.stale;
        runs.extend(settled.runs);
    }
    if !runs.is_empty() {
        let (before, was_full) = (ledger.committed(), ledger.in_flight() >= IN_FLIGHT_MAX);
        let order = *revive_queue == ORDER_REVIVE_QUEUE;
        let event = if order { Event::AckedInOrder(runs) } else { Event::Acked(runs) };
        broker.pops.record(&place, &mut ledger, &event, now_ms)?;
        let committed = ledger.committed();
        if committed != before && *kind == Kind::Topic {
            broker.offsets.popped(group, topic, *queue_id, committed);
        }
        if was_full || order && !ledger.is_blocked(now_ms, 0) {
            drop(ledger);
            consumption.wake();
        }
    }
    Ok(stale)
}

/// What was settled outlives this process.
pub fn keep(broker: &Broker) -> Result<(), Refusal> {
    broker.pops.journal.keep(broker.store.appended_position())
}

/// Hides a message anew, from now on for `hidden_ms`.
pub fn hide(
    broker: &Broker,
    group: &str,
    topic: &str,
    handle: &Handle,
    offset: i64,
    hidden_ms: i64,
) -> Result<ChangeInvisibleTimeReply, Refusal> {
    let kind = if handle.retry { Kind::Retry } else { Kind::Topic };
    let gone = || {
        let remark = format!("the message at {offset} is not held by this handle any more");
        Refusal::new(ReplyCode::NoMessage, remark)
    };
    let found = find(broker, group, topic, (kind, handle.queue_id), handle.revive_queue);
    let (consumption, place) = found.ok_or_else(gone)?;
    let now_ms = clock::now_ms();
    let mut ledger = place.ledger.lock();
    let mut event =
        ledger.hide(offset, handle.popped_ms, now_ms, hidden_ms.max(1)).map_err(|_| gone())?;
    let Event::Hidden { at_ms, hidden_ms, .. } = &mut event else { return Err(gone()) };
    if handle.revive_queue == ORDER_REVIVE_QUEUE {
        // The handle of an ordered delivery stays what it is.
        *hidden_ms = at_ms.saturating_add(*hidden_ms).saturating_sub(handle.popped_ms);
        *at_ms = handle.popped_ms;
    }
    let reply = ChangeInvisibleTimeReply {
        pop_time: *at_ms,
        invisible_time: *hidden_ms,
        revive_qid: handle.revive_queue,
    };
    let until_ms = at_ms.saturating_add(*hidden_ms);
    broker.pops.record(&place, &mut ledger, &event, now_ms)?;
    let first = ledger.next_due_ms() == Some(until_ms);
    drop(ledger);
    if first {
        consumption.wake();
    }
    Ok(reply)
}

/// Moves a message that the broker has taken for itself to the dead letters of the group.
pub(super) fn bury(broker: &Broker, consumption: &Consumption, dead: &Dead) {
    let Consumption { group, topic, .. } = consumption;
    let Dead { place, offset, popped_ms, .. } = dead;
    let buried = store_dead(broker, group, dead);
    let now_ms = clock::now_ms();
    let mut ledger = place.ledger.lock();
    let one = Run { first: *offset, bits: 1 };
    let event = match &buried {
        Ok(()) => Some(Event::Acked(ledger.settle(one, *popped_ms).runs)),
        Err(_) => ledger.hide(*offset, *popped_ms, now_ms, BURY_AGAIN_MS).ok(),
    };
    let recorded =
        event.map_or(Ok(()), |event| broker.pops.record(place, &mut ledger, &event, now_ms));
    if place.kind == Kind::Topic {
        broker.offsets.popped(group, topic, place.queue_id, ledger.committed());
    }
    drop(ledger);
    consumption.wake();
    let queue_id = place.queue_id;
    match buried.and(recorded).and_then(|()| keep(broker)) {
        Ok(()) => info!(%group, %topic, queue_id, offset, "moved a message to the dead letters"),
        Err(error) => {
            warn!(%group, %topic, queue_id, offset, %error, "cannot move a message to the dead letters");
        }
    }
}

fn store_dead(broker: &Broker, group: &str, dead: &Dead) -> Result<(), Refusal> {
    let one = Limits { messages: 1, bytes: usize::MAX, scan: 1 };
    let Dead { place, offset, times, .. } = dead;
    let read = broker.store.read(place.queue, *offset, one, Access::Blocking, store::All);
    let read = read.map_err(unreadable)?;
    // Retention may have been here.
    let Some((_, bytes)) = records(&read).find(|(at, _)| at == offset) else { return Ok(()) };
    let (record, _) = Record::decode(bytes).map_err(unreadable)?;
    retry::bury(broker, group, &record, *times)
}
