//! The workloads that are compared, in the order in which they run.

use super::servers::{Flush, Kind};
use crate::bench::send::Load;
use crate::bench::target::Header;

/// A load that is run in pairs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) work: Work,
    pub(super) header: Header,
    pub(super) flush: Flush,
    /// Also part of the short comparison.
    pub(super) quick: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Work {
    Send { connections: usize, depth: usize, topics: usize },
    Pull,
    EndToEnd,
}

/// Things measured once in a while, not under a load in pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum State {
    /// The bare disk, without a server
    Disk,
    /// Start on an empty store
    Start,
    /// At rest
    Idle,
    /// Memory after many messages
    Memory,
    /// Start after kill -9 with a large log
    RestartLog,
    /// Start after kill -9 with many topics
    RestartTopics,
}

const fn send(connections: usize, depth: usize) -> Work {
    Work::Send { connections, depth, topics: 1 }
}

use Flush::{Async, Sync};
use Header::{Binary, Json};

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    Row { name: "pipelined",      work: send(8, 64), header: Binary, flush: Async, quick: true },
    Row { name: "pipelined-json", work: send(8, 64), header: Json, flush: Async, quick: true },
    Row { name: "one",            work: send(1, 1), header: Binary, flush: Async, quick: true },
    Row { name: "one-json",       work: send(1, 1), header: Json, flush: Async, quick: false },
    Row { name: "topics-1000",    work: Work::Send { connections: 8, depth: 64, topics: 1000 }, header: Binary, flush: Async, quick: false },
    Row { name: "pull",           work: Work::Pull, header: Binary, flush: Async, quick: true },
    Row { name: "e2e",            work: Work::EndToEnd, header: Binary, flush: Async, quick: true },
    Row { name: "sync",           work: send(8, 64), header: Binary, flush: Sync, quick: true },
    Row { name: "sync-json",      work: send(8, 64), header: Json, flush: Sync, quick: false },
    Row { name: "sync-1",         work: send(1, 1), header: Binary, flush: Sync, quick: true },
    Row { name: "sync-16",        work: send(16, 1), header: Binary, flush: Sync, quick: false },
    Row { name: "sync-128",       work: send(128, 1), header: Binary, flush: Sync, quick: false },
];

impl Row {
    /// Writing without mmap changes stock's synchronous flushes; asynchronous ones it leaves alone.
    pub(super) fn concerns(&self, kind: Kind) -> bool {
        kind != Kind::StockPwrite || self.flush == Sync
    }
}

/// A load of messages of 1 KiB to one topic.
pub(super) fn load(topic: &str, connections: usize, depth: usize) -> Load {
    Load {
        connections,
        depth,
        size: 1024,
        batch: 1,
        topic: topic.to_owned(),
        topics: 1,
        queues: 8,
        rate: None,
        warmup: 0.0,
        duration: 0.0,
        count: None,
    }
}
