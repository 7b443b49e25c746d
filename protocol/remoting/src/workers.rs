//! Threads that serve connections. Each has a runtime of its own, and a connection stays where it began.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio_util::task::TaskTracker;

use crate::process::{DropGuard, Shutdown};

/// Threads for work that blocks, of all workers together.
const BLOCKING_THREADS_MAX: usize = 512;

/// The threads, for as long as this is kept; whoever drops it has waited for the connections.
#[derive(Debug)]
pub struct Workers {
    list: Vec<Worker>,
    _stop: Option<DropGuard>,
}

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
}

impl Workers {
    /// The runtime this is called in, for servers that are asked little.
    pub fn here() -> Self {
        let connections = Arc::new(AtomicUsize::new(0));
        Self { list: vec![Worker { runtime: Handle::current(), connections }], _stop: None }
    }

    /// One thread for each core.
    ///
    /// A runtime that moves tasks between threads wakes one for another, and the memory of a connection
    /// goes from core to core; neither is worth it when all tasks are short and many.
    pub fn start() -> std::io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, usize::from);
        let stop = Shutdown::new();
        let mut list = Vec::with_capacity(count);
        for number in 0..count {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .thread_name("worker-blocking")
                .max_blocking_threads((BLOCKING_THREADS_MAX / count).max(1))
                .build()?;
            let handle = runtime.handle().clone();
            let stopped = stop.clone();
            thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || runtime.block_on(stopped.cancelled()))?;
            list.push(Worker { runtime: handle, connections: Arc::default() });
        }
        Ok(Self { list, _stop: Some(stop.drop_guard()) })
    }

    /// Runs a connection where there are the fewest.
    pub fn spawn<F>(&self, tasks: &TaskTracker, connection: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let load = |worker: &&Worker| worker.connections.load(Ordering::Relaxed);
        let worker = self.list.iter().min_by_key(load).expect("there is at least one worker");
        let place = Place::take(&worker.connections);
        let connection = async move {
            connection.await;
            drop(place);
        };
        tasks.spawn_on(connection, &worker.runtime);
    }
}

/// Counts one connection, however it ends.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(connections: &Arc<AtomicUsize>) -> Self {
        connections.fetch_add(1, Ordering::Relaxed);
        Self(connections.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_where_there_are_the_fewest() {
        let workers = Workers::start().unwrap();
        let tasks = TaskTracker::new();
        let (count, end) = (workers.list.len(), Shutdown::new());
        for _ in 0..3 * count {
            let end = end.clone();
            workers.spawn(&tasks, async move { end.cancelled().await });
        }
        let loads = || -> Vec<usize> {
            workers.list.iter().map(|worker| worker.connections.load(Ordering::Relaxed)).collect()
        };
        assert_eq!(loads(), vec![3; count]);
        end.cancel();
        tasks.close();
        Builder::new_current_thread().build().unwrap().block_on(tasks.wait());
        assert_eq!(loads(), vec![0; count], "a place is given back");
    }
}
