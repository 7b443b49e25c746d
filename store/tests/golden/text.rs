//! The `.txt` beside a stored file: what our readers find in its bytes, in the form that
//! `integration-tests/src/bin/relay/stored.rs` writes.

use std::fmt::Write;
use std::path::Path;

use protocol::record::{Record, RecordError, at};
use store::{Checkpoint, StockIndex, Unit};

use crate::one_line::{one_line, words};

/// What is in a file of this kind.
pub(crate) fn of(kind: &str, bytes: &[u8], index_slots: u32) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(kind);
    std::fs::write(&path, bytes).unwrap();
    match kind {
        "commitlog" => log(bytes),
        "consumequeue" => queue(bytes),
        "index" => index(&path, bytes, index_slots),
        "checkpoint" => checkpoint(dir.path()),
        _ => panic!("{kind}"),
    }
}

fn log(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = bytes;
    loop {
        match Record::decode(rest) {
            Ok((record, size)) => {
                write_record(&mut text, &record, &rest[..size]);
                rest = &rest[size..];
            }
            Err(RecordError::Blank { size }) => {
                writeln!(text, "blank size {size}").unwrap();
                rest = &rest[size as usize..];
            }
            Err(RecordError::Magic(0) | RecordError::Truncated { have: 0, .. }) => return text,
            Err(other) => panic!("{other}"),
        }
    }
}

fn write_record(text: &mut String, record: &Record<'_>, bytes: &[u8]) {
    let magic = u32::from_be_bytes(*bytes[at::MAGIC..].first_chunk().unwrap());
    let Record { physical_offset, body_crc, topic, queue_id, queue_offset, .. } = record;
    let Record { flag, sys_flag, reconsume_times, prepared_transaction_offset, .. } = record;
    let Record { born_timestamp, store_timestamp, body, .. } = record;
    let (born, stored) = (record.born_host, record.store_host);
    let properties = one_line(std::str::from_utf8(record.properties).unwrap());
    let words = words(body).unwrap_or_default();
    let (size, length) = (bytes.len(), body.len());
    writeln!(
        text,
        "record {physical_offset} size {size} magic {magic:08x} crc {body_crc}\n  \
         topic {topic} queue {queue_id} offset {queue_offset}\n  \
         flag {flag} system flag {sys_flag} times {reconsume_times} prepared \
         {prepared_transaction_offset}\n  \
         born {born_timestamp} {born} stored {store_timestamp} {stored}\n  \
         body {length} bytes {words}\n  \
         properties {properties}"
    )
    .unwrap();
}

fn queue(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(store::UNIT).map(|unit| Unit::decode(unit.try_into().unwrap()));
    let mut text = String::new();
    for Unit { position, size, tags_code } in units.take_while(|unit| unit.size != 0) {
        writeln!(text, "record {position} size {size} tag {tags_code}").unwrap();
    }
    text
}

fn index(path: &Path, bytes: &[u8], slots: u32) -> String {
    let index = StockIndex::open(path, slots).unwrap();
    let word = |at: usize| u32::from_be_bytes(*bytes[at..].first_chunk().unwrap());
    let StockIndex { begin_timestamp, end_timestamp, .. } = index;
    let StockIndex { begin_position, end_position, item_count, .. } = index;
    let used = word(32);
    let mut text = format!(
        "stored {begin_timestamp} to {end_timestamp} records {begin_position} to {end_position}\n\
         slots used {used} next item {item_count}\n"
    );
    for slot in 0..slots {
        let item = word(40 + 4 * slot as usize);
        if item != 0 {
            writeln!(text, "slot {slot} item {item}").unwrap();
        }
    }
    for number in 0..item_count {
        let (key, previous) = index.item(number).unwrap();
        let (hash, position) = (key.hash, key.position);
        let seconds = (key.store_timestamp - begin_timestamp) / 1000;
        writeln!(
            text,
            "item {number} hash {hash} record {position} seconds {seconds} previous {previous}"
        )
        .unwrap();
    }
    text
}

fn checkpoint(dir: &Path) -> String {
    let checkpoint = Checkpoint::read(dir).unwrap().unwrap();
    let Checkpoint { log_timestamp, queues_timestamp, index_timestamp, .. } = checkpoint;
    let Checkpoint { master_flushed, confirmed, .. } = checkpoint;
    format!(
        "physic {log_timestamp}\nlogics {queues_timestamp}\nindex {index_timestamp}\n\
         masterFlushed {master_flushed}\nconfirm {confirmed}\n"
    )
}
