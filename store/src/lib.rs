#![doc = include_str!("../README.md")]

mod append;
mod aside;
mod batch;
mod checkpoint;
mod config;
mod deletion;
mod durable;
mod error;
mod figures;
mod keys;
mod load;
mod maintenance;
mod queue;
mod read;
mod recovery;
mod retention;
mod segment;
mod state;
mod stock;
mod times;
mod watch;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tracing::info;

pub use append::{Appended, STORE_TIME_LEAD_MAX_MS};
pub use batch::{Batch, INNER_BASE_BLANK, NewMessage, Stored};
pub use config::{Clock, Config, Disk, Flush, Retention, Room, STOCK_DELAY_LEVELS_MS};
pub use deletion::{DeleteError, SYSTEM_TOPIC};
pub use durable::WaitDurable;
pub use error::{AppendError, FlushError, OpenError, PushError, TooManyQueues};
pub use figures::{Durations, Figures};
pub use keys::{KeyKind, KeyQuery};
pub use queue::{QueueRef, UNIT, Unit};
pub use read::{Access, All, Entry, Filter, Limits, Read, ReadError, Status};
pub use retention::{Cleaned, Cleaning, Hold};
pub use stock::Checkpoint;
pub use stock::index::{StockIndex, StockKey};
pub use stock::queues::{
    Comparison, Difference, STOCK_QUEUES, UNITS_PER_FILE, each_unit, stock_queues,
};
pub use times::Boundary;

use append::Log;
use durable::Durable;
use queue::files::Files;
use segment::allocator::Allocator;
use segment::{Segment, Segments};
use state::StateFile;
use watch::Watch;

/// An open store. Dropping it without [`Store::close`] leaves the directory as a crash would.
#[derive(Debug)]
pub struct Store {
    core: Arc<Core>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the store and its threads share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) group_bytes_max: usize,
    pub(crate) queues: queue::Table,
    pub(crate) files: Files,
    pub(crate) keys: keys::Keys,
    pub(crate) segments: Segments,
    pub(crate) allocator: Allocator,
    pub(crate) log: Mutex<Log>,
    /// Queues with something the state file does not know of.
    pub(crate) dirty: Mutex<Vec<QueueRef>>,
    pub(crate) durable: Durable,
    pub(crate) tails: queue::Tails,
    /// Everything before this position is in the state file.
    pub(crate) covered: AtomicU64,
    pub(crate) state: Mutex<StateFile>,
    pub(crate) retention: Mutex<Retention>,
    pub(crate) holds: retention::Holds,
    pub(crate) watch: Watch,
    pub(crate) sleep: maintenance::Sleep,
    pub(crate) append_ns: figures::Histogram,
    pub(crate) abort: stock::Abort,
    /// End of the log when the store was opened; what lies before may not be in memory.
    pub(crate) opened_at: u64,
    _lock: stock::Lock,
}

impl Store {
    /// Takes the directory for this process and brings what is in it into a consistent state.
    pub fn open(config: Config) -> Result<Arc<Store>, OpenError> {
        let core = Arc::new(Core::open(config)?);
        let mut threads = Vec::new();
        let mut spawn = |name: &str, run: fn(&Core)| {
            let core = core.clone();
            let thread = std::thread::Builder::new().name(name.into()).spawn(move || run(&core));
            thread
                .map(|thread| threads.push(thread))
                .map_err(OpenError::io("start a thread for", ""))
        };
        spawn("store-flusher", Core::run_flusher)?;
        spawn("store-allocator", |core| core.allocator.run())?;
        if core.config.maintenance {
            spawn("store-keeper", Core::run_maintenance)?;
        }
        Ok(Arc::new(Store { core, threads: Mutex::new(threads) }))
    }

    /// The queue of this topic and number, which is created if it does not exist.
    pub fn queue(&self, topic: &str, queue_id: i32) -> Result<QueueRef, TooManyQueues> {
        self.core.queues.intern(topic, queue_id)
    }

    /// The queue of this topic and number, if it exists.
    pub fn find_queue(&self, topic: &str, queue_id: i32) -> Option<QueueRef> {
        self.core.queues.find(topic, queue_id)
    }

    /// Topic and number of a queue.
    pub fn queue_name(&self, queue: QueueRef) -> (&str, i32) {
        let queue = self.core.queues.queue(queue);
        (&self.core.queues.topic(queue).name, queue.queue_id)
    }

    /// The queues of a topic by number.
    pub fn queues_of(&self, topic: &str) -> Vec<(i32, QueueRef)> {
        self.core.queues.of_topic(topic)
    }

    /// Every topic that has, or had since the last start, a queue.
    pub fn topics(&self) -> Vec<Box<str>> {
        self.core.queues.topics()
    }

    /// The largest record taken.
    pub fn record_bytes_max(&self) -> usize {
        self.core.config.message_bytes_max.min(self.core.group_bytes_max)
    }

    /// Encodes a message and adds it to the batch. Takes no lock.
    pub fn push(
        &self,
        batch: &mut Batch,
        queue: QueueRef,
        message: &NewMessage<'_>,
    ) -> Result<(), PushError> {
        batch.push(&self.core, queue, message)
    }

    /// Resolves when everything before this position is on disk, or never will be.
    pub fn durable(&self, position: u64) -> WaitDurable {
        WaitDurable::new(self.core.clone(), position)
    }

    /// Everything before this position is on disk.
    pub fn durable_position(&self) -> u64 {
        self.core.durable.position()
    }

    /// Makes everything appended by now durable, on this thread.
    pub fn flush(&self) -> Result<(), FlushError> {
        let end = self.core.durable.appended();
        if self.core.flush_once() {
            return Ok(());
        }
        Err(self.core.durable.error().unwrap_or(FlushError::Closed(end)))
    }

    /// Everything before this position can be read.
    pub fn appended_position(&self) -> u64 {
        self.core.durable.appended()
    }

    /// While the disk is so far behind that appends are refused: what has to be on it before they are not.
    pub fn behind(&self) -> Option<u64> {
        self.core.behind(self.core.durable.appended())
    }

    /// Position of the oldest byte kept.
    pub fn min_position(&self) -> u64 {
        self.core.segments.min_position()
    }

    /// Ends the store: everything is made durable and the next start has nothing to repair.
    pub fn close(&self) -> io::Result<()> {
        {
            let mut log = self.core.log.lock();
            if log.closed {
                return Ok(());
            }
            log.closed = true;
        }
        self.stop_threads();
        let flushed = self.core.flush_once();
        self.core.durable.close();
        if !flushed {
            return Err(io::Error::other("the log could not be made durable"));
        }
        self.core.checkpoint()?;
        self.core.abort.remove()
    }

    /// Writes down what is derived from the durable part of the log. Happens by itself with `maintenance`.
    pub fn checkpoint(&self) -> io::Result<()> {
        self.core.checkpoint()
    }

    /// Looks at the disk now. Happens by itself with `maintenance`.
    pub fn observe_disk(&self) -> Option<Room> {
        self.core.observe()
    }

    fn stop_threads(&self) {
        self.core.durable.stop();
        self.core.allocator.stop();
        self.core.sleep.stop();
        for thread in self.threads.lock().drain(..) {
            // A thread that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.core.log.lock().closed = true;
        self.stop_threads();
        self.core.durable.close();
    }
}

impl Core {
    fn open(config: Config) -> Result<Core, OpenError> {
        for dir in [&config.root, &config.commit_log] {
            std::fs::create_dir_all(dir).map_err(OpenError::io("create", dir))?;
        }
        let lock = stock::Lock::take(&config.root)?;
        let mut list = recovery::segments(&config.commit_log)?;
        if list.is_empty() {
            let made = Segment::create(&config.commit_log, 0, config.segment_bytes);
            list = VecDeque::from([Arc::new(
                made.map_err(OpenError::io("create a log file in", &config.commit_log))?,
            )]);
        }
        let ours = config.root.join("ferromq");
        let files = Files::open(ours.join("queues")).map_err(OpenError::io("open", &ours))?;
        let keys = keys::Keys::open(ours.join("keys")).map_err(OpenError::io("open", &ours))?;
        let state = StateFile::find(ours.clone()).map_err(OpenError::io("open", &ours))?;
        let log = Log {
            segment: list[0].clone(),
            position: list[0].base,
            store_timestamp: 0,
            next_prepared: false,
            closed: false,
            messages: 0,
            zeroed: list[0].base,
        };
        let segment_room = usize::try_from(config.segment_bytes).unwrap_or(usize::MAX);
        let mut core = Core {
            group_bytes_max: config.group_bytes_max.min(segment_room - 8),
            queues: queue::Table::new(config.queues_max),
            files,
            keys,
            tails: queue::Tails::default(),
            covered: AtomicU64::new(0),
            state: Mutex::new(state),
            retention: Mutex::new(config.retention.clone()),
            holds: retention::Holds::default(),
            sleep: maintenance::Sleep::default(),
            append_ns: figures::Histogram::default(),
            allocator: Allocator::new(config.commit_log.clone(), config.segment_bytes),
            segments: Segments::new(config.commit_log.clone(), list),
            log: Mutex::new(log),
            dirty: Mutex::default(),
            durable: Durable::new(config.flush, 0),
            watch: Watch::new(config.disk.clone(), config.commit_log.clone(), config.root.clone()),
            abort: stock::Abort::new(&config.root),
            opened_at: 0,
            _lock: lock,
            config,
        };
        core.recover()?;
        core.abort.create();
        core.take_over_stock_queues()?;
        core.observe();
        Ok(core)
    }

    fn recover(&mut self) -> Result<(), OpenError> {
        let min = self.segments.min_position();
        let covered = {
            let mut state = self.state.lock();
            let loaded = self.load(&mut state).map_err(OpenError::io("read", state.path()))?;
            let known_end = self.segments.end();
            if let Some(covered) = loaded.filter(|covered| covered.position > known_end) {
                let (end, durable) = (known_end, covered.position);
                return Err(OpenError::LogTooShort { end, durable, state: state.path() });
            }
            loaded
        };
        let from = covered.map_or(min, |covered| covered.position.max(min));
        self.covered.store(covered.map_or(0, |covered| covered.position), Ordering::Release);
        let walked = self.replay(from)?;
        // Files may have been deleted after the state was written.
        let ours = self.config.root.join("ferromq");
        self.forget_before(min).map_err(OpenError::io("read", ours))?;
        let last = self.cut(walked.end)?;
        let before = covered.map_or(0, |covered| covered.store_timestamp);
        let log = self.log.get_mut();
        log.segment = last;
        log.position = walked.end;
        log.zeroed = walked.end;
        log.store_timestamp = walked.store_timestamp.max(before);
        // Everything that was found is on disk before the first append builds on it.
        for segment in self.segments.overlapping(from, walked.end.max(from + 1)) {
            segment.file.sync_data().map_err(OpenError::io("sync", &segment.path))?;
        }
        self.durable = Durable::new(self.config.flush, walked.end);
        self.opened_at = walked.end;
        info!(from, end = walked.end, messages = walked.messages, "opened the log");
        Ok(())
    }
}
