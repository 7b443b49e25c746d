//! Opens the store of a stopped stock broker, compares the consume queues, and adds messages for it to find.
//!
//! `cargo run -p store --example stock_directory ROOT SEGMENT_BYTES [TOPIC COUNT [export]]`
#![allow(clippy::print_stdout, reason = "a program that prints")]
#![allow(clippy::disallowed_methods, reason = "a program that reads the time")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use store::{Batch, Clock, Config, NewMessage, Store};

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as i64)
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let root = PathBuf::from(arguments.next().expect("the root of a store"));
    let segment_bytes = arguments.next().expect("the size of a log file").parse();
    let started = Instant::now();
    let clock = Clock::new(now_ms, move || started.elapsed().as_nanos() as u64);
    let config = Config {
        segment_bytes: segment_bytes.expect("a number of bytes"),
        ..Config::new(&root, clock)
    };
    let store = Store::open(config).expect("a store that opens");
    let left = root.join(store::STOCK_QUEUES);
    let comparison = store.verify_against_stock_queues(&left).expect("readable queues");
    println!("{comparison:#?}");
    if let (Some(topic), Some(count)) = (arguments.next(), arguments.next()) {
        append(&store, &topic, count.parse().expect("a number of messages"));
    }
    if arguments.next().is_some_and(|word| word == "export") {
        store.close_for_stock(20, |_| false).expect("a clean stop");
    } else {
        store.close().expect("a clean stop");
    }
}

fn append(store: &Store, topic: &str, count: usize) {
    let queue = store.queue(topic, 0).expect("room for a queue");
    for number in 0..count {
        let mut batch = Batch::new();
        let body = format!("ours {number}");
        let properties = format!("KEYS\x01ours-{number}\x02TAGS\x01TagA\x02");
        let message = NewMessage {
            flag: 0,
            sys_flag: 0,
            born_timestamp: now_ms(),
            born_host: SocketAddr::from(([127, 0, 0, 1], 5000)),
            store_host: SocketAddr::from(([127, 0, 0, 1], 10911)),
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: body.as_bytes(),
            properties: &[properties.as_bytes()],
        };
        store.push(&mut batch, queue, &message).expect("it fits");
        store.append(&mut batch, now_ms()).expect("room");
        let stored = batch.entries().next().expect("one message");
        println!("{topic} 0 {} at {}", stored.queue_offset, stored.position);
    }
}
