//! The stored message: one record of the commit log, exactly as it lies on disk and travels to consumers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// First version: the topic length is one byte.
pub const MAGIC_V1: u32 = 0xDAA3_20A7;
/// Second version, for topics longer than 127 bytes: the topic length is two bytes.
pub const MAGIC_V2: u32 = 0xDAA3_20AB;
/// Marks the unused rest of a log file.
pub const MAGIC_BLANK: u32 = 0xCBD4_3194;
/// A file keeps at least this many bytes free, so that a blank record always fits.
pub const BLANK_BYTES: usize = 8;
/// The longest topic a V1 record holds.
pub const V1_TOPIC_BYTES_MAX: usize = 127;
/// The property length is a signed 16-bit number.
pub const PROPERTIES_BYTES_MAX: usize = i16::MAX as usize;
/// Size of a record with IPv4 hosts, a V1 topic length and nothing else.
pub const OVERHEAD: usize = 91;
/// Every record starts with this many bytes whose positions do not depend on anything.
pub const FIXED_HEAD: usize = 48;

/// Where fields stand in a record, for those who patch or peek without decoding.
pub mod at {
    use super::sys_flag;

    pub const TOTAL_SIZE: usize = 0;
    pub const MAGIC: usize = 4;
    pub const BODY_CRC: usize = 8;
    pub const QUEUE_ID: usize = 12;
    pub const FLAG: usize = 16;
    pub const QUEUE_OFFSET: usize = 20;
    pub const PHYSICAL_OFFSET: usize = 28;
    pub const SYS_FLAG: usize = 36;
    pub const BORN_TIMESTAMP: usize = 40;
    pub const BORN_HOST: usize = 48;
    /// The furthest that the store timestamp may end, whatever the hosts are.
    pub const STORE_TIMESTAMP_END_MAX: usize = 76;

    /// Position of the store timestamp, which an IPv6 born host moves.
    pub const fn store_timestamp(sys_flag: i32) -> usize {
        if sys_flag & sys_flag::BORN_HOST_V6 == 0 { 56 } else { 68 }
    }

    /// Position of the body length, which IPv6 hosts move.
    pub const fn body_length(sys_flag: i32) -> usize {
        let store_host = store_timestamp(sys_flag) + 8;
        let after = store_host + if sys_flag & sys_flag::STORE_HOST_V6 == 0 { 8 } else { 20 };
        after + 12
    }
}

/// The bits of the system flag.
pub mod sys_flag {
    pub const COMPRESSED: i32 = 0x1;
    pub const MULTI_TAGS: i32 = 0x2;
    pub const TRANSACTION_MASK: i32 = 0xC;
    pub const TRANSACTION_NOT: i32 = 0;
    pub const TRANSACTION_PREPARED: i32 = 0x4;
    pub const TRANSACTION_COMMIT: i32 = 0x8;
    pub const TRANSACTION_ROLLBACK: i32 = 0xC;
    pub const BORN_HOST_V6: i32 = 0x10;
    pub const STORE_HOST_V6: i32 = 0x20;
    pub const NEED_UNWRAP: i32 = 0x40;
    pub const INNER_BATCH: i32 = 0x80;
    pub const COMPRESSION_MASK: i32 = 0x700;
    pub const COMPRESSION_LZ4: i32 = 0x100;
    pub const COMPRESSION_ZSTD: i32 = 0x200;
    pub const COMPRESSION_ZLIB: i32 = 0x300;

    pub const fn transaction(flag: i32) -> i32 {
        flag & TRANSACTION_MASK
    }

    pub const fn with_transaction(flag: i32, kind: i32) -> i32 {
        (flag & !TRANSACTION_MASK) | kind
    }

    /// Prepared and rolled back messages lie in the log but belong to no queue.
    pub const fn enters_queue(flag: i32) -> bool {
        matches!(transaction(flag), TRANSACTION_NOT | TRANSACTION_COMMIT)
    }

    /// The flag with the two host bits set to what the hosts are.
    pub const fn with_hosts(flag: i32, born_is_v6: bool, store_is_v6: bool) -> i32 {
        let flag = flag & !(BORN_HOST_V6 | STORE_HOST_V6);
        flag | if born_is_v6 { BORN_HOST_V6 } else { 0 }
            | if store_is_v6 { STORE_HOST_V6 } else { 0 }
    }
}

/// A message as stored, borrowed from the bytes it was decoded from or is encoded out of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// CRC32 of the body without its top bit.
    pub body_crc: u32,
    pub queue_id: i32,
    pub flag: i32,
    pub queue_offset: i64,
    pub physical_offset: i64,
    pub sys_flag: i32,
    pub born_timestamp: i64,
    pub born_host: SocketAddr,
    pub store_timestamp: i64,
    pub store_host: SocketAddr,
    pub reconsume_times: i32,
    pub prepared_transaction_offset: i64,
    pub body: &'a [u8],
    pub topic: &'a str,
    pub properties: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("the bytes end inside the record ({have} of {need})")]
    Truncated { need: usize, have: usize },
    #[error("no record starts here (magic {0:#010x})")]
    Magic(u32),
    #[error("the rest of the file, {size} bytes, is blank")]
    Blank { size: u32 },
    #[error("a record cannot be {0} bytes long")]
    TotalSize(u32),
    #[error("the field lengths do not add up to the record size {total}")]
    Lengths { total: usize },
    #[error("the topic is not UTF-8")]
    Topic,
    #[error("the body checksum is {actual:#010x}, the record says {stored:#010x}")]
    BodyCrc { stored: u32, actual: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("a topic of {0} bytes does not fit in a record")]
    Topic(usize),
    #[error("properties of {0} bytes do not fit in a record (at most {PROPERTIES_BYTES_MAX})")]
    Properties(usize),
    #[error("a body of {0} bytes does not fit in a record")]
    Body(usize),
}

/// The checksum a record keeps of its body.
pub fn body_crc(body: &[u8]) -> u32 {
    crc32fast::hash(body) & 0x7FFF_FFFF
}

impl<'a> Record<'a> {
    /// Reads the record at the start of `bytes` and says how many bytes it takes. The checksum is not compared.
    pub fn decode(bytes: &'a [u8]) -> Result<(Self, usize), RecordError> {
        let total = peek(bytes)?;
        let mut cursor = Cursor { bytes: &bytes[8..total], total };
        let body_crc = cursor.u32()?;
        let queue_id = cursor.i32()?;
        let flag = cursor.i32()?;
        let queue_offset = cursor.i64()?;
        let physical_offset = cursor.i64()?;
        let sys_flag = cursor.i32()?;
        let born_timestamp = cursor.i64()?;
        let born_host = cursor.host(sys_flag & sys_flag::BORN_HOST_V6 != 0)?;
        let store_timestamp = cursor.i64()?;
        let store_host = cursor.host(sys_flag & sys_flag::STORE_HOST_V6 != 0)?;
        let reconsume_times = cursor.i32()?;
        let prepared_transaction_offset = cursor.i64()?;
        let body_length = cursor.u32()? as usize;
        let body = cursor.take(body_length)?;
        let topic_length = if word(bytes, at::MAGIC) == MAGIC_V1 {
            usize::from(cursor.take(1)?[0])
        } else {
            usize::from(cursor.u16()?)
        };
        let topic = cursor.take(topic_length)?;
        let properties_length = usize::from(cursor.u16()?);
        let properties = cursor.take(properties_length)?;
        if !cursor.bytes.is_empty() {
            return Err(RecordError::Lengths { total });
        }
        let topic = std::str::from_utf8(topic).map_err(|_| RecordError::Topic)?;
        let record = Record {
            body_crc,
            queue_id,
            flag,
            queue_offset,
            physical_offset,
            sys_flag,
            born_timestamp,
            born_host,
            store_timestamp,
            store_host,
            reconsume_times,
            prepared_transaction_offset,
            body,
            topic,
            properties,
        };
        Ok((record, total))
    }

    /// Compares the body with its checksum. An empty body has none that stock would compare.
    pub fn check_body(&self) -> Result<(), RecordError> {
        let actual = body_crc(self.body);
        if self.body.is_empty() || actual == self.body_crc {
            Ok(())
        } else {
            Err(RecordError::BodyCrc { stored: self.body_crc, actual })
        }
    }

    /// Appends the record to `out` and returns its size. The host bits of the system flag follow the hosts.
    pub fn encode_into(&self, out: &mut Vec<u8>) -> Result<usize, EncodeError> {
        self.encode_with_properties(&[self.properties], out)
    }

    /// As [`Record::encode_into`], with the properties given in pieces that are written one after another.
    pub fn encode_with_properties(
        &self,
        properties: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Result<usize, EncodeError> {
        let properties_length: usize = properties.iter().map(|piece| piece.len()).sum();
        if properties_length > PROPERTIES_BYTES_MAX {
            return Err(EncodeError::Properties(properties_length));
        }
        let topic_length =
            i16::try_from(self.topic.len()).map_err(|_| EncodeError::Topic(self.topic.len()))?;
        let long_topic = self.topic.len() > V1_TOPIC_BYTES_MAX;
        let sys_flag = sys_flag::with_hosts(
            self.sys_flag,
            self.born_host.is_ipv6(),
            self.store_host.is_ipv6(),
        );
        let total = at::body_length(sys_flag)
            + 4
            + self.body.len()
            + if long_topic { 2 } else { 1 }
            + self.topic.len()
            + 2
            + properties_length;
        let total_size =
            i32::try_from(total).map_err(|_| EncodeError::Body(self.body.len()))?.to_be_bytes();

        let mut head = [0u8; at::body_length(sys_flag::BORN_HOST_V6 | sys_flag::STORE_HOST_V6) + 4];
        head[at::TOTAL_SIZE..4].copy_from_slice(&total_size);
        let magic = if long_topic { MAGIC_V2 } else { MAGIC_V1 };
        head[4..8].copy_from_slice(&magic.to_be_bytes());
        head[8..12].copy_from_slice(&self.body_crc.to_be_bytes());
        head[12..16].copy_from_slice(&self.queue_id.to_be_bytes());
        head[16..20].copy_from_slice(&self.flag.to_be_bytes());
        head[20..28].copy_from_slice(&self.queue_offset.to_be_bytes());
        head[28..36].copy_from_slice(&self.physical_offset.to_be_bytes());
        head[36..40].copy_from_slice(&sys_flag.to_be_bytes());
        head[40..48].copy_from_slice(&self.born_timestamp.to_be_bytes());
        let mut end = put_host(&mut head, at::BORN_HOST, self.born_host);
        head[end..end + 8].copy_from_slice(&self.store_timestamp.to_be_bytes());
        end = put_host(&mut head, end + 8, self.store_host);
        head[end..end + 4].copy_from_slice(&self.reconsume_times.to_be_bytes());
        head[end + 4..end + 12].copy_from_slice(&self.prepared_transaction_offset.to_be_bytes());
        let body_length = u32::try_from(self.body.len()).expect("less than the total size");
        head[end + 12..end + 16].copy_from_slice(&body_length.to_be_bytes());

        out.reserve(total);
        out.extend_from_slice(&head[..end + 16]);
        out.extend_from_slice(self.body);
        if long_topic {
            out.extend_from_slice(&topic_length.to_be_bytes());
        } else {
            out.push(topic_length.to_be_bytes()[1]);
        }
        out.extend_from_slice(self.topic.as_bytes());
        let properties_length = u16::try_from(properties_length).expect("checked above");
        out.extend_from_slice(&properties_length.to_be_bytes());
        for piece in properties {
            out.extend_from_slice(piece);
        }
        Ok(total)
    }
}

/// Size of the record at the start of `bytes`, which is whole in `bytes`. Reads only size and magic.
pub fn peek(bytes: &[u8]) -> Result<usize, RecordError> {
    if bytes.len() < BLANK_BYTES {
        return Err(RecordError::Truncated { need: BLANK_BYTES, have: bytes.len() });
    }
    let total = word(bytes, at::TOTAL_SIZE);
    match word(bytes, at::MAGIC) {
        MAGIC_V1 | MAGIC_V2 => {}
        MAGIC_BLANK => return Err(RecordError::Blank { size: total }),
        magic => return Err(RecordError::Magic(magic)),
    }
    let size = total as usize;
    if size < OVERHEAD || i32::try_from(total).is_err() {
        return Err(RecordError::TotalSize(total));
    }
    if bytes.len() < size {
        return Err(RecordError::Truncated { need: size, have: bytes.len() });
    }
    Ok(size)
}

/// The eight bytes that declare the rest of a file, `remaining` bytes, unused.
pub fn blank(remaining: u32) -> [u8; BLANK_BYTES] {
    let mut bytes = [0; BLANK_BYTES];
    bytes[..4].copy_from_slice(&remaining.to_be_bytes());
    bytes[4..].copy_from_slice(&MAGIC_BLANK.to_be_bytes());
    bytes
}

/// Java's `String.hashCode`, which can be continued: the hash of `"topic#"` goes on with each key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JavaHash(pub i32);

impl JavaHash {
    /// Goes on over UTF-8 text as Java would over its UTF-16 form; what is not UTF-8 counts as U+FFFD.
    #[must_use]
    pub fn with(self, text: &[u8]) -> Self {
        if text.is_ascii() {
            let step = |hash: i32, byte: &u8| hash.wrapping_mul(31).wrapping_add(i32::from(*byte));
            return JavaHash(text.iter().fold(self.0, step));
        }
        let step = |hash: i32, unit: u16| hash.wrapping_mul(31).wrapping_add(i32::from(unit));
        JavaHash(String::from_utf8_lossy(text).encode_utf16().fold(self.0, step))
    }

    /// The form kept in index files: the absolute value, with 0 for the one that has none.
    pub fn for_index(self) -> u32 {
        self.0.checked_abs().unwrap_or(0).unsigned_abs()
    }
}

/// What a consume queue keeps of the tags: their hash, 0 without tags.
pub fn tags_code(tags: &[u8]) -> i64 {
    i64::from(JavaHash::default().with(tags).0)
}

/// Hash of `"topic#"`, from which the hash of each key goes on.
pub fn key_prefix(topic: &str) -> JavaHash {
    JavaHash::default().with(topic.as_bytes()).with(b"#")
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn put_host(head: &mut [u8], at: usize, host: SocketAddr) -> usize {
    let port = u32::from(host.port()).to_be_bytes();
    let end = match host.ip() {
        IpAddr::V4(ip) => {
            head[at..at + 4].copy_from_slice(&ip.octets());
            at + 4
        }
        IpAddr::V6(ip) => {
            head[at..at + 16].copy_from_slice(&ip.octets());
            at + 16
        }
    };
    head[end..end + 4].copy_from_slice(&port);
    end + 4
}

struct Cursor<'a> {
    bytes: &'a [u8],
    total: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) =
            self.bytes.split_at_checked(count).ok_or(RecordError::Lengths { total: self.total })?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        Ok(self.take(N)?.try_into().expect("as many bytes as asked for"))
    }

    fn u16(&mut self) -> Result<u16, RecordError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, RecordError> {
        self.array().map(u32::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, RecordError> {
        self.array().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, RecordError> {
        self.array().map(i64::from_be_bytes)
    }

    fn host(&mut self, is_v6: bool) -> Result<SocketAddr, RecordError> {
        let ip = if is_v6 {
            IpAddr::V6(Ipv6Addr::from(self.array::<16>()?))
        } else {
            IpAddr::V4(Ipv4Addr::from(self.array::<4>()?))
        };
        let [_, _, high, low] = self.array()?;
        Ok(SocketAddr::new(ip, u16::from_be_bytes([high, low])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    fn sample<'a>(topic: &'a str, body: &'a [u8]) -> Record<'a> {
        Record {
            body_crc: body_crc(body),
            queue_id: 3,
            flag: 7,
            queue_offset: 42,
            physical_offset: 1 << 33,
            sys_flag: sys_flag::COMPRESSED,
            born_timestamp: 1_700_000_000_000,
            born_host: "10.1.2.3:4567".parse().unwrap(),
            store_timestamp: 1_700_000_000_001,
            store_host: "10.1.2.4:10911".parse().unwrap(),
            reconsume_times: 2,
            prepared_transaction_offset: 9,
            body,
            topic,
            properties: b"TAGS\x01a\x02",
        }
    }

    #[test]
    fn a_record_comes_back_as_it_went_in() {
        let long = "t".repeat(128);
        for (topic, born, store, size) in [
            ("orders", "10.1.2.3:4567", "10.1.2.4:10911", 91 + 5 + 6 + 7),
            ("orders", "[2001:db8::1]:4567", "10.1.2.4:10911", 91 + 12 + 5 + 6 + 7),
            ("orders", "10.1.2.3:4567", "[2001:db8::2]:1", 91 + 12 + 5 + 6 + 7),
            (long.as_str(), "[::1]:2", "[::1]:1", 91 + 24 + 5 + 128 + 1 + 7),
        ] {
            let mut record = sample(topic, b"hello");
            record.born_host = born.parse().unwrap();
            record.store_host = store.parse().unwrap();
            record.sys_flag = sys_flag::with_hosts(
                record.sys_flag,
                record.born_host.is_ipv6(),
                record.store_host.is_ipv6(),
            );
            let mut bytes = Vec::new();
            assert_eq!(record.encode_into(&mut bytes), Ok(size));
            assert_eq!(bytes.len(), size);
            let at = at::store_timestamp(record.sys_flag);
            assert_eq!(bytes[at..at + 8], record.store_timestamp.to_be_bytes());
            let at = at::body_length(record.sys_flag);
            assert_eq!(bytes[at..at + 4], 5u32.to_be_bytes());
            let (decoded, total) = Record::decode(&bytes).unwrap();
            assert_eq!((&decoded, total), (&record, size));
            assert_eq!(decoded.check_body(), Ok(()));
        }
    }

    #[test]
    fn properties_in_pieces_equal_properties_in_one() {
        let record = sample("t", b"b");
        let (mut whole, mut pieces) = (Vec::new(), Vec::new());
        record.encode_into(&mut whole).unwrap();
        record.encode_with_properties(&[b"TAGS", b"\x01", b"", b"a\x02"], &mut pieces).unwrap();
        assert_eq!(whole, pieces);
    }

    #[test]
    fn any_damage_is_an_error_or_a_record_of_the_same_size_and_never_a_panic() {
        let seed = rand::rng().random();
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let mut good = Vec::new();
        sample("orders", b"some body").encode_into(&mut good).unwrap();
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..bytes.len());
                bytes[at] = random.random();
            }
            bytes.truncate(random.random_range(0..=bytes.len()));
            if let Ok((record, total)) = Record::decode(&bytes) {
                assert!(total <= bytes.len() && record.body.len() < total);
            }
        }
        for length in 0..good.len() {
            assert!(Record::decode(&good[..length]).is_err());
        }
    }

    #[test]
    fn lying_sizes_are_refused() {
        let mut good = Vec::new();
        sample("orders", b"some body").encode_into(&mut good).unwrap();
        let mut bytes = good.clone();
        bytes[0] = 0xFF;
        assert_eq!(Record::decode(&bytes), Err(RecordError::TotalSize(0xFF00_0000 | 113)));
        let mut bytes = good.clone();
        bytes[3] = 90;
        assert_eq!(Record::decode(&bytes), Err(RecordError::TotalSize(90)));
        let mut bytes = good.clone();
        bytes[84] = 0x7F;
        assert_eq!(Record::decode(&bytes), Err(RecordError::Lengths { total: 113 }));
        let mut bytes = good;
        bytes[87] -= 1;
        assert!(Record::decode(&bytes).is_err());
    }

    #[test]
    fn a_blank_is_told_from_nothing() {
        assert_eq!(peek(&blank(77)), Err(RecordError::Blank { size: 77 }));
        assert_eq!(peek(&[0; 8]), Err(RecordError::Magic(0)));
        assert_eq!(peek(&[0; 7]), Err(RecordError::Truncated { need: 8, have: 7 }));
    }

    #[test]
    fn hashes_are_java_s() {
        // Values of String.hashCode as Java prints them.
        for (text, hash) in [
            ("", 0),
            ("a", 97),
            ("TagA", 2_598_919),
            ("hello world", 1_794_106_052),
            ("polygenelubricants", i32::MIN),
            ("é", 233),
            ("😀", 1_772_899),
        ] {
            assert_eq!(JavaHash::default().with(text.as_bytes()).0, hash, "{text}");
        }
        assert_eq!(tags_code(b"polygenelubricants"), i64::from(i32::MIN));
        assert_eq!(JavaHash(i32::MIN).for_index(), 0);
        assert_eq!(key_prefix("t").with(b"k"), JavaHash::default().with(b"t#k"));
    }
}
