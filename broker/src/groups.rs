//! Which consumer groups this broker knows, and what they may do.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use protocol::body::{DataVersion, SubscriptionGroupConfig};

/// Groups a broker may have.
pub const GROUPS_MAX: usize = 1_000_000;
/// The bit of "may not read" in a forbidden entry.
pub const FORBIDDEN_READ: i32 = 1 << 2;

/// All groups of this broker.
#[derive(Debug, Default)]
pub struct Groups {
    by_name: RwLock<HashMap<Arc<str>, Arc<SubscriptionGroupConfig>>>,
    forbidden: RwLock<BTreeMap<String, BTreeMap<String, i32>>>,
    version: Mutex<DataVersion>,
}

impl Groups {
    pub fn get(&self, name: &str) -> Option<Arc<SubscriptionGroupConfig>> {
        self.by_name.read().get(name).cloned()
    }

    pub fn all(&self) -> Vec<Arc<SubscriptionGroupConfig>> {
        self.by_name.read().values().cloned().collect()
    }

    pub fn len(&self) -> usize {
        self.by_name.read().len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_name.read().is_empty()
    }

    pub fn version(&self) -> DataVersion {
        *self.version.lock()
    }

    pub fn set_version(&self, version: DataVersion) {
        *self.version.lock() = version;
    }

    pub fn insert(&self, config: SubscriptionGroupConfig, now_ms: i64) {
        let name: Arc<str> = config.group_name.as_str().into();
        self.by_name.write().insert(name, Arc::new(config));
        self.version.lock().next_version(0, now_ms);
    }

    pub fn remove(&self, name: &str, now_ms: i64) {
        if self.by_name.write().remove(name).is_some() {
            self.forbidden.write().remove(name);
            self.version.lock().next_version(0, now_ms);
        }
    }

    pub fn forbidden(&self, group: &str, topic: &str) -> i32 {
        self.forbidden.read().get(group).and_then(|topics| topics.get(topic)).copied().unwrap_or(0)
    }

    pub fn all_forbidden(&self) -> BTreeMap<String, BTreeMap<String, i32>> {
        self.forbidden.read().clone()
    }

    pub fn set_forbidden(&self, group: &str, topic: &str, bits: i32, now_ms: i64) {
        let mut forbidden = self.forbidden.write();
        if bits == 0 {
            if let Some(topics) = forbidden.get_mut(group) {
                topics.remove(topic);
            }
        } else {
            forbidden.entry(group.to_owned()).or_default().insert(topic.to_owned(), bits);
        }
        self.version.lock().next_version(0, now_ms);
    }
}
