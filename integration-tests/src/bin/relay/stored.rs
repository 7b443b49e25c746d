//! What stored files say, one line a record, unit or item.

use crate::frame::{Input, one_line, readable};
use anyhow::{Result, ensure};
use std::fmt::Write;

/// The kinds of stored files, told by the name `CASE.KIND[.more].hex`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    CommitLog,
    ConsumeQueue,
    Index,
    Checkpoint,
}

impl Kind {
    pub(crate) fn of(name: &str) -> Option<Self> {
        match name.split('.').nth(1)? {
            "commitlog" => Some(Self::CommitLog),
            "consumequeue" => Some(Self::ConsumeQueue),
            "index" => Some(Self::Index),
            "checkpoint" => Some(Self::Checkpoint),
            _ => None,
        }
    }
}

pub(crate) fn text(kind: Kind, bytes: &[u8]) -> Result<String> {
    let mut text = String::new();
    let mut input = Input(bytes);
    match kind {
        // Past the last record a segment is zeroes, and the cut may go through a record.
        Kind::CommitLog => {
            while let Some(&size) = input.0.first_chunk::<4>().filter(|size| **size != [0; 4]) {
                if input.0.len() < u32::from_be_bytes(size) as usize {
                    writeln!(text, "cut {} bytes", input.0.len())?;
                    break;
                }
                record(&mut input, &mut text)?;
            }
        }
        Kind::ConsumeQueue => {
            while input.0.iter().any(|byte| *byte != 0) {
                let (offset, size, tag) = (input.long()?, input.int()?, input.long()?);
                writeln!(text, "record {offset} size {size} tag {tag}")?;
            }
        }
        Kind::Index => index(&mut input, &mut text)?,
        Kind::Checkpoint => {
            for name in ["physic", "logics", "index", "masterFlushed", "confirm"] {
                writeln!(text, "{name} {}", input.long()?)?;
            }
        }
    }
    Ok(text)
}

fn record(input: &mut Input<'_>, text: &mut String) -> Result<()> {
    let start = input.0;
    let (size, magic) = (input.int()? as usize, input.int()?);
    if magic == 0xcbd4_3194 {
        input.take(size - 8)?;
        writeln!(text, "blank size {size}")?;
        return Ok(());
    }
    let crc = input.int()?;
    let (queue, flag) = (input.int()?, input.int()? as i32);
    let (queue_offset, offset) = (input.long()?, input.long()?);
    let system_flag = input.int()?;
    let born = input.long()?;
    let born_host = host(input, system_flag & 0x10 != 0)?;
    let stored = input.long()?;
    let store_host = host(input, system_flag & 0x20 != 0)?;
    let (times, prepared) = (input.int()?, input.long()?);
    let length = input.int()? as usize;
    let body = input.take(length)?;
    let length = match magic {
        0xdaa3_20a7 => usize::from(input.take(1)?[0]),
        0xdaa3_20ab => input.short()? as usize,
        _ => anyhow::bail!("magic {magic:08x} at {offset}"),
    };
    let topic = input.text(length)?;
    let length = input.short()? as usize;
    let properties = input.text(length)?;
    ensure!(start.len() - input.0.len() == size, "the record at {offset} has not {size} bytes");
    writeln!(text, "record {offset} size {size} magic {magic:08x} crc {crc}")?;
    writeln!(text, "  topic {topic} queue {queue} offset {queue_offset}")?;
    writeln!(text, "  flag {flag} system flag {system_flag} times {times} prepared {prepared}")?;
    writeln!(text, "  born {born} {born_host} stored {stored} {store_host}")?;
    let words = readable(body).map(one_line).unwrap_or_default();
    writeln!(text, "  body {} bytes {words}", body.len())?;
    writeln!(text, "  properties {}", one_line(&properties))?;
    Ok(())
}

fn host(input: &mut Input<'_>, six: bool) -> Result<String> {
    let address = input.take(if six { 16 } else { 4 })?;
    let port = input.int()?;
    Ok(match <[u8; 4]>::try_from(address) {
        Ok(four) => format!("{}:{port}", std::net::Ipv4Addr::from(four)),
        Err(_) => {
            let six: [u8; 16] = address.try_into()?;
            format!("[{}]:{port}", std::net::Ipv6Addr::from(six))
        }
    })
}

/// The golden brokers run with `maxHashSlotNum=100`: an index file does not say how many it has.
const SLOTS: u32 = 100;

fn index(input: &mut Input<'_>, text: &mut String) -> Result<()> {
    let (begin, end) = (input.long()?, input.long()?);
    let (first, last) = (input.long()?, input.long()?);
    let (used, count) = (input.int()?, input.int()?);
    writeln!(text, "stored {begin} to {end} records {first} to {last}")?;
    writeln!(text, "slots used {used} next item {count}")?;
    for slot in 0..SLOTS {
        let item = input.int()?;
        if item != 0 {
            writeln!(text, "slot {slot} item {item}")?;
        }
    }
    for item in 0..count {
        let (hash, record) = (input.int()? as i32, input.long()?);
        let (seconds, previous) = (input.int()? as i32, input.int()?);
        writeln!(
            text,
            "item {item} hash {hash} record {record} seconds {seconds} previous {previous}"
        )?;
    }
    Ok(())
}
