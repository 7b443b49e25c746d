//! What a crash or a bad disk leaves behind is cut, refused or rebuilt, never believed.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::{NOW, assert_derived_from_log, bodies, config, message, open, read, send, send_at};
use rand::{Rng, SeedableRng, rngs::StdRng};
use store::{Access, AppendError, Batch, Config, OpenError, Room, Status, Store};

fn log_file(root: &Path, base: u64) -> PathBuf {
    root.join("commitlog").join(format!("{base:020}"))
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

/// Three messages, the place of the last, and a crash without a checkpoint.
fn three_messages(root: &Path) -> (u64, u64) {
    let store = open(root);
    send(&store, "t", 0, b"first");
    send(&store, "t", 0, b"second");
    let (_, last) = send_at(&store, "t", 0, b"third", NOW);
    (last.start, last.end)
}

#[test]
fn a_torn_tail_is_cut_at_the_last_whole_message() {
    let whole = tempfile::tempdir().unwrap();
    let (start, end) = three_messages(whole.path());
    let bytes = std::fs::read(log_file(whole.path(), 0)).unwrap();
    for kept in start..end {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("commitlog")).unwrap();
        let mut torn = bytes.clone();
        torn[kept as usize..].fill(0);
        std::fs::write(log_file(dir.path(), 0), &torn).unwrap();
        let store = open(dir.path());
        // The record ends with two zero bytes for its missing properties.
        let expected: &[&str] =
            if kept + 2 >= end { &["first", "second", "third"] } else { &["first", "second"] };
        assert_eq!(bodies(&store, "t", 0, 0), expected, "{kept}");
        assert_eq!(send(&store, "t", 0, b"next"), expected.len() as i64);
        drop(store);
        assert_eq!(bodies(&open(dir.path()), "t", 0, 0).last().unwrap(), "next");
    }
}

#[test]
fn what_follows_a_damaged_message_is_cut_for_good() {
    for (what, at, bytes) in [
        ("body", 91 - 2, &b"X"[..]),
        ("size", 0, &[0x7F, 0xFF, 0xFF, 0xFF]),
        ("size", 0, &[0, 0, 0, 92]),
        ("magic", 4, &[1, 2, 3, 4]),
        ("position", 28, &[0, 0, 0, 0, 0, 0, 0, 1]),
        ("body length", 84, &[0x7F, 0xFF, 0xFF, 0xFF]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        three_messages(dir.path());
        let size_of_first = 91 + 1 + 5;
        overwrite(&log_file(dir.path(), 0), size_of_first + at, bytes);
        std::fs::remove_dir_all(dir.path().join("ferromq")).unwrap();
        let store = open(dir.path());
        assert_eq!(bodies(&store, "t", 0, 0), ["first"], "{what}");
        // What was cut is kept for people, as it was found.
        let cut = dir.path().join(format!("commitlog.cut/{size_of_first:020}"));
        let kept = std::fs::read(cut).unwrap();
        assert_eq!(kept[at as usize..][..bytes.len()], *bytes, "{what}");
        assert!(kept.windows(5).any(|part| part == b"third"), "{what}");
        // The record that followed must not come back behind one of the same size.
        assert_eq!(send(&store, "t", 0, b"SECOND"), 1);
        drop(store);
        assert_eq!(bodies(&open(dir.path()), "t", 0, 0), ["first", "SECOND"], "{what}");
    }
}

#[test]
fn files_behind_a_damaged_message_are_put_aside_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for number in 0..40 {
        send(&store, "t", 0, format!("{number}-{}", "x".repeat(7_000)).as_bytes());
    }
    drop(store);
    let list = |folder: &str| {
        let entries = std::fs::read_dir(dir.path().join(folder)).into_iter().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = list("commitlog");
    overwrite(&log_file(dir.path(), 0), 91, b"X");
    std::fs::remove_dir_all(dir.path().join("ferromq")).unwrap();
    let store = open(dir.path());
    assert_eq!(bodies(&store, "t", 0, 0), [] as [&str; 0]);
    assert_eq!(list("commitlog.cut")[..4], before[..4], "the rest of the first, and the others");
    assert_eq!(send(&store, "t", 0, b"next"), 0);
    drop(store);
    // Nothing is put aside where nothing was damaged.
    let kept = list("commitlog.cut");
    assert_eq!(bodies(&open(dir.path()), "t", 0, 0), ["next"]);
    assert_eq!(list("commitlog.cut"), kept);
}

#[test]
fn files_are_rolled_with_a_blank_and_walked_over_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut sent = Vec::new();
    let store = open(dir.path());
    for number in 0..40 {
        let body = format!("{number}-{}", "x".repeat(7_000 + 13 * number));
        send(&store, "t", 0, body.as_bytes());
        sent.push(body);
    }
    drop(store);
    let files = std::fs::read_dir(dir.path().join("commitlog")).unwrap().count();
    assert!(files >= 5);
    assert_eq!(bodies(&open(dir.path()), "t", 0, 0), sent);
    assert_derived_from_log(dir.path(), config);
}

#[test]
fn a_file_is_filled_to_its_last_byte_but_for_the_blank() {
    // Every length around the end of a file, so that the blank has each size from 8 on.
    for spare in 0..20usize {
        let dir = tempfile::tempdir().unwrap();
        let config = |root: &Path| Config { segment_bytes: 4096, ..config(root) };
        let store = Store::open(config(dir.path())).unwrap();
        let body = vec![b'x'; 4096 - 92 - spare];
        let queue = store.queue("t", 0).unwrap();
        let mut batch = Batch::new();
        let fits = store.push(&mut batch, queue, &message(&body, &[])).is_ok();
        assert_eq!(fits, spare >= 8, "{spare} bytes are left");
        if fits {
            store.append(&mut batch, NOW).unwrap();
            send(&store, "t", 0, b"next");
            drop(store);
            let store = Store::open(config(dir.path())).unwrap();
            assert_eq!(bodies(&store, "t", 0, 1), ["next"]);
            assert_eq!(read(&store, "t", 0, 1).entries[0].position, 4096);
        }
    }
}

#[test]
fn a_log_that_lost_its_end_is_not_opened_silently() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for _ in 0..30 {
        send(&store, "t", 0, &[b'x'; 10_000]);
    }
    store.close().unwrap();
    drop(store);
    let mut bases: Vec<_> = std::fs::read_dir(dir.path().join("commitlog"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    bases.sort();
    std::fs::remove_file(bases.last().unwrap()).unwrap();
    let error = Store::open(config(dir.path())).unwrap_err();
    assert!(matches!(error, OpenError::LogTooShort { .. }), "{error}");
    std::fs::remove_file(&bases[1]).unwrap();
    let error = Store::open(config(dir.path())).unwrap_err();
    assert!(matches!(error, OpenError::NotALog { .. }), "{error}");
}

#[test]
fn a_state_of_another_log_is_not_believed() {
    // Also when every unit went to a queue file.
    for count in [50, 300] {
        check_foreign_state(count);
    }
}

fn check_foreign_state(count: usize) {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (dir, length) in [(&one, 10), (&other, 20)] {
        let store = open(dir.path());
        common::checkpoint(&store);
        for _ in 0..count {
            send(&store, "t", 0, &vec![b'x'; length]);
        }
        store.close().unwrap();
    }
    let state = std::fs::read_dir(one.path().join("ferromq"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.is_file())
        .unwrap();
    std::fs::copy(&state, other.path().join("ferromq").join(state.file_name().unwrap())).unwrap();
    let store = open(other.path());
    assert_eq!(bodies(&store, "t", 0, 0), vec!["x".repeat(20); count]);
}

#[test]
fn damage_to_what_is_derived_is_repaired_from_the_log() {
    let seed = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut sent = Vec::new();
    for round in 0..30 {
        let store = open(dir.path());
        assert_eq!(bodies(&store, "t", 0, 0), sent, "round {round}");
        for _ in 0..300 {
            let body = format!("{}", random.random::<u32>());
            send(&store, "t", 0, body.as_bytes());
            sent.push(body);
        }
        if round % 3 == 0 {
            store.close().unwrap();
        } else {
            common::checkpoint(&store);
        }
        drop(store);
        let ours = dir.path().join("ferromq");
        let mut files: Vec<_> = ["", "queues", "keys"]
            .iter()
            .flat_map(|sub| std::fs::read_dir(ours.join(sub)).unwrap())
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file())
            .collect();
        files.sort();
        let victim = &files[random.random_range(0..files.len())];
        let length = std::fs::metadata(victim).unwrap().len();
        match random.random_range(0..3) {
            0 => std::fs::remove_file(victim).unwrap(),
            1 => {
                let file = OpenOptions::new().write(true).open(victim).unwrap();
                file.set_len(random.random_range(0..=length)).unwrap();
            }
            // The state file has checksums; the units are checked against the log when they are used.
            _ if victim.extension().is_none() => {
                overwrite(victim, random.random_range(0..length.max(1)), &[random.random()]);
            }
            _ => {}
        }
    }
    assert_derived_from_log(dir.path(), config);
}

#[test]
fn appends_stop_when_the_disk_is_full_and_go_on_by_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let available = Arc::new(AtomicU64::new(500 << 20));
    let probe = available.clone();
    let disk = store::Disk::new(move |_| {
        Ok(Room { total_bytes: 1000 << 20, available_bytes: probe.load(Ordering::SeqCst) })
    });
    let store = Store::open(Config { disk, ..config(dir.path()) }).unwrap();
    send(&store, "t", 0, b"before");
    available.store(90 << 20, Ordering::SeqCst);
    store.observe_disk();
    let mut batch = Batch::new();
    let queue = store.queue("t", 0).unwrap();
    store.push(&mut batch, queue, &message(b"refused", &[])).unwrap();
    let error = store.append(&mut batch, NOW).unwrap_err();
    assert!(matches!(error, AppendError::DiskFull { used_percent: 91, .. }), "{error}");
    assert!(store.figures().disk_full);
    assert_eq!(bodies(&store, "t", 0, 0), ["before"]);
    available.store(500 << 20, Ordering::SeqCst);
    store.observe_disk();
    store.append(&mut batch, NOW).unwrap();
    assert_eq!(bodies(&store, "t", 0, 0), ["before", "refused"]);
}

#[test]
fn what_only_a_stock_broker_s_queues_know_outlives_a_first_start_that_was_broken_off() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for _ in 0..5 {
        send(&store, "gone", 0, b"x");
    }
    for _ in 0..20 {
        send(&store, "t", 0, &[b'x'; 10_000]);
    }
    store.close_for_stock(1000, |_| false).unwrap();
    drop(store);
    // As if it were a stock broker's: nothing of ours, and the oldest messages have expired.
    std::fs::remove_dir_all(dir.path().join("ferromq")).unwrap();
    std::fs::remove_file(log_file(dir.path(), 0)).unwrap();
    for start in 0..3 {
        let store = open(dir.path());
        let queue = store.queue("gone", 0).unwrap();
        let offsets = (store.min_offset(queue), store.max_offset(queue));
        assert_eq!(offsets, (5, 5), "start {start}");
        assert!(!dir.path().join("consumequeue").exists());
    }
    let store = open(dir.path());
    assert_eq!(send(&store, "gone", 0, b"x"), 5);
}

#[test]
fn the_disk_of_what_is_derived_may_be_full_alone() {
    let dir = tempfile::tempdir().unwrap();
    let of_log = dir.path().join("commitlog");
    let full = Arc::new(AtomicBool::new(true));
    let probe = full.clone();
    let disk = store::Disk::new(move |path| {
        let is_full = path != of_log && probe.load(Ordering::SeqCst);
        let available_bytes = if is_full { 10 << 20 } else { 500 << 20 };
        Ok(Room { total_bytes: 1000 << 20, available_bytes })
    });
    let store = Store::open(Config { disk, ..config(dir.path()) }).unwrap();
    let mut batch = Batch::new();
    let queue = store.queue("t", 0).unwrap();
    store.push(&mut batch, queue, &message(b"x", &[])).unwrap();
    let error = store.append(&mut batch, NOW).unwrap_err();
    assert!(matches!(error, AppendError::DiskFull { used_percent: 99, .. }), "{error}");
    assert_eq!(store.figures().room.unwrap().available_bytes, 500 << 20, "that of the log");
    full.store(false, Ordering::SeqCst);
    store.observe_disk();
    store.append(&mut batch, NOW).unwrap();
}

#[test]
fn what_cannot_be_written_down_does_not_fill_the_memory() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Config { key_items_max: 10, ..config(dir.path()) }).unwrap();
    // The file of the next checkpoint cannot be made: its name is taken by a directory.
    let next = dir.path().join("ferromq/state-0000000001.new");
    std::fs::create_dir(&next).unwrap();
    let queue = store.queue("t", 0).unwrap();
    let mut batch = Batch::new();
    store.push(&mut batch, queue, &message(b"x", &[b"KEYS\x01k\x02"])).unwrap();
    let mut taken = 0;
    let error = loop {
        match store.append(&mut batch, NOW) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
        assert!(store.checkpoint().is_err());
        store.observe_disk();
    };
    assert!(matches!(error, AppendError::Unwritten { .. }), "{error}");
    assert!((10..200).contains(&taken), "{taken}");
    store.append_own(&mut batch, NOW).unwrap();
    std::fs::remove_dir(&next).unwrap();
    // The first writes down what there is, the second brings it out of memory.
    common::checkpoint(&store);
    common::checkpoint(&store);
    store.observe_disk();
    store.append(&mut batch, NOW).unwrap();
    assert_eq!(bodies(&store, "t", 0, 0).len(), taken + 2);
}

#[test]
fn a_write_the_file_system_refuses_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    send(&store, "t", 0, b"kept");
    // The next log file cannot be made: its name is taken by a directory.
    let next = log_file(dir.path(), 64 * 1024);
    std::fs::create_dir(&next).unwrap();
    let queue = store.queue("t", 0).unwrap();
    let mut batch = Batch::new();
    store.push(&mut batch, queue, &message(&[b'x'; 60_000], &[])).unwrap();
    store.append(&mut batch, NOW).unwrap();
    let before = store.appended_position();
    assert!(matches!(store.append(&mut batch, NOW), Err(AppendError::Write(_))));
    assert_eq!((store.max_offset(queue), store.appended_position()), (2, before));
    std::fs::remove_dir(&next).unwrap();
    store.append(&mut batch, NOW).unwrap();
    assert_eq!(store.max_offset(queue), 3);
    assert_eq!(read(&store, "t", 0, 2).status, Status::Found);
    assert!(store.message_at(before, Access::Blocking).unwrap().is_none(), "that is the blank");
}
