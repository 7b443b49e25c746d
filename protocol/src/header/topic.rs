//! Topics and who reads them.

use crate::{header, name};

header! {
    pub struct CreateTopic {
        pub topic: String,
        pub default_topic: String,
        pub read_queue_nums: i32,
        pub write_queue_nums: i32,
        pub perm: i32,
        pub topic_filter_type: String,
        pub topic_sys_flag: Option<i32>,
        pub order: bool,
        pub attributes: Option<String>,
        pub force: Option<bool>,
    }
}

impl CreateTopic {
    /// A topic with so many queues, readable and writable.
    pub fn plain(topic: &str, queues: i32) -> CreateTopic {
        CreateTopic {
            topic: topic.to_owned(),
            default_topic: name::DEFAULT_TOPIC.to_owned(),
            read_queue_nums: queues,
            write_queue_nums: queues,
            perm: 6,
            topic_filter_type: "SINGLE_TAG".to_owned(),
            topic_sys_flag: Some(0),
            order: false,
            attributes: None,
            force: None,
        }
    }
}

header! {
    pub struct DeleteTopic {
        pub topic: String,
    }
}

header! {
    pub struct GetAllTopicConfig {
        pub topic_seq: Option<i32>,
        pub data_version: Option<String>,
        pub max_topic_num: Option<i32>,
    }
}

header! {
    pub struct GetAllTopicConfigReply {
        pub total_topic_num: Option<i32>,
    }
}

header! {
    pub struct GetTopicConfig {
        pub topic: String,
    }
}

header! {
    pub struct GetTopicStatsInfo {
        pub topic: String,
    }
}

header! {
    pub struct QueryTopicConsumeByWho {
        pub topic: String,
    }
}

header! {
    pub struct QueryTopicsByConsumer {
        pub group: String,
    }
}
