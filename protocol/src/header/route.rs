//! What a nameserver keeps: brokers, topics, key-value configuration.

use crate::header;

header! {
    pub struct GetBrokerMemberGroup {
        pub cluster_name: String,
        pub broker_name: String,
    }
}

header! {
    pub struct GetTopicsByCluster {
        pub cluster: String,
    }
}

header! {
    pub struct NotifyMinBrokerIdChange {
        pub min_broker_id: Option<i64>,
        pub broker_name: Option<String>,
        pub min_broker_addr: Option<String>,
        pub offline_broker_addr: Option<String>,
        pub ha_broker_addr: Option<String>,
    }
}

header! {
    pub struct AddWritePermOfBroker {
        pub broker_name: String,
    }
}

header! {
    pub struct AddWritePermOfBrokerReply {
        pub add_topic_count: i32,
    }
}

header! {
    pub struct BrokerHeartbeat {
        pub cluster_name: String,
        pub broker_addr: String,
        pub broker_name: String,
        pub broker_id: Option<i64>,
        pub epoch: Option<i32>,
        pub max_offset: Option<i64>,
        pub confirm_offset: Option<i64>,
        pub heartbeat_timeout_mills: Option<i64>,
        pub election_priority: Option<i32>,
    }
}

header! {
    pub struct DeleteKvConfig {
        pub namespace: String,
        pub key: String,
    }
}

header! {
    pub struct DeleteTopicFromNamesrv {
        pub topic: String,
        pub cluster_name: Option<String>,
    }
}

header! {
    pub struct GetKvConfig {
        pub namespace: String,
        pub key: String,
    }
}

header! {
    pub struct GetKvConfigReply {
        pub value: Option<String>,
    }
}

header! {
    pub struct GetKvListByNamespace {
        pub namespace: String,
    }
}

header! {
    pub struct GetRouteInfo {
        pub topic: String,
        pub accept_standard_json_only: Option<bool>,
    }
}

header! {
    pub struct PutKvConfig {
        pub namespace: String,
        pub key: String,
        pub value: String,
    }
}

header! {
    pub struct QueryDataVersion {
        pub broker_name: String,
        pub broker_addr: String,
        pub cluster_name: String,
        pub broker_id: i64,
    }
}

header! {
    pub struct QueryDataVersionReply {
        pub changed: bool,
    }
}

header! {
    pub struct RegisterBroker {
        pub broker_name: String,
        pub broker_addr: String,
        pub cluster_name: String,
        pub ha_server_addr: String,
        pub broker_id: i64,
        pub heartbeat_timeout_millis: Option<i64>,
        pub enable_acting_master: Option<bool>,
        pub compressed: bool = false,
        pub body_crc32: Option<i32>,
    }
}

header! {
    pub struct RegisterBrokerReply {
        pub ha_server_addr: Option<String>,
        pub master_addr: Option<String>,
    }
}

header! {
    pub struct RegisterOrderTopic {
        pub topic: String,
        pub order_topic_string: String,
    }
}

header! {
    pub struct RegisterTopic {
        pub topic: String,
    }
}

header! {
    pub struct UnregisterBroker {
        pub broker_name: String,
        pub broker_addr: String,
        pub cluster_name: String,
        pub broker_id: i64,
    }
}

header! {
    pub struct WipeWritePermOfBroker {
        pub broker_name: String,
    }
}

header! {
    pub struct WipeWritePermOfBrokerReply {
        pub wipe_topic_count: i32,
    }
}
