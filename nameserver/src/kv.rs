//! Key-value configuration by namespace, kept in `kvConfig.json`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{fs, io};

use parking_lot::Mutex;
use protocol::body::KVConfigFile;
use protocol::json::{self, Dialect, JsonError};

use crate::durable;

/// Keys and values of all namespaces together.
pub(crate) const KV_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The namespace of which topics are ordered, and over which queues.
pub(crate) const ORDER_TOPIC_CONFIG: &str = "ORDER_TOPIC_CONFIG";

type Namespace = BTreeMap<String, String>;

#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    tables: Mutex<KVConfigFile>,
    /// Held while the file is written, so that an older state never replaces a newer one.
    writing: Mutex<()>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("cannot read {path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error("{path} is damaged: {error}")]
    Damaged { path: PathBuf, error: JsonError },
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum NotKept {
    #[error("a nameserver keeps at most {KV_BYTES_MAX} bytes of configuration")]
    Full,
    #[error("the configuration is changed, but cannot be kept in {path}: {error}")]
    Io { path: PathBuf, error: io::Error },
}

impl Store {
    /// Opens what `path` holds; nothing if there is no such file.
    pub(crate) fn open(path: PathBuf) -> Result<Self, Unreadable> {
        let tables = match fs::read(&path) {
            Ok(bytes) => json::read(&bytes)
                .map_err(|error| Unreadable::Damaged { path: path.clone(), error })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => KVConfigFile::default(),
            Err(error) => return Err(Unreadable::Io { path, error }),
        };
        Ok(Self { path, tables: Mutex::new(tables), writing: Mutex::new(()) })
    }

    pub(crate) fn get(&self, namespace: &str, key: &str) -> Option<String> {
        self.tables.lock().config_table.get(namespace)?.get(key).cloned()
    }

    pub(crate) fn list(&self, namespace: &str) -> Option<Namespace> {
        self.tables.lock().config_table.get(namespace).cloned()
    }

    /// Returns once the value is on disk.
    pub(crate) fn put(&self, namespace: &str, key: &str, value: &str) -> Result<(), NotKept> {
        {
            let tables = &mut self.tables.lock().config_table;
            if bytes(tables) + namespace.len() + key.len() + value.len() > KV_BYTES_MAX {
                return Err(NotKept::Full);
            }
            let namespace = tables.entry(namespace.to_owned()).or_default();
            namespace.insert(key.to_owned(), value.to_owned());
        }
        self.keep()
    }

    /// Returns once the value is gone from the disk too.
    pub(crate) fn delete(&self, namespace: &str, key: &str) -> Result<(), NotKept> {
        let known = |tables: &mut KVConfigFile| tables.config_table.get_mut(namespace)?.remove(key);
        if known(&mut self.tables.lock()).is_none() {
            return Ok(());
        }
        self.keep()
    }

    fn keep(&self) -> Result<(), NotKept> {
        let _writing = self.writing.lock();
        let text = json::write(&*self.tables.lock(), Dialect::Fastjson);
        durable::replace(&self.path, &text)
            .map_err(|error| NotKept::Io { path: self.path.clone(), error })
    }
}

fn bytes(tables: &BTreeMap<String, Namespace>) -> usize {
    let namespace = |(name, table): (&String, &Namespace)| {
        name.len() + table.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()
    };
    tables.iter().map(namespace).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_there_after_a_restart_and_what_was_deleted_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("namesrv/kvConfig.json");
        let store = Store::open(path.clone()).unwrap();
        store.put("A", "1", "x\"ä\n").unwrap();
        store.put("A", "2", "y").unwrap();
        store.put("B", "1", "").unwrap();
        store.delete("A", "2").unwrap();
        store.delete("nowhere", "2").unwrap();
        let again = Store::open(path.clone()).unwrap();
        assert_eq!(again.get("A", "1").as_deref(), Some("x\"ä\n"));
        assert_eq!(again.get("A", "2"), None);
        assert_eq!(again.list("B").unwrap()["1"], "");
        assert_eq!(again.list("C"), None);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_file_is_reported_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kvConfig.json");
        fs::write(&path, "{\"configTable\":{").unwrap();
        let error = Store::open(path.clone()).unwrap_err().to_string();
        assert!(error.contains("is damaged"), "{error}");
        assert_eq!(fs::read_to_string(path).unwrap(), "{\"configTable\":{");
    }

    #[test]
    fn more_than_the_limit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("kvConfig.json")).unwrap();
        let value = "v".repeat(KV_BYTES_MAX / 2);
        store.put("A", "1", &value).unwrap();
        assert!(matches!(store.put("A", "2", &value), Err(NotKept::Full)));
        assert_eq!(store.get("A", "2"), None);
    }
}
