//! Between the brokers of a group, and containers of brokers.

use crate::header;

header! {
    pub struct AddBroker {
        pub config_path: Option<String>,
    }
}

header! {
    pub struct ExchangeHaInfo {
        pub master_ha_address: Option<String>,
        pub master_flush_offset: Option<i64>,
        pub master_address: Option<String>,
    }
}

header! {
    pub struct ExchangeHaInfoReply {
        pub master_ha_address: Option<String>,
        pub master_flush_offset: Option<i64>,
        pub master_address: Option<String>,
    }
}

header! {
    pub struct NotifyBrokerRoleChanged {
        pub master_address: Option<String>,
        pub master_epoch: Option<i32>,
        pub sync_state_set_epoch: Option<i32>,
        pub master_broker_id: Option<i64>,
    }
}

header! {
    pub struct RemoveBroker {
        pub broker_name: String,
        pub broker_cluster_name: String,
        pub broker_id: i64,
    }
}

header! {
    pub struct ResetMasterFlushOffset {
        pub master_flush_offset: i64,
    }
}
