//! Receives from one assigned queue for as long as it is assigned.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use protocol::grpc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::cache::{Amount, Cache};
use super::consume::Consumption;
use crate::credentials::hex;
use crate::error::Error;
use crate::retry::Backoff;
use crate::settings::Filter;
use crate::settle::{self, Received, Wanted};

const THROTTLED: Duration = Duration::from_millis(20);
const FAILED: Backoff = Backoff::Exponential {
    initial: Duration::from_millis(100),
    max: Duration::from_secs(3),
    multiplier: 2.0,
};

/// A queue that is read.
pub(crate) struct Reader {
    pub(crate) consumption: Consumption,
    pub(crate) queue: grpc::MessageQueue,
    pub(crate) filter: Filter,
    pub(crate) limits: Amount,
    /// How many queues share the limits now.
    pub(crate) queues: Arc<AtomicUsize>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) stop: CancellationToken,
}

impl Reader {
    pub(crate) async fn run(self) {
        let mut attempt_id = new_attempt_id();
        let mut failures = 0;
        loop {
            let Some(room) = self.room().await else { return };
            let received = tokio::select! {
                received = self.receive(room, attempt_id.clone()) => received,
                () = self.stop.cancelled() => return,
            };
            let pause = match received {
                Ok(received) => {
                    self.take(received);
                    failures = 0;
                    attempt_id = new_attempt_id();
                    continue;
                }
                Err(Error::Closed) => return,
                // The same attempt again: what the server has given out already comes once more.
                Err(Error::TimedOut(_)) => continue,
                Err(Error::Throttled { .. }) => THROTTLED,
                Err(error) => {
                    failures += 1;
                    let broker = self.queue.broker.as_ref().map(|broker| broker.name.as_str());
                    match failures {
                        1 => warn!(broker, self.queue.id, %error, "cannot receive; trying again"),
                        _ => debug!(broker, self.queue.id, %error, failures, "cannot receive"),
                    }
                    FAILED.after(failures)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// How many messages may be asked for, as soon as there are any; `None` at the end.
    async fn room(&self) -> Option<usize> {
        loop {
            let share = self.limits.share(self.queues.load(Ordering::Relaxed));
            let room = share.room(self.cache.held());
            if room > 0 {
                return Some(room);
            }
            tokio::select! {
                // The permit of a message that was done in between is kept for us.
                () = self.cache.freed.notified() => {}
                () = self.stop.cancelled() => return None,
            }
        }
    }

    async fn receive(&self, room: usize, attempt_id: String) -> Result<Received, Error> {
        let agreed = self.consumption.core.agreed();
        let wanted = Wanted {
            group: self.consumption.group.as_str(),
            queue: self.queue.clone(),
            filter: &self.filter,
            batch: agreed.receive_batch.min(room),
            invisible: None,
            polling: agreed.long_polling,
            attempt_id: Some(attempt_id),
        };
        settle::receive(&self.consumption.core, wanted).await
    }

    fn take(&self, received: Received) {
        let agreed = self.consumption.core.agreed();
        for (delivery, damage) in received.damaged {
            warn!(message_id = delivery.message_id, damage, "a damaged message");
            let consumption = self.consumption.clone();
            let attempts_max = agreed.retry.attempts_max;
            let fifo = agreed.fifo;
            self.consumption.tasks.spawn(async move {
                match fifo {
                    true => _ = consumption.give_up(&delivery, attempts_max).await,
                    false => consumption.delay(&delivery).await,
                }
            });
        }
        let hold = |delivery| {
            let delivery: Arc<crate::Delivery> = Arc::new(delivery);
            let place = self.cache.take(delivery.body.len());
            (delivery, place)
        };
        let messages = received.messages.into_iter().map(hold).collect();
        self.consumption.take(messages, agreed.fifo);
    }
}

fn new_attempt_id() -> String {
    hex(&rand::random::<[u8; 16]>())
}
