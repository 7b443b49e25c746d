//! What one request gets, queue by queue, and the words from which clients make their handles.

use std::sync::Arc;

use bytes::Bytes;
use protocol::record::{Record, at};
use remoting::clock;
use smallvec::SmallVec;
use store::{Access, Read};

use super::ledger::{Run, Runs};
use super::take::{Cold, Message};
use super::{Kind, Place};
use crate::broker::Broker;

/// What is being put together for one request.
#[derive(Debug)]
pub(super) struct Basket {
    pub(super) access: Access,
    pub(super) now_ms: i64,
    pub(super) bytes_max: usize,
    pub(super) bytes: usize,
    pub(super) slices: Vec<Bytes>,
    pub(super) messages: Vec<Message>,
    pub(super) start_offsets: String,
    pub(super) offsets: String,
    pub(super) order_counts: String,
    pub(super) rest: i64,
    pub(super) due_ms: Option<i64>,
    pub(super) cold: Cold,
    pub(super) dead: Vec<Dead>,
}

/// A message that was delivered too often.
#[derive(Debug)]
pub(super) struct Dead {
    pub(super) place: Arc<Place>,
    pub(super) offset: i64,
    /// How often it was delivered.
    pub(super) times: i32,
    /// When the broker took it for itself.
    pub(super) popped_ms: i64,
}

/// What one queue gives.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) again: Runs,
    pub(super) fresh: Runs,
    pub(super) gone: Runs,
    /// Offset, and how often it was delivered.
    pub(super) dead: Vec<(i64, i32)>,
    pub(super) bytes: usize,
    pub(super) slices: SmallVec<[Bytes; 4]>,
    /// Offset, bytes, and how often it was delivered before.
    pub(super) messages: Vec<(i64, u32, i32)>,
}

impl Taken {
    pub(super) fn push(&mut self, offset: i64, record: Bytes, before: i32) {
        self.bytes += record.len();
        self.messages.push((offset, record.len() as u32, before));
        self.slices.push(record);
    }

    pub(super) fn whole(&mut self, read: Read) {
        self.bytes += read.bytes;
        self.messages.extend(read.entries.iter().map(|entry| (entry.queue_offset, entry.size, 0)));
        self.slices.extend(read.slices);
    }
}

impl Basket {
    pub(super) fn new(broker: &Broker, access: Access) -> Self {
        Self {
            access,
            now_ms: clock::now_ms(),
            bytes_max: broker.config.load().pull_bytes_max.max(1),
            bytes: 0,
            slices: Vec::new(),
            messages: Vec::new(),
            start_offsets: String::new(),
            offsets: String::new(),
            order_counts: String::new(),
            rest: 0,
            due_ms: None,
            cold: Cold::new(),
            dead: Vec::new(),
        }
    }

    /// Adds what a queue gave, with the words from which clients make their handles.
    pub(super) fn put(&mut self, place: &Place, taken: Taken, order: bool) {
        use std::fmt::Write;
        let Some(first) = taken.messages.iter().map(|(offset, ..)| *offset).min() else { return };
        let flag = i32::from(place.kind == Kind::Retry);
        let queue_id = place.queue_id;
        for text in [&mut self.start_offsets, &mut self.offsets] {
            if !text.is_empty() {
                text.push(';');
            }
        }
        write!(self.start_offsets, "{flag} {queue_id} {first}").expect("memory takes text");
        write!(self.offsets, "{flag} {queue_id} ").expect("memory takes text");
        let retry = place.kind == Kind::Retry;
        for (index, (offset, bytes, before)) in taken.messages.iter().copied().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(self.offsets, "{comma}{offset}").expect("memory takes text");
            if order && before > 0 {
                let semicolon = if self.order_counts.is_empty() { "" } else { ";" };
                write!(self.order_counts, "{semicolon}{flag} qo{queue_id}%{offset} {before}")
                    .expect("memory takes text");
            }
            self.messages.push(Message { retry, queue_id, offset, bytes });
        }
        self.bytes += taken.bytes;
        self.slices.extend(taken.slices);
    }
}

pub(super) fn push_run(runs: &mut Runs, offset: i64) {
    match runs.last_mut() {
        Some(run) if (1..64).contains(&(offset - run.first)) => {
            run.bits |= 1 << (offset - run.first);
        }
        _ => runs.push(Run { first: offset, bits: 1 }),
    }
}

/// The records of a read, with their offsets.
pub(super) fn records(read: &Read) -> impl Iterator<Item = (i64, &[u8])> {
    let mut slices = read.slices.iter();
    let mut rest: &[u8] = &[];
    read.entries.iter().map(move |entry| {
        if rest.is_empty() {
            rest = slices.next().map(AsRef::as_ref).unwrap_or_default();
        }
        let record;
        (record, rest) = rest.split_at(rest.len().min(entry.size as usize));
        (entry.queue_offset, record)
    })
}

/// A copy of a record that says it was delivered `more` times before, beyond what it says already.
pub(super) fn delivered_again(record: &[u8], more: i32) -> Option<(Bytes, i32)> {
    let (head, _) = Record::decode(record).ok()?;
    let times = head.reconsume_times.saturating_add(more);
    let place = at::body_length(head.sys_flag) - 12;
    let mut copy = record.to_vec();
    copy.get_mut(place..place + 4)?.copy_from_slice(&times.to_be_bytes());
    Some((copy.into(), times))
}
