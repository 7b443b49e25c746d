//! Positions in queues, and of groups in queues.

use crate::header;

header! {
    pub struct CloneGroupOffset {
        pub src_group: String,
        pub dest_group: String,
        pub topic: Option<String>,
        pub offline: bool = false,
    }
}

header! {
    pub struct GetEarliestMsgStoretime {
        pub topic: String,
        pub queue_id: i32,
    }
}

header! {
    pub struct GetEarliestMsgStoretimeReply {
        pub timestamp: i64,
    }
}

header! {
    pub struct GetMaxOffset {
        pub topic: String,
        pub queue_id: i32,
        pub committed: bool = true,
    }
}

header! {
    pub struct GetMaxOffsetReply {
        pub offset: i64,
    }
}

header! {
    pub struct GetMinOffset {
        pub topic: String,
        pub queue_id: i32,
    }
}

header! {
    pub struct GetMinOffsetReply {
        pub offset: i64,
    }
}

header! {
    pub struct InitConsumerOffset {
        pub topic: Option<String>,
        pub init_mode: i32 = 0,
    }
}

header! {
    pub struct QueryConsumerOffset {
        pub consumer_group: String,
        pub topic: String,
        pub queue_id: i32,
        pub set_zero_if_not_found: Option<bool>,
    }
}

header! {
    pub struct QueryConsumerOffsetReply {
        pub offset: i64,
    }
}

header! {
    pub struct QueryCorrectionOffset {
        pub filter_groups: Option<String>,
        pub compare_group: String,
        pub topic: String,
    }
}

header! {
    pub struct ResetOffset {
        pub group: String,
        pub topic: String,
        pub queue_id: i32 = -1,
        pub offset: Option<i64>,
        pub timestamp: i64,
        pub is_force: bool,
    }
}

header! {
    pub struct SearchOffset {
        pub topic: String,
        pub lite_topic: Option<String>,
        pub queue_id: i32,
        pub timestamp: i64,
        pub boundary_type: Option<String>,
    }
}

header! {
    pub struct SearchOffsetReply {
        pub offset: i64,
    }
}

header! {
    pub struct UpdateConsumerOffset {
        pub consumer_group: String,
        pub topic: String,
        pub queue_id: i32,
        pub commit_offset: i64,
    }
}
