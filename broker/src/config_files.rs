//! The state as RocketMQ's files `config/*.json`: written when it has changed, read at the start.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use protocol::body::{
    ConsumerOffsetFile, DataVersion, DelayOffsetFile, SubscriptionGroupWrapper,
    TopicConfigSerializeWrapper,
};
use protocol::json::{self, Dialect};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::warn;

use crate::broker::Broker;

const TOPICS: &str = "topics.json";
const GROUPS: &str = "subscriptionGroup.json";
const OFFSETS: &str = "consumerOffset.json";
const DELAYS: &str = "delayOffset.json";

/// What the files said at the start.
#[derive(Debug, Default)]
pub struct Found {
    pub topics: TopicConfigSerializeWrapper,
    pub groups: SubscriptionGroupWrapper,
    pub offsets: ConsumerOffsetFile,
    pub delays: DelayOffsetFile,
}

/// Reads what is there; a damaged file is passed over for its backup, and said so.
pub fn read(root: &Path) -> Found {
    let folder = root.join("config");
    Found {
        topics: read_file(&folder.join(TOPICS)),
        groups: read_file(&folder.join(GROUPS)),
        offsets: read_file(&folder.join(OFFSETS)),
        delays: read_file(&folder.join(DELAYS)),
    }
}

fn read_file<T: DeserializeOwned + Default>(path: &Path) -> T {
    for path in [path.to_owned(), backup(path)] {
        match std::fs::read(&path) {
            Err(_) => {}
            Ok(text) if text.is_empty() => {}
            Ok(text) => match json::read(&text) {
                Ok(value) => return value,
                Err(error) => {
                    warn!(path = %path.display(), %error, "passing over a damaged file");
                    keep_damaged(&path);
                }
            },
        }
    }
    T::default()
}

/// Both the file and its backup will be written anew; somebody may want to look at this one.
fn keep_damaged(path: &Path) {
    let mut name = path.as_os_str().to_owned();
    name.push(".damaged");
    if let Err(error) = std::fs::copy(path, &name) {
        warn!(path = %path.display(), %error, "cannot keep a copy of a damaged file");
    }
}

fn backup(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".bak");
    name.into()
}

/// Writes the files whose content has changed since it was last written.
#[derive(Debug, Default)]
pub struct Writer {
    topics: Option<DataVersion>,
    groups: Option<DataVersion>,
    offsets: (ConsumerOffsetFile, bool),
    delays: (DelayOffsetFile, bool),
}

impl Writer {
    /// Topics and groups; called often, writes seldom.
    pub fn write_tables(&mut self, broker: &Broker, root: &Path) -> std::io::Result<()> {
        let folder = root.join("config");
        let version = broker.topics.version();
        if self.topics != Some(version) {
            write_json(&folder.join(TOPICS), &topics_file(broker))?;
            self.topics = Some(version);
        }
        let version = broker.groups.version();
        if self.groups != Some(version) {
            write_json(&folder.join(GROUPS), &groups_file(broker))?;
            self.groups = Some(version);
        }
        Ok(())
    }

    /// Offsets of groups and delay levels.
    pub fn write_offsets(
        &mut self,
        broker: &Broker,
        root: &Path,
        now_ms: i64,
    ) -> std::io::Result<()> {
        let folder = root.join("config");
        let offset_table = broker.offsets.all();
        let (last, written) = &mut self.offsets;
        if !*written || last.offset_table != offset_table {
            last.offset_table = offset_table;
            last.data_version.next_version(0, now_ms);
            write_json(&folder.join(OFFSETS), last)?;
            *written = true;
        }
        let offset_table: BTreeMap<i32, i64> = broker.delayed.lock().clone();
        let (last, written) = &mut self.delays;
        if !*written || last.offset_table != offset_table {
            last.offset_table = offset_table;
            last.data_version.next_version(0, now_ms);
            write_json(&folder.join(DELAYS), last)?;
            *written = true;
        }
        Ok(())
    }
}

pub fn topics_file(broker: &Broker) -> TopicConfigSerializeWrapper {
    let topics = broker.topics.all();
    let table = topics.iter().map(|topic| (topic.name.to_string(), topic.config.clone())).collect();
    TopicConfigSerializeWrapper { data_version: broker.topics.version(), topic_config_table: table }
}

pub fn groups_file(broker: &Broker) -> SubscriptionGroupWrapper {
    let groups = broker.groups.all();
    SubscriptionGroupWrapper {
        data_version: broker.groups.version(),
        forbidden_table: broker.groups.all_forbidden(),
        subscription_group_table: groups
            .iter()
            .map(|group| (group.group_name.clone(), group.as_ref().clone()))
            .collect(),
    }
}

fn write_json(path: &Path, value: &impl Serialize) -> std::io::Result<()> {
    // The file before becomes the backup, as the stock broker keeps one.
    if path.exists() {
        std::fs::rename(path, backup(path))?;
    }
    write_atomically(path, &json::write(value, Dialect::Standard))
}

/// A reader of `path` sees the old bytes or the new ones, also after a crash.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().ok_or(std::io::ErrorKind::InvalidInput)?;
    std::fs::create_dir_all(folder)?;
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = PathBuf::from(name);
    let mut file = std::fs::File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    std::fs::rename(&temporary, path)?;
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_passed_over_for_its_backup_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(DELAYS);
        std::fs::write(&path, "{oh").unwrap();
        std::fs::write(backup(&path), r#"{"offsetTable":{1:5}}"#).unwrap();
        let found: DelayOffsetFile = read_file(&path);
        assert_eq!(found.offset_table, BTreeMap::from([(1, 5)]));
        let kept = std::fs::read(dir.path().join("delayOffset.json.damaged")).unwrap();
        assert_eq!(kept, b"{oh");
    }
}
