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

/// The bit of `sys_flag` that says that the pull brings its subscription.
pub const BRINGS_SUBSCRIPTION: i32 = 4;

impl PullMessage {
    /// A pull of so many messages, whatever their tags, that is answered at once.
    pub fn everything(
        group: &str,
        topic: &str,
        queue_id: i32,
        from: i64,
        messages: i32,
    ) -> PullMessage {
        PullMessage {
            consumer_group: group.to_owned(),
            topic: topic.to_owned(),
            lite_topic: None,
            queue_id,
            queue_offset: from,
            max_msg_nums: messages,
            sys_flag: BRINGS_SUBSCRIPTION,
            commit_offset: 0,
            suspend_timeout_millis: 0,
            subscription: Some("*".to_owned()),
            sub_version: 0,
            expression_type: None,
            max_msg_bytes: None,
            request_source: None,
            proxy_froward_client_id: None,
        }
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
