//! Compares a server that was started again with everything that was promised before.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, ensure};
use integration_tests::ask;
use integration_tests::wire::{ANSWER_TIMEOUT, Wire};
use protocol::fields::Fields;
use protocol::frame::Command;
use protocol::header::group::GetSubscriptionGroupConfig;
use protocol::header::offset::{GetMaxOffset, GetMinOffset};
use protocol::header::query::{QueryMessage, ViewMessage};
use protocol::header::topic::GetTopicConfig;
use protocol::properties::{self, name};
use protocol::record::Record;
use protocol::reply::ReplyCode;
use protocol::request::Request;
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use remoting::clock;

use crate::history::{
    Content, DELAYED, History, Life, QUEUES, Queue, Seen, TOPICS, first_number, number_of, sender,
    unique_key,
};
use crate::load::Sent;
use crate::transact;

/// Messages looked up by their unique key and by their id after each start.
const LOOKED_UP: usize = 30;
/// Delays are one second: messages sent longer ago than this must have arrived.
const DELAY_MS: i64 = 1000;

/// What a check counted.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) messages: usize,
    pub(crate) offsets: usize,
    pub(crate) topics: usize,
    pub(crate) looked_up: usize,
    pub(crate) delivered: usize,
    pub(crate) committed: usize,
}

/// Everything promised is there; what was read becomes a promise too.
pub(crate) fn everything(
    wire: &mut Wire,
    history: &mut History,
    random: &mut StdRng,
    round: usize,
) -> Result<Counts> {
    let mut counts = Counts::default();
    for topic in TOPICS {
        for queue_id in 0..QUEUES {
            let queue = (topic.to_owned(), queue_id);
            counts.messages +=
                whole_queue(wire, history, &queue).with_context(|| format!("queue {queue:?}"))?;
        }
    }
    counts.delivered = delayed(wire, history)?;
    counts.committed = transact::check(wire, history)?;
    counts.offsets = committed(wire, history)?;
    counts.topics = lives(wire, history)?;
    counts.looked_up = looked_up(wire, history, random)?;
    sends_go_on(wire, history, round)?;
    Ok(counts)
}

/// Reads a queue from end to end: no gap, no repetition, every sender's messages in its order, and at
/// every promised offset what was promised.
fn whole_queue(wire: &mut Wire, history: &mut History, queue: &Queue) -> Result<usize> {
    let mut last_of: HashMap<u64, u64> = HashMap::new();
    let mut found = HashMap::new();
    let (min, max) = read_queue(wire, queue, |record| {
        let number = number_of(record.body).context("a message nobody sent")?;
        let content = Content::of(number, &queue.0, queue.1);
        ensure!(
            content.is(record.body, record.properties),
            "{number:x} changed: {}",
            brief(record)
        );
        let before = last_of.insert(sender(number), number);
        ensure!(before.is_none_or(|before| before < number), "{number:x} after {before:x?}");
        found.insert(record.queue_offset, number);
        Ok(())
    })?;
    let promised = history.stored.get(queue);
    ensure!(min == 0, "the queue begins at {min}, nothing was ever deleted");
    for (offset, number) in promised.into_iter().flatten() {
        let there = found.get(offset);
        ensure!(
            there == Some(number),
            "{number:x} was promised at {offset}; there is {there:x?}, the queue ends at {max}"
        );
    }
    let count = found.len();
    for (offset, number) in found {
        history.learn_stored(queue.clone(), offset, number);
    }
    Ok(count)
}

/// Shows every message of a queue to `see`; its two ends.
pub(crate) fn read_queue(
    wire: &mut Wire,
    queue: &Queue,
    mut see: impl FnMut(&Record<'_>) -> Result<()>,
) -> Result<(i64, i64)> {
    let (topic, queue_id) = (queue.0.clone(), queue.1);
    let (min, _) = wire.ask(&GetMinOffset { topic: topic.clone(), queue_id })?;
    let (max, _) = wire.ask(&GetMaxOffset { topic: topic.clone(), queue_id, committed: true })?;
    let consumed = ("crash-checker".to_owned(), topic, queue_id);
    let mut next = min.offset;
    while next < max.offset {
        let reply = wire.call(ask::request(&ask::pull(&consumed, next)))?;
        ensure!(reply.code == ReplyCode::Success.to_wire(), "pull at {next}: {reply:?}");
        let mut rest = reply.body.as_ref();
        ensure!(!rest.is_empty(), "nothing at {next}, though the queue ends at {}", max.offset);
        while !rest.is_empty() {
            let (record, size) = Record::decode(rest)?;
            rest = &rest[size..];
            record.check_body()?;
            let place = (record.topic, record.queue_id, record.queue_offset);
            ensure!(place == (&queue.0, queue.1, next), "{place:?} where {next} was asked for");
            see(&record)?;
            next += 1;
        }
    }
    Ok((min.offset, max.offset))
}

/// Every delayed message whose time has come arrived once, never too early.
fn delayed(wire: &mut Wire, history: &History) -> Result<usize> {
    let mut arrived = HashSet::new();
    for queue_id in 0..QUEUES {
        let queue = (DELAYED.to_owned(), queue_id);
        read_queue(wire, &queue, |record| {
            let number = number_of(record.body).context("a message nobody sent")?;
            let content = Content::of(number, DELAYED, queue_id);
            ensure!(content.body == record.body, "{number:x} changed: {}", brief(record));
            let early = record.born_timestamp + DELAY_MS - record.store_timestamp;
            ensure!(early <= 0, "{number:x} came {early} ms early");
            ensure!(arrived.insert(number), "{number:x} came again");
            Ok(())
        })?;
    }
    let due = clock::now_ms() - DELAY_MS - ANSWER_TIMEOUT.as_millis() as i64;
    for (number, sent_ms) in &history.delayed {
        let missing = *sent_ms < due && !arrived.contains(number);
        ensure!(!missing, "the delayed message {number:x} never came");
    }
    Ok(arrived.len())
}

/// Waits until every delayed message that was acknowledged has arrived.
pub(crate) fn delays_end(wire: &mut Wire, history: &History) -> Result<()> {
    let mut ends: Vec<i64> = vec![0; QUEUES as usize];
    let mut missing: HashSet<u64> = history.delayed.keys().copied().collect();
    let started = clock::instant();
    while !missing.is_empty() {
        ensure!(
            started.elapsed() < ANSWER_TIMEOUT,
            "{} delayed messages never came, among them {:x?}",
            missing.len(),
            missing.iter().next()
        );
        for (queue_id, end) in (0..).zip(&mut ends) {
            let consumed = ("crash-checker".to_owned(), DELAYED.to_owned(), queue_id);
            let reply = wire.call(ask::request(&ask::pull(&consumed, *end)))?;
            let mut rest = reply.body.as_ref();
            while !rest.is_empty() {
                let (record, size) = Record::decode(rest)?;
                rest = &rest[size..];
                *end = record.queue_offset + 1;
                missing.remove(&number_of(record.body).context("a message nobody sent")?);
            }
        }
    }
    Ok(())
}

/// No group went back, none went further than it asked for.
fn committed(wire: &mut Wire, history: &mut History) -> Result<usize> {
    let mut told = Vec::new();
    for (consumed, commit) in &history.committed {
        let reply = wire.call(ask::request(&ask::query_offset(consumed)))?;
        let offset: i64 = reply.fields.get("offset").map_or(Ok(0), str::parse)?;
        ensure!(
            (commit.answered..=commit.asked).contains(&offset),
            "{consumed:?} stands at {offset}, promised was {commit:?}"
        );
        told.push((consumed.clone(), offset));
    }
    let count = told.len();
    for (consumed, offset) in told {
        let commit = history.committed.get_mut(&consumed).expect("it was just looked at");
        // What was asked for and is not there will never be.
        (commit.answered, commit.asked) = (offset, offset);
    }
    Ok(count)
}

/// What was made is there, what was removed is not; what was neither is decided now.
fn lives(wire: &mut Wire, history: &mut History) -> Result<usize> {
    for (topic, life) in &mut history.topics {
        let header = GetTopicConfig { topic: topic.clone() };
        *life = alive(wire, &header, *life).with_context(|| format!("topic {topic}"))?;
    }
    for (group, life) in &mut history.groups {
        let header = GetSubscriptionGroupConfig { group: group.clone() };
        // Asking for a group makes it, where that is allowed: only those that exist are asked for.
        if *life == Life::Exists {
            *life = alive(wire, &header, *life).with_context(|| format!("group {group}"))?;
        }
    }
    Ok(history.topics.len() + history.groups.len())
}

fn alive<R: Request>(wire: &mut Wire, header: &R, promised: Life) -> Result<Life> {
    let reply = wire.call(Command::request(R::CODE.to_wire(), header))?;
    let found = if reply.code == ReplyCode::Success.to_wire() { Life::Exists } else { Life::Gone };
    ensure!(promised == Life::Unknown || promised == found, "{promised:?}, now {reply:?}");
    Ok(found)
}

/// Messages are found by the key their sender gave them and by the id they were given.
fn looked_up(wire: &mut Wire, history: &History, random: &mut StdRng) -> Result<usize> {
    let queues: Vec<_> = history.stored.iter().filter(|(_, all)| !all.is_empty()).collect();
    let Some(_) = queues.first() else { return Ok(0) };
    for at in 0..LOOKED_UP {
        let (queue, all) = queues.choose(random).context("there are some")?;
        // Half of them among the newest, where a restart could have cut.
        let back = if at % 2 == 0 {
            random.random_range(0..all.len().min(3))
        } else {
            random.random_range(0..all.len())
        };
        let (offset, number) = all.iter().nth_back(back).context("within the length")?;
        found_by(wire, queue, *offset, &unique_key(*number), true)?;
        let content = Content::of(*number, &queue.0, queue.1);
        let keys = properties::get_str(content.properties.as_bytes(), name::KEYS);
        for key in keys.into_iter().flat_map(str::split_whitespace) {
            found_by(wire, queue, *offset, key, false)?;
        }
    }
    let newest = history.placed.iter().rev().take(LOOKED_UP / 2);
    let older = history.placed.choose_multiple(random, LOOKED_UP / 2);
    for (number, position) in newest.chain(older) {
        let (_, body) = wire
            .ask(&ViewMessage { topic: None, offset: *position })
            .with_context(|| format!("{number:x} by its id"))?;
        let (record, _) = Record::decode(&body)?;
        ensure!(
            number_of(record.body) == Some(*number),
            "{number:x} by its id: {}",
            brief(&record)
        );
    }
    Ok(LOOKED_UP + LOOKED_UP / 2)
}

/// A query by key gives the one message that has it.
fn found_by(wire: &mut Wire, queue: &Queue, offset: i64, key: &str, unique: bool) -> Result<()> {
    let query = QueryMessage {
        topic: queue.0.clone(),
        key: key.to_owned(),
        max_num: 32,
        begin_timestamp: 0,
        end_timestamp: i64::MAX,
        index_type: None,
        last_key: None,
    };
    let mut request = ask::request(&query);
    if unique {
        request.fields = Fields::of(&query).with("_UNIQUE_KEY_QUERY", "true");
    }
    let reply = wire.call(request)?;
    let remark = reply.remark.as_deref().unwrap_or_default();
    let found = Record::decode(&reply.body);
    let (record, size) =
        found.with_context(|| format!("{queue:?} {offset} by {key}: {} {remark}", reply.code))?;
    let place = (record.topic, record.queue_id, record.queue_offset);
    ensure!(place == (&queue.0, queue.1, offset), "by {key}: {}", brief(&record));
    ensure!(size == reply.body.len(), "more than one message has the key {key}");
    Ok(())
}

/// One more message enters each queue right behind the last one.
fn sends_go_on(wire: &mut Wire, history: &mut History, round: usize) -> Result<()> {
    const CHECKER: usize = 255;
    let mut seen = Seen::default();
    let mut number = first_number(round, CHECKER);
    for topic in TOPICS {
        for queue_id in 0..QUEUES {
            let (max, _) =
                wire.ask(&GetMaxOffset { topic: topic.to_owned(), queue_id, committed: true })?;
            let sent = Sent::one(number, topic, queue_id);
            let reply = wire.call(sent.request(false))?;
            ensure!(reply.code == 0, "a send after the restart: {reply:?}");
            sent.answered(&reply, &mut seen)?;
            let at = seen.stored.last().map(|(_, offset, _)| *offset);
            ensure!(at == Some(max.offset), "{at:?} where the queue ended at {}", max.offset);
            number += 1;
        }
    }
    history.learn(seen);
    Ok(())
}

/// A record without its body, for a message that a person reads.
fn brief(record: &Record<'_>) -> String {
    let Record { topic, queue_id, queue_offset, physical_offset, .. } = record;
    let properties = String::from_utf8_lossy(record.properties);
    let start = String::from_utf8_lossy(&record.body[..record.body.len().min(40)]);
    format!(
        "{topic} {queue_id} {queue_offset}, in the log at {physical_offset}, {} bytes from {start:?}, {properties:?}",
        record.body.len()
    )
}
