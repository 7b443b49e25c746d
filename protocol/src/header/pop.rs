//! Taking messages one by one, hiding and settling them.

use crate::header;

header! {
    pub struct AckMessage {
        pub consumer_group: String,
        pub topic: String,
        pub queue_id: i32,
        pub extra_info: String,
        pub offset: i64,
        pub lite_topic: Option<String>,
    }
}

header! {
    pub struct ChangeInvisibleTime {
        pub consumer_group: String,
        pub topic: String,
        pub queue_id: i32,
        pub extra_info: String,
        pub offset: i64,
        pub invisible_time: i64,
        pub lite_topic: Option<String>,
        pub suspend: bool = false,
    }
}

header! {
    pub struct ChangeInvisibleTimeReply {
        pub pop_time: i64,
        pub invisible_time: i64,
        pub revive_qid: i32,
    }
}

header! {
    pub struct Notification {
        pub consumer_group: String,
        pub topic: String,
        pub queue_id: i32,
        pub poll_time: i64,
        pub born_time: i64,
        pub order: Option<bool>,
        pub attempt_id: Option<String>,
        pub exp_type: Option<String>,
        pub exp: Option<String>,
    }
}

header! {
    pub struct NotificationReply {
        pub has_msg: bool,
        pub polling_full: bool = false,
    }
}

header! {
    pub struct PollingInfo {
        pub consumer_group: String,
        pub topic: String,
        pub queue_id: i32,
    }
}

header! {
    pub struct PollingInfoReply {
        pub polling_num: i32,
    }
}

header! {
    pub struct PopMessage {
        pub consumer_group: String,
        pub topic: String,
        pub queue_id: i32,
        pub max_msg_nums: i32,
        pub invisible_time: i64,
        pub poll_time: i64,
        pub born_time: i64,
        pub init_mode: i32,
        pub exp_type: Option<String>,
        pub exp: Option<String>,
        pub order: Option<bool>,
        pub attempt_id: Option<String>,
    }
}

header! {
    pub struct PopMessageReply {
        pub pop_time: i64,
        pub invisible_time: i64,
        pub revive_qid: i32,
        pub rest_num: i64,
        pub start_offset_info: Option<String>,
        pub msg_offset_info: Option<String>,
        pub order_count_info: Option<String>,
    }
}
