//! Taking: which messages a consumer gets, and from which queues.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use protocol::header::pop::{PopMessage, PopMessageReply};
use protocol::name;
use protocol::properties::{self, name as property};
use protocol::record::Record;
use protocol::reply::{Refusal, ReplyCode};
use remoting::clock;
use smallvec::SmallVec;
use store::{Access, Filter, Limits, QueueRef, Read, Status};

use super::basket::{Basket, Dead, Taken, delivered_again, push_run, records};
use super::event::{Event, Popped};
use super::handle::ORDER_REVIVE_QUEUE;
use super::ledger::{Ledger, Run, Runs, runs};
use super::{Consumption, Kind, Place};
use crate::broker::{Broker, invalid};
use crate::filter::Wanted;
use crate::stats::kind;
use crate::topics::{Topic, perm};

/// Messages one request may ask for.
pub const MESSAGES_MAX: i32 = 32;
/// Messages of a queue looked at for one request that filters.
pub(super) const SCAN_MAX: usize = 4096;
/// How long messages may be hidden.
const HIDDEN_MS: std::ops::RangeInclusive<i64> = 1..=30 * 24 * 3_600_000;
/// How long a request may wait, whatever it asks for.
const WAIT_MS_MAX: i64 = 300_000;
/// A client that waits gets its answer this long before it gives up.
const ANSWER_EARLIER_MS: i64 = 50;
/// A request that is later than this is not served: nobody would take the messages.
const LATE_MS: i64 = 500;
/// How long the broker keeps a message to itself while it moves it to the dead letters.
const BURY_MS: i64 = 60_000;

/// A request that may be served.
#[derive(Debug)]
pub struct Pop {
    pub(super) broker: Arc<Broker>,
    pub(super) consumption: Arc<Consumption>,
    pub(super) topic: Arc<Topic>,
    pub(super) wanted: Wanted,
    pub(super) queue_id: i32,
    pub(super) max: usize,
    pub(super) hidden_ms: i64,
    pub(super) wait_ms: i64,
    pub(super) from_start: bool,
    pub(super) order: bool,
    pub(super) attempt: u32,
    pub(super) retry_max: i32,
}

/// What a consumer gets.
#[derive(Debug)]
pub struct PopReply {
    /// Success, or why there is nothing: nobody came in time, or too many wait.
    pub code: ReplyCode,
    pub header: PopMessageReply,
    /// The records, one after another.
    pub slices: Vec<Bytes>,
    /// The same, one by one.
    pub messages: Vec<Message>,
}

/// One message that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    pub retry: bool,
    pub queue_id: i32,
    pub offset: i64,
    pub bytes: u32,
}

/// Takes messages, or waits for them as long as the request says.
pub async fn pop(broker: &Arc<Broker>, request: &PopMessage) -> Result<PopReply, Refusal> {
    Pop::check(broker, request)?.serve().await
}

/// What one look at the queues gave.
#[derive(Debug)]
pub enum Look {
    Found(PopReply),
    /// Nothing, and in how long a hidden message may come back.
    Nothing {
        due_in_ms: Option<i64>,
        reply: PopReply,
    },
    /// The disk has to be waited for before it makes sense to look again.
    Cold(Cold),
}

/// What has to be read from disk.
pub type Cold = SmallVec<[(QueueRef, i64, usize); 2]>;

/// Retries that came from one topic.
struct OfTopic<'t>(&'t str);

impl Filter for OfTopic<'_> {
    fn by_tags(&mut self, _tags_code: i64) -> bool {
        true
    }

    fn wants_records(&self) -> bool {
        true
    }

    fn by_record(&mut self, record: &[u8]) -> bool {
        Record::decode(record).is_ok_and(|(record, _)| {
            properties::get_str(record.properties, property::RETRY_TOPIC) == Some(self.0)
        })
    }
}

impl Pop {
    /// The stock broker's rules, in its order.
    pub fn check(broker: &Arc<Broker>, request: &PopMessage) -> Result<Self, Refusal> {
        let config = broker.config.load();
        let ip = config.advertised_ip;
        let PopMessage { consumer_group: group, topic: topic_name, queue_id, .. } = request;
        let deny = |remark: String| Err(Refusal::new(ReplyCode::NoPermission, remark));
        let late_ms = clock::now_ms().saturating_sub(request.born_time);
        if request.born_time > 0 && late_ms.saturating_sub(request.poll_time) > LATE_MS {
            let remark = format!("the broker[{ip}] pop message is timeout too much");
            return Err(Refusal::new(ReplyCode::PollingTimeout, remark));
        }
        if !perm::may_read(config.permission) {
            return deny(format!("the broker[{ip}] pop message is forbidden"));
        }
        if request.max_msg_nums > MESSAGES_MAX {
            let remark = format!("the broker[{ip}] pop message's num is greater than 32");
            return Err(Refusal::new(ReplyCode::InvalidParameter, remark));
        }
        let topic = broker.topic(topic_name)?;
        if !perm::may_read(topic.config.perm) {
            return deny(format!("the topic[{topic_name}] peeking message is forbidden"));
        }
        let readable = topic.config.read_queue_nums;
        if *queue_id >= readable {
            let remark = format!(
                "queueId[{queue_id}] is illegal, topic:[{topic_name}] \
                 topicConfig.readQueueNums:[{readable}]"
            );
            return Err(Refusal::new(ReplyCode::InvalidParameter, remark));
        }
        name::check_group(group).map_err(invalid)?;
        let group_config = broker.group(group)?;
        if !group_config.consume_enable {
            return deny(format!("subscription group no permission, {group}"));
        }
        let kind = request.exp_type.as_deref().unwrap_or("TAG");
        let text = request.exp.as_deref().unwrap_or("*");
        let wanted = Wanted::parse(kind, text, config.property_filter)?;
        let attempt = request.attempt_id.as_deref().filter(|attempt| !attempt.is_empty());
        let order = request.order == Some(true);
        Ok(Self {
            consumption: broker.pops.consumption(group, topic_name),
            broker: broker.clone(),
            topic,
            wanted,
            queue_id: *queue_id,
            max: usize::try_from(request.max_msg_nums).unwrap_or(0).max(1),
            hidden_ms: request.invisible_time.clamp(*HIDDEN_MS.start(), *HIDDEN_MS.end()),
            wait_ms: request.poll_time.min(WAIT_MS_MAX) - ANSWER_EARLIER_MS,
            from_start: request.init_mode == 0,
            order,
            attempt: attempt.map_or(0, |attempt| crc32fast::hash(attempt.as_bytes()).max(1)),
            retry_max: group_config.retry_max_times,
        })
    }

    /// Takes what there is now, on a thread that may wait for the disk or on one that may not.
    pub fn look(&self, access: Access) -> Result<Look, Refusal> {
        let mut basket = Basket::new(&self.broker, access);
        let turn = self.consumption.turn.fetch_add(1, Ordering::Relaxed);
        // Retries get the first look in one of five, so that neither side waits for the other to run dry.
        let retries_first = turn.is_multiple_of(5);
        let looked = if retries_first {
            self.retries(&mut basket, turn).and_then(|()| self.queues(&mut basket, turn))
        } else {
            self.queues(&mut basket, turn).and_then(|()| self.retries(&mut basket, turn))
        };
        // What was handed out is handed out: it comes with the answer even if another queue had a problem.
        if basket.messages.is_empty() {
            looked?;
        }
        self.bury(std::mem::take(&mut basket.dead));
        if basket.messages.is_empty() && !basket.cold.is_empty() {
            return Ok(Look::Cold(basket.cold));
        }
        let due_in_ms = basket.due_ms.map(|due_ms| due_ms - basket.now_ms);
        let reply = self.reply(basket);
        Ok(if reply.messages.is_empty() {
            Look::Nothing { due_in_ms, reply }
        } else {
            Look::Found(reply)
        })
    }

    fn queues(&self, basket: &mut Basket, turn: u32) -> Result<(), Refusal> {
        if self.queue_id >= 0 {
            return self.queue(basket, Kind::Topic, &self.topic, self.queue_id);
        }
        self.all_queues(basket, Kind::Topic, &self.topic, turn)
    }

    fn retries(&self, basket: &mut Basket, turn: u32) -> Result<(), Refusal> {
        if self.order {
            return Ok(());
        }
        match self.broker.topics.get(&name::retry_topic(&self.consumption.group)) {
            Some(topic) => self.all_queues(basket, Kind::Retry, &topic, turn),
            None => Ok(()),
        }
    }

    fn all_queues(
        &self,
        basket: &mut Basket,
        kind: Kind,
        topic: &Topic,
        turn: u32,
    ) -> Result<(), Refusal> {
        let count = topic.config.read_queue_nums.max(0).unsigned_abs();
        for step in 0..count {
            let queue_id = (turn.wrapping_add(step) % count).cast_signed();
            self.queue(basket, kind, topic, queue_id)?;
        }
        Ok(())
    }

    fn queue(
        &self,
        basket: &mut Basket,
        kind: Kind,
        topic: &Topic,
        queue_id: i32,
    ) -> Result<(), Refusal> {
        let broker = &self.broker;
        let place = match self.consumption.place((kind, queue_id)) {
            Some(place) => place,
            None => {
                let queue = topic.queue(&broker.store, queue_id)?;
                let from = || self.start(&topic.name, kind, queue_id, queue);
                broker.pops.place(
                    &self.consumption,
                    (kind, queue_id),
                    queue,
                    basket.now_ms,
                    from,
                )?
            }
        };
        self.take(basket, &place)
    }

    /// Where a group that never popped this queue begins.
    pub(super) fn start(&self, topic: &str, kind: Kind, queue_id: i32, queue: QueueRef) -> i64 {
        let store = &self.broker.store;
        let (min, max) = (store.min_offset(queue), store.max_offset(queue));
        match self.broker.offsets.committed(&self.consumption.group, topic, queue_id) {
            Some(committed) => committed.clamp(min, max),
            None if self.from_start || kind == Kind::Retry => min,
            None if min <= 0 && crate::offsets::requests::in_memory(&self.broker, queue) => 0,
            // The stock broker hands out the last one, too.
            None => (max - 1).max(min),
        }
    }

    fn take(&self, basket: &mut Basket, place: &Arc<Place>) -> Result<(), Refusal> {
        let store = &self.broker.store;
        let max_offset = store.max_offset(place.queue);
        let mut ledger = place.ledger.lock();
        let now_ms = basket.now_ms;
        self.follow_pulls(place, &mut ledger, now_ms)?;
        let want = self.max - basket.messages.len();
        let offer = if self.order {
            ledger.offer_in_order(now_ms, want, self.attempt)
        } else {
            ledger.offer(now_ms, want)
        };
        let mut taken = Taken::default();
        for (run, attempts) in &offer.again {
            if self.order && !basket.cold.is_empty() {
                break;
            }
            self.again(basket, place, *run, *attempts, offer.retaken, &mut taken)?;
        }
        let full = basket.bytes + taken.bytes >= basket.bytes_max;
        let mut next = ledger.next();
        if offer.fresh > 0 && next < max_offset && !full && basket.cold.is_empty() {
            next = self.fresh(basket, place, &mut ledger, offer.fresh, &mut taken)?;
        }
        if !taken.gone.is_empty() {
            let gone = Event::Acked(std::mem::take(&mut taken.gone));
            self.broker.pops.record(place, &mut ledger, &gone, now_ms)?;
        }
        let moved = next != ledger.next();
        if moved || !taken.again.is_empty() || !taken.fresh.is_empty() {
            let event = Event::Popped(Popped {
                at_ms: now_ms,
                hidden_ms: self.hidden_ms,
                attempt: if self.order { self.attempt } else { 0 },
                retaken: offer.retaken,
                again: std::mem::take(&mut taken.again),
                fresh: std::mem::take(&mut taken.fresh),
                next,
            });
            self.broker.pops.record(place, &mut ledger, &event, now_ms)?;
        }
        self.keep_dead(basket, place, &mut ledger, std::mem::take(&mut taken.dead))?;
        basket.due_ms = [basket.due_ms, ledger.due_ms(now_ms)].into_iter().flatten().min();
        if !(self.order && ledger.is_blocked(now_ms, 0)) {
            basket.rest += (max_offset - next).max(0);
        }
        if moved && place.kind == Kind::Topic && taken.messages.is_empty() {
            self.publish(place, ledger.committed());
        }
        drop(ledger);
        basket.put(place, taken, self.order);
        Ok(())
    }

    /// The broker takes for itself what was delivered too often, until it is among the dead letters.
    fn keep_dead(
        &self,
        basket: &mut Basket,
        place: &Arc<Place>,
        ledger: &mut Ledger,
        dead: Vec<(i64, i32)>,
    ) -> Result<(), Refusal> {
        let now_ms = basket.now_ms;
        for (offset, times) in dead {
            let event = Event::Popped(Popped {
                at_ms: now_ms,
                hidden_ms: BURY_MS,
                attempt: ledger.attempt(),
                retaken: true,
                again: Runs::from_slice(&[Run { first: offset, bits: 1 }]),
                fresh: Runs::new(),
                next: ledger.next(),
            });
            self.broker.pops.record(place, ledger, &event, now_ms)?;
            basket.dead.push(Dead { place: place.clone(), offset, times, popped_ms: now_ms });
        }
        Ok(())
    }

    fn publish(&self, place: &Place, committed: i64) {
        let Consumption { group, topic, .. } = &*self.consumption;
        self.broker.offsets.popped(group, topic, place.queue_id, committed);
    }

    /// What members of the group have pulled of its retries is not popped once more.
    fn follow_pulls(&self, place: &Place, ledger: &mut Ledger, now_ms: i64) -> Result<(), Refusal> {
        if place.kind == Kind::Topic {
            return Ok(());
        }
        let group = &self.consumption.group;
        let (retries, _) = self.broker.store.queue_name(place.queue);
        let pulled = self.broker.offsets.committed(group, retries, place.queue_id);
        match pulled.filter(|pulled| *pulled > ledger.committed()) {
            Some(to) => self.broker.pops.record(place, ledger, &Event::Advanced { to }, now_ms),
            None => Ok(()),
        }
    }

    /// Messages that were delivered before: copies that say how often.
    fn again(
        &self,
        basket: &mut Basket,
        place: &Place,
        run: Run,
        attempts: u16,
        retaken: bool,
        taken: &mut Taken,
    ) -> Result<(), Refusal> {
        let span = usize::try_from(run.last() - run.first + 1).unwrap_or(64);
        let limits = Limits { messages: span, bytes: usize::MAX, scan: span };
        let read = self.read(basket, place, run.first, limits, store::All)?;
        let mut found = 0u64;
        match read.status {
            Status::Cold => {
                basket.cold.push((place.queue, run.first, span));
                return Ok(());
            }
            Status::Found => {}
            // Retention was here.
            _ => {
                taken.gone.push(run);
                return Ok(());
            }
        }
        // Of this hold alone: a run must not reach into the next one, which was hidden by itself.
        let mut again = Runs::new();
        for (offset, record) in records(&read) {
            let bit = match offset - run.first {
                bit @ 0..64 => 1u64 << bit,
                _ => continue,
            };
            if run.bits & bit == 0 || basket.bytes + taken.bytes >= basket.bytes_max {
                found |= bit;
                continue;
            }
            found |= bit;
            let before = i32::from(attempts) - i32::from(retaken);
            let Some(copy) = delivered_again(record, before) else { continue };
            if !retaken && copy.1 > self.retry_max {
                taken.dead.push((offset, copy.1));
                continue;
            }
            push_run(&mut again, offset);
            taken.push(offset, copy.0, copy.1);
        }
        taken.again.extend(again);
        taken.gone.extend(Run::new(run.first, run.bits & !found));
        Ok(())
    }

    /// Messages that were never handed out, as they lie in the log. Returns where they end.
    fn fresh(
        &self,
        basket: &mut Basket,
        place: &Place,
        ledger: &mut Ledger,
        count: usize,
        taken: &mut Taken,
    ) -> Result<i64, Refusal> {
        let bytes = basket.bytes_max - (basket.bytes + taken.bytes).min(basket.bytes_max);
        let limits = Limits { messages: count, bytes: bytes.max(1), scan: SCAN_MAX };
        // A second and a third time when retention was here, or the queue is not the one it was.
        for _ in 0..3 {
            let read = match place.kind {
                Kind::Topic => self.read(basket, place, ledger.next(), limits, &self.wanted)?,
                Kind::Retry => self.read(
                    basket,
                    place,
                    ledger.next(),
                    limits,
                    OfTopic(&self.consumption.topic),
                )?,
            };
            match read.status {
                Status::Found => {
                    let next = read.next_offset;
                    taken.fresh = runs(read.entries.iter().map(|entry| entry.queue_offset));
                    taken.whole(read);
                    return Ok(next);
                }
                Status::NoMatch => return Ok(read.next_offset),
                Status::Cold => {
                    basket.cold.push((place.queue, ledger.next(), count));
                    return Ok(ledger.next());
                }
                Status::AtEnd | Status::Empty => return Ok(ledger.next()),
                Status::BelowMin | Status::BeyondEnd => {
                    let to = read.next_offset;
                    let event = if to > ledger.next() {
                        Event::Advanced { to }
                    } else {
                        Event::Moved { to, at_ms: basket.now_ms }
                    };
                    self.broker.pops.record(place, ledger, &event, basket.now_ms)?;
                }
            }
        }
        Ok(ledger.next())
    }

    fn read(
        &self,
        basket: &Basket,
        place: &Place,
        offset: i64,
        limits: Limits,
        filter: impl Filter,
    ) -> Result<Read, Refusal> {
        let read = self.broker.store.read(place.queue, offset, limits, basket.access, filter);
        read.map_err(crate::offsets::requests::unreadable)
    }

    /// Moves what was delivered too often to the dead letters, on a thread that may read the disk.
    fn bury(&self, dead: Vec<Dead>) {
        if dead.is_empty() {
            return;
        }
        let (broker, consumption) = (self.broker.clone(), self.consumption.clone());
        tokio::task::spawn_blocking(move || {
            dead.iter().for_each(|dead| super::settle::bury(&broker, &consumption, dead));
        });
    }

    fn reply(&self, basket: Basket) -> PopReply {
        let order_counts =
            (self.order && !basket.order_counts.is_empty()).then_some(basket.order_counts);
        let found = !basket.messages.is_empty();
        if found {
            self.count(&basket.messages, basket.bytes);
        }
        let header = PopMessageReply {
            pop_time: basket.now_ms,
            invisible_time: self.hidden_ms,
            revive_qid: if self.order { ORDER_REVIVE_QUEUE } else { self.consumption.nonce },
            rest_num: basket.rest,
            start_offset_info: Some(basket.start_offsets),
            msg_offset_info: Some(basket.offsets),
            order_count_info: order_counts,
        };
        let code = if found { ReplyCode::Success } else { ReplyCode::PollingTimeout };
        PopReply { code, header, slices: basket.slices, messages: basket.messages }
    }

    fn count(&self, messages: &[Message], bytes: usize) {
        let Consumption { group, topic, .. } = &*self.consumption;
        let stats = &self.broker.stats;
        stats.flow.pulled(messages.len());
        let key = format!("{topic}@{group}");
        stats.counter(kind::GROUP_GET_NUMS, &key).add(messages.len() as u64);
        stats.counter(kind::GROUP_GET_SIZE, &key).add(bytes as u64);
    }

    /// Whether the client wants to wait for messages.
    pub fn waits(&self) -> bool {
        self.wait_ms > 0
    }

    /// Lets others who wait know of what is left.
    pub(super) fn pass_on(&self, reply: &PopReply) {
        if reply.header.rest_num > 0 {
            self.consumption.wake();
        }
    }

    /// The next messages, which stay where they are. May wait for the disk.
    pub fn peek(&self) -> Result<PopReply, Refusal> {
        let mut basket = Basket::new(&self.broker, Access::Blocking);
        let count = self.topic.config.read_queue_nums;
        let queues = if self.queue_id >= 0 { self.queue_id..self.queue_id + 1 } else { 0..count };
        for queue_id in queues {
            let queue = self.topic.queue(&self.broker.store, queue_id)?;
            let place = self.consumption.place((Kind::Topic, queue_id));
            let next = match place {
                Some(place) => place.ledger.lock().next(),
                None => self.start(&self.topic.name, Kind::Topic, queue_id, queue),
            };
            let store = &self.broker.store;
            basket.rest += (store.max_offset(queue) - next).max(0);
            let messages = self.max - basket.messages.len().min(self.max);
            if messages == 0 || basket.bytes >= basket.bytes_max {
                continue;
            }
            let limits =
                Limits { messages, bytes: basket.bytes_max - basket.bytes, scan: SCAN_MAX };
            let read = store.read(queue, next, limits, Access::Blocking, store::All);
            let mut read = read.map_err(crate::offsets::requests::unreadable)?;
            if read.status == Status::BelowMin {
                let again =
                    store.read(queue, read.next_offset, limits, Access::Blocking, store::All);
                read = again.map_err(crate::offsets::requests::unreadable)?;
            }
            let message = |entry: &store::Entry| Message {
                retry: false,
                queue_id,
                offset: entry.queue_offset,
                bytes: entry.size,
            };
            basket.messages.extend(read.entries.iter().map(message));
            basket.bytes += read.bytes;
            basket.slices.extend(read.slices);
        }
        Ok(self.reply(basket))
    }
}
