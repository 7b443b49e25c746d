//! Finding single messages.

use crate::header;

header! {
    pub struct QueryConsumeQueue {
        pub topic: Option<String>,
        pub queue_id: i32 = 0,
        pub index: i64 = 0,
        pub count: i32 = 0,
        pub consumer_group: Option<String>,
    }
}

header! {
    pub struct QueryMessage {
        pub topic: String,
        pub key: String,
        pub max_num: i32,
        pub begin_timestamp: i64,
        pub end_timestamp: i64,
        pub index_type: Option<String>,
        pub last_key: Option<String>,
    }
}

header! {
    pub struct QueryMessageReply {
        pub index_last_update_timestamp: i64,
        pub index_last_update_phyoffset: i64,
    }
}

header! {
    pub struct ViewMessage {
        pub topic: Option<String>,
        pub offset: i64,
    }
}
