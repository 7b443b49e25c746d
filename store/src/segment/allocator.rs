//! Makes the next log file before it is needed, so that a roll-over does not wait for the file system.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use tracing::warn;

use super::Segment;

#[derive(Debug)]
pub(crate) struct Allocator {
    dir: PathBuf,
    segment_bytes: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    wanted: Option<u64>,
    making: bool,
    ready: Option<Segment>,
    stopped: bool,
}

impl Allocator {
    pub(crate) fn new(dir: PathBuf, segment_bytes: u64) -> Allocator {
        Allocator { dir, segment_bytes, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Asks for the segment that starts at `base` to be made in the background.
    pub(crate) fn prepare(&self, base: u64) {
        let mut state = self.state.lock();
        if state.ready.as_ref().is_none_or(|ready| ready.base != base) {
            state.wanted = Some(base);
            self.changed.notify_all();
        }
    }

    pub(crate) fn is_ready(&self, base: u64) -> bool {
        self.state.lock().ready.as_ref().is_some_and(|ready| ready.base == base)
    }

    /// The segment that starts at `base`: the prepared one, or one made now.
    pub(crate) fn take(&self, base: u64) -> io::Result<Arc<Segment>> {
        let mut state = self.state.lock();
        while state.making {
            self.changed.wait(&mut state);
        }
        state.wanted = None;
        match state.ready.take() {
            Some(ready) if ready.base == base => Ok(Arc::new(ready)),
            other => {
                discard(other);
                Segment::create(&self.dir, base, self.segment_bytes).map(Arc::new)
            }
        }
    }

    /// Runs on a thread of its own until `stop`.
    pub(crate) fn run(&self) {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                discard(state.ready.take());
                return;
            }
            let Some(base) = state.wanted.take() else {
                self.changed.wait(&mut state);
                continue;
            };
            state.making = true;
            discard(state.ready.take());
            drop(state);
            let made = Segment::create(&self.dir, base, self.segment_bytes);
            state = self.state.lock();
            state.making = false;
            match made {
                Ok(segment) => state.ready = Some(segment),
                Err(error) => warn!(base, %error, "cannot prepare the next log file"),
            }
            self.changed.notify_all();
        }
    }

    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
    }
}

/// A prepared file that nobody wrote to would only confuse the next start.
fn discard(segment: Option<Segment>) {
    if let Some(segment) = segment
        && let Err(error) = std::fs::remove_file(&segment.path)
    {
        warn!(path = %segment.path.display(), %error, "cannot remove an unused log file");
    }
}
