//! Lite topics.

use crate::header;

header! {
    pub struct GetLiteClientInfo {
        pub parent_topic: Option<String>,
        pub group: Option<String>,
        pub client_id: Option<String>,
        pub max_count: i32 = 0,
    }
}

header! {
    pub struct GetLiteGroupInfo {
        pub group: String,
        pub lite_topic: Option<String>,
        pub top_k: i32 = 0,
    }
}

header! {
    pub struct GetLiteTopicInfo {
        pub parent_topic: Option<String>,
        pub lite_topic: Option<String>,
    }
}

header! {
    pub struct GetParentTopicInfo {
        pub topic: String,
    }
}

header! {
    pub struct NotifyUnsubscribeLite {
        pub lite_topic: String,
        pub consumer_group: String,
        pub client_id: String,
    }
}

header! {
    pub struct PopLiteMessage {
        pub client_id: String,
        pub consumer_group: String,
        pub topic: String,
        pub max_msg_num: i32,
        pub invisible_time: i64,
        pub poll_time: i64,
        pub born_time: i64,
        pub attempt_id: Option<String>,
    }
}

header! {
    pub struct PopLiteMessageReply {
        pub pop_time: i64,
        pub invisible_time: i64,
        pub revive_qid: i32,
        pub start_offset_info: Option<String>,
        pub msg_offset_info: Option<String>,
        pub order_count_info: Option<String>,
    }
}

header! {
    pub struct TriggerLiteDispatch {
        pub group: String,
        pub client_id: Option<String>,
    }
}
