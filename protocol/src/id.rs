//! The two ids a message has: where it lies (offset id) and which client made it (unique id).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const V4_BYTES: usize = 16;
const V6_BYTES: usize = 28;
const MS_PER_DAY: i64 = 86_400_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("an id has 32 or 56 hexadecimal digits, not {0} characters")]
    Length(usize),
    #[error("an id has only hexadecimal digits")]
    Digit,
    #[error("an id cannot name the port {0}")]
    Port(i32),
}

/// The id of the message at this position of the log of the broker at this address.
pub fn encode_offset_id(store_host: SocketAddr, physical_offset: i64) -> String {
    let mut bytes = [0; V6_BYTES];
    let ip = put_ip(&mut bytes, store_host.ip());
    bytes[ip..ip + 4].copy_from_slice(&u32::from(store_host.port()).to_be_bytes());
    bytes[ip + 4..ip + 12].copy_from_slice(&physical_offset.to_be_bytes());
    hex(&bytes[..ip + 12])
}

/// The broker address and the log position an offset id stands for.
pub fn decode_offset_id(id: &str) -> Result<(SocketAddr, i64), IdError> {
    let (bytes, length) = unhex(id)?;
    let (ip, rest) = take_ip(&bytes[..length]);
    let port = i32::from_be_bytes(rest[..4].try_into().expect("twelve bytes are left"));
    let port = u16::try_from(port).map_err(|_| IdError::Port(port))?;
    let offset = i64::from_be_bytes(rest[4..12].try_into().expect("twelve bytes are left"));
    Ok((SocketAddr::new(ip, port), offset))
}

/// What a remoting client writes into the `UNIQ_KEY` property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UniqueId {
    pub ip: IpAddr,
    pub pid: u16,
    /// Java's class loader hash; for others any number that tells two clients of a process apart.
    pub loader: u32,
    pub ms_since_month_start: u32,
    pub counter: u16,
}

impl UniqueId {
    pub fn encode(&self) -> String {
        let mut bytes = [0; V6_BYTES];
        let ip = put_ip(&mut bytes, self.ip);
        bytes[ip..ip + 2].copy_from_slice(&self.pid.to_be_bytes());
        bytes[ip + 2..ip + 6].copy_from_slice(&self.loader.to_be_bytes());
        bytes[ip + 6..ip + 10].copy_from_slice(&self.ms_since_month_start.to_be_bytes());
        bytes[ip + 10..ip + 12].copy_from_slice(&self.counter.to_be_bytes());
        hex(&bytes[..ip + 12])
    }

    pub fn decode(id: &str) -> Result<Self, IdError> {
        let (bytes, length) = unhex(id)?;
        let (ip, rest) = take_ip(&bytes[..length]);
        Ok(UniqueId {
            ip,
            pid: u16::from_be_bytes([rest[0], rest[1]]),
            loader: u32::from_be_bytes([rest[2], rest[3], rest[4], rest[5]]),
            ms_since_month_start: u32::from_be_bytes([rest[6], rest[7], rest[8], rest[9]]),
            counter: u16::from_be_bytes([rest[10], rest[11]]),
        })
    }
}

/// Hands out unique ids for one process.
#[derive(Clone, Debug)]
pub struct UniqueIds {
    next: UniqueId,
}

impl UniqueIds {
    pub fn new(ip: IpAddr, pid: u32, loader: u32) -> Self {
        let [_, _, high, low] = pid.to_be_bytes();
        let pid = u16::from_be_bytes([high, low]);
        UniqueIds { next: UniqueId { ip, pid, loader, ms_since_month_start: 0, counter: 0 } }
    }

    pub fn next(&mut self, now_ms: i64) -> UniqueId {
        self.next.ms_since_month_start = ms_since_month_start(now_ms);
        let id = self.next;
        self.next.counter = id.counter.wrapping_add(1);
        id
    }
}

/// Milliseconds since the first of the month (UTC).
fn ms_since_month_start(now_ms: i64) -> u32 {
    let day = now_ms.div_euclid(MS_PER_DAY);
    let ms = (day_of_month(day) - 1) * MS_PER_DAY + now_ms.rem_euclid(MS_PER_DAY);
    u32::try_from(ms).expect("a month has fewer than 2^32 milliseconds")
}

/// Day of the month, from 1, of a day counted from 1970-01-01.
fn day_of_month(days: i64) -> i64 {
    // Counted in years that begin on the first of March, leap days come last.
    let day_of_era = (days + 719_468).rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    day_of_year - (153 * month + 2) / 5 + 1
}

fn put_ip(bytes: &mut [u8], ip: IpAddr) -> usize {
    match ip {
        IpAddr::V4(ip) => {
            bytes[..4].copy_from_slice(&ip.octets());
            4
        }
        IpAddr::V6(ip) => {
            bytes[..16].copy_from_slice(&ip.octets());
            16
        }
    }
}

/// Splits the address off; the length of the bytes, 16 or 28, says of which kind it is.
fn take_ip(bytes: &[u8]) -> (IpAddr, &[u8]) {
    if let Some((ip, rest)) = bytes.split_first_chunk::<16>()
        && rest.len() == 12
    {
        return (IpAddr::V6(Ipv6Addr::from(*ip)), rest);
    }
    let (ip, rest) = bytes.split_first_chunk::<4>().expect("an id has at least 16 bytes");
    (IpAddr::V4(Ipv4Addr::from(*ip)), rest)
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

fn unhex(id: &str) -> Result<([u8; V6_BYTES], usize), IdError> {
    if id.len() != V4_BYTES * 2 && id.len() != V6_BYTES * 2 {
        return Err(IdError::Length(id.len()));
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(IdError::Digit);
    let mut bytes = [0; V6_BYTES];
    for (byte, pair) in bytes.iter_mut().zip(id.as_bytes().chunks_exact(2)) {
        *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).expect("two digits");
    }
    Ok((bytes, id.len() / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_id_names_broker_and_position() {
        let id = encode_offset_id("192.168.1.2:10911".parse().unwrap(), 0x0102_0304);
        assert_eq!(id, "C0A8010200002A9F0000000001020304");
        assert_eq!(
            decode_offset_id(&id.to_lowercase()),
            Ok(("192.168.1.2:10911".parse().unwrap(), 0x0102_0304))
        );
        let id = encode_offset_id("[2001:db8::7]:10911".parse().unwrap(), 5);
        assert_eq!(id.len(), 56);
        assert_eq!(decode_offset_id(&id), Ok(("[2001:db8::7]:10911".parse().unwrap(), 5)));
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        assert_eq!(decode_offset_id("C0A8"), Err(IdError::Length(4)));
        assert_eq!(decode_offset_id(&"x".repeat(32)), Err(IdError::Digit));
        assert_eq!(decode_offset_id(&"é".repeat(16)), Err(IdError::Digit));
        assert_eq!(decode_offset_id(&"F".repeat(32)), Err(IdError::Port(-1)));
    }

    #[test]
    fn unique_ids_differ_and_come_back() {
        let mut ids = UniqueIds::new("10.0.0.1".parse().unwrap(), 70_000, 0xDEAD_BEEF);
        let (first, second) = (ids.next(1_709_164_800_000), ids.next(1_709_251_200_000));
        assert_ne!(first.encode(), second.encode());
        assert_eq!(UniqueId::decode(&first.encode()), Ok(first));
        assert_eq!((first.pid, first.counter, second.counter), (4464, 0, 1));
        // 2024-02-29 and 2024-03-01, at midnight.
        assert_eq!(i64::from(first.ms_since_month_start), 28 * MS_PER_DAY);
        assert_eq!(second.ms_since_month_start, 0);
    }

    #[test]
    fn months_start_on_the_first() {
        for (day, of_month) in
            [(0, 1), (30, 31), (31, 1), (58, 28), (59, 1), (-1, 31), (11_016, 29)]
        {
            assert_eq!(day_of_month(day), of_month, "day {day}");
        }
    }
}
