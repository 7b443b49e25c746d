//! Prints what an append costs: groups of 1, 16 and 64 messages of 1 KiB, to one queue and to a thousand.
//!
//! `cargo run --release -p store --example append_bench [DIRECTORY]`
#![allow(clippy::print_stdout, reason = "a program that prints")]
#![allow(clippy::disallowed_methods, reason = "a program that measures time")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use store::{Access, All, Batch, Clock, Config, Flush, Limits, NewMessage, QueueRef, Store};

const BODY: usize = 1024;
const MESSAGES: usize = 200_000;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[expect(unsafe_code, reason = "counting allocations needs an allocator")]
// SAFETY: everything is passed on to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    let parent = std::env::args().nth(1).unwrap_or_else(|| ".".into());
    let dir = tempfile::tempdir_in(parent).expect("a directory to write to");
    let started = Instant::now();
    let clock = Clock::new(|| 1_700_000_000_000, move || started.elapsed().as_nanos() as u64);
    let config = Config {
        flush: Flush::ASYNC,
        unsynced_bytes_max: 4 << 30,
        ..Config::new(dir.path(), clock)
    };
    let store = Store::open(config).expect("a store");
    for queues in [1, 1000] {
        let queues: Vec<_> =
            (0..queues).map(|id| store.queue("bench", id).expect("a queue")).collect();
        for group in [1, 16, 64] {
            append(&store, &queues, group);
        }
    }
    read(&store, store.queue("bench", 0).expect("a queue"));
    store.close().expect("a clean end");
}

fn append(store: &Store, queues: &[QueueRef], group: usize) {
    let body = [7; BODY];
    let properties: &[u8] = b"UNIQ_KEY\x01C0A8010200002A9F0000000001020304\x02TAGS\x01TagA\x02";
    let message = NewMessage {
        flag: 0,
        sys_flag: 0,
        born_timestamp: 1_700_000_000_000,
        born_host: SocketAddr::from(([10, 0, 0, 1], 5000)),
        store_host: SocketAddr::from(([10, 0, 0, 2], 10911)),
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: &body,
        properties: &[properties, b"CLUSTER\x01DefaultCluster\x02"],
    };
    let mut batch = Batch::new();
    let allocations = ALLOCATIONS.load(Ordering::Relaxed);
    let (started, cpu, mut encoding) = (Instant::now(), cpu_ns(), 0);
    for group_number in 0..MESSAGES / group {
        let encode_started = Instant::now();
        batch.clear();
        for number in 0..group {
            let queue = queues[(group_number * group + number) % queues.len()];
            store.push(&mut batch, queue, &message).expect("it fits");
        }
        encoding += encode_started.elapsed().as_nanos();
        store.append(&mut batch, 1_700_000_000_000).expect("room");
    }
    let (total, count) = (started.elapsed().as_nanos(), (MESSAGES / group * group) as u128);
    let cpu = u128::from(cpu_ns() - cpu);
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - allocations;
    println!(
        "{:4} queues, group {group:2}: {:5} ns CPU, {:5} ns a message ({:4} encoding), {:.3} allocations",
        queues.len(),
        cpu / count,
        total / count,
        encoding / count,
        allocations as f64 / count as f64,
    );
    // The next measurement starts with nothing left to write.
    while store.durable_position() < store.appended_position() {
        std::thread::yield_now();
    }
}

/// What this thread has used of the processor: the figure that others on the machine do not change.
fn cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

fn read(store: &Store, queue: QueueRef) {
    let limits = Limits { messages: 32, bytes: 256 * 1024, scan: 1000 };
    let (started, mut offset, mut messages, mut reads) = (Instant::now(), 0, 0, 0);
    let allocations = ALLOCATIONS.load(Ordering::Relaxed);
    loop {
        let read = store.read(queue, offset, limits, Access::Blocking, All).expect("a read");
        if read.entries.is_empty() {
            break;
        }
        messages += read.entries.len();
        offset = read.next_offset;
        reads += 1;
    }
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - allocations;
    println!(
        "reading {messages} messages by 32: {} ns a message, {:.1} allocations a read",
        started.elapsed().as_nanos() / messages.max(1) as u128,
        allocations as f64 / f64::from(reads.max(1)),
    );
}
