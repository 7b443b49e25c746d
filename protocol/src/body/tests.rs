//! Bodies recorded from stock software are read and written again unchanged.

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;
use crate::json::{Dialect, read, write};

mod classes;
mod random;
mod tree;

use tree::Tree;

macro_rules! recorded {
    ($name:literal) => {
        include_bytes!(concat!("../../golden/body/", $name))
    };
}

/// Reads a recording and writes it again. Hash order aside, the bytes must come out the same.
fn check<T: DeserializeOwned + Serialize>(name: &str, recorded: &[u8], dialect: Dialect) {
    let value: T = read(recorded).unwrap_or_else(|error| panic!("{name}: {error}"));
    let written = write(&value, dialect);
    let shown = String::from_utf8_lossy(&written);
    assert_eq!(written.len(), recorded.len(), "{name}: {shown}");
    assert_eq!(Tree::of(&written), Tree::of(recorded), "{name}: {shown}");
}

/// The same where nothing comes in hash order.
fn check_bytes<T: DeserializeOwned + Serialize>(name: &str, recorded: &[u8], dialect: Dialect) {
    let value: T = read(recorded).unwrap_or_else(|error| panic!("{name}: {error}"));
    let written = String::from_utf8(write(&value, dialect)).unwrap();
    assert_eq!(written, String::from_utf8_lossy(recorded), "{name}");
}

macro_rules! checks {
    ($check:ident $dialect:ident: $($name:literal $type:ty),+ $(,)?) => {
        $($check::<$type>($name, recorded!($name), Dialect::$dialect);)+
    };
}

#[test]
fn recorded_bodies_come_out_byte_for_byte() {
    checks! { check_bytes Standard: "route_standard.json" TopicRouteData }
    checks! { check_bytes Fastjson:
        "route_fastjson.json" TopicRouteData,
        "cluster_info.json" ClusterInfo,
        "member_group.json" GetBrokerMemberGroupResponseBody,
        "topic_stats.json" TopicStatsTable,
        "consume_stats.json" ConsumeStats,
        "kv_table.json" KVTable,
        "consumer_connection.json" ConsumerConnection,
        "producer_connection.json" ProducerConnection,
        "consumer_list.json" GetConsumerListByGroupResponseBody,
        "heartbeat_consumer.json" HeartbeatData,
        "heartbeat_producer.json" HeartbeatData,
        "topic_list_of_group.json" TopicList,
        "consumer_offsets.json" ConsumerOffsetFile,
        "delay_offsets.json" DelayOffsetFile,
        "group_list.json" GroupList,
        "time_span.json" QueryConsumeTimeSpanBody,
        "correction_offsets.json" QueryCorrectionOffsetBody,
        "broker_stats.json" BrokerStatsData,
        "consume_queue.json" QueryConsumeQueueResponseBody,
        "subscription.json" QuerySubscriptionResponseBody,
        "topic.json" TopicConfig,
        "group.json" SubscriptionGroupConfig,
        "reset_offset.json" ResetOffsetBody,
        "consumer_status.json" GetConsumerStatusBody,
        "consume_directly.json" ConsumeMessageDirectlyResult,
        "request_mode.json" SetMessageRequestModeRequestBody,
        "assignment.json" QueryAssignmentResponseBody,
        "register.json" RegisterBrokerBody,
        "kvConfig_file.json" KVConfigFile,
    }
    checks! { check_bytes File:
        "consumerOffset_file.json" ConsumerOffsetFile,
        "delayOffset_file.json" DelayOffsetFile,
        "consumerFilter_file.json" ConsumerFilterFile,
        "consumerOrderInfo_file.json" ConsumerOrderInfoFile,
        "messageRequestMode_file.json" MessageRequestModeFile,
    }
}

#[test]
fn recorded_bodies_in_hash_order_come_out_sorted_but_else_the_same() {
    checks! { check Fastjson:
        "topic_configs.json" TopicConfigAndMappingSerializeWrapper,
        "groups.json" SubscriptionGroupWrapper,
        "lock_request.json" LockBatchRequestBody,
        "lock_answer.json" LockBatchResponseBody,
        "topic_list.json" TopicList,
        "running_info.json" ConsumerRunningInfo,
        "consume_stats_list.json" ConsumeStatsList,
        "producers.json" ProducerTableInfo,
    }
    checks! { check File:
        "topics_file.json" TopicConfigSerializeWrapper,
        "subscriptionGroup_file.json" SubscriptionGroupWrapper,
    }
}

#[test]
fn a_compressed_registration_of_stock_is_read_and_comes_back_the_same() {
    let plain = RegisterBrokerBody::decode(recorded!("register.json"), false).unwrap();
    let mut expected = plain.clone();
    let wrapper = &mut expected.topic_config_serialize_wrapper;
    wrapper.mapping_data_version = DataVersion::default();
    wrapper.topic_config_table.get_mut("T1").unwrap().order = false;

    let recorded = RegisterBrokerBody::decode(recorded!("register.zlib"), true).unwrap();
    assert_eq!(recorded, expected);
    let again = RegisterBrokerBody::decode(&plain.encode(true), true).unwrap();
    assert_eq!(again, expected);
}

#[test]
fn a_registration_that_unfolds_without_end_is_refused() {
    use std::io::Write;
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    zlib.write_all(&(INFLATED_BYTES_MAX as u32 + 1).to_be_bytes()).unwrap();
    let blanks = vec![b' '; 1024 * 1024];
    for _ in 0..40 {
        zlib.write_all(&blanks).unwrap();
    }
    let bomb = zlib.finish().unwrap();
    assert!(bomb.len() < 1024 * 1024);
    let refused = RegisterBrokerBody::decode(&bomb, true).unwrap_err();
    assert!(matches!(refused, RegisterBrokerError::TooLarge), "{refused}");
}

#[test]
fn a_damaged_registration_is_refused_wherever_it_is_cut() {
    let recorded = recorded!("register.zlib");
    for length in 0..recorded.len() - 4 {
        // Without its last part, the mappings, it is what a 4.x broker sends; never is it more.
        let _ = RegisterBrokerBody::decode(&recorded[..length], true);
    }
    assert!(RegisterBrokerBody::decode(b"", true).is_err());
    assert!(RegisterBrokerBody::decode(&recorded[..40], true).is_err());
    assert!(RegisterBrokerBody::decode(b"{}", true).is_err());
}

#[test]
fn a_blank_in_an_attribute_survives_compression() {
    let mut body = RegisterBrokerBody::default();
    let attributes = BTreeMap::from([("message.type".to_owned(), "a b  c".to_owned())]);
    let topic = TopicConfig { topic_name: "T".to_owned(), attributes, ..TopicConfig::default() };
    body.topic_config_serialize_wrapper.topic_config_table.insert("T".to_owned(), topic);
    assert_eq!(RegisterBrokerBody::decode(&body.encode(true), true).unwrap(), body);
}

/// A body of which everything is absent takes Java's defaults, which stock wrote down here.
#[test]
fn what_is_absent_takes_the_default_of_java() {
    fn check<T: DeserializeOwned + Serialize + Default + PartialEq + Debug>(java: &str) {
        let absent: T = read(b"{}").unwrap();
        assert_eq!(absent, T::default());
        assert_eq!(read::<T>(java.as_bytes()).unwrap(), absent, "{java}");
    }
    check::<TopicConfig>(
        r#"{"attributes":{},"order":false,"perm":6,"readQueueNums":16,"topicFilterType":"SINGLE_TAG","topicSysFlag":0,"writeQueueNums":16}"#,
    );
    check::<SubscriptionGroupConfig>(
        r#"{"attributes":{},"brokerId":0,"consumeBroadcastEnable":true,"consumeEnable":true,"consumeFromMinEnable":true,"consumeMessageOrderly":false,"consumeTimeoutMinute":15,"groupRetryPolicy":{"type":"CUSTOMIZED"},"groupSysFlag":0,"notifyConsumerIdsChangedEnable":true,"retryMaxTimes":16,"retryQueueNums":1,"whichBrokerWhenConsumeSlowly":1}"#,
    );
    check::<ExponentialRetryPolicy>(r#"{"initial":5000,"max":7200000,"multiplier":2}"#);
    check::<CustomizedRetryPolicy>(
        r#"{"next":[1000,5000,10000,30000,60000,120000,180000,240000,300000,360000,420000,480000,540000,600000,1200000,1800000,3600000,7200000]}"#,
    );
    check::<SubscriptionData>(
        r#"{"classFilterMode":false,"codeSet":[],"expressionType":"TAG","tagsSet":[]}"#,
    );
    check::<TopicQueueMappingInfo>(
        r#"{"currIdMap":{},"dirty":false,"epoch":0,"scope":"__global__","totalQueues":0}"#,
    );
    check::<LogicQueueMappingItem>(
        r#"{"endOffset":-1,"gen":0,"logicOffset":0,"queueId":0,"startOffset":0,"timeOfEnd":-1,"timeOfStart":-1}"#,
    );
    check::<ConsumeMessageDirectlyResult>(
        r#"{"autoCommit":true,"order":false,"spentTimeMills":0}"#,
    );
    check::<MessageQueueAssignment>(r#"{"mode":"PULL"}"#);
}

#[test]
fn queues_are_sorted_by_topic_then_broker_then_number() {
    let mut queues = [("b", "x", 0), ("a", "y", 0), ("a", "x", 10), ("a", "x", 9)]
        .map(|(topic, broker, id)| MessageQueue::new(topic, broker, id));
    queues.sort();
    let expected = [("a", "x", 9), ("a", "x", 10), ("a", "y", 0), ("b", "x", 0)]
        .map(|(topic, broker, id)| MessageQueue::new(topic, broker, id));
    assert_eq!(queues, expected);
}

#[test]
fn a_version_is_newer_by_epoch_before_count_before_time() {
    let version =
        |state_version, counter, timestamp| DataVersion { counter, state_version, timestamp };
    assert!(version(1, 0, 0) > version(0, 9, 9));
    assert!(version(1, 2, 0) > version(1, 1, 9));
    assert!(version(1, 1, 2) > version(1, 1, 1));
    let mut next = version(0, 4, 100);
    next.next_version(2, 50);
    assert_eq!(next, version(2, 5, 50));
}

#[test]
fn random_bodies_come_back_as_they_were() {
    let seed = rand::random();
    println!("seed {seed}");
    random::check_all(seed);
}
