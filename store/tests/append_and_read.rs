//! What is appended can be read, at once and after a restart.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use common::{NOW, PLENTY, block_on, bodies, config, message, open, read, records, send, send_at};
use protocol::record::{self, sys_flag};
use store::{Access, All, AppendError, Batch, Flush, Limits, OpenError, PushError, Status, Store};

#[test]
fn messages_get_offsets_in_order_and_are_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for number in 0..10 {
        assert_eq!(send(&store, "orders", 0, format!("a{number}").as_bytes()), number);
        assert_eq!(send(&store, "orders", 1, format!("b{number}").as_bytes()), number);
    }
    let expected: Vec<_> = (3..10).map(|number| format!("a{number}")).collect();
    assert_eq!(bodies(&store, "orders", 0, 3), expected);
    let all = read(&store, "orders", 1, 0);
    assert_eq!((all.min_offset, all.max_offset, all.next_offset), (0, 10, 10));
    for (entry, (record, size)) in all.entries.iter().zip(records(&all.slices)) {
        assert_eq!(record.queue_offset, entry.queue_offset);
        assert_eq!(record.physical_offset as u64, entry.position);
        assert_eq!(size, entry.size as usize);
        assert_eq!((record.topic, record.queue_id), ("orders", 1));
        let alone = store.message_at(entry.position, Access::Cached).unwrap().unwrap();
        assert_eq!(alone.len(), size);
        assert!(store.message_at(entry.position + 1, Access::Cached).unwrap().is_none());
    }
}

#[test]
fn neighbours_share_a_slice() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let queue = store.queue("t", 0).unwrap();
    let mut batch = Batch::new();
    for _ in 0..32 {
        store.push(&mut batch, queue, &message(b"body", &[])).unwrap();
    }
    store.append(&mut batch, NOW).unwrap();
    let found = read(&store, "t", 0, 0);
    assert_eq!((found.slices.len(), found.entries.len()), (1, 32));
}

#[test]
fn a_read_stops_at_each_of_its_limits() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for _ in 0..50 {
        send(&store, "t", 0, &[b'x'; 100]);
    }
    let queue = store.queue("t", 0).unwrap();
    let size = 91 + 1 + 100;
    for (limits, count, next) in [
        (Limits { messages: 7, ..PLENTY }, 7, 7),
        (Limits { bytes: size * 3, ..PLENTY }, 3, 3),
        (Limits { bytes: 1, ..PLENTY }, 1, 1),
        (Limits { scan: 9, ..PLENTY }, 9, 9),
    ] {
        let found = store.read(queue, 0, limits, Access::Cached, All).unwrap();
        assert_eq!((found.entries.len(), found.next_offset), (count, next), "{limits:?}");
        assert_eq!(found.bytes, count * size);
    }
    let none = store.read(queue, 10, Limits { scan: 5, ..PLENTY }, Access::Cached, |_| false);
    let none = none.unwrap();
    assert_eq!((none.status, none.next_offset), (Status::NoMatch, 15));
}

#[test]
fn offsets_out_of_range_say_where_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert_eq!(read(&store, "t", 0, 5).status, Status::Empty);
    send(&store, "t", 0, b"x");
    assert_eq!(read(&store, "t", 0, 1).status, Status::AtEnd);
    let beyond = read(&store, "t", 0, 9);
    assert_eq!((beyond.status, beyond.next_offset), (Status::BeyondEnd, 1));
    let below = read(&store, "t", 0, -1);
    assert_eq!((below.status, below.next_offset), (Status::BelowMin, 0));
}

#[test]
fn tags_are_filtered_by_their_hash() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let queue = store.queue("t", 0).unwrap();
    let mut batch = Batch::new();
    for tag in ["a", "b", "a", "c"] {
        let properties = format!("KEYS\x01k\x02TAGS\x01{tag}\x02");
        store
            .push(&mut batch, queue, &message(b"x", &[properties.as_bytes(), b"R\x01c\x02"]))
            .unwrap();
    }
    store.append(&mut batch, NOW).unwrap();
    let wanted = record::tags_code(b"a");
    let found = store.read(queue, 0, PLENTY, Access::Cached, |code| code == wanted).unwrap();
    let offsets: Vec<_> = found.entries.iter().map(|entry| entry.queue_offset).collect();
    assert_eq!((offsets, found.next_offset), (vec![0, 2], 4));
    assert!(records(&found.slices)[0].0.properties.ends_with(b"TAGS\x01a\x02R\x01c\x02"));
}

#[test]
fn scheduled_messages_carry_their_time_of_delivery() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let store = open(dir.path());
        let queue = store.queue("SCHEDULE_TOPIC_XXXX", 2).unwrap();
        if store.max_offset(queue) == 0 {
            let mut batch = Batch::new();
            store.push(&mut batch, queue, &message(b"x", &[b"DELAY\x013\x02TAGS\x01a"])).unwrap();
            store.push(&mut batch, queue, &message(b"x", &[b"DELAY\x0199\x02"])).unwrap();
            store.append(&mut batch, NOW).unwrap();
        }
        let (_, units) = store.units(queue, 0, 9).unwrap();
        let codes: Vec<_> = units.iter().map(|unit| unit.tags_code).collect();
        assert_eq!(codes, [NOW + 10_000, NOW + 7_200_000]);
    }
}

#[test]
fn prepared_and_rolled_back_messages_enter_no_queue() {
    let dir = tempfile::tempdir().unwrap();
    for restart in [false, true] {
        let store = open(dir.path());
        let queue = store.queue("t", 0).unwrap();
        if !restart {
            let mut batch = Batch::new();
            for kind in [sys_flag::TRANSACTION_PREPARED, sys_flag::TRANSACTION_ROLLBACK] {
                let new = store::NewMessage { sys_flag: kind, ..message(b"x", &[]) };
                store.push(&mut batch, queue, &new).unwrap();
            }
            let new = store::NewMessage {
                sys_flag: sys_flag::TRANSACTION_COMMIT,
                ..message(b"committed", &[])
            };
            store.push(&mut batch, queue, &new).unwrap();
            store.append(&mut batch, NOW).unwrap();
        }
        assert_eq!(bodies(&store, "t", 0, 0), ["committed"]);
    }
}

#[test]
fn an_inner_batch_takes_as_many_offsets_as_it_has_messages() {
    let dir = tempfile::tempdir().unwrap();
    for restart in [false, true] {
        let store = open(dir.path());
        let queue = store.queue("t", 0).unwrap();
        if !restart {
            let mut batch = Batch::new();
            let new = store::NewMessage {
                sys_flag: sys_flag::INNER_BATCH | sys_flag::NEED_UNWRAP,
                ..message(b"three", &[b"INNER_NUM\x013\x02"])
            };
            store.push(&mut batch, queue, &new).unwrap();
            store.push(&mut batch, queue, &message(b"one", &[])).unwrap();
            store.append(&mut batch, NOW).unwrap();
        }
        assert_eq!(store.max_offset(queue), 4);
        assert_eq!(bodies(&store, "t", 0, 0), ["three", "one"]);
        assert_eq!(bodies(&store, "t", 0, 1), ["three", "one"]);
        assert_eq!(bodies(&store, "t", 0, 3), ["one"]);
    }
}

#[test]
fn a_read_ends_behind_an_inner_batch_and_never_inside() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let queue = store.queue("t", 0).unwrap();
    let mut batch = Batch::new();
    for (body, messages) in [(b"a", 300), (b"b", 1), (b"c", 8), (b"d", 1)] {
        let number = format!("INNER_NUM\u{1}{messages}\u{2}");
        let properties = [number.as_bytes()];
        let new = store::NewMessage {
            sys_flag: sys_flag::INNER_BATCH | sys_flag::NEED_UNWRAP,
            ..message(body, &properties)
        };
        store.push(&mut batch, queue, &new).unwrap();
    }
    store.append(&mut batch, NOW).unwrap();
    for (from, limits, records, next) in [
        (0, Limits { messages: 1, ..PLENTY }, 1, 300),
        (7, Limits { messages: 32, ..PLENTY }, 1, 300),
        (0, Limits { scan: 5, ..PLENTY }, 1, 300),
        (0, Limits { messages: 300, ..PLENTY }, 1, 300),
        (0, Limits { messages: 301, ..PLENTY }, 2, 301),
        (0, Limits { messages: 302, ..PLENTY }, 3, 309),
        (300, Limits { messages: 2, ..PLENTY }, 2, 309),
        (300, Limits { messages: 10, ..PLENTY }, 3, 310),
        (308, PLENTY, 2, 310),
    ] {
        let read = store.read(queue, from, limits, Access::Cached, All).unwrap();
        assert_eq!((read.entries.len(), read.next_offset), (records, next), "{from} {limits:?}");
    }
}

#[test]
fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut sent = Vec::new();
    for round in 0..4 {
        let store = open(dir.path());
        assert_eq!(bodies(&store, "t", 0, 0), sent, "round {round}");
        for number in 0..300 {
            let body = format!("{round}-{number}-{}", "x".repeat(number));
            assert_eq!(send(&store, "t", 0, body.as_bytes()), sent.len() as i64);
            sent.push(body);
        }
        assert_eq!(bodies(&store, "t", 0, 0), sent, "round {round}");
        if round % 2 == 0 {
            store.close().unwrap();
        }
    }
    assert!(std::fs::read_dir(dir.path().join("commitlog")).unwrap().count() > 4);
}

#[test]
fn the_store_time_does_not_go_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for (now, expected) in [(NOW, NOW), (NOW - 5, NOW), (NOW + 3, NOW + 3)] {
        assert_eq!(send_at(&store, "t", 0, b"x", now).1.store_timestamp, expected);
    }
    store.close().unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(send_at(&store, "t", 0, b"x", 0).1.store_timestamp, NOW + 3);
}

#[test]
fn a_second_store_is_refused_while_the_first_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert!(matches!(Store::open(config(dir.path())), Err(OpenError::InUse(_))));
    store.close().unwrap();
    drop(store);
    open(dir.path());
}

#[test]
fn what_was_waited_for_is_durable() {
    for flush in [Flush::Sync, Flush::ASYNC] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(store::Config { flush, ..config(dir.path()) }).unwrap();
        for _ in 0..20 {
            let (_, appended) = send_at(&store, "t", 0, b"x", NOW);
            block_on(store.durable(appended.end)).unwrap();
            assert!(store.durable_position() >= appended.end);
        }
        let beyond = store.durable(u64::MAX);
        let waiting = std::thread::spawn(move || block_on(beyond));
        store.close().unwrap();
        assert!(waiting.join().unwrap().is_err(), "closing answers those who wait");
        let mut batch = Batch::new();
        store.push(&mut batch, store.queue("t", 0).unwrap(), &message(b"x", &[])).unwrap();
        assert!(matches!(store.append(&mut batch, NOW), Err(AppendError::Closed)));
    }
}

#[test]
fn too_large_is_refused_and_the_batch_stays_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        store::Config { message_bytes_max: 1000, group_bytes_max: 2500, ..config(dir.path()) };
    let store = Store::open(config).unwrap();
    let queue = store.queue("t", 0).unwrap();
    let mut batch = Batch::new();
    store.push(&mut batch, queue, &message(&[0; 900], &[])).unwrap();
    let refused = store.push(&mut batch, queue, &message(&[0; 920], &[]));
    assert_eq!(refused, Err(PushError::MessageTooLarge { bytes: 1012, max: 1000 }));
    store.push(&mut batch, queue, &message(&[0; 900], &[])).unwrap();
    let refused = store.push(&mut batch, queue, &message(&[0; 900], &[]));
    assert_eq!(refused, Err(PushError::GroupTooLarge { bytes: 2976, max: 2500 }));
    let refused = store.push(&mut batch, queue, &message(b"", &[&[b'x'; 40_000]]));
    assert!(matches!(refused, Err(PushError::Encode(_))));
    assert_eq!((batch.len(), batch.bytes()), (2, 1984));
    store.append(&mut batch, NOW).unwrap();
    assert_eq!(store.max_offset(queue), 2);
}

#[test]
fn a_deleted_topic_starts_again_at_zero_and_stays_deleted() {
    let dir = tempfile::tempdir().unwrap();
    for restart in 0..3 {
        let store = open(dir.path());
        if restart == 0 {
            send(&store, "t", 0, b"old");
            send(&store, "t", 1, b"old");
            send(&store, "other", 0, b"kept");
            store.delete_topic("t", NOW).unwrap();
            assert_eq!(read(&store, "t", 0, 0).status, Status::Empty);
            assert_eq!(send(&store, "t", 0, b"new"), 0);
        }
        assert_eq!(bodies(&store, "t", 0, 0), ["new"]);
        assert_eq!(read(&store, "t", 1, 0).status, Status::Empty);
        assert_eq!(bodies(&store, "other", 0, 0), ["kept"]);
        if restart == 1 {
            store.close().unwrap();
        }
    }
}
