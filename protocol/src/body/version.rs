//! Which state of a table one has.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

/// Counts the changes of a table that brokers, nameservers and replicas compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DataVersion {
    pub counter: i64,
    /// The controller's epoch of the writer, 0 without a controller.
    pub state_version: i64,
    pub timestamp: i64,
}

impl DataVersion {
    /// Marks a change made at `now_millis` under the epoch `state_version`.
    pub fn next_version(&mut self, state_version: i64, now_millis: i64) {
        self.counter += 1;
        self.state_version = state_version;
        self.timestamp = now_millis;
    }
}

impl Ord for DataVersion {
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |it: &Self| (it.state_version, it.counter, it.timestamp);
        rank(self).cmp(&rank(other))
    }
}

impl PartialOrd for DataVersion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
