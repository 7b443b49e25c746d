//! What must hold for any bytes whatsoever: no panic, and what was read once is written and read
//! again without change. Each target is a plain function, so that any driver can feed it.

use std::collections::BTreeMap;
use std::io::Write;

use flate2::{Compression, write::ZlibEncoder};
use protocol::body::*;
use protocol::fields::Header;
use protocol::frame::{Command, frame_len};
use protocol::header::offset::UpdateConsumerOffset;
use protocol::header::pull::{PullMessage, PullMessageReply};
use protocol::header::route::RegisterBroker;
use protocol::header::send::Send;
use protocol::java_properties;
use protocol::json::{Dialect, read, write};
use protocol::message::{BatchEntry, batch_entries};
use protocol::properties;
use protocol::record::{Record, peek};
use serde::{Serialize, de::DeserializeOwned};

pub(crate) type Target = fn(&[u8]);

/// Every target under its name, which is also that of its libFuzzer binary.
pub(crate) const TARGETS: [(&str, Target); 15] = [
    ("frame", frame),
    ("json_header", |input| header(0, input)),
    ("binary_header", |input| header(1, input)),
    ("record", record),
    ("batch", batch),
    ("properties", message_properties),
    ("java_properties", settings),
    ("heartbeat", json::<HeartbeatData>),
    ("topic_stats", json::<TopicStatsTable>),
    ("running_info", json::<ConsumerRunningInfo>),
    ("groups", json::<SubscriptionGroupWrapper>),
    ("route", json::<TopicRouteData>),
    ("registration", json::<RegisterBrokerBody>),
    ("compressed_registration", compressed_registration),
    ("proxy_header", proxy_header),
];

/// Runs one target.
#[allow(dead_code, reason = "libFuzzer needs it, the stable test walks the table")]
pub(crate) fn run(name: &str, input: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target's name");
    target(input);
}

fn frame(input: &[u8]) {
    let _ = frame_len(input);
    let mut frame = input.to_vec();
    let Ok(command) = Command::decode(&mut frame) else { return };
    fn look<T: for<'f> Header<'f>>(command: &Command<'_>) {
        let _ = command.fields.read::<T>();
    }
    let _ = command.fields.read::<Send<'_>>();
    look::<PullMessage>(&command);
    look::<PullMessageReply>(&command);
    look::<UpdateConsumerOffset>(&command);
    look::<RegisterBroker>(&command);

    let mut once = Vec::new();
    command.encode(&mut once);
    assert_eq!(frame_len(&once), Ok(Some(once.len())), "a length that is not the frame's");
    let mut bytes = once.clone();
    let again = Command::decode(&mut bytes).expect("what was written is read");
    assert_eq!(again.body, command.body);
    assert_eq!(again.fields.len(), command.fields.len());
    let mut twice = Vec::new();
    again.encode(&mut twice);
    assert_eq!(once, twice);
}

/// The input as the header of a frame without body.
fn header(form: u8, input: &[u8]) {
    let input = &input[..input.len().min(1 << 20)];
    let len = u32::try_from(input.len()).expect("cut above");
    let mut whole = (4 + len).to_be_bytes().to_vec();
    whole.extend_from_slice(&(len | u32::from(form) << 24).to_be_bytes());
    whole.extend_from_slice(input);
    frame(&whole);
}

fn record(input: &[u8]) {
    let _ = peek(input);
    let Ok((record, size)) = Record::decode(input) else { return };
    assert!(size <= input.len());
    let _ = record.check_body();
    message_properties(record.properties);
    let mut once = Vec::new();
    // Lengths that Java takes for negative are read, but not written.
    let Ok(written) = record.encode_into(&mut once) else { return };
    assert_eq!(written, once.len());
    let (again, _) = Record::decode(&once).expect("what was written is read");
    assert_eq!(again, record);
}

fn batch(input: &[u8]) {
    let entries: Vec<BatchEntry<'_>> = batch_entries(input).map_while(Result::ok).collect();
    let mut once = Vec::new();
    let mut kept = Vec::new();
    for entry in entries {
        if entry.encode_into(&mut once).is_ok() {
            kept.push(entry);
        }
    }
    let again: Result<Vec<_>, _> = batch_entries(&once).collect();
    assert_eq!(again.expect("what was written is read"), kept);
}

fn message_properties(input: &[u8]) {
    for (name, value) in properties::pairs(input) {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        assert!(properties::contains(input, name));
        let mut changed = input.to_vec();
        properties::set(&mut changed, name, b"changed");
        assert_eq!(properties::get(&changed, name), Some(&b"changed"[..]));
        let others = |bytes: &[u8]| -> Vec<(Vec<u8>, Vec<u8>)> {
            let others = properties::pairs(bytes).filter(|(key, _)| *key != name.as_bytes());
            others.map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
        };
        assert_eq!(others(&changed), others(input));
        let mut again = changed.clone();
        properties::set(&mut again, name, value);
        assert_eq!(properties::get(&again, name), Some(value));
        assert!(properties::remove(&mut changed, name));
        assert!(!properties::contains(&changed, name));
    }
}

fn settings(input: &[u8]) {
    let read: BTreeMap<String, String> = java_properties::read(&String::from_utf8_lossy(input));
    let text = java_properties::write(read.iter().map(|(key, value)| (&**key, &**value)));
    assert_eq!(java_properties::read(&text), read, "{text:?}");
}

fn json<T: DeserializeOwned + Serialize>(input: &[u8]) {
    let Ok(value) = read::<T>(input) else { return };
    for dialect in [Dialect::Standard, Dialect::Fastjson, Dialect::File] {
        let mut once = write(&value, dialect);
        let again: T = read(&once).unwrap_or_else(|error| {
            panic!("{error}: {}", String::from_utf8_lossy(&once));
        });
        let mut twice = write(&again, dialect);
        // A figure that is infinite or none is written as null, as stock does, and null reads as 0.
        if once.windows(5).any(|text| text == b":null") {
            let third: T = read(&twice).expect("what was written is read");
            once = std::mem::replace(&mut twice, write(&third, dialect));
        }
        let shown = [&once, &twice].map(|text| String::from_utf8_lossy(text));
        assert_eq!(shown[0], shown[1]);
    }
}

/// The input as it is, and as what is folded.
fn compressed_registration(input: &[u8]) {
    registration(input);
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
    let folded = zlib.write_all(input).and_then(|()| zlib.finish());
    registration(&folded.expect("writing to memory does not fail"));
}

fn registration(input: &[u8]) {
    let Ok(body) = RegisterBrokerBody::decode(input, true) else { return };
    let again = RegisterBrokerBody::decode(&body.encode(true), true);
    assert_eq!(again.expect("what was written is read"), body);
}

/// A header is never longer than what was read, and never waited for without end.
fn proxy_header(input: &[u8]) {
    use protocol::proxy_header::{BYTES_MAX, Start, read};
    match read(input) {
        Ok(Start::Header(len, _)) => assert!(len <= input.len().min(BYTES_MAX)),
        Ok(Start::Unfinished) => assert!(input.len() < BYTES_MAX),
        Ok(Start::None) | Err(_) => {}
    }
}
