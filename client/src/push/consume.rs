//! What becomes of received messages: the listener is called, and what it says is done.

use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{Instrument as _, debug, info_span, warn};

use super::Outcome;
use super::cache::Place;
use crate::core::Core;
use crate::delivery::Delivery;
use crate::error::Error;
use crate::name::Group;
use crate::retry::Backoff;
use crate::settle;

/// Acknowledgements that one request carries at most.
const ACKS_MAX: usize = 32;
/// Requests with acknowledgements that are under way at once.
const ACK_REQUESTS_MAX: usize = 8;
/// How often a message is settled again that could not be.
const SETTLE_ATTEMPTS: u32 = 16;
const SETTLE_PAUSES: Backoff = Backoff::Exponential {
    initial: Duration::from_millis(100),
    max: Duration::from_secs(5),
    multiplier: 2.0,
};

pub(crate) type Listener = Arc<dyn Fn(Arc<Delivery>) -> BoxFuture<'static, Outcome> + Send + Sync>;

/// A received message and its place in the cache.
pub(crate) type Held = (Arc<Delivery>, Place);

/// A message that was consumed and is to be acknowledged; a shutdown waits for it.
#[derive(Debug)]
pub(crate) struct Done {
    delivery: Arc<Delivery>,
    _place: Place,
    _pending: TaskTrackerToken,
}

/// What consuming a message takes.
#[derive(Clone)]
pub(crate) struct Consumption {
    pub(crate) core: Arc<Core>,
    pub(crate) group: Group,
    pub(crate) listener: Listener,
    /// Calls of the listener that run at once.
    pub(crate) permits: Arc<Semaphore>,
    /// Messages that are being consumed or settled.
    pub(crate) tasks: TaskTracker,
    pub(crate) acks: mpsc::Sender<Done>,
}

impl Consumption {
    /// Consumes what a receive brought; returns at once.
    pub(crate) fn take(&self, messages: Vec<Held>, fifo: bool) {
        if !fifo {
            for (delivery, place) in messages {
                let this = self.clone();
                self.tasks.spawn(async move { this.consume(delivery, place).await });
            }
            return;
        }
        for sequence in sequences(messages) {
            let this = self.clone();
            self.tasks.spawn(async move { this.consume_in_order(sequence).await });
        }
    }

    /// Has the listener see a message, when there is a permit for it.
    pub(crate) async fn listen(&self, delivery: &Arc<Delivery>) -> Outcome {
        let _permit = self.permits.acquire().await;
        let span = info_span!(
            "consume", topic = %delivery.topic, message_id = delivery.message_id, attempt = delivery.attempt
        );
        let call = AssertUnwindSafe((self.listener)(delivery.clone())).catch_unwind();
        call.instrument(span).await.unwrap_or_else(|_| {
            warn!(
                message_id = delivery.message_id,
                "the listener panicked; the message comes again"
            );
            Outcome::Failure
        })
    }

    async fn consume(&self, delivery: Arc<Delivery>, place: Place) {
        match self.listen(&delivery).await {
            Outcome::Success => {
                // It fails only when the client ends.
                let done = Done { delivery, _place: place, _pending: self.tasks.token() };
                let _ = self.acks.send(done).await;
            }
            Outcome::Failure => self.delay(&delivery).await,
        }
    }

    /// Has a message come again, later at each attempt.
    pub(crate) async fn delay(&self, delivery: &Delivery) {
        let pause = self.core.agreed().retry.backoff.after(delivery.attempt);
        let pause = pause.max(Duration::from_millis(1));
        debug!(message_id = delivery.message_id, ?pause, "the message comes again");
        let group = self.group.as_str();
        self.settle(delivery, || async {
            settle::hide(&self.core, group, delivery, pause).await.map(|_| ())
        })
        .await;
    }

    /// Messages of one group: each is settled before the next is looked at.
    async fn consume_in_order(&self, sequence: Vec<Held>) {
        for (delivery, _place) in sequence {
            if !self.consume_until_settled(delivery).await {
                // What follows must not overtake it; all come again.
                return;
            }
        }
    }

    async fn consume_until_settled(&self, mut delivery: Arc<Delivery>) -> bool {
        let group = self.group.as_str();
        loop {
            if self.listen(&delivery).await == Outcome::Success {
                let acknowledge = || async {
                    let outcomes = settle::acknowledge(&self.core, group, &[&delivery]).await?;
                    outcomes.into_iter().collect()
                };
                return self.settle(&delivery, acknowledge).await;
            }
            let policy = self.core.agreed().retry;
            if delivery.attempt >= policy.attempts_max {
                return self.give_up(&delivery, policy.attempts_max).await;
            }
            tokio::select! {
                () = tokio::time::sleep(policy.backoff.after(delivery.attempt)) => {}
                () = self.core.stop.cancelled() => return false,
            }
            Arc::make_mut(&mut delivery).attempt += 1;
        }
    }

    /// Makes a dead letter of a message.
    pub(crate) async fn give_up(&self, delivery: &Delivery, attempts_max: u32) -> bool {
        let (group, attempt) = (self.group.as_str(), delivery.attempt);
        warn!(message_id = delivery.message_id, attempt, "the message goes to the dead letters");
        self.settle(delivery, || {
            settle::give_up(&self.core, group, delivery, attempt, attempts_max)
        })
        .await
    }

    /// Tries until the server has taken it; `false` if the message comes again.
    async fn settle<F>(&self, delivery: &Delivery, attempt: impl Fn() -> F) -> bool
    where
        F: Future<Output = Result<(), Error>>,
    {
        for number in 1..=SETTLE_ATTEMPTS {
            match attempt().await {
                Ok(()) => return true,
                Err(error) if error.is_retryable() && number < SETTLE_ATTEMPTS => {
                    debug!(message_id = delivery.message_id, %error, number, "settling again");
                    if !self.pause(number).await {
                        return false;
                    }
                }
                Err(error) => {
                    warn!(message_id = delivery.message_id, %error, "not settled; it comes again");
                    return false;
                }
            }
        }
        false
    }

    async fn pause(&self, number: u32) -> bool {
        tokio::select! {
            () = tokio::time::sleep(SETTLE_PAUSES.after(number)) => true,
            () = self.core.stop.cancelled() => false,
        }
    }

    /// Acknowledges what was consumed, several messages with one request when several are done.
    pub(crate) async fn acknowledge_all(self, mut done: mpsc::Receiver<Done>) {
        let requests = Arc::new(Semaphore::new(ACK_REQUESTS_MAX));
        let mut batch: Vec<Done> = Vec::new();
        loop {
            let Ok(permit) = requests.clone().acquire_owned().await else { return };
            tokio::select! {
                count = done.recv_many(&mut batch, ACKS_MAX) => if count == 0 { return },
                () = self.core.stop.cancelled() => return,
            }
            let mut groups: BTreeMap<_, Vec<Done>> = BTreeMap::new();
            for one in batch.drain(..) {
                let key = (one.delivery.topic.clone(), one.delivery.proxy.clone());
                groups.entry(key).or_default().push(one);
            }
            let this = self.clone();
            self.tasks.spawn(async move {
                for messages in groups.into_values() {
                    this.acknowledge(messages).await;
                }
                drop(permit);
            });
        }
    }

    async fn acknowledge(&self, mut messages: Vec<Done>) {
        for number in 1..=SETTLE_ATTEMPTS {
            let deliveries: Vec<&Delivery> = messages.iter().map(|done| &*done.delivery).collect();
            let group = self.group.as_str();
            let outcomes = match settle::acknowledge(&self.core, group, &deliveries).await {
                Ok(outcomes) => outcomes,
                Err(error) => vec![Err(error); messages.len()],
            };
            let mut outcomes = outcomes.into_iter();
            messages.retain(|done| match outcomes.next() {
                Some(Err(error)) if error.is_retryable() => true,
                Some(Err(error)) => {
                    warn!(message_id = done.delivery.message_id, %error, "not acknowledged");
                    false
                }
                _ => false,
            });
            if messages.is_empty() || !self.pause(number).await {
                return;
            }
        }
        let count = messages.len();
        warn!(count, "messages could not be acknowledged; they come again");
    }
}

/// Messages by their groups, in the order in which they came; those without a group are one.
fn sequences(messages: Vec<Held>) -> Vec<Vec<Held>> {
    let mut places: HashMap<Option<String>, usize> = HashMap::new();
    let mut sequences: Vec<Vec<Held>> = Vec::new();
    for held in messages {
        let at = *places.entry(held.0.message_group.clone()).or_insert(sequences.len());
        if at == sequences.len() {
            sequences.push(Vec::new());
        }
        sequences[at].push(held);
    }
    sequences
}

#[cfg(test)]
mod tests {
    use protocol::grpc;

    use super::*;
    use crate::push::cache::Cache;

    #[test]
    fn messages_of_a_group_stay_in_order_and_groups_do_not_wait_for_each_other() {
        let cache = Arc::new(Cache::default());
        let held = |(group, offset): (Option<&str>, i64)| {
            let system_properties = Some(grpc::SystemProperties {
                message_group: group.map(str::to_owned),
                queue_offset: Some(offset),
                ..Default::default()
            });
            let message = grpc::Message { system_properties, ..Default::default() };
            let proxy = "a:1".parse().unwrap();
            (Arc::new(Delivery::open(message, &proxy).0), cache.take(0))
        };
        let messages = [(Some("a"), 0), (None, 1), (Some("b"), 2), (Some("a"), 3), (None, 4)];
        let sequences = sequences(messages.into_iter().map(held).collect());
        let offsets: Vec<Vec<i64>> = sequences
            .iter()
            .map(|sequence| sequence.iter().map(|(held, _)| held.queue_offset).collect())
            .collect();
        assert_eq!(offsets, [vec![0, 3], vec![1, 4], vec![2]]);
    }
}
