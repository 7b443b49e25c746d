//! Finding offsets by the time messages were stored.

use std::io;
use std::sync::atomic::Ordering;

use protocol::record::at;

use crate::append::STORE_TIME_LEAD_MAX_MS;
use crate::queue::{Queue, QueueRef, Unit, units};
use crate::read::Access;
use crate::segment::store_timestamp;
use crate::{Core, Store};

/// Which of the offsets around a time is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// The first message stored at or after the time; the end of the queue if there is none.
    Lower,
    /// The last message stored at or before the time; the start of the queue if there is none.
    Upper,
}

impl Store {
    /// Reads the disk.
    pub fn offset_by_time(
        &self,
        queue: QueueRef,
        time_ms: i64,
        boundary: Boundary,
    ) -> io::Result<i64> {
        self.core.offset_by_time(queue, time_ms, boundary)
    }

    /// When the message at this offset was stored. Reads the disk.
    pub fn store_time_at(&self, queue: QueueRef, offset: i64) -> io::Result<Option<i64>> {
        let queue = self.core.queues.queue(queue);
        match self.core.unit_from(queue, offset)? {
            Some((first, unit)) if first == offset => self.core.time_of(&unit),
            _ => Ok(None),
        }
    }

    /// When the oldest message of the queue was stored. Reads the disk.
    pub fn earliest_store_time(&self, queue: QueueRef) -> io::Result<Option<i64>> {
        let queue = self.core.queues.queue(queue);
        match self.core.unit_from(queue, i64::MIN)? {
            Some((_, unit)) => self.core.time_of(&unit),
            None => Ok(None),
        }
    }

    /// When the message at this position was stored. Reads the disk.
    pub fn store_time_of(&self, position: u64) -> io::Result<Option<i64>> {
        self.core.time_of(&Unit { position, size: 0, tags_code: 0 })
    }
}

impl Core {
    fn offset_by_time(&self, queue: QueueRef, time_ms: i64, boundary: Boundary) -> io::Result<i64> {
        let queue = self.queues.queue(queue);
        let min = queue.state.lock().min;
        let max = queue.max.load(Ordering::Acquire);
        let now_ms = self.config.clock.now_ms().saturating_add(STORE_TIME_LEAD_MAX_MS);
        // The first offset whose message is too new: at or after the time, or after it.
        let (mut low, mut high) = (min, max);
        while low < high {
            let middle = low + (high - low) / 2;
            let Some((offset, unit)) = self.unit_from(queue, middle)? else {
                high = middle;
                continue;
            };
            let mut time = self.time_of(&unit)?;
            let mut last = offset;
            if time.is_some_and(|time| time > now_ms)
                && let Some((behind, sane)) = self.time_behind(queue, offset, high, now_ms)?
            {
                // A clock that was wrong dated it, and it is not younger than what came after it.
                (last, time) = (behind, Some(sane));
            }
            let too_new = match (time, boundary) {
                (Some(time), Boundary::Lower) => time >= time_ms,
                (Some(time), Boundary::Upper) => time > time_ms,
                (None, _) => false,
            };
            if too_new {
                high = middle;
            } else {
                low = last + 1;
            }
        }
        Ok(match boundary {
            Boundary::Lower => low,
            Boundary::Upper => (low - 1).max(min),
        })
    }

    /// The first message behind an offset whose time is not ahead of now, and that time, unless they all are.
    fn time_behind(
        &self,
        queue: &Queue,
        offset: i64,
        high: i64,
        now_ms: i64,
    ) -> io::Result<Option<(i64, i64)>> {
        let sane = |at: i64| -> io::Result<Option<(i64, i64)>> {
            let Some((at, unit)) = self.unit_from(queue, at)? else { return Ok(None) };
            let time = self.time_of(&unit)?.filter(|time| *time <= now_ms);
            Ok(time.filter(|_| at < high).map(|time| (at, time)))
        };
        let mut found = sane(high - 1)?;
        let (mut low, mut high) = (offset + 1, high - 1);
        while found.is_some() && low < high {
            let middle = low + (high - low) / 2;
            match sane(middle)? {
                Some(earlier) => (found, high) = (Some(earlier), middle),
                None => low = middle + 1,
            }
        }
        Ok(found)
    }

    /// The first message at or after an offset.
    pub(crate) fn unit_from(&self, queue: &Queue, offset: i64) -> io::Result<Option<(i64, Unit)>> {
        let mut offset = offset;
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let Some(first) = self.units(queue, offset, 16, Access::Blocking, &mut bytes)? else {
                return Ok(None);
            };
            let found = units(&bytes).zip(first..).find(|(unit, _)| !unit.is_hole());
            if let Some((unit, at)) = found {
                return Ok(Some((at, unit)));
            }
            offset = first + units(&bytes).len() as i64;
        }
    }

    fn time_of(&self, unit: &Unit) -> io::Result<Option<i64>> {
        let Some(segment) = self.segments.find(unit.position) else { return Ok(None) };
        let left = segment.end().min(self.durable.appended()) - unit.position.min(segment.end());
        let mut head = [0; at::STORE_TIMESTAMP_END_MAX];
        if left < head.len() as u64 {
            return Ok(None);
        }
        segment.read(unit.position, &mut head)?;
        let here = head[at::PHYSICAL_OFFSET..][..8] == unit.position.to_be_bytes();
        Ok(store_timestamp(&head).filter(|_| here))
    }
}
