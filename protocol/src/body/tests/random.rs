//! Bodies full of random values, written and read in every dialect.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::*;
use crate::json::{Dialect, read, write};

const ROUNDS: usize = 200;

pub(super) fn check_all(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..ROUNDS {
        check(&route(&mut random));
        check(&heartbeat(&mut random));
        check(&groups(&mut random));
        check(&topic_stats(&mut random));
        check(&running_info(&mut random));
        let body = registration(&mut random);
        check(&body);
        let compressed = RegisterBrokerBody::decode(&body.encode(true), true).unwrap();
        assert_eq!(compressed, body);
    }
}

fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    for dialect in [Dialect::Standard, Dialect::Fastjson, Dialect::File] {
        let bytes = write(value, dialect);
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(&read::<T>(&bytes).unwrap(), value, "{text}");
        if dialect == Dialect::Standard {
            serde_json::from_slice::<serde_json::Value>(&bytes).expect(&text);
            assert!(bytes.is_ascii(), "{text}");
        }
    }
}

fn some<T>(random: &mut StdRng, mut make: impl FnMut(&mut StdRng) -> T) -> Vec<T> {
    (0..random.random_range(0..4)).map(|_| make(random)).collect()
}

fn maybe<T>(random: &mut StdRng, make: impl FnOnce(&mut StdRng) -> T) -> Option<T> {
    random.random_bool(0.5).then(|| make(random))
}

fn text(random: &mut StdRng) -> String {
    const LETTERS: [char; 16] = [
        'a', 'Z', '%', '@', '"', '\'', '\\', '/', '\n', '\0', '\u{1f}', '\u{7f}', 'é', '中', '😀',
        '{',
    ];
    some(random, |random| *LETTERS.choose(random).unwrap()).into_iter().collect()
}

/// A name without blanks, which the compressed form cannot hold.
fn name(random: &mut StdRng) -> String {
    format!("T{}", random.random_range(0..9))
}

fn number(random: &mut StdRng) -> i64 {
    *[0, 1, -1, 7, i64::from(i32::MAX), i64::MAX, i64::MIN].choose(random).unwrap()
}

fn id(random: &mut StdRng) -> i32 {
    *[0, 1, -1, 7, i32::MAX, i32::MIN].choose(random).unwrap()
}

fn figure(random: &mut StdRng) -> f64 {
    let plain = random.random_range(-1e9..1e9);
    *[0.0, 1.0, 0.5, 1e-5, 1e7, 1e300, f64::MIN_POSITIVE, plain].choose(random).unwrap()
}

fn queue(random: &mut StdRng) -> MessageQueue {
    MessageQueue::new(text(random), text(random), id(random))
}

fn texts(random: &mut StdRng) -> BTreeMap<String, String> {
    some(random, |random| (text(random), text(random))).into_iter().collect()
}

fn mapping(random: &mut StdRng) -> TopicQueueMappingInfo {
    TopicQueueMappingInfo {
        curr_id_map: some(random, |random| (id(random), id(random))).into_iter().collect(),
        dirty: random.random(),
        epoch: number(random),
        topic: text(random),
        ..TopicQueueMappingInfo::default()
    }
}

fn route(random: &mut StdRng) -> TopicRouteData {
    TopicRouteData {
        broker_datas: some(random, |random| BrokerData {
            broker_addrs: some(random, |random| (number(random), text(random)))
                .into_iter()
                .collect(),
            broker_name: text(random),
            zone_name: maybe(random, text),
            ..BrokerData::default()
        }),
        filter_server_table: BTreeMap::from([(text(random), some(random, text))]),
        order_topic_conf: maybe(random, text),
        queue_datas: some(random, |random| QueueData { perm: id(random), ..QueueData::default() }),
        topic_queue_mapping_by_broker: maybe(random, |random| {
            BTreeMap::from([(text(random), mapping(random))])
        }),
    }
}

fn subscription(random: &mut StdRng) -> SubscriptionData {
    SubscriptionData {
        code_set: some(random, id).into_iter().collect(),
        sub_string: text(random),
        sub_version: number(random),
        tags_set: some(random, text).into_iter().collect(),
        topic: text(random),
        ..SubscriptionData::default()
    }
}

fn heartbeat(random: &mut StdRng) -> HeartbeatData {
    let models =
        [MessageModel::Broadcasting, MessageModel::Clustering, MessageModel::LiteSelective];
    let types = [ConsumeType::Actively, ConsumeType::Passively, ConsumeType::Pop];
    HeartbeatData {
        client_id: text(random),
        consumer_data_set: some(random, |random| ConsumerData {
            consume_from_where: ConsumeFromWhere::Timestamp,
            consume_type: *types.choose(random).unwrap(),
            group_name: text(random),
            message_model: *models.choose(random).unwrap(),
            subscription_data_set: some(random, subscription),
            unit_mode: random.random(),
        }),
        heartbeat_fingerprint: id(random),
        producer_data_set: some(random, |random| ProducerData { group_name: text(random) }),
        without_sub: random.random(),
    }
}

fn groups(random: &mut StdRng) -> SubscriptionGroupWrapper {
    let group = SubscriptionGroupConfig {
        attributes: texts(random),
        group_retry_policy: GroupRetryPolicy {
            customized_retry_policy: maybe(random, |random| CustomizedRetryPolicy {
                next: some(random, number),
            }),
            exponential_retry_policy: maybe(random, |_| ExponentialRetryPolicy::default()),
            r#type: GroupRetryPolicyType::Exponential,
        },
        subscription_data_set: maybe(random, |random| {
            BTreeSet::from([SimpleSubscriptionData {
                expression: text(random),
                version: number(random),
                ..SimpleSubscriptionData::default()
            }])
        }),
        ..SubscriptionGroupConfig::default()
    };
    SubscriptionGroupWrapper {
        forbidden_table: BTreeMap::from([(
            text(random),
            BTreeMap::from([(text(random), id(random))]),
        )]),
        subscription_group_table: BTreeMap::from([(text(random), group)]),
        ..SubscriptionGroupWrapper::default()
    }
}

fn topic_stats(random: &mut StdRng) -> TopicStatsTable {
    TopicStatsTable {
        offset_table: some(random, |random| {
            let offset = TopicOffset { max_offset: number(random), ..TopicOffset::default() };
            (queue(random), offset)
        })
        .into_iter()
        .collect(),
        topic_put_tps: figure(random),
    }
}

fn running_info(random: &mut StdRng) -> ConsumerRunningInfo {
    ConsumerRunningInfo {
        jstack: maybe(random, text),
        mq_table: BTreeMap::from([(queue(random), ProcessQueueInfo::default())]),
        properties: texts(random),
        status_table: BTreeMap::from([(
            text(random),
            ConsumeStatus { pull_tps: figure(random), ..ConsumeStatus::default() },
        )]),
        subscription_set: some(random, subscription),
        ..ConsumerRunningInfo::default()
    }
}

fn registration(random: &mut StdRng) -> RegisterBrokerBody {
    let topics = some(random, |random| TopicConfig {
        attributes: texts(random),
        perm: id(random),
        topic_name: name(random),
        ..TopicConfig::default()
    });
    let mappings = some(random, mapping);
    RegisterBrokerBody {
        filter_server_list: some(random, text),
        topic_config_serialize_wrapper: TopicConfigAndMappingSerializeWrapper {
            data_version: DataVersion { counter: number(random), ..DataVersion::default() },
            topic_config_table: topics
                .into_iter()
                .map(|topic| (topic.topic_name.clone(), topic))
                .collect(),
            topic_queue_mapping_info_map: mappings
                .into_iter()
                .map(|mapping| (mapping.topic.clone(), mapping))
                .collect(),
            ..TopicConfigAndMappingSerializeWrapper::default()
        },
    }
}
