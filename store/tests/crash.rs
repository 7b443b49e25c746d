//! A process that appends is killed again and again; nothing it acknowledged is lost.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use common::{Hands, NOW, block_on, message, queues, records};
use rand::{Rng, SeedableRng, rngs::StdRng};
use store::{Access, All, Batch, Config, Flush, Limits, Store};

const ROUNDS: usize = 24;
const QUEUES: i32 = 40;

fn config(root: &Path) -> Config {
    let flush = if root.ends_with("sync") {
        Flush::Sync
    } else {
        Flush::Async { interval: std::time::Duration::from_millis(20), bytes: 1 << 20 }
    };
    Config {
        segment_bytes: 256 * 1024,
        flush,
        key_items_max: 500,
        maintenance: false,
        ..Config::new(root, Hands::new().clock())
    }
}

/// Runs in a process of its own, started by the test below, until it is killed.
#[test]
#[ignore = "a part of the next test"]
fn appends_until_killed() {
    let Ok(root) = std::env::var("STORE_ROOT").map(PathBuf::from) else { return };
    let seed: u64 = std::env::var("STORE_SEED").unwrap().parse().unwrap();
    let mut random = StdRng::seed_from_u64(seed);
    let store = Store::open(config(&root)).unwrap();
    let checkpoints = Arc::clone(&store);
    std::thread::spawn(move || {
        loop {
            checkpoints.checkpoint().unwrap();
            std::thread::sleep(std::time::Duration::from_millis(3));
        }
    });
    let mut out = std::io::stdout().lock();
    let mut batch = Batch::new();
    let mut number = 0;
    loop {
        if random.random_ratio(1, 200) {
            let deleted = store.delete_topic("brief", NOW).unwrap();
            block_on(store.durable(deleted.end)).unwrap();
            writeln!(out, "deleted brief").unwrap();
        }
        batch.clear();
        let mut bodies = Vec::new();
        for _ in 0..random.random_range(1..20) {
            let topic = if random.random_ratio(1, 10) { "brief" } else { "long" };
            let queue_id = random.random_range(0..QUEUES);
            let body = format!("{seed}-{number}-{}", "x".repeat(random.random_range(0..2000)));
            let key = format!("KEYS\x01{seed}-{number}\x02");
            let queue = store.queue(topic, queue_id).unwrap();
            store.push(&mut batch, queue, &message(body.as_bytes(), &[key.as_bytes()])).unwrap();
            bodies.push((topic, queue_id, number));
            number += 1;
        }
        let appended = store.append(&mut batch, NOW + number).unwrap();
        if config(&root).flush == Flush::Sync {
            block_on(store.durable(appended.end)).unwrap();
        }
        for (stored, (topic, queue_id, number)) in batch.entries().zip(bodies) {
            let offset = stored.queue_offset;
            writeln!(out, "stored {topic} {queue_id} {offset} {seed}-{number}").unwrap();
        }
        out.flush().unwrap();
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    for mode in ["sync", "async"] {
        let mut random = StdRng::seed_from_u64(seed);
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join(mode);
        let mut acknowledged: HashMap<(String, i32, i64), String> = HashMap::new();
        for round in 0..ROUNDS {
            run_and_kill(&root, &mut random, &mut acknowledged);
            let store = Store::open(config(&root)).unwrap();
            check(&store, &acknowledged, &format!("{mode}, round {round}"));
            drop(store);
            if round % 8 == 7 {
                common::assert_derived_from_log(&root, config);
            }
        }
        assert!(acknowledged.len() > 1000, "{} acknowledged", acknowledged.len());
    }
}

fn run_and_kill(
    root: &Path,
    random: &mut StdRng,
    acknowledged: &mut HashMap<(String, i32, i64), String>,
) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "appends_until_killed", "--ignored", "--nocapture", "--test-threads=1"])
        .env("STORE_ROOT", root)
        .env("STORE_SEED", random.random::<u32>().to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut left = random.random_range(1..800);
    let mut killed = false;
    // A line cut by the kill is not an acknowledgement; a whole one is, also if it is read afterwards.
    while let Some(Ok(line)) = lines.next() {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["stored", topic, queue_id, offset, id] if id.contains('-') => {
                let place = (topic.to_string(), queue_id.parse().unwrap(), offset.parse().unwrap());
                acknowledged.insert(place, id.to_string());
                left -= 1;
            }
            ["deleted", "brief"] => acknowledged.retain(|(topic, ..), _| topic != "brief"),
            _ => {}
        }
        if left <= 0 && !killed {
            child.kill().unwrap();
            killed = true;
        }
    }
    child.wait().unwrap();
    assert!(killed, "the child ended by itself");
}

fn check(store: &Store, acknowledged: &HashMap<(String, i32, i64), String>, when: &str) {
    let one = Limits { messages: 1, bytes: 1, scan: 1 };
    for ((topic, queue_id, offset), id) in acknowledged {
        let queue = store.find_queue(topic, *queue_id).unwrap_or_else(|| panic!("{when}: {topic}"));
        // A deletion that was written but not acknowledged may have taken these.
        if topic == "brief" && store.max_offset(queue) <= *offset {
            continue;
        }
        let read = store.read(queue, *offset, one, Access::Blocking, All).unwrap();
        let found = records(&read.slices);
        let (record, _) =
            found.first().unwrap_or_else(|| panic!("{when}: {topic} {offset}: {read:?}"));
        let body = std::str::from_utf8(record.body).unwrap();
        let same = body.rsplit_once('-').is_some_and(|(found, _)| found == id);
        assert!(
            same || topic == "brief",
            "{when}: {topic} {queue_id} {offset}: {id}, not {body:.30}"
        );
    }
    let last: Vec<_> =
        queues(store).into_iter().filter_map(|queue| queue.4.last().copied()).collect();
    for unit in last {
        let bytes = store.message_at(unit.position, Access::Blocking).unwrap().unwrap();
        let (record, _) = protocol::record::Record::decode(&bytes).unwrap();
        let key = protocol::properties::get_str(record.properties, "KEYS");
        let Some(key) = key else { continue };
        let query = store::KeyQuery {
            topic: record.topic,
            key,
            begin_ms: 0,
            end_ms: i64::MAX,
            max: 10,
            kind: store::KeyKind::Any,
        };
        assert_eq!(store.query(&query).unwrap().len(), 1, "{when}: key {key}");
    }
}
