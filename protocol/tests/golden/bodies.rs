//! Every body reads as what its code says it is, and is written again as it came.

use std::collections::BTreeSet;
use std::io::Read;

use flate2::read::ZlibDecoder;
use serde::Serialize;
use serde::de::DeserializeOwned;

use protocol::body::*;
use protocol::java_properties;
use protocol::json::{Dialect, read, write};
use protocol::language::version::V5_0_0;
use protocol::message::batch_entries;
use protocol::record::Record;

use crate::each;
use crate::tree::Tree;

/// What is in a body.
enum Body {
    /// What a user sent, or what only later work looks into.
    Opaque,
    Json(fn(&[u8], Dialect) -> Vec<u8>),
    /// Stored records, one after the other.
    Records,
    /// The messages of a batch.
    Batch,
    /// `key=value` lines.
    Properties,
    /// Topics of a broker, compressed if the header says so.
    Registration,
}

use Body::*;

/// Codes whose bodies hold Java maps and sets, which come in hash order; ours come out sorted.
const IN_HASH_ORDER: [i32; 12] = [21, 28, 42, 43, 103, 201, 206, 224, 304, 305, 307, 328];

/// What 4.9.8 does not know, and ours write with its default.
const ADDED: [&str; 3] =
    [",\"heartbeatFingerprint\":0", ",\"withoutSub\":false", ",\"onlyThisBroker\":false"];

/// Bodies that are not what their header says; stock refuses them.
const REFUSED_UNREAD: [&str; 3] = [
    "register_broker.request.compressed_unmarked-binary",
    "send_batch_message.request.delayed",
    "send_batch_message.request.to_retry_topic",
];

fn json<T: DeserializeOwned + Serialize>() -> Body {
    Json(|body, dialect| write(&read::<T>(body).unwrap(), dialect))
}

#[rustfmt::skip]
fn of_request(code: i32) -> Option<Body> {
    Some(match code {
        10 | 310 | 324 | 325 | 326 => Opaque,
        39 | 309 => Records,
        320 => Batch,
        25 | 318 => Properties,
        103 => Registration,
        18 => json::<CreateTopicListRequestBody>(),
        34 => json::<HeartbeatData>(),
        41 => json::<LockBatchRequestBody>(),
        42 => json::<UnlockBatchRequestBody>(),
        46 => json::<CheckClientRequestBody>(),
        200 => json::<SubscriptionGroupConfig>(),
        217 => json::<TopicRouteData>(),
        220 => json::<ResetOffsetBody>(),
        225 => json::<SubscriptionGroupList>(),
        322 => json::<DataVersion>(),
        _ => return None,
    })
}

#[rustfmt::skip]
fn of_answer(code: i32) -> Option<Body> {
    Some(match code {
        // Timers: the check point is binary, the metrics are JSON.
        60 | 61 => Opaque,
        11 | 12 | 33 | 361 => Records,
        26 | 319 => Properties,
        21 => json::<TopicConfigAndMappingSerializeWrapper>(),
        28 | 103 | 219 => json::<KVTable>(),
        38 => json::<GetConsumerListByGroupResponseBody>(),
        41 => json::<LockBatchResponseBody>(),
        43 => json::<ConsumerOffsetFile>(),
        45 => json::<DelayOffsetFile>(),
        105 => json::<TopicRouteData>(),
        106 => json::<ClusterInfo>(),
        201 => json::<SubscriptionGroupWrapper>(),
        202 => json::<TopicStatsTable>(),
        203 => json::<ConsumerConnection>(),
        204 => json::<ProducerConnection>(),
        206 | 224 | 304 | 305 | 311 | 312 | 313 | 343 => json::<TopicList>(),
        208 => json::<ConsumeStats>(),
        221 | 223 => json::<GetConsumerStatusBody>(),
        222 => json::<ResetOffsetBody>(),
        300 => json::<GroupList>(),
        303 => json::<QueryConsumeTimeSpanBody>(),
        307 => json::<ConsumerRunningInfo>(),
        308 => json::<QueryCorrectionOffsetBody>(),
        309 => json::<ConsumeMessageDirectlyResult>(),
        315 => json::<BrokerStatsData>(),
        317 => json::<ConsumeStatsList>(),
        321 => json::<QueryConsumeQueueResponseBody>(),
        322 => json::<DataVersion>(),
        328 => json::<ProducerTableInfo>(),
        345 => json::<QuerySubscriptionResponseBody>(),
        351 => json::<TopicConfig>(),
        352 => json::<SubscriptionGroupConfig>(),
        353 => json::<GroupForbidden>(),
        402 => json::<MessageRequestModeFile>(),
        901 => json::<GetBrokerMemberGroupResponseBody>(),
        _ => return None,
    })
}

fn records_again(body: &[u8]) -> Vec<u8> {
    let (mut rest, mut out) = (body, Vec::new());
    while !rest.is_empty() {
        let (record, size) = Record::decode(rest).unwrap();
        record.check_body().unwrap();
        record.encode_into(&mut out).unwrap();
        rest = &rest[size..];
    }
    out
}

fn batch_again(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in batch_entries(body) {
        entry.unwrap().encode_into(&mut out).unwrap();
    }
    out
}

fn properties_again(body: &[u8]) -> Vec<u8> {
    let settings = java_properties::read(std::str::from_utf8(body).unwrap());
    java_properties::write(settings.iter().map(|(key, value)| (key.as_str(), value.as_str())))
        .into_bytes()
}

/// The unfolded text: two packers may fold one text in two ways.
fn inflated(body: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    ZlibDecoder::new(body).read_to_end(&mut plain).unwrap();
    plain
}

#[test]
fn every_body_is_what_its_code_says_and_is_written_again() {
    let mut sorted = BTreeSet::new();
    each(|golden, command, code| {
        let (name, body) = (&golden.name, &*command.body);
        if body.is_empty() || REFUSED_UNREAD.contains(&name.as_str()) {
            return;
        }
        let kind = if command.is_reply() { of_answer(code) } else { of_request(code) };
        let written = match kind.unwrap_or_else(|| panic!("{name} ({code}) has a body")) {
            Opaque => return,
            Records => records_again(body),
            Batch => batch_again(body),
            Properties => properties_again(body),
            Registration if command.fields.get("compressed") == Some("true") => {
                let registration = RegisterBrokerBody::decode(body, true).unwrap();
                assert_eq!(inflated(&registration.encode(true)), inflated(body), "{name}");
                return;
            }
            Registration => RegisterBrokerBody::decode(body, false).unwrap().encode(false),
            Json(again) if code == 105 => again(body, Dialect::Standard),
            Json(again) => again(body, Dialect::Fastjson),
        };
        let mut shown = String::from_utf8_lossy(&written).into_owned();
        if command.version < V5_0_0 {
            ADDED.iter().for_each(|added| shown = shown.replace(added, ""));
        }
        if shown.as_bytes() != body && written != body {
            assert!(IN_HASH_ORDER.contains(&code), "{name} ({code}): {shown}");
            assert_eq!(written.len(), body.len(), "{name} ({code}): {shown}");
            assert_eq!(Tree::of(&written), Tree::of(body), "{name} ({code})");
            sorted.insert(code);
        }
    });
    assert_eq!(sorted, BTreeSet::from(IN_HASH_ORDER));
}
