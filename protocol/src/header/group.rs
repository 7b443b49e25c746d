//! Consumer groups.

use crate::header;

header! {
    pub struct DeleteSubscriptionGroup {
        pub group_name: String,
        pub clean_offset: bool = false,
    }
}

header! {
    pub struct GetAllSubscriptionGroup {
        pub group_seq: Option<i32>,
        pub data_version: Option<String>,
        pub max_group_num: Option<i32>,
    }
}

header! {
    pub struct GetAllSubscriptionGroupReply {
        pub total_group_num: i32,
    }
}

header! {
    pub struct GetSubscriptionGroupConfig {
        pub group: String,
    }
}

header! {
    pub struct QuerySubscriptionByConsumer {
        pub group: String,
        pub topic: Option<String>,
    }
}

header! {
    pub struct UpdateGroupForbidden {
        pub group: String,
        pub topic: String,
        pub readable: Option<bool>,
    }
}
