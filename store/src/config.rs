//! What a store is told when it opens: places, sizes, promises and limits.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// Delays of the stock levels 1 to 18, in milliseconds.
pub const STOCK_DELAY_LEVELS_MS: [i64; 18] = [
    1_000, 5_000, 10_000, 30_000, 60_000, 120_000, 180_000, 240_000, 300_000, 360_000, 420_000,
    480_000, 540_000, 600_000, 1_200_000, 1_800_000, 3_600_000, 7_200_000,
];

#[derive(Clone, Debug)]
pub struct Config {
    /// `storePathRootDir`: holds `lock`, `abort`, `checkpoint` and our derived state.
    pub root: PathBuf,
    /// `storePathCommitLog`: the log files.
    pub commit_log: PathBuf,
    /// Size of a new log file.
    pub segment_bytes: u64,
    pub flush: Flush,
    /// The largest record taken.
    pub message_bytes_max: usize,
    /// The largest group written at once.
    pub group_bytes_max: usize,
    /// Appended but not yet durable bytes; beyond, appends are refused until the disk catches up.
    pub unsynced_bytes_max: u64,
    /// How far behind the end of the log bytes are taken to be in memory.
    pub hot_bytes_max: u64,
    /// Queues that may exist at the same time, counted from the last start.
    pub queues_max: u32,
    /// Memory for consume queue units that are not yet in a file.
    pub queue_tail_bytes_max: usize,
    /// Index entries held in memory until they are written as a sorted run (16 bytes each).
    pub key_items_max: usize,
    /// A checkpoint is taken after this many bytes of log …
    pub checkpoint_bytes: u64,
    /// … or this much time, whichever comes first.
    pub checkpoint_interval: Duration,
    /// What the level in the `DELAY` property of a scheduled message means.
    pub delay_levels_ms: Vec<i64>,
    pub retention: Retention,
    /// Compare body checksums while recovering.
    pub check_bodies: bool,
    /// Checkpoints, retention and disk watching run on a thread of the store. Without, the owner calls
    /// `checkpoint`, `observe_disk` and `delete_expired` himself.
    pub maintenance: bool,
    pub disk: Disk,
    pub clock: Clock,
}

impl Config {
    /// A store under `root` with the sizes and promises a stock broker has, except that success means on disk.
    pub fn new(root: impl Into<PathBuf>, clock: Clock) -> Self {
        let root = root.into();
        let memory = memory_bytes();
        Config {
            commit_log: root.join("commitlog"),
            root,
            segment_bytes: 1024 * MIB,
            flush: Flush::Sync,
            message_bytes_max: 4 * MIB as usize + 64 * 1024,
            group_bytes_max: 8 * MIB as usize,
            unsynced_bytes_max: (256 * MIB).min(memory / 50).max(16 * MIB),
            hot_bytes_max: memory / 8,
            queues_max: 4_000_000,
            queue_tail_bytes_max: 256 * MIB as usize,
            key_items_max: 512 * 1024,
            checkpoint_bytes: 256 * MIB,
            checkpoint_interval: Duration::from_secs(5),
            delay_levels_ms: STOCK_DELAY_LEVELS_MS.to_vec(),
            retention: Retention::default(),
            check_bodies: true,
            maintenance: true,
            disk: Disk::real(),
            clock,
        }
    }
}

/// When the disk is asked to make appended bytes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// At once, again and again, while there is something to write.
    Sync,
    /// After this time, or this many bytes, or when somebody waits for it.
    Async { interval: Duration, bytes: u64 },
}

impl Flush {
    /// Every 500 ms, as stock does.
    pub const ASYNC: Flush = Flush::Async { interval: Duration::from_millis(500), bytes: 32 * MIB };
}

/// How long messages are kept, and what happens when the disk fills.
#[derive(Clone, Debug, PartialEq)]
pub struct Retention {
    /// `fileReservedTime`: log files whose last message is older may go.
    pub reserved_ms: i64,
    /// `deleteWhen`: the hours of the day in which expired files go.
    pub hours: Vec<u8>,
    /// Local time minus UTC, for `hours`.
    pub utc_offset_ms: i64,
    /// Above this share of the disk expired files go at any hour.
    pub clean_ratio: f64,
    /// Above this share the oldest files go although they have not expired.
    pub force_ratio: f64,
    /// Above this share nothing more is appended.
    pub full_ratio: f64,
    /// Below this many free bytes nothing more is appended, whatever the share.
    pub free_bytes_min: u64,
    /// Log files deleted in one round at most.
    pub files_per_round: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Retention {
            reserved_ms: 72 * 3_600_000,
            hours: vec![4],
            utc_offset_ms: 0,
            clean_ratio: 0.75,
            force_ratio: 0.85,
            full_ratio: 0.90,
            free_bytes_min: 64 * MIB,
            files_per_round: 10,
        }
    }
}

/// Room on the file system below a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub total_bytes: u64,
    /// What an ordinary user may still write.
    pub available_bytes: u64,
}

impl Room {
    /// The used share, between 0 and 1.
    pub fn used_ratio(&self) -> f64 {
        if self.total_bytes == 0 {
            return 0.0;
        }
        1.0 - self.available_bytes.min(self.total_bytes) as f64 / self.total_bytes as f64
    }
}

type Probe = dyn Fn(&Path) -> io::Result<Room> + Send + Sync;

/// Where the figures about the disk come from. Tests bring their own.
#[derive(Clone)]
pub struct Disk(Arc<Probe>);

impl Disk {
    pub fn new(probe: impl Fn(&Path) -> io::Result<Room> + Send + Sync + 'static) -> Self {
        Disk(Arc::new(probe))
    }

    pub fn real() -> Self {
        Disk::new(|path| {
            let figures = rustix::fs::statvfs(path)?;
            // As df and stock do: what only root may use counts neither as used nor as free.
            let used = figures.f_blocks.saturating_sub(figures.f_bfree);
            let total_bytes = (used + figures.f_bavail) * figures.f_frsize;
            Ok(Room { total_bytes, available_bytes: figures.f_bavail * figures.f_frsize })
        })
    }

    pub fn room(&self, path: &Path) -> io::Result<Room> {
        (self.0)(path)
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Disk")
    }
}

/// The two clocks the store reads; it has none of its own.
#[derive(Clone)]
pub struct Clock {
    now_ms: Arc<dyn Fn() -> i64 + Send + Sync>,
    ticks_ns: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Clock {
    /// `now_ms` is the wall clock; `ticks_ns` never goes back and serves to measure durations.
    pub fn new(
        now_ms: impl Fn() -> i64 + Send + Sync + 'static,
        ticks_ns: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        Clock { now_ms: Arc::new(now_ms), ticks_ns: Arc::new(ticks_ns) }
    }

    pub fn now_ms(&self) -> i64 {
        (self.now_ms)()
    }

    pub fn ticks_ns(&self) -> u64 {
        (self.ticks_ns)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    (info.totalram as u64).saturating_mul(u64::from(info.mem_unit)).max(256 * MIB)
}
