//! Stored messages as pull replies carry them, looked at just enough to count and check them.

use anyhow::{Result, bail, ensure};

const MAGICS: [i32; 2] = [0xDAA3_20A7_u32 as i32, 0xDAA3_20AB_u32 as i32];
/// System flag: the born host is an IPv6 address.
const BORN_HOST_V6: i32 = 1 << 4;
/// System flag: the store host is an IPv6 address.
const STORE_HOST_V6: i32 = 1 << 5;

#[derive(Debug, Clone, Copy)]
pub(super) struct Record<'a> {
    pub(super) queue_offset: i64,
    body_crc: u32,
    pub(super) body: &'a [u8],
}

/// Takes the first record off `records`.
pub(super) fn next<'a>(records: &mut &'a [u8]) -> Result<Record<'a>> {
    let len = read_i32(records, 0)?;
    let Some((record, rest)) =
        usize::try_from(len).ok().and_then(|len| records.split_at_checked(len))
    else {
        bail!("a record claims {len} bytes of {}", records.len());
    };
    *records = rest;
    let magic = read_i32(record, 4)?;
    ensure!(MAGICS.contains(&magic), "a record has the magic {magic:#x}");
    let sys_flag = read_i32(record, 36)?;
    let host_len = |v6: i32| if sys_flag & v6 == 0 { 8 } else { 20 };
    // After the born time (40) come the hosts with the store time between, two counts, the body.
    let body_at = 48 + host_len(BORN_HOST_V6) + 8 + host_len(STORE_HOST_V6) + 12;
    let body_len = read_i32(record, body_at)?;
    let Some(body) =
        usize::try_from(body_len).ok().and_then(|len| record.get(body_at + 4..)?.get(..len))
    else {
        bail!("a record of {len} bytes claims a body of {body_len}");
    };
    Ok(Record {
        queue_offset: i64::from(read_i32(record, 20)?) << 32
            | i64::from(read_i32(record, 24)? as u32),
        body_crc: read_i32(record, 8)? as u32,
        body,
    })
}

impl Record<'_> {
    pub(super) fn check_body(&self) -> Result<()> {
        // The sign bit of the sum is not kept.
        let crc = crc32fast::hash(self.body) & 0x7FFF_FFFF;
        ensure!(crc == self.body_crc, "the body at queue offset {} is damaged", self.queue_offset);
        Ok(())
    }
}

fn read_i32(bytes: &[u8], at: usize) -> Result<i32> {
    match bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        Some(word) => Ok(i32::from_be_bytes(*word)),
        None => bail!("a record ends within its fields"),
    }
}
