//! Every body class of stock with all its fields set, printed by both fastjsons.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::*;
use crate::json::{Dialect, read, write};

const CLASSES: &str = include_str!("../../../golden/body/classes.tsv");

fn again<T: DeserializeOwned + Serialize>(text: &str) -> String {
    let value: T = read(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
    String::from_utf8(write(&value, Dialect::Fastjson)).unwrap()
}

/// `Java's name` = our type, where they differ.
macro_rules! again_as {
    ($class:ident, $text:ident: $($name:ident $(= $type:ident)?),+ $(,)?) => {
        match $class {
            $(stringify!($name) => again_as!(@one $text $name $($type)?),)+
            _ => panic!("{} has no type here", $class),
        }
    };
    (@one $text:ident $name:ident) => { again::<$name>($text) };
    (@one $text:ident $name:ident $type:ident) => { again::<$type>($text) };
}

fn again_by_class(class: &str, text: &str) -> String {
    again_as! { class, text:
        BrokerMemberGroup, BrokerStatsData, CheckClientRequestBody, ClusterInfo, Connection,
        ConsumeByWho, ConsumeMessageDirectlyResult, ConsumeStats, ConsumeStatsList,
        ConsumerConnection, ConsumerFilterManager = ConsumerFilterFile,
        ConsumerOffsetManager = ConsumerOffsetFile, ConsumerRunningInfo,
        CreateTopicListRequestBody, DataVersion, DelayOffsetSerializeWrapper = DelayOffsetFile,
        GetBrokerMemberGroupResponseBody, GetConsumerStatusBody, GroupForbidden, GroupList,
        HeartbeatData, KVConfigSerializeWrapper = KVConfigFile, KVTable, LockBatchRequestBody,
        LockBatchResponseBody, MessageQueue, MessageQueueAssignment, MessageQueueForC,
        MessageRequestModeManager = MessageRequestModeFile, ProducerConnection, ProducerInfo,
        ProducerTableInfo, QueryAssignmentRequestBody, QueryAssignmentResponseBody,
        QueryConsumeQueueResponseBody, QueryConsumeTimeSpanBody, QueryCorrectionOffsetBody,
        QuerySubscriptionResponseBody, QueueLevelConsumerManager = ConsumerOrderInfoFile,
        QueueTimeSpan, RegisterBrokerBody, ResetOffsetBody, ResetOffsetBodyForC, RollbackStats,
        SetMessageRequestModeRequestBody, SimpleSubscriptionData, SubscriptionGroupConfig,
        SubscriptionGroupList, SubscriptionGroupWrapper, TopicConfig,
        TopicConfigAndMappingSerializeWrapper, TopicConfigSerializeWrapper, TopicList,
        TopicRouteData, TopicStatsTable, UnlockBatchRequestBody,
    }
}

#[test]
fn every_field_of_every_class_is_read_and_written() {
    for line in CLASSES.lines() {
        let mut columns = line.split('\t');
        let mut next = || columns.next().unwrap();
        let (class, fastjson2, fastjson1) = (next(), next(), next());
        assert_eq!(again_by_class(class, fastjson2), fastjson2, "{class}");
        // The one class whose short names are an annotation of fastjson2.
        if class != "QueueLevelConsumerManager" {
            assert_eq!(again_by_class(class, fastjson1), fastjson2, "{class}");
        }
    }
}
