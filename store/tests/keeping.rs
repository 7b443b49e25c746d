//! What is kept for how long, and finding it by time and key.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{NOW, bodies, checkpoint, config, message, open, read, records, send, send_at};
use rand::{Rng, SeedableRng, rngs::StdRng};
use store::{
    Access, All, Batch, Boundary, Cleaning, Config, Flush, KeyKind, KeyQuery, Limits, Retention,
    Status, Store,
};

const HOUR: i64 = 3_600_000;

fn keeping_one_hour(root: &std::path::Path) -> Config {
    let retention = Retention { reserved_ms: HOUR, files_per_round: 100, ..Retention::default() };
    Config { retention, ..config(root) }
}

#[test]
fn what_has_expired_goes_and_offsets_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(keeping_one_hour(dir.path())).unwrap();
    let body = [b'x'; 1000];
    // 1 % of the messages in a queue that then falls silent.
    for number in 0..600 {
        let minute = NOW + number * 60_000;
        send_at(&store, "t", 0, &body, minute);
        if number < 100 && number % 10 == 0 {
            send_at(&store, "silent", 0, &body, minute);
        }
        if number % 7 == 0 {
            checkpoint(&store);
        }
    }
    let now = NOW + 600 * 60_000;
    assert_eq!(store.delete_expired(Cleaning::Scheduled, NOW).unwrap().files, 0);
    let cleaned = store.delete_expired(Cleaning::Manual, now).unwrap();
    assert!(cleaned.files > 5, "{cleaned:?}");
    check_kept(&store);
    drop(store);
    let store = open(dir.path());
    check_kept(&store);
    store.close().unwrap();
    drop(store);
    check_kept(&open(dir.path()));
}

#[test]
fn what_is_held_stays_and_it_is_said_that_it_is_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(keeping_one_hour(dir.path())).unwrap();
    let mut starts = Vec::new();
    for number in 0..600 {
        let (_, appended) = send_at(&store, "t", 0, &[b'x'; 1000], NOW + number * 60_000);
        starts.push(appended.start);
    }
    checkpoint(&store);
    let queue = store.queue("t", 0).unwrap();
    let now = NOW + 600 * 60_000;
    let (one, other) = (store.hold(starts[200]), store.hold(starts[300]));
    assert_eq!(store.position_from(queue, 200).unwrap(), Some(starts[200]));
    let clean = || store.delete_expired(Cleaning::Manual, now).unwrap().files;
    assert!(clean() > 0);
    assert!((100..=200).contains(&store.min_offset(queue)));
    assert!(store.is_wanted(&one) && !store.is_wanted(&other));
    assert_eq!(clean(), 0);
    one.move_to(starts[400]);
    assert!(clean() > 0);
    assert!((200..=300).contains(&store.min_offset(queue)));
    assert!(store.is_wanted(&other) && !store.is_wanted(&one));
    drop(other);
    assert!(clean() > 0);
    assert!((300..=400).contains(&store.min_offset(queue)));
}

fn check_kept(store: &Store) {
    let queue = store.queue("t", 0).unwrap();
    let min = store.min_offset(queue);
    assert!((400..540).contains(&min), "{min}");
    assert_eq!(store.max_offset(queue), 600);
    let below = read(store, "t", 0, min - 1);
    assert_eq!((below.status, below.next_offset), (Status::BelowMin, min));
    assert_eq!(bodies(store, "t", 0, min).len() as i64, 600 - min);
    let first = read(store, "t", 0, min).entries[0];
    assert!(first.position - store.min_position() < 1200, "the first that is kept");
    let silent = store.queue("silent", 0).unwrap();
    assert_eq!((store.min_offset(silent), store.max_offset(silent)), (10, 10));
    assert_eq!(store.earliest_store_time(silent).unwrap(), None);
}

#[test]
fn a_reader_keeps_what_it_holds_while_files_are_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(keeping_one_hour(dir.path())).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let reader = std::thread::spawn({
        let (store, stop) = (store.clone(), stop.clone());
        move || {
            let queue = store.queue("t", 0).unwrap();
            let limits = Limits { messages: 32, bytes: 1 << 20, scan: 100 };
            let (mut held, mut found, mut offset) = (Vec::new(), 0, 0);
            while !stop.load(Ordering::SeqCst) {
                let access = if found % 2 == 0 { Access::Cached } else { Access::Blocking };
                let read = store.read(queue, offset, limits, access, All).unwrap();
                found += read.entries.len();
                offset = read.next_offset;
                held.push(read.slices);
                if held.len() > 50 {
                    // Long deleted, still readable.
                    held.iter().for_each(|slices| drop(records(slices)));
                    held.clear();
                }
            }
            found
        }
    });
    let mut now = NOW;
    for round in 0..200 {
        for _ in 0..20 {
            now += 60_000;
            send_at(&store, "t", 0, &[b'x'; 3000], now);
        }
        if round % 5 == 0 {
            store.delete_expired(Cleaning::Manual, now).unwrap();
        }
    }
    stop.store(true, Ordering::SeqCst);
    assert!(reader.join().unwrap() > 100);
    assert!(store.figures().segments < 20);
}

#[test]
fn offsets_are_found_by_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let queue = store.queue("t", 0).unwrap();
    assert_eq!(store.offset_by_time(queue, NOW, Boundary::Lower).unwrap(), 0);
    // Three messages at each of the times 0, 10, … 990.
    for number in 0..300 {
        send_at(&store, "t", 0, b"x", NOW + number / 3 * 10);
        if number == 290 {
            checkpoint(&store);
        }
    }
    for (time, lower, upper) in [
        (-5, 0, 0),
        (0, 0, 2),
        (1, 3, 2),
        (10, 3, 5),
        (985, 297, 296),
        (990, 297, 299),
        (991, 300, 299),
    ] {
        let found = |boundary| store.offset_by_time(queue, NOW + time, boundary).unwrap();
        assert_eq!((found(Boundary::Lower), found(Boundary::Upper)), (lower, upper), "{time}");
    }
    assert_eq!(store.store_time_at(queue, 31).unwrap(), Some(NOW + 100));
    assert_eq!(store.store_time_at(queue, 300).unwrap(), None);
    assert_eq!(store.earliest_store_time(queue).unwrap(), Some(NOW));
}

#[test]
fn a_clock_that_was_ahead_for_a_while_spoils_neither_store_times_nor_the_search_for_them() {
    const YEARS: i64 = 24 * 365 * 24 * HOUR;
    let dir = tempfile::tempdir().unwrap();
    let hands = common::Hands::new();
    let config = |root: &std::path::Path| Config { clock: hands.clock(), ..config(root) };
    let store = Store::open(config(dir.path())).unwrap();
    let send = |store: &Store, now: i64| {
        hands.set(now);
        send_at(store, "t", 0, b"x", now).1.store_timestamp
    };
    for number in 0..100 {
        assert_eq!(send(&store, NOW + number * 1000), NOW + number * 1000);
    }
    for number in 100..150 {
        send(&store, NOW + YEARS + number * 1000);
    }
    drop(store);
    let store = Store::open(config(dir.path())).unwrap();
    // The clock is right again, also after a start.
    assert_eq!(send(&store, NOW + 150_000), NOW + 150_000);
    // A little step back is none.
    assert_eq!(send(&store, NOW + 149_500), NOW + 150_000);
    for number in 152..300 {
        assert_eq!(send(&store, NOW + number * 1000), NOW + number * 1000);
    }
    let queue = store.queue("t", 0).unwrap();
    let find = |time| store.offset_by_time(queue, NOW + time, Boundary::Lower).unwrap();
    for number in (0..100).chain(152..300) {
        assert_eq!(find(number * 1000), number, "by the time of message {number}");
    }
    // Between the clock's going wrong and its being right again.
    assert_eq!(find(120_000), 100);
    assert_eq!(find(299_001), 300);
}

#[test]
fn a_query_returns_only_messages_of_its_topic_key_and_time() {
    let dir = tempfile::tempdir().unwrap();
    let config = |root: &std::path::Path| Config { key_items_max: 50, ..config(root) };
    let store = Store::open(config(dir.path())).unwrap();
    let mut batch = Batch::new();
    for number in 0..200 {
        for topic in ["one", "two"] {
            batch.clear();
            // "Aa" and "BB" have the same hash in Java.
            let key = if number % 2 == 0 { "Aa" } else { "BB" };
            let properties = format!(
                "KEYS\x01{key} k{number}\x02UNIQ_KEY\x01u{number}\x02TAGS\x01t{}\x02",
                number % 5
            );
            let queue = store.queue(topic, 0).unwrap();
            store.push(&mut batch, queue, &message(b"x", &[properties.as_bytes()])).unwrap();
            store.append(&mut batch, NOW + number * 1000).unwrap();
        }
        if number % 30 == 0 {
            checkpoint(&store);
        }
    }
    drop(store);
    let store = Store::open(config(dir.path())).unwrap();
    assert!(store.figures().key_runs > 3);
    let ask = |topic, key, kind, begin: i64, end: i64, max| {
        let query = KeyQuery {
            topic,
            key,
            kind,
            begin_ms: NOW + begin * 1000,
            end_ms: NOW + end * 1000,
            max,
        };
        let found = store.query(&query).unwrap();
        let numbers: Vec<_> = records(&found)
            .iter()
            .map(|(record, _)| {
                assert_eq!(record.topic, topic);
                (record.store_timestamp - NOW) / 1000
            })
            .collect();
        assert_eq!(numbers.len(), found.len(), "one message in each slice");
        numbers
    };
    let every = |step: i64, first: i64| (0..200).rev().filter(move |n| n % step == first);
    assert_eq!(ask("one", "Aa", KeyKind::Any, 0, 999, 500), every(2, 0).collect::<Vec<_>>());
    assert_eq!(ask("two", "BB", KeyKind::Any, 0, 999, 3), [199, 197, 195]);
    assert_eq!(ask("two", "BB", KeyKind::Any, 10, 15, 99), [15, 13, 11]);
    assert_eq!(ask("one", "k7", KeyKind::Any, 0, 999, 99), [7]);
    assert_eq!(ask("one", "u9", KeyKind::Unique, 0, 999, 99), [9]);
    assert_eq!(ask("one", "k9", KeyKind::Unique, 0, 999, 99), []);
    assert_eq!(ask("one", "t3", KeyKind::Tags, 0, 999, 99), every(5, 3).collect::<Vec<_>>());
    assert_eq!(ask("one", "nothing", KeyKind::Any, 0, 999, 99), []);
    assert_eq!(ask("three", "Aa", KeyKind::Any, 0, 999, 99), []);
    store.delete_topic("one", NOW).unwrap();
    assert_eq!(ask("one", "k7", KeyKind::Any, 0, 999, 99), [], "deleted with its topic");
    assert_eq!(ask("two", "k7", KeyKind::Any, 0, 999, 99), [7]);
}

#[test]
fn ten_thousand_queues_are_kept_apart_over_restarts() {
    let seed = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let config = |root: &std::path::Path| Config {
        segment_bytes: 4 << 20,
        flush: Flush::ASYNC,
        queue_tail_bytes_max: 100_000,
        ..config(root)
    };
    let mut sent = vec![0i64; 10_000];
    for round in 0..4 {
        let store = Store::open(config(dir.path())).unwrap();
        for (number, count) in sent.iter().enumerate() {
            let queue = store.find_queue(&format!("topic-{}", number / 4), number as i32 % 4);
            assert_eq!(queue.map_or(0, |queue| store.max_offset(queue)), *count);
        }
        let mut batch = Batch::new();
        for step in 0..1000 {
            batch.clear();
            for _ in 0..30 {
                let number = random.random_range(0..sent.len());
                let queue =
                    store.queue(&format!("topic-{}", number / 4), number as i32 % 4).unwrap();
                let body = format!("{number} {}", sent[number]);
                sent[number] += 1;
                store.push(&mut batch, queue, &message(body.as_bytes(), &[])).unwrap();
            }
            store.append(&mut batch, NOW).unwrap();
            if step % 100 == 0 {
                checkpoint(&store);
            }
        }
        assert!(store.figures().queue_file_bytes > 0);
        for number in (0..sent.len()).step_by(101) {
            let found = bodies(&store, &format!("topic-{}", number / 4), number as i32 % 4, 0);
            let expected: Vec<_> =
                (0..sent[number]).map(|offset| format!("{number} {offset}")).collect();
            assert_eq!(found, expected);
        }
        if round % 2 == 0 {
            store.close().unwrap();
        }
    }
    common::assert_derived_from_log(dir.path(), config);
}

#[test]
fn cold_messages_are_not_waited_for_unless_allowed() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(dir.path());
        for _ in 0..100 {
            send(&store, "t", 0, &[b'x'; 5000]);
        }
        store.close().unwrap();
    }
    for entry in std::fs::read_dir(dir.path().join("commitlog")).unwrap() {
        let file = std::fs::File::open(entry.unwrap().path()).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
    let store = open(dir.path());
    let queue = store.queue("t", 0).unwrap();
    let limits = Limits { messages: 10, bytes: 1 << 20, scan: 100 };
    // Some file systems keep their pages; then the answer is simply there.
    let cached = store.read(queue, 20, limits, Access::Cached, All).unwrap();
    if cached.status == Status::Cold {
        assert_eq!((cached.next_offset, cached.entries.len(), cached.slices.len()), (20, 0, 0));
        assert!(store.message_at(0, Access::Cached).is_err());
    }
    let blocking = store.read(queue, 20, limits, Access::Blocking, All).unwrap();
    assert_eq!((blocking.status, blocking.next_offset), (Status::Found, 30));
    assert!(store.message_at(0, Access::Blocking).unwrap().is_some());
    let again = store.read(queue, 20, limits, Access::Cached, All).unwrap();
    assert_eq!((again.status, again.entries), (Status::Found, blocking.entries));
}
