#![doc = include_str!("../README.md")]

mod append;
mod batch;
mod config;
mod deletion;
mod durable;
mod error;
mod figures;
mod keys;
mod queue;
mod read;
mod recovery;
mod segment;
mod stock;
mod watch;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;

pub use append::Appended;
pub use batch::{Batch, NewMessage, Stored};
pub use config::{Clock, Config, Disk, Flush, Retention, Room, STOCK_DELAY_LEVELS_MS};
pub use deletion::{DeleteError, SYSTEM_TOPIC};
pub use durable::WaitDurable;
pub use error::{AppendError, FlushError, OpenError, PushError, TooManyQueues};
pub use figures::Durations;
pub use queue::{QueueRef, UNIT, Unit};
pub use read::{Access, All, Entry, Filter, Limits, Read, ReadError, Status};
pub use stock::Checkpoint;

use append::Log;
use durable::Durable;
use queue::files::Files;
use segment::allocator::Allocator;
use segment::{Segment, Segments};
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
    pub(crate) watch: Watch,
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

    /// Everything before this position can be read.
    pub fn appended_position(&self) -> u64 {
        self.core.durable.appended()
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
        self.core.abort.remove()
    }

    fn stop_threads(&self) {
        self.core.durable.stop();
        self.core.allocator.stop();
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
        let units = config.root.join("ferromq").join("queues");
        let files = Files::open(units.clone()).map_err(OpenError::io("open", units))?;
        let log = Log {
            segment: list[0].clone(),
            position: list[0].base,
            store_timestamp: 0,
            next_prepared: false,
            closed: false,
            messages: 0,
        };
        let segment_room = usize::try_from(config.segment_bytes).unwrap_or(usize::MAX);
        let mut core = Core {
            group_bytes_max: config.group_bytes_max.min(segment_room - 8),
            queues: queue::Table::new(config.queues_max),
            files,
            keys: keys::Keys::default(),
            allocator: Allocator::new(config.commit_log.clone(), config.segment_bytes),
            segments: Segments::new(config.commit_log.clone(), list),
            log: Mutex::new(log),
            dirty: Mutex::default(),
            durable: Durable::new(config.flush, 0),
            watch: Watch::new(config.disk.clone(), config.commit_log.clone()),
            abort: stock::Abort::new(&config.root),
            opened_at: 0,
            _lock: lock,
            config,
        };
        core.recover()?;
        core.abort.create()?;
        core.watch.observe(&core.config.retention);
        Ok(core)
    }

    fn recover(&mut self) -> Result<(), OpenError> {
        let walked = self.replay(self.segments.min_position())?;
        let last = self.cut(walked.end)?;
        let log = self.log.get_mut();
        log.segment = last;
        log.position = walked.end;
        log.store_timestamp = walked.store_timestamp;
        // Everything that was found is on disk before the first append builds on it.
        self.durable = Durable::new(self.config.flush, walked.end);
        for segment in self.segments.all().iter().rev().take(2) {
            segment.file.sync_data().map_err(OpenError::io("sync", &segment.path))?;
        }
        self.opened_at = walked.end;
        Ok(())
    }
}
