//! Answers to the curious.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::SubscriptionData;

/// A stretch of a consume queue (321).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueryConsumeQueueResponseBody {
    pub filter_data: Option<String>,
    pub max_queue_index: i64,
    pub min_queue_index: i64,
    pub queue_data: Option<Vec<ConsumeQueueData>>,
    pub subscription_data: Option<SubscriptionData>,
}

/// One entry of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeQueueData {
    pub bit_map: Option<String>,
    pub eval: bool,
    pub extend_data_json: Option<String>,
    pub msg: Option<String>,
    pub physic_offset: i64,
    pub physic_size: i32,
    pub tags_code: i64,
}

/// Which groups have consumed a message.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeByWho {
    pub consumed_group: BTreeSet<String>,
    pub not_consumed_group: BTreeSet<String>,
    pub offset: i64,
    pub queue_id: i32,
    pub topic: Option<String>,
}
