//! Waiting for messages: until somebody sends some, hidden ones come back, or the time is up.

use std::sync::Arc;
use std::time::Duration;

use protocol::header::pop::NotificationReply;
use protocol::name;
use protocol::reply::{Refusal, ReplyCode};
use remoting::clock;
use remoting::process::Shutdown;
use store::{Access, Limits};

use super::take::{Cold, Look, Pop, PopReply, SCAN_MAX};
use super::{Kind, Ticket};
use crate::filter::{Tags, Wanted};

/// How often what is to be taken is brought into memory before the queues are looked at beside the disk.
const COLD_MAX: u32 = 3;
/// When to look again for what is due and cannot be had, and at the latest.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(3600);

impl Pop {
    /// Whether there is something to take, without taking it, and if not, in how long there may be.
    fn has_message(&self) -> Result<(bool, Option<i64>), Refusal> {
        let now_ms = clock::now_ms();
        let mut due_ms: Option<i64> = None;
        let retries = self.broker.topics.get(&name::retry_topic(&self.consumption.group));
        let retries = retries.filter(|_| !self.order);
        let own = Some(self.topic.clone());
        for (kind, topic) in [(Kind::Topic, own), (Kind::Retry, retries)] {
            let Some(topic) = topic else { continue };
            let queues = match self.queue_id {
                queue_id @ 0.. if kind == Kind::Topic => queue_id..queue_id + 1,
                _ => 0..topic.config.read_queue_nums,
            };
            for queue_id in queues {
                let queue = topic.queue(&self.broker.store, queue_id)?;
                let end = self.broker.store.max_offset(queue);
                let Some(place) = self.consumption.place((kind, queue_id)) else {
                    if self.start(&topic.name, kind, queue_id, queue) < end {
                        return Ok((true, None));
                    }
                    continue;
                };
                let ledger = place.ledger.lock();
                let offer = if self.order {
                    ledger.offer_in_order(now_ms, 1, self.attempt)
                } else {
                    ledger.offer(now_ms, 1)
                };
                if !offer.again.is_empty() || offer.fresh > 0 && ledger.next() < end {
                    return Ok((true, None));
                }
                due_ms = [due_ms, ledger.due_ms(now_ms)].into_iter().flatten().min();
            }
        }
        Ok((false, due_ms.map(|due_ms| due_ms - now_ms)))
    }

    /// Whether there is something to take, now or before the time is up.
    pub async fn watch(self) -> Result<NotificationReply, Refusal> {
        let mut ticket: Option<Ticket> = None;
        let wait = Duration::from_millis(u64::try_from(self.wait_ms).unwrap_or(0));
        let mut time_up = std::pin::pin!(tokio::time::sleep(wait));
        let shutdown = self.broker.shutdown.clone();
        loop {
            let mut arrived = std::pin::pin!(self.consumption.arrived.notified());
            arrived.as_mut().enable();
            let (has_msg, due_in_ms) = self.has_message()?;
            if has_msg || self.wait_ms <= 0 || shutdown.is_cancelled() {
                return Ok(NotificationReply { has_msg, polling_full: false });
            }
            if ticket.is_none() {
                ticket = Ticket::take(&self.broker, &self.consumption, true);
                if ticket.is_none() {
                    return Ok(NotificationReply { has_msg, polling_full: true });
                }
                continue;
            }
            let go_on = tokio::select! {
                () = arrived => true,
                () = tokio::time::sleep(until_due(due_in_ms)) => true,
                () = &mut time_up => false,
                () = shutdown.cancelled() => false,
            };
            if !go_on {
                return Ok(NotificationReply { has_msg, polling_full: false });
            }
        }
    }

    /// Takes what there is, or waits for it.
    pub async fn serve(self) -> Result<PopReply, Refusal> {
        Arc::new(self).wait(std::future::pending()).await
    }

    /// The same for somebody who may go away and then does not want to wait any more. Dropping this future
    /// instead could lose messages that it has just taken.
    pub async fn serve_until(self, gone: &Shutdown) -> Result<PopReply, Refusal> {
        Arc::new(self).wait(gone.cancelled()).await
    }

    async fn wait(self: Arc<Self>, gone: impl Future<Output = ()>) -> Result<PopReply, Refusal> {
        let mut gone = std::pin::pin!(gone);
        let mut ticket: Option<Ticket> = None;
        let mut time_up = std::pin::pin!(tokio::time::sleep(Duration::from_millis(
            u64::try_from(self.wait_ms).unwrap_or(0)
        )));
        let shutdown = self.broker.shutdown.clone();
        let mut full = false;
        let mut colds = 0;
        loop {
            let mut arrived = std::pin::pin!(self.consumption.arrived.notified());
            // From here on no arrival is missed.
            arrived.as_mut().enable();
            let look =
                if colds < COLD_MAX { self.look(Access::Cached) } else { self.look_long().await };
            let (due_in_ms, mut reply) = match look? {
                Look::Found(reply) => {
                    self.pass_on(&reply);
                    return Ok(reply);
                }
                Look::Cold(cold) => {
                    colds += 1;
                    self.warm(cold).await;
                    continue;
                }
                Look::Nothing { due_in_ms, reply } => (due_in_ms, reply),
            };
            if full {
                reply.code = ReplyCode::PollingFull;
                return Ok(reply);
            }
            if self.wait_ms <= 0 || shutdown.is_cancelled() {
                return Ok(reply);
            }
            if ticket.is_none() {
                let particular = self.queue_id >= 0
                    || self.order
                    || !matches!(self.wanted, Wanted::Tags(Tags::All));
                ticket = Ticket::take(&self.broker, &self.consumption, particular);
                full = ticket.is_none();
                // What arrived before anybody knew of this one is found now.
                continue;
            }
            let go_on = tokio::select! {
                () = arrived => true,
                () = tokio::time::sleep(until_due(due_in_ms)) => true,
                () = &mut time_up => false,
                () = shutdown.cancelled() => false,
                () = &mut gone => false,
            };
            if !go_on {
                return Ok(reply);
            }
        }
    }

    /// Looks on a thread that may wait for the disk: what was brought in does not stay in memory.
    async fn look_long(self: &Arc<Self>) -> Result<Look, Refusal> {
        let pop = self.clone();
        let look = tokio::task::spawn_blocking(move || pop.look(Access::Blocking));
        look.await.unwrap_or_else(|_| Err(crate::broker::defect()))
    }

    /// Has the disk read what was not in memory.
    async fn warm(&self, cold: Cold) {
        let broker = self.broker.clone();
        let read = tokio::task::spawn_blocking(move || {
            for (queue, offset, count) in cold {
                let bytes = broker.config.load().pull_bytes_max;
                let limits = Limits { messages: count, bytes, scan: SCAN_MAX };
                if let Err(error) =
                    broker.store.read(queue, offset, limits, Access::Blocking, store::All)
                {
                    tracing::warn!(%error, "cannot read what is to be popped");
                }
            }
        });
        // A defect there shows up again when the queue is looked at.
        let _ = read.await;
    }
}

/// How long to wait for what was due in so long when the queues were looked at.
fn until_due(due_in_ms: Option<i64>) -> Duration {
    match due_in_ms {
        None => LOOK_AGAIN_MAX,
        // What was due and not to be had, because the order or a limit forbids it, is looked at again.
        Some(..=0) => LOOK_AGAIN,
        Some(due_in_ms) => Duration::from_millis(due_in_ms.unsigned_abs()).min(LOOK_AGAIN_MAX),
    }
}
