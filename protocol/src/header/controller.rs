//! Who is master of which group.

use crate::header;

header! {
    pub struct AlterSyncStateSet {
        pub broker_name: Option<String>,
        pub master_broker_id: Option<i64>,
        pub master_epoch: Option<i32>,
        pub invoke_time: i64 = 0,
    }
}

header! {
    pub struct AlterSyncStateSetReply {
        pub new_sync_state_set_epoch: i32 = 0,
    }
}

header! {
    pub struct ElectMaster {
        pub cluster_name: String,
        pub broker_name: String,
        pub broker_id: i64,
        pub designate_elect: bool,
        pub invoke_time: Option<i64>,
    }
}

header! {
    pub struct ElectMasterReply {
        pub master_broker_id: Option<i64>,
        pub master_address: Option<String>,
        pub master_epoch: Option<i32>,
        pub sync_state_set_epoch: Option<i32>,
    }
}

header! {
    pub struct GetMetaDataReply {
        pub group: Option<String>,
        pub controller_leader_id: Option<String>,
        pub controller_leader_address: Option<String>,
        pub is_leader: bool = false,
        pub peers: Option<String>,
    }
}

header! {
    pub struct GetReplicaInfo {
        pub broker_name: Option<String>,
    }
}

header! {
    pub struct GetReplicaInfoReply {
        pub master_broker_id: Option<i64>,
        pub master_address: Option<String>,
        pub master_epoch: Option<i32>,
    }
}

header! {
    pub struct CleanControllerBrokerData {
        pub cluster_name: Option<String>,
        pub broker_name: String,
        pub broker_controller_ids_to_clean: Option<String>,
        pub is_clean_living_broker: bool = false,
        pub invoke_time: i64 = 0,
    }
}

header! {
    pub struct ApplyBrokerId {
        pub cluster_name: Option<String>,
        pub broker_name: Option<String>,
        pub applied_broker_id: Option<i64>,
        pub register_check_code: Option<String>,
    }
}

header! {
    pub struct ApplyBrokerIdReply {
        pub cluster_name: Option<String>,
        pub broker_name: Option<String>,
    }
}

header! {
    pub struct GetNextBrokerId {
        pub cluster_name: Option<String>,
        pub broker_name: Option<String>,
    }
}

header! {
    pub struct GetNextBrokerIdReply {
        pub cluster_name: Option<String>,
        pub broker_name: Option<String>,
        pub next_broker_id: Option<i64>,
    }
}

header! {
    pub struct RegisterBrokerToController {
        pub cluster_name: Option<String>,
        pub broker_name: Option<String>,
        pub broker_id: Option<i64>,
        pub broker_address: Option<String>,
        pub invoke_time: i64 = 0,
    }
}

header! {
    pub struct RegisterBrokerToControllerReply {
        pub cluster_name: Option<String>,
        pub broker_name: Option<String>,
        pub master_broker_id: Option<i64>,
        pub master_address: Option<String>,
        pub master_epoch: Option<i32>,
        pub sync_state_set_epoch: Option<i32>,
    }
}
