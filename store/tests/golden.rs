//! Files of stock brokers, in `golden/`: read, rebuilt from their log, and written again byte for byte.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;
#[path = "../../protocol/tests/golden/one_line.rs"]
mod one_line;
#[path = "golden/text.rs"]
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use common::config;
use protocol::properties::{self, name};
use protocol::record::{Record, RecordError, key_prefix, sys_flag};
use store::{Checkpoint, Config, KeyKind, KeyQuery, StockIndex, Store};

/// What the recording brokers were configured with.
const UNITS_PER_FILE: u32 = 20;
const INDEX_SLOTS: u32 = 100;

/// The bytes of one `.hex` file, and the size of the whole file they are the head of.
struct Golden {
    bytes: Vec<u8>,
    file_bytes: u64,
}

/// Scene, then the rest of the file name.
fn golden() -> BTreeMap<String, BTreeMap<String, Golden>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut scenes: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        let Some(stem) = path.file_name().unwrap().to_str().unwrap().strip_suffix(".hex") else {
            continue;
        };
        let (scene, rest) = stem.split_once('.').unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let (comments, lines): (Vec<_>, Vec<_>) =
            text.lines().partition(|line| line.starts_with('#'));
        let digits: Vec<_> = lines.iter().flat_map(|line| line.split_whitespace()).collect();
        let bytes: Vec<_> =
            digits.iter().map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect();
        let whole = comments.iter().find_map(|line| line.split_once("of a segment of "));
        let file_bytes = whole
            .map_or(bytes.len() as u64, |(_, size)| size.trim_end_matches('.').parse().unwrap());
        let golden = Golden { bytes, file_bytes };
        scenes.entry(scene.to_string()).or_default().insert(rest.to_string(), golden);
    }
    scenes
}

/// Lays the log of a scene out in a directory.
fn lay_out(scene: &BTreeMap<String, Golden>, root: &Path) -> u64 {
    std::fs::create_dir_all(root.join("commitlog")).unwrap();
    let mut segment_bytes = 0;
    for (rest, golden) in scene {
        if let Some(base) = rest.strip_prefix("commitlog.") {
            let base: u64 = base.parse().unwrap();
            let path = root.join("commitlog").join(format!("{base:020}"));
            std::fs::write(&path, &golden.bytes).unwrap();
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_len(golden.file_bytes).unwrap();
            segment_bytes = golden.file_bytes;
        }
    }
    segment_bytes
}

fn open_scene(scene: &BTreeMap<String, Golden>, root: &Path) -> std::sync::Arc<Store> {
    let segment_bytes = lay_out(scene, root);
    Store::open(Config { segment_bytes, ..config(root) }).unwrap()
}

fn records(scene: &BTreeMap<String, Golden>) -> Vec<Record<'_>> {
    let mut found = Vec::new();
    for (_, golden) in scene.iter().filter(|(rest, _)| rest.starts_with("commitlog.")) {
        let mut rest = &golden.bytes[..];
        loop {
            match Record::decode(rest) {
                Ok((record, size)) => {
                    rest = &rest[size..];
                    found.push(record);
                }
                Err(RecordError::Blank { .. } | RecordError::Magic(0)) => break,
                Err(RecordError::Truncated { have: 0..8, .. }) => break,
                Err(other) => panic!("{other}"),
            }
        }
    }
    found.sort_by_key(|record| record.physical_offset);
    found
}

#[test]
fn every_record_is_read_and_written_again() {
    for (name, scene) in golden() {
        for record in records(&scene) {
            record.check_body().unwrap();
            let mut bytes = Vec::new();
            record.encode_into(&mut bytes).unwrap();
            let original = scene
                .iter()
                .any(|(_, golden)| golden.bytes.windows(bytes.len()).any(|window| window == bytes));
            assert!(original, "{name}: {record:?}");
        }
    }
}

#[test]
fn consume_queues_rebuilt_from_the_log_are_stock_s() {
    for (name, scene) in golden() {
        let dir = tempfile::tempdir().unwrap();
        let store = open_scene(&scene, dir.path());
        let exported = dir.path().join("exported");
        store.export_queues(&exported, UNITS_PER_FILE, |_| false).unwrap();
        let exported = exported.join("consumequeue");
        let mut expected = BTreeSet::new();
        for (rest, golden) in &scene {
            let Some(place) = rest.strip_prefix("consumequeue.") else { continue };
            let [base, queue_id, topic] = place.rsplitn(3, '.').collect::<Vec<_>>()[..] else {
                panic!("{rest}");
            };
            let file = format!("{topic}/{queue_id}/{:020}", base.parse::<u64>().unwrap());
            let ours = std::fs::read(exported.join(&file)).unwrap();
            assert!(ours == golden.bytes, "{name}: {file}");
            let stock = dir.path().join("stock").join(&file);
            std::fs::create_dir_all(stock.parent().unwrap()).unwrap();
            std::fs::write(stock, &golden.bytes).unwrap();
            expected.insert(PathBuf::from(file));
        }
        let comparison = store.verify_against_stock_queues(&dir.path().join("stock")).unwrap();
        assert_eq!((comparison.different, comparison.differences), (0, vec![]), "{name}");
        assert_eq!(files_below(&exported), expected, "{name}");
    }
}

fn files_below(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for topic in std::fs::read_dir(dir).unwrap() {
        for queue in std::fs::read_dir(topic.unwrap().path()).unwrap() {
            for file in std::fs::read_dir(queue.unwrap().path()).unwrap() {
                found.insert(file.unwrap().path().strip_prefix(dir).unwrap().to_path_buf());
            }
        }
    }
    found
}

#[test]
fn stock_s_index_holds_the_keys_we_find() {
    for (name, scene) in golden() {
        let Some(golden) = scene.get("index") else { continue };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        std::fs::write(&path, &golden.bytes).unwrap();
        let index = StockIndex::open(&path, INDEX_SLOTS).unwrap();
        let store = open_scene(&scene, dir.path());
        let mut keys = 0;
        for record in records(&scene) {
            if sys_flag::transaction(record.sys_flag) == sys_flag::TRANSACTION_ROLLBACK {
                continue;
            }
            let unique = properties::get_str(record.properties, name::UNIQ_KEY);
            let words = properties::get_str(record.properties, name::KEYS).unwrap_or_default();
            let tags = properties::get_str(record.properties, name::TAGS);
            let all = unique.map(|key| (key, KeyKind::Unique)).into_iter();
            let all = all.chain(words.split_whitespace().map(|key| (key, KeyKind::Any)));
            for (key, kind) in all.chain(tags.map(|key| (key, KeyKind::Tags))) {
                keys += 1;
                let between = if kind == KeyKind::Tags { "T#" } else { "" };
                let hash = key_prefix(record.topic).with(between.as_bytes()).with(key.as_bytes());
                let hash = hash.for_index();
                let position = record.physical_offset as u64;
                let there = index.find(hash).unwrap();
                let found = there.iter().find(|item| item.position == position);
                let found = found.unwrap_or_else(|| panic!("{name}: {key} at {position}"));
                assert!((0..1000).contains(&(record.store_timestamp - found.store_timestamp)));
                let query = KeyQuery {
                    topic: record.topic,
                    key,
                    begin_ms: record.store_timestamp,
                    end_ms: record.store_timestamp,
                    max: 64,
                    kind,
                };
                let ours = store.query(&query).unwrap();
                let same = |bytes: &bytes::Bytes| Record::decode(bytes).unwrap().0 == record;
                assert!(ours.iter().any(same), "{name}: {key}");
            }
        }
        assert_eq!(index.item_count, keys + 1, "{name}");
    }
}

/// What stock writes for these records: `maxIndexNum=170` items behind a header and the slots.
fn index_of(records: &[Record<'_>]) -> Vec<u8> {
    let mut bytes = vec![0; 40 + 4 * INDEX_SLOTS as usize + 20 * 170];
    let (mut used, mut number) = (0u32, 1u32);
    let mut begin = None;
    let rolled_back = |record: &&Record<'_>| {
        sys_flag::transaction(record.sys_flag) == sys_flag::TRANSACTION_ROLLBACK
    };
    for record in records.iter().filter(|record| !rolled_back(record)) {
        let prefix = key_prefix(record.topic);
        let get = |name| properties::get(record.properties, name);
        let words = get(name::KEYS).unwrap_or_default().split(|byte| *byte == b' ');
        let keys = get(name::UNIQ_KEY).into_iter().chain(words.filter(|key| !key.is_empty()));
        let hashes = keys.map(|key| prefix.with(key));
        for hash in hashes.chain(get(name::TAGS).map(|tags| prefix.with(b"T#").with(tags))) {
            let hash = hash.for_index();
            let (at, stored) = (record.physical_offset, record.store_timestamp);
            let (first_at, first_stored) = *begin.get_or_insert((at, stored));
            let slot = 40 + 4 * (hash % INDEX_SLOTS) as usize;
            let before: [u8; 4] = bytes[slot..slot + 4].try_into().unwrap();
            used += u32::from(before == [0; 4]);
            let seconds = i32::try_from((stored - first_stored) / 1000).unwrap();
            let item = 40 + 4 * INDEX_SLOTS as usize + 20 * number as usize;
            bytes[item..item + 4].copy_from_slice(&hash.to_be_bytes());
            bytes[item + 4..item + 12].copy_from_slice(&at.to_be_bytes());
            bytes[item + 12..item + 16].copy_from_slice(&seconds.to_be_bytes());
            bytes[item + 16..item + 20].copy_from_slice(&before);
            bytes[slot..slot + 4].copy_from_slice(&number.to_be_bytes());
            number += 1;
            for (place, field) in [first_stored, stored, first_at, at].into_iter().enumerate() {
                bytes[8 * place..8 * place + 8].copy_from_slice(&field.to_be_bytes());
            }
        }
    }
    bytes[32..36].copy_from_slice(&used.to_be_bytes());
    bytes[36..40].copy_from_slice(&number.to_be_bytes());
    bytes
}

#[test]
fn an_index_rebuilt_from_the_log_is_stock_s() {
    for (name, scene) in golden() {
        let rebuilt = index_of(&records(&scene));
        let differs = rebuilt.iter().zip(&scene["index"].bytes).position(|(a, b)| a != b);
        assert_eq!((differs, rebuilt.len()), (None, scene["index"].bytes.len()), "{name}");
    }
}

#[test]
fn every_file_says_what_its_text_says() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut texts = BTreeSet::new();
    for (scene, files) in golden() {
        for (rest, golden) in files {
            let name = format!("{scene}.{rest}.txt");
            let said = std::fs::read_to_string(dir.join(&name)).unwrap();
            let kind = rest.split('.').next().unwrap();
            assert_eq!(text::of(kind, &golden.bytes, INDEX_SLOTS), said, "{name}");
            texts.insert(name);
        }
    }
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.into_string().unwrap());
    assert_eq!(texts, names.filter(|name| name.ends_with(".txt")).collect());
}

#[test]
fn checkpoints_are_read() {
    for (name, scene) in golden() {
        let Some(golden) = scene.get("checkpoint") else { continue };
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("checkpoint"), &golden.bytes).unwrap();
        let checkpoint = Checkpoint::read(dir.path()).unwrap().unwrap();
        let newest = records(&scene).last().unwrap().store_timestamp;
        assert_eq!(checkpoint.log_timestamp, newest, "{name}");
    }
}

#[test]
fn a_stock_directory_is_appended_to() {
    for (name, scene) in golden() {
        let dir = tempfile::tempdir().unwrap();
        let before: Vec<_> = records(&scene);
        {
            let store = open_scene(&scene, dir.path());
            let last = before.last().unwrap();
            let queue = store.queue(last.topic, last.queue_id).unwrap();
            let next = store.max_offset(queue);
            assert_eq!(common::send(&store, last.topic, last.queue_id, b"ours"), next, "{name}");
            assert!(store.close().is_ok());
        }
        let segment_bytes = scene.values().map(|golden| golden.file_bytes).max().unwrap();
        let store = Store::open(Config { segment_bytes, ..config(dir.path()) }).unwrap();
        for record in &before {
            let position = record.physical_offset as u64;
            let bytes = store.message_at(position, store::Access::Blocking).unwrap().unwrap();
            assert_eq!(&Record::decode(&bytes).unwrap().0, record, "{name}");
        }
    }
}
