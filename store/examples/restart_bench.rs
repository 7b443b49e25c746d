//! Prints how long a store takes to open after kill -9, with 2 GiB of log, and with 16 000 topics of 4 queues.
//!
//! `cargo run --release -p store --example restart_bench [DIRECTORY]`
#![allow(clippy::print_stdout, reason = "a program that prints")]
#![allow(clippy::disallowed_methods, reason = "a program that measures time")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use store::{AppendError, Batch, Clock, Config, Flush, NewMessage, Store};

const KEYS: &[u8] = b"UNIQ_KEY\x01C0A8010200002A9F0000000001020304\x02TAGS\x01TagA\x02";

fn main() {
    let mut arguments = std::env::args().skip(1);
    let parent = arguments.next().unwrap_or_else(|| ".".into());
    if let Some(topics) = arguments.next() {
        fill(Path::new(&parent), topics.parse().expect("a number of topics"));
    }
    for topics in [1, 16_000] {
        let dir = tempfile::tempdir_in(&parent).expect("a directory to write to");
        let program = std::env::current_exe().expect("this program");
        let filler = Command::new(program).arg(dir.path()).arg(topics.to_string()).status();
        assert!(!filler.expect("the filler runs").success(), "the filler ends with a crash");
        for (how, clean) in [("a crash", true), ("a clean stop", false), ("no state", false)] {
            if how == "no state" {
                let ours = dir.path().join("ferromq");
                std::fs::remove_dir_all(ours).expect("there is a state to remove");
            }
            let started = Instant::now();
            let store = open(dir.path());
            let (took, figures) = (started.elapsed(), store.figures());
            println!(
                "{topics:5} topics, {:4} MiB, after {how}: open in {took:?}, {} queues, state at {} MiB, {} MiB RSS",
                figures.appended_position >> 20,
                figures.queues,
                figures.checkpoint_position >> 20,
                resident_mib(),
            );
            if clean {
                store.close().expect("a clean stop");
            }
        }
    }
}

fn open(root: &Path) -> Arc<Store> {
    let started = Instant::now();
    let clock = Clock::new(
        move || 1_700_000_000_000 + started.elapsed().as_millis() as i64,
        move || started.elapsed().as_nanos() as u64,
    );
    let config = Config { flush: Flush::ASYNC, ..Config::new(root, clock) };
    Store::open(config).expect("a store")
}

/// Writes 2 GiB and ends without a word.
fn fill(root: &Path, topics: usize) -> ! {
    let store = open(root);
    let queues: Vec<_> = (0..topics * 4)
        .map(|number| {
            store.queue(&format!("topic-{}", number / 4), (number % 4) as i32).expect("room")
        })
        .collect();
    let mut batch = Batch::new();
    let mut number = 0;
    while store.appended_position() < 2 << 30 {
        batch.clear();
        for _ in 0..64 {
            let message = NewMessage {
                flag: 0,
                sys_flag: 0,
                born_timestamp: 1_700_000_000_000,
                born_host: SocketAddr::from(([10, 0, 0, 1], 5000)),
                store_host: SocketAddr::from(([10, 0, 0, 2], 10911)),
                reconsume_times: 0,
                prepared_transaction_offset: 0,
                body: &[7; 1024],
                properties: &[KEYS],
            };
            // Strides through all queues without order.
            number = (number + 7919) % queues.len();
            store.push(&mut batch, queues[number], &message).expect("it fits");
        }
        while let Err(error) = store.append(&mut batch, 1_700_000_000_000) {
            assert!(matches!(error, AppendError::Unsynced { .. }), "{error}");
            std::thread::yield_now();
        }
    }
    std::process::abort();
}

fn resident_mib() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = pages.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4 / 1024
}
