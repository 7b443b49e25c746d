//! Every body reads as what its code says it is, and is written again as it came.

use serde::Serialize;
use serde::de::DeserializeOwned;

use protocol::body::*;
use protocol::java_properties;
use protocol::json::{Dialect, read, write};
use protocol::message::batch_entries;
use protocol::record::Record;

use crate::common::Golden;
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

#[test]
fn every_body_is_what_its_code_says_and_is_written_again() {
    let mut wrong = Vec::new();
    each(|golden, command, code| {
        if command.body.is_empty() {
            return;
        }
        let body = &*command.body;
        let kind = if command.is_reply() { of_answer(code) } else { of_request(code) };
        let kind = kind.unwrap_or_else(|| panic!("{} ({code}) has a body", golden.name));
        let written = match kind {
            Opaque => return,
            Json(again) => {
                let dialect = if code == 105 { Dialect::Standard } else { Dialect::Fastjson };
                again(body, dialect)
            }
            Records => records_again(body),
            Batch if body == b"no" => return,
            Batch => batch_again(body),
            Properties => properties_again(body),
            Registration => {
                let compressed = command.fields.get("compressed") == Some("true");
                match RegisterBrokerBody::decode(body, compressed) {
                    Ok(it) => it.encode(compressed),
                    Err(error) => {
                        wrong.push(format!("{} {error}", golden.name));
                        return;
                    }
                }
            }
        };
        if written != body {
            let same = written.len() == body.len()
                && written.first() == Some(&b'{')
                && Tree::of(&written) == Tree::of(body);
            if same {
                wrong.push(format!("{} {code} order", golden.name))
            } else {
                wrong.push(format!(
                    "{} ({code}):\n {}\n {}",
                    golden.name,
                    String::from_utf8_lossy(body),
                    String::from_utf8_lossy(&written)
                ));
            }
        }
    });
    let _: Option<Golden> = None;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
