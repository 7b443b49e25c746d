//! Producers and consumers that are connected.

use crate::header;

header! {
    pub struct ConsumeMessageDirectly {
        pub consumer_group: String,
        pub client_id: Option<String>,
        pub msg_id: Option<String>,
        pub broker_name: Option<String>,
        pub topic: Option<String>,
        pub topic_sys_flag: Option<i32>,
        pub group_sys_flag: Option<i32>,
    }
}

header! {
    pub struct GetConsumerConnectionList {
        pub consumer_group: String,
    }
}

header! {
    pub struct GetConsumerListByGroup {
        pub consumer_group: String,
    }
}

header! {
    pub struct GetConsumerRunningInfo {
        pub consumer_group: String,
        pub client_id: String,
        pub jstack_enable: bool = false,
    }
}

header! {
    pub struct GetConsumerStatus {
        pub topic: String,
        pub group: String,
        pub client_addr: Option<String>,
    }
}

header! {
    pub struct GetProducerConnectionList {
        pub producer_group: String,
    }
}

header! {
    pub struct NotifyConsumerIdsChanged {
        pub consumer_group: String,
    }
}

header! {
    pub struct UnregisterClient {
        pub client_id: String as "clientID",
        pub producer_group: Option<String>,
        pub consumer_group: Option<String>,
    }
}
