//! The state as RocketMQ's files `config/*.json`: written when it has changed, read at the start.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use protocol::body::{
    ConsumerOffsetFile, DataVersion, DelayOffsetFile, MessageRequestModeFile,
    SubscriptionGroupWrapper, TopicConfigSerializeWrapper,
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
const MODES: &str = "messageRequestMode.json";

/// Checksums of the files as we wrote them, the last and the one before: whatever else is there, somebody
/// else has written, a stock broker that ran on the directory in between.
const OURS: &str = "ferromq.files";

/// What the files said at the start.
#[derive(Debug, Default)]
pub struct Found {
    pub topics: Read<TopicConfigSerializeWrapper>,
    pub groups: Read<SubscriptionGroupWrapper>,
    pub offsets: Read<ConsumerOffsetFile>,
    pub delays: Read<DelayOffsetFile>,
    pub modes: Read<MessageRequestModeFile>,
}

/// What one file said.
#[derive(Debug, Default)]
pub struct Read<T> {
    pub value: T,
    /// It is not as we left it: what it says is newer than what our log says.
    pub foreign: bool,
}

/// Checksums by file name, newest last.
#[derive(Debug, Default)]
struct Sums(BTreeMap<String, Vec<u32>>);

impl Sums {
    const KEPT: usize = 2;

    /// `None` where we have never written.
    fn read(folder: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(folder.join(OURS)).ok()?;
        let mut sums = Self::default();
        for (name, sum) in text.lines().filter_map(|line| line.split_once(' ')) {
            let sum = u32::from_str_radix(sum, 16).ok()?;
            sums.0.entry(name.to_owned()).or_default().push(sum);
        }
        Some(sums)
    }

    fn add(&mut self, name: &str, bytes: &[u8]) {
        let of_file = self.0.entry(name.to_owned()).or_default();
        of_file.push(crc32fast::hash(bytes));
        let surplus = of_file.len().saturating_sub(Self::KEPT);
        of_file.drain(..surplus);
    }

    fn write(&self, folder: &Path) -> std::io::Result<()> {
        let mut text = String::new();
        for (name, sums) in &self.0 {
            for sum in sums {
                text.push_str(&format!("{name} {sum:08x}\n"));
            }
        }
        write_atomically(&folder.join(OURS), text.as_bytes())
    }

    fn knows(&self, name: &str, bytes: &[u8]) -> bool {
        self.0.get(name).is_some_and(|sums| sums.contains(&crc32fast::hash(bytes)))
    }
}

/// Reads what is there; a damaged file is passed over for its backup, and said so.
pub fn read(root: &Path) -> Found {
    let folder = root.join("config");
    let ours = Sums::read(&folder);
    Found {
        topics: read_file(&folder, TOPICS, ours.as_ref()),
        groups: read_file(&folder, GROUPS, ours.as_ref()),
        offsets: read_file(&folder, OFFSETS, ours.as_ref()),
        delays: read_file(&folder, DELAYS, ours.as_ref()),
        modes: read_file(&folder, MODES, ours.as_ref()),
    }
}

fn read_file<T: DeserializeOwned + Default>(
    folder: &Path,
    name: &str,
    ours: Option<&Sums>,
) -> Read<T> {
    let path = folder.join(name);
    for path in [path.clone(), backup(&path)] {
        match std::fs::read(&path) {
            Err(_) => {}
            Ok(text) if text.is_empty() => {}
            Ok(text) => match json::read(&text) {
                Ok(value) => {
                    let foreign = ours.is_some_and(|ours| !ours.knows(name, &text));
                    return Read { value, foreign };
                }
                Err(error) => {
                    warn!(path = %path.display(), %error, "passing over a damaged file");
                    keep_damaged(&path);
                }
            },
        }
    }
    Read::default()
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
    modes: Option<MessageRequestModeFile>,
    sums: Sums,
}

impl Writer {
    /// Topics and groups; called often, writes seldom.
    pub fn write_tables(&mut self, broker: &Broker, root: &Path) -> std::io::Result<()> {
        let folder = root.join("config");
        let version = broker.topics.version();
        if self.topics != Some(version) {
            self.sums.write_json(&folder, TOPICS, &topics_file(broker))?;
            self.topics = Some(version);
        }
        let version = broker.groups.version();
        if self.groups != Some(version) {
            self.sums.write_json(&folder, GROUPS, &groups_file(broker))?;
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
            self.sums.write_json(&folder, OFFSETS, last)?;
            *written = true;
        }
        let offset_table: BTreeMap<i32, i64> = broker.delayed.lock().clone();
        let (last, written) = &mut self.delays;
        if !*written || last.offset_table != offset_table {
            last.offset_table = offset_table;
            last.data_version.next_version(0, now_ms);
            self.sums.write_json(&folder, DELAYS, last)?;
            *written = true;
        }
        let modes = broker.modes.file();
        if self.modes.as_ref() != Some(&modes) {
            self.sums.write_json(&folder, MODES, &modes)?;
            self.modes = Some(modes);
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

impl Sums {
    fn write_json(
        &mut self,
        folder: &Path,
        name: &str,
        value: &impl Serialize,
    ) -> std::io::Result<()> {
        let bytes = json::write(value, Dialect::Standard);
        if self.0.is_empty() {
            *self = Self::read(folder).unwrap_or_default();
        }
        // First the checksum: the file is known as ours whichever of its states a crash leaves.
        self.add(name, &bytes);
        self.write(folder)?;
        let path = folder.join(name);
        // The file before becomes the backup, as the stock broker keeps one.
        if path.exists() {
            std::fs::rename(&path, backup(&path))?;
        }
        write_atomically(&path, &bytes)
    }
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
        let found: Read<DelayOffsetFile> = read_file(dir.path(), DELAYS, None);
        assert_eq!(found.value.offset_table, BTreeMap::from([(1, 5)]));
        let kept = std::fs::read(dir.path().join("delayOffset.json.damaged")).unwrap();
        assert_eq!(kept, b"{oh");
    }

    #[test]
    fn a_file_that_somebody_else_wrote_is_foreign() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        let mut sums = Sums::default();
        let mut file = DelayOffsetFile::default();
        let foreign = || {
            let found: Read<DelayOffsetFile> =
                read_file(folder, DELAYS, Sums::read(folder).as_ref());
            found.foreign
        };
        for offset in 1..5 {
            file.offset_table.insert(1, offset);
            sums.write_json(folder, DELAYS, &file).unwrap();
            assert!(!foreign());
        }
        // The new one never got into its place.
        std::fs::rename(folder.join(DELAYS), backup(&folder.join(DELAYS))).unwrap();
        assert!(!foreign());
        std::fs::write(folder.join(DELAYS), r#"{"offsetTable":{1:3}}"#).unwrap();
        assert!(foreign());
        // Where we have never been, there is nothing it could be newer than.
        std::fs::remove_file(folder.join(OURS)).unwrap();
        assert!(!foreign());
    }
}
