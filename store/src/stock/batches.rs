//! Stock's queues of topics that keep each batch as one record: a unit for each record, with all of its offsets.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use protocol::properties::{self, name};
use protocol::record::{Record, sys_flag};

use crate::Store;
use crate::queue::{QueueRef, Unit};
use crate::read::{Access, ReadError};
use crate::segment::file_name;

/// Bytes of a unit, and units of a file (`mapperFileSizeBatchConsumeQueue`).
const UNIT: usize = 46;
const UNITS_PER_FILE: u64 = 300_000;
/// Units that are looked at together.
const STEP: usize = 4096;

/// Writes one queue into `dir`.
pub(super) fn export(store: &Store, queue: QueueRef, dir: &Path) -> io::Result<()> {
    let mut files = Files { dir, written: 0, file: None };
    let (mut at, max) = (store.min_offset(queue), store.max_offset(queue));
    let mut last = None;
    while at < max {
        let (first, units) = store.units(queue, at, STEP)?;
        if units.is_empty() {
            return Err(io::Error::other("the queue was deleted while it was exported"));
        }
        for unit in &units {
            if !unit.is_hole() && last.replace(unit.position) != Some(unit.position) {
                files.write(&encode(store, unit)?)?;
            }
        }
        at = first + units.len() as i64;
    }
    files.end()
}

fn encode(store: &Store, unit: &Unit) -> io::Result<[u8; UNIT]> {
    let bytes = store.message_at(unit.position, Access::Blocking).map_err(|error| match error {
        ReadError::Io(error) => error,
        cold @ ReadError::Cold => io::Error::other(cold),
    })?;
    let damaged = |_| io::Error::other("a queue points to something that is no record");
    let bytes = bytes.ok_or(()).map_err(damaged)?;
    let (record, _) = Record::decode(&bytes).map_err(|_| damaged(()))?;
    let mut out = [0; UNIT];
    let fields: [&[u8]; 7] = [
        &unit.position.to_be_bytes(),
        &unit.size.to_be_bytes(),
        &unit.tags_code.to_be_bytes(),
        &record.store_timestamp.to_be_bytes(),
        &record.queue_offset.to_be_bytes(),
        &messages(&record).to_be_bytes(),
        // Where compaction put it: nowhere.
        &(-1i32).to_be_bytes(),
    ];
    let mut at = 0;
    for field in fields {
        out[at..at + field.len()].copy_from_slice(field);
        at += field.len();
    }
    Ok(out)
}

/// Offsets that a record takes.
fn messages(record: &Record<'_>) -> i16 {
    if record.sys_flag & sys_flag::INNER_BATCH == 0 {
        return 1;
    }
    let mut pairs = properties::pairs(record.properties);
    let number = pairs.find(|(key, _)| *key == name::INNER_NUM.as_bytes()).map(|(_, value)| value);
    let number = number.and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
    number.unwrap_or(1)
}

/// The files of a queue, each of full size with zeros at its end.
struct Files<'a> {
    dir: &'a Path,
    written: u64,
    file: Option<BufWriter<File>>,
}

impl Files<'_> {
    fn write(&mut self, unit: &[u8; UNIT]) -> io::Result<()> {
        if self.written.is_multiple_of(UNITS_PER_FILE) {
            self.finish()?;
            let path = self.dir.join(file_name(self.written * UNIT as u64));
            self.file = Some(BufWriter::with_capacity(1 << 20, File::create(path)?));
        }
        self.written += 1;
        self.file.as_mut().expect("made with the first unit").write_all(unit)
    }

    fn finish(&mut self) -> io::Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.set_len(UNITS_PER_FILE * UNIT as u64)?;
        file.sync_all()
    }

    fn end(mut self) -> io::Result<()> {
        self.finish()
    }
}
