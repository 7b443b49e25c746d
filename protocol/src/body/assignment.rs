//! Queues shared out by the broker, and whether a group pulls or pops.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{MessageModel, MessageQueue};

/// Which queues a client shall work on (400).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueryAssignmentRequestBody {
    pub client_id: String,
    pub consumer_group: String,
    pub message_model: MessageModel,
    pub strategy_name: String,
    pub topic: String,
}

/// These.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueryAssignmentResponseBody {
    /// Nothing, other than none, means that it cannot be told.
    pub message_queue_assignments: Option<Vec<MessageQueueAssignment>>,
}

/// One queue and how to read it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MessageQueueAssignment {
    pub attachments: Option<BTreeMap<String, String>>,
    pub message_queue: Option<MessageQueue>,
    pub mode: MessageRequestMode,
}

/// Sets how a group reads a topic (401); also the entries of `messageRequestMode.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SetMessageRequestModeRequestBody {
    pub consumer_group: String,
    pub mode: MessageRequestMode,
    pub pop_share_queue_num: i32,
    pub topic: String,
}

/// The order is Java's: ordinals count in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MessageRequestMode {
    #[default]
    Pull,
    Pop,
}
