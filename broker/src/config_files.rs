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
const FILES: [&str; 5] = [TOPICS, GROUPS, OFFSETS, DELAYS, MODES];

/// Checksums of the files as we left them, and of their backups: whatever else is there, somebody else has
/// written, a stock broker that ran on the directory in between.
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

impl Found {
    /// Whether any of it is newer than our log.
    pub fn is_foreign(&self) -> bool {
        let Self { topics, groups, offsets, delays, modes } = self;
        topics.foreign || groups.foreign || offsets.foreign || delays.foreign || modes.foreign
    }
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

    /// Of everything that is there, whoever wrote it.
    fn of_all(folder: &Path) -> std::io::Result<Self> {
        let mut sums = Self::default();
        for name in FILES {
            let there = sums_there(&folder.join(name))?;
            if !there.is_empty() {
                sums.0.insert(name.to_owned(), there);
            }
        }
        Ok(sums)
    }

    /// Adds what comes next. What is there stays known for as long as it is, however often this fails.
    fn add(&mut self, folder: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
        let there = sums_there(&folder.join(name))?;
        let next = crc32fast::hash(bytes);
        let of_file = self.0.entry(name.to_owned()).or_default();
        of_file.retain(|sum| *sum != next && there.contains(sum));
        of_file.push(next);
        Ok(())
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

/// The checksums of a file and of its backup, as far as they are there.
fn sums_there(path: &Path) -> std::io::Result<Vec<u32>> {
    let mut sums = Vec::new();
    for path in [&backup(path), path] {
        match std::fs::read(path) {
            Ok(bytes) => sums.push(crc32fast::hash(&bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sums)
}

/// What the files say is in the log now, so that from here on the log is newer.
pub fn adopt(root: &Path) -> std::io::Result<()> {
    let folder = root.join("config");
    Sums::of_all(&folder)?.write(&folder)
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
    for (path, is_backup) in [(path.clone(), false), (backup(&path), true)] {
        match std::fs::read(&path) {
            Err(_) => {}
            Ok(text) if text.is_empty() => {}
            Ok(text) => match json::read(&text) {
                Ok(value) => {
                    // A backup is older than something, and never a reason to give up what the log says.
                    let unknown = ours.is_some_and(|ours| !ours.knows(name, &text));
                    return Read { value, foreign: unknown && !is_backup };
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
            // Where we write for the first time, what a stock broker left is what our log builds upon.
            *self = Self::read(folder).map_or_else(|| Self::of_all(folder), Ok)?;
        }
        let path = folder.join(name);
        // What needs room comes first: if there is none, nothing has changed.
        let written = write_beside(&path, &bytes)?;
        // Then the checksum: the file is known as ours whichever of its states a crash leaves.
        self.add(folder, name, &bytes)?;
        self.write(folder)?;
        // The file before becomes the backup, as the stock broker keeps one.
        if path.exists() {
            std::fs::rename(&path, backup(&path))?;
        }
        put_in_place(&written, &path)
    }
}

/// A reader of `path` sees the old bytes or the new ones, also after a crash.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let written = write_beside(path, bytes)?;
    put_in_place(&written, path)
}

/// Writes the bytes, durably, to a file that nobody reads.
fn write_beside(path: &Path, bytes: &[u8]) -> std::io::Result<PathBuf> {
    let folder = path.parent().ok_or(std::io::ErrorKind::InvalidInput)?;
    std::fs::create_dir_all(folder)?;
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = PathBuf::from(name);
    let mut file = std::fs::File::create(&temporary)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_data());
    if let Err(error) = written {
        // Half a file would only take up room where there is none.
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    Ok(temporary)
}

fn put_in_place(temporary: &Path, path: &Path) -> std::io::Result<()> {
    std::fs::rename(temporary, path)?;
    let folder = path.parent().ok_or(std::io::ErrorKind::InvalidInput)?;
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

    fn delays(offset: i64) -> DelayOffsetFile {
        let offset_table = BTreeMap::from([(1, offset)]);
        DelayOffsetFile { offset_table, ..DelayOffsetFile::default() }
    }

    fn found(folder: &Path) -> Read<DelayOffsetFile> {
        read_file(folder, DELAYS, Sums::read(folder).as_ref())
    }

    #[test]
    fn a_file_that_somebody_else_wrote_is_foreign() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        let mut sums = Sums::default();
        for offset in 1..5 {
            sums.write_json(folder, DELAYS, &delays(offset)).unwrap();
            assert!(!found(folder).foreign);
        }
        // The new one never got into its place.
        std::fs::rename(folder.join(DELAYS), backup(&folder.join(DELAYS))).unwrap();
        assert!(!found(folder).foreign);
        std::fs::write(folder.join(DELAYS), r#"{"offsetTable":{1:3}}"#).unwrap();
        assert!(found(folder).foreign);
        // Where we have never been, there is nothing it could be newer than.
        std::fs::remove_file(folder.join(OURS)).unwrap();
        assert!(!found(folder).foreign);
    }

    #[test]
    fn a_file_that_could_not_be_written_leaves_the_one_before_known_as_ours() {
        // The large file finds no room, or it cannot get into its place.
        for blocked in [format!("{DELAYS}.tmp"), format!("{DELAYS}.bak")] {
            let dir = tempfile::tempdir().unwrap();
            let folder = dir.path();
            let mut sums = Sums::default();
            sums.write_json(folder, DELAYS, &delays(1)).unwrap();
            let blocked = folder.join(blocked);
            std::fs::create_dir_all(blocked.join("something")).unwrap();
            for offset in [2, 3, 3, 4, 5] {
                assert!(sums.write_json(folder, DELAYS, &delays(offset)).is_err());
                let Read { value, foreign } = found(folder);
                assert_eq!((value, foreign), (delays(1), false), "{}", blocked.display());
            }
            std::fs::remove_dir_all(&blocked).unwrap();
            // As after a restart.
            let mut sums = Sums::default();
            for offset in [6, 7, 7] {
                sums.write_json(folder, DELAYS, &delays(offset)).unwrap();
                let Read { value, foreign } = found(folder);
                assert_eq!((value, foreign), (delays(offset), false));
                assert!(sums.0[DELAYS].len() <= 3, "{sums:?}");
            }
        }
    }

    #[test]
    fn a_backup_that_nobody_knows_is_not_foreign() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        Sums::default().write_json(folder, DELAYS, &delays(1)).unwrap();
        std::fs::remove_file(folder.join(DELAYS)).unwrap();
        std::fs::write(backup(&folder.join(DELAYS)), r#"{"offsetTable":{1:9}}"#).unwrap();
        let Read { value, foreign } = found(folder);
        assert_eq!((value, foreign), (delays(9), false));
    }

    #[test]
    fn what_was_taken_over_is_not_foreign_a_second_time() {
        let dir = tempfile::tempdir().unwrap();
        let folder = &dir.path().join("config");
        std::fs::create_dir(folder).unwrap();
        // A stock broker was here before us, and we were gone before we had written every file.
        std::fs::write(folder.join(DELAYS), r#"{"offsetTable":{1:3}}"#).unwrap();
        Sums::default().write_json(folder, MODES, &MessageRequestModeFile::default()).unwrap();
        assert!(!found(folder).foreign);
        // And it was here again.
        std::fs::write(folder.join(DELAYS), r#"{"offsetTable":{1:4}}"#).unwrap();
        assert!(found(folder).foreign);
        adopt(dir.path()).unwrap();
        assert!(!found(folder).foreign);
    }
}
