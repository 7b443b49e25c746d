//! Reading a queue from an offset.

use crate::header;

header! {
    pub struct PeekMessage {
        pub topic: String,
        pub queue_id: i32,
        pub max_msg_nums: i32,
        pub consumer_group: String,
    }
}

header! {
    pub struct PullMessage {
        pub consumer_group: String,
        pub topic: String,
        pub lite_topic: Option<String>,
        pub queue_id: i32,
        pub queue_offset: i64,
        pub max_msg_nums: i32,
        pub sys_flag: i32,
        pub commit_offset: i64,
        pub suspend_timeout_millis: i64,
        pub subscription: Option<String>,
        pub sub_version: i64,
        pub expression_type: Option<String>,
        pub max_msg_bytes: Option<i32>,
        pub request_source: Option<i32>,
        pub proxy_froward_client_id: Option<String>,
    }
}

header! {
    pub struct PullMessageReply {
        pub suggest_which_broker_id: i64,
        pub next_begin_offset: i64,
        pub min_offset: i64,
        pub max_offset: i64,
        pub offset_delta: Option<i64>,
        pub topic_sys_flag: Option<i32>,
        pub group_sys_flag: Option<i32>,
        pub forbidden_type: Option<i32>,
    }
}
