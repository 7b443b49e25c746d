//! Send requests made once and stamped many times: only opaque, times and ids change.

use anyhow::{Result, ensure};
use protocol::frame::{self, Encoding, Head};
use protocol::header::send::Send;
use protocol::language::{Language, version};
use protocol::request::RequestCode;

/// The number and the time in front of every body.
pub(super) const STAMP_BYTES: usize = 16;
/// Opaques are ten digits long from here on, so that one can replace another in place.
pub(super) const OPAQUE_MIN: i32 = 1_000_000_000;

const OPAQUE_MARK: i32 = 1_987_654_321;
const BORN_MARK: i64 = 8_765_432_109_876;
const ID_MARK: &str = "ZZZZZZZZZZZZZZZZ";

/// What is sent, wherever it goes.
#[derive(Debug)]
pub(super) struct Body {
    bytes: Vec<u8>,
    messages: Vec<Spot>,
}

/// Where one message of a body is stamped.
#[derive(Debug)]
struct Spot {
    stamp_at: usize,
    id_at: Option<usize>,
}

/// Everything before the body of a request to one queue.
#[derive(Debug)]
pub(super) struct Template {
    header: Vec<u8>,
    encoding: Encoding,
    opaque_at: usize,
    born_at: usize,
    id_at: Option<usize>,
}

/// What changes from one request to the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp {
    pub(super) opaque: i32,
    pub(super) born_ms: i64,
    /// The number of the first message; those of a batch count on.
    pub(super) sequence: u64,
    pub(super) sent_ns: u64,
}

impl Body {
    /// `batch` messages of `size` bytes; one alone is not wrapped.
    pub(super) fn new(size: usize, batch: usize, id_prefix: &str) -> Result<Self> {
        ensure!(size >= STAMP_BYTES, "a message needs {STAMP_BYTES} bytes for its stamp");
        let filler: Vec<u8> = (0..size).map(|at| b'a' + (at % 26) as u8).collect();
        if batch == 1 {
            let messages = vec![Spot { stamp_at: 0, id_at: None }];
            return Ok(Self { bytes: filler, messages });
        }
        let mut bytes = Vec::new();
        let mut messages = Vec::new();
        let properties = properties(id_prefix);
        for _ in 0..batch {
            let total = 4 + 4 + 4 + 4 + 4 + size + 2 + properties.len();
            bytes.extend_from_slice(&u32::try_from(total)?.to_be_bytes());
            // Magic, body CRC and flag: the broker fills in its own.
            bytes.extend_from_slice(&[0; 12]);
            bytes.extend_from_slice(&u32::try_from(size)?.to_be_bytes());
            let stamp_at = bytes.len();
            bytes.extend_from_slice(&filler);
            bytes.extend_from_slice(&u16::try_from(properties.len())?.to_be_bytes());
            let id_at = properties.find(ID_MARK).map(|at| bytes.len() + at);
            bytes.extend_from_slice(properties.as_bytes());
            messages.push(Spot { stamp_at, id_at });
        }
        Ok(Self { bytes, messages })
    }

    /// How many messages it holds.
    pub(super) fn count(&self) -> usize {
        self.messages.len()
    }
}

/// As a Java producer sends them: a unique id of 32 hex digits and "wait until stored".
fn properties(id_prefix: &str) -> String {
    format!("UNIQ_KEY\u{1}{id_prefix}{ID_MARK}\u{2}WAIT\u{1}true")
}

impl Template {
    /// `id_prefix` are 16 hex digits that no other run uses.
    pub(super) fn new(
        topic: &str,
        queue_id: i32,
        encoding: Encoding,
        body: &Body,
        id_prefix: &str,
    ) -> Self {
        let batch = body.count() > 1;
        let properties = if batch { "WAIT\u{1}true".to_owned() } else { properties(id_prefix) };
        let send = Send {
            producer_group: "ferromq-bench",
            topic,
            default_topic: "TBW102",
            default_topic_queue_nums: 4,
            queue_id,
            sys_flag: 0,
            born_timestamp: BORN_MARK,
            flag: 0,
            properties: Some(&properties),
            reconsume_times: Some(0),
            unit_mode: false,
            max_reconsume_times: None,
            batch,
            broker_name: None,
        };
        let code = if batch { RequestCode::SendBatchMessage } else { RequestCode::SendMessageV2 };
        let head = Head {
            code: code.to_wire(),
            language: Language::Java,
            version: version::OURS,
            opaque: OPAQUE_MARK,
            flag: 0,
            remark: None,
            encoding,
        };
        let mut header = Vec::new();
        let fields = |sink: &mut frame::FieldWriter<'_>| send.write_letters(sink);
        frame::encode(&mut header, &head, fields, body.bytes.len());
        let opaque = match encoding {
            Encoding::Json => OPAQUE_MARK.to_string().into_bytes(),
            Encoding::Binary => OPAQUE_MARK.to_be_bytes().to_vec(),
        };
        Self {
            opaque_at: find(&header, &opaque).expect("the opaque was just written"),
            born_at: find(&header, BORN_MARK.to_string().as_bytes())
                .expect("the born time was just written"),
            id_at: find(&header, ID_MARK.as_bytes()),
            header,
            encoding,
        }
    }

    /// Appends one request.
    pub(super) fn stamp(&self, body: &Body, stamp: Stamp, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.header);
        out.extend_from_slice(&body.bytes);
        let frame = &mut out[start..];
        let opaque = &mut frame[self.opaque_at..];
        match self.encoding {
            Encoding::Json => put_decimal(&mut opaque[..10], stamp.opaque as u64),
            Encoding::Binary => opaque[..4].copy_from_slice(&stamp.opaque.to_be_bytes()),
        }
        put_decimal(&mut frame[self.born_at..][..13], stamp.born_ms as u64);
        if let Some(at) = self.id_at {
            put_hex(&mut frame[at..][..16], stamp.sequence);
        }
        let body_frame = &mut frame[self.header.len()..];
        for (number, spot) in (stamp.sequence..).zip(&body.messages) {
            body_frame[spot.stamp_at..][..8].copy_from_slice(&number.to_be_bytes());
            body_frame[spot.stamp_at + 8..][..8].copy_from_slice(&stamp.sent_ns.to_be_bytes());
            if let Some(at) = spot.id_at {
                put_hex(&mut body_frame[at..][..16], number);
            }
        }
    }
}

/// The number and the send time a body was stamped with.
pub(super) fn read_stamp(body: &[u8]) -> Option<(u64, u64)> {
    let (sequence, rest) = body.split_first_chunk()?;
    let (sent_ns, _) = rest.split_first_chunk()?;
    Some((u64::from_be_bytes(*sequence), u64::from_be_bytes(*sent_ns)))
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

fn put_decimal(digits: &mut [u8], mut number: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn put_hex(digits: &mut [u8], mut number: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789ABCDEF"[(number & 15) as usize];
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use protocol::frame::Command;

    use super::*;

    #[test]
    fn a_stamped_request_decodes_to_what_was_stamped() {
        for encoding in [Encoding::Json, Encoding::Binary] {
            for batch in [1, 3] {
                let body = Body::new(100, batch, "0123456789ABCDEF").unwrap();
                let template = Template::new("T", 7, encoding, &body, "0123456789ABCDEF");
                let stamp = Stamp {
                    opaque: OPAQUE_MIN + 5,
                    born_ms: 1_700_000_000_123,
                    sequence: 0xBEEF,
                    sent_ns: 99,
                };
                let mut frame = Vec::new();
                template.stamp(&body, stamp, &mut frame);
                let command = Command::decode(&mut frame).unwrap();
                assert_eq!(command.opaque, OPAQUE_MIN + 5);
                let send: Send<'_> = command.fields.read().unwrap();
                assert_eq!((send.topic, send.queue_id, send.batch), ("T", 7, batch > 1));
                assert_eq!(send.born_timestamp, 1_700_000_000_123);
                if batch == 1 {
                    let id = "UNIQ_KEY\u{1}0123456789ABCDEF000000000000BEEF\u{2}WAIT\u{1}true";
                    assert_eq!(send.properties, Some(id));
                    assert_eq!(read_stamp(&command.body), Some((0xBEEF, 99)));
                } else {
                    let record = command.body.len() / batch;
                    assert_eq!(read_stamp(&command.body[record + 20..]), Some((0xBEF0, 99)));
                }
            }
        }
    }
}
