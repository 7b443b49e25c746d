//! Figures for operators.

use crate::header;

header! {
    pub struct CheckRocksdbCqWriteProgress {
        pub topic: String,
        pub check_store_time: i64 = 0,
    }
}

header! {
    pub struct ExportRocksdbConfigToJson {
        pub config_type: String,
    }
}

header! {
    pub struct GetBrokerConfigReply {
        pub version: String,
    }
}

header! {
    pub struct GetConsumeStatsInBroker {
        pub is_order: bool,
    }
}

header! {
    pub struct GetConsumeStats {
        pub consumer_group: String,
        pub topic: Option<String>,
        pub topic_list: Option<String>,
    }
}

header! {
    pub struct QueryConsumeTimeSpan {
        pub topic: String,
        pub group: String,
    }
}

header! {
    pub struct StatisticsMessages {
        pub consumer_group: String,
        pub topic: String,
        pub queue_id: i32,
        pub from_time: i64 = 0,
        pub to_time: i64 = 0,
    }
}

header! {
    pub struct ViewBrokerStatsData {
        pub stats_name: String,
        pub stats_key: String,
    }
}
