//! What the tests of the store share: a clock by hand, messages, and a way to wait without a runtime.
#![allow(dead_code, reason = "each test file uses its part")]

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use bytes::Bytes;
use protocol::record::Record;
use store::{Access, All, Appended, Batch, Clock, Config, Limits, NewMessage, Read, Status, Store};

pub(crate) const NOW: i64 = 1_700_000_000_000;

/// A clock that stands still until it is set.
#[derive(Clone, Debug)]
pub(crate) struct Hands(pub(crate) Arc<AtomicI64>);

impl Hands {
    pub(crate) fn new() -> Hands {
        Hands(Arc::new(AtomicI64::new(NOW)))
    }

    pub(crate) fn set(&self, now_ms: i64) {
        self.0.store(now_ms, Ordering::SeqCst);
    }

    pub(crate) fn clock(&self) -> Clock {
        let (now, ticks) = (self.0.clone(), AtomicU64::new(0));
        Clock::new(
            move || now.load(Ordering::SeqCst),
            move || ticks.fetch_add(1_000, Ordering::SeqCst),
        )
    }
}

/// Small files, no background work.
pub(crate) fn config(root: &Path) -> Config {
    Config {
        segment_bytes: 64 * 1024,
        maintenance: false,
        ..Config::new(root, Hands::new().clock())
    }
}

pub(crate) fn open(root: &Path) -> Arc<Store> {
    Store::open(config(root)).unwrap()
}

pub(crate) fn message<'a>(body: &'a [u8], properties: &'a [&'a [u8]]) -> NewMessage<'a> {
    NewMessage {
        flag: 0,
        sys_flag: 0,
        born_timestamp: NOW,
        born_host: SocketAddr::from(([10, 0, 0, 1], 5000)),
        store_host: SocketAddr::from(([10, 0, 0, 2], 10911)),
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body,
        properties,
    }
}

pub(crate) fn send_at(
    store: &Store,
    topic: &str,
    queue_id: i32,
    body: &[u8],
    now: i64,
) -> (i64, Appended) {
    let mut batch = Batch::new();
    let queue = store.queue(topic, queue_id).unwrap();
    store.push(&mut batch, queue, &message(body, &[])).unwrap();
    let appended = store.append(&mut batch, now).unwrap();
    let offset = batch.entries().next().unwrap().queue_offset;
    (offset, appended)
}

pub(crate) fn send(store: &Store, topic: &str, queue_id: i32, body: &[u8]) -> i64 {
    send_at(store, topic, queue_id, body, NOW).0
}

pub(crate) const PLENTY: Limits = Limits { messages: 1_000_000, bytes: 1 << 30, scan: 1_000_000 };

pub(crate) fn read(store: &Store, topic: &str, queue_id: i32, offset: i64) -> Read {
    let queue = store.queue(topic, queue_id).unwrap();
    store.read(queue, offset, PLENTY, Access::Blocking, All).unwrap()
}

/// The bodies of a queue from an offset on, following `next_offset` to the end.
pub(crate) fn bodies(store: &Store, topic: &str, queue_id: i32, from: i64) -> Vec<String> {
    let mut found = Vec::new();
    let mut offset = from;
    loop {
        let read = read(store, topic, queue_id, offset);
        match read.status {
            Status::Found | Status::NoMatch => {}
            Status::AtEnd | Status::Empty => return found,
            other => panic!("{other:?} at {offset}"),
        }
        assert!(read.next_offset > offset, "reading moves on");
        offset = read.next_offset;
        for (record, _) in records(&read.slices) {
            found.push(String::from_utf8(record.body.to_vec()).unwrap());
        }
    }
}

pub(crate) fn records(slices: &[Bytes]) -> Vec<(Record<'_>, usize)> {
    let mut found = Vec::new();
    for slice in slices {
        let mut rest = &slice[..];
        while !rest.is_empty() {
            let (record, size) = Record::decode(rest).unwrap();
            record.check_body().unwrap();
            rest = &rest[size..];
            found.push((record, size));
        }
    }
    found
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future on this thread.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Everything the queues say: (topic, queue, min, max, units).
pub(crate) fn queues(store: &Store) -> Vec<(String, i32, i64, i64, Vec<store::Unit>)> {
    let mut all = Vec::new();
    for topic in store.topics() {
        for (queue_id, queue) in store.queues_of(&topic) {
            let (min, max) = (store.min_offset(queue), store.max_offset(queue));
            let (first, units) = store.units(queue, min, 10_000_000).unwrap();
            assert_eq!(units.len() as i64, max - min, "{topic} {queue_id} from {first}");
            if max > 0 {
                all.push((topic.to_string(), queue_id, min, max, units));
            }
        }
    }
    all.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    all
}

/// What is derived equals what the log alone says.
pub(crate) fn assert_derived_from_log(root: &Path, config: impl Fn(&Path) -> Config) {
    let kept = queues(&Store::open(config(root)).unwrap());
    std::fs::remove_dir_all(root.join("ferromq")).unwrap();
    let rebuilt = queues(&Store::open(config(root)).unwrap());
    assert!(kept == rebuilt, "{} queues kept, {} rebuilt", kept.len(), rebuilt.len());
}

/// A checkpoint of everything: only what is durable is covered.
pub(crate) fn checkpoint(store: &Store) {
    block_on(store.durable(store.appended_position())).unwrap();
    store.checkpoint().unwrap();
}
