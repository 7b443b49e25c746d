//! Takes messages for a while; waits when there are none, but never longer than the client does.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use protocol::grpc::receive_message_response::Content;
use protocol::grpc::{ClientType, Code, Message, ReceiveMessageRequest, ReceiveMessageResponse};
use protocol::header::pop::PopMessage;
use remoting::clock;
use remoting::process::Shutdown;
use tokio_stream::Stream;

use super::context::Context;
use super::status::{Failure, ok, status};
use super::{check, settings, time};
use crate::backend;
use crate::front::Front;
use crate::handle::Handle;
use crate::popped::{self, Taken};
use crate::receipts::Left;

/// How long after the end of its poll a broker may still answer.
const GRACE: Duration = Duration::from_secs(10);

/// What a request comes to: everything a pop has to know.
struct Wanted {
    client: String,
    group: String,
    topic: protocol::grpc::Resource,
    broker: String,
    queue_id: i32,
    batch: i32,
    filter: (&'static str, String),
    in_order: bool,
    attempts_max: i32,
    invisible_ms: i64,
    renew: bool,
    attempt_id: Option<String>,
}

pub(super) async fn receive_message(
    front: &Arc<Front>,
    context: &Context,
    request: ReceiveMessageRequest,
) -> Answers {
    let started = clock::instant();
    let polling = polling(front, context, &request);
    let wanted = match wanted(front, context, request).await {
        Ok(wanted) => wanted,
        Err(failure) => return failed(failure),
    };
    // Looking things up took its part of the time.
    let polling = polling.saturating_sub(started.elapsed());
    let taking = Taking::new(front.clone(), Arc::new(wanted), polling);
    let limit = context.timeout.map(|timeout| timeout.saturating_sub(started.elapsed()));
    let limit = limit.unwrap_or(polling + GRACE);
    // Half of the reserve is for the broker's lateness, half for the way to the client.
    let limit = limit.saturating_sub(front.config.polling_reserve / 2);
    tokio::select! {
        biased;
        taken = taking => taken.map_or_else(failed, |taken| found(front, taken)),
        () = tokio::time::sleep(limit) => failed(nothing()),
        () = front.ending.cancelled() => failed(nothing()),
    }
}

fn nothing() -> Failure {
    Failure::new(Code::MessageNotFound, "no message is there")
}

/// How long to wait for messages: as the client asks, within its deadline and our limit.
fn polling(front: &Front, context: &Context, request: &ReceiveMessageRequest) -> Duration {
    let millis =
        |duration| Duration::from_millis(time::duration_ms(duration).max(0).cast_unsigned());
    let asked = match (&request.long_polling_timeout, context.timeout) {
        (Some(asked), _) => millis(asked),
        (None, Some(timeout)) => {
            let said = front.clients.settings(&context.client_id);
            let spare = said.as_ref().and_then(|said| said.request_timeout.as_ref());
            within(timeout, spare.map(millis).unwrap_or_default())
        }
        (None, None) => front.config.polling_max,
    };
    let left = context.timeout.map(|timeout| timeout.saturating_sub(front.config.polling_reserve));
    asked.min(front.config.polling_max).min(left.unwrap_or(Duration::MAX))
}

/// How long a client means to wait that says nothing but its deadline, which is that time and `spare` for a
/// request to come and go. Half of the spare time is left for this one's way and for what delays it.
fn within(deadline: Duration, spare: Duration) -> Duration {
    deadline.saturating_sub(spare / 2)
}

/// Checks the request; what it leaves open comes from the group and the client's settings, if there are any.
async fn wanted(
    front: &Front,
    context: &Context,
    request: ReceiveMessageRequest,
) -> Result<Wanted, Failure> {
    let queue = request.message_queue.as_ref();
    let topic = check::topic(queue.and_then(|queue| queue.topic.as_ref()))?;
    let group = check::group(request.group.as_ref())?;
    let batch = check::batch_size(request.batch_size)?;
    let (kind, expression) = check::filter(request.filter_expression.as_ref())?;
    let renew = request.auto_renew && front.config.auto_renew;
    let invisible_ms = if renew {
        // Whose messages we keep for it has to be known here.
        if !front.clients.beat(context, ClientType::Unspecified, None, clock::instant()) {
            return Err(super::telemetry::too_many_clients());
        }
        front.config.invisible_default_ms
    } else {
        let asked = request.invisible_duration.as_ref().map_or(0, time::duration_ms);
        check::invisible_on_receive(&front.config, asked)?;
        asked
    };
    let rules = front.backend.group(group).await?;
    let in_order = rules.consume_message_orderly;
    let route = front.route(topic).await?;
    let named = queue.and_then(|queue| queue.broker.as_ref()).map(|broker| broker.name.as_str());
    let named = named.filter(|name| !name.is_empty());
    let holder = match named.and_then(|name| route.holder(name)) {
        Some(holder) => Some(holder),
        None => {
            let readable: Vec<_> = route.brokers.iter().filter(|holder| holder.readable).collect();
            let turn = front.turn.fetch_add(1, Ordering::Relaxed);
            (!readable.is_empty()).then(|| readable[turn % readable.len()])
        }
    };
    let holder = holder.filter(|holder| holder.readable).ok_or_else(|| {
        Failure::new(Code::Forbidden, format!("no queue of the topic `{topic}` may be read"))
    })?;
    // A consumer in order that pushes reads each of its queues; everybody else takes from all of a broker.
    let id = queue.map_or(-1, |queue| queue.id);
    let one_queue = in_order
        && (0..holder.read_queues).contains(&id)
        && match front.clients.kind(&context.client_id) {
            // It has not said yet what it is. Only those that push let us renew receipts.
            ClientType::Unspecified => request.auto_renew,
            kind => kind == ClientType::PushConsumer,
        };
    Ok(Wanted {
        client: context.client_id.clone(),
        group: group.to_owned(),
        broker: holder.broker.clone(),
        queue_id: if one_queue { id } else { -1 },
        batch,
        filter: (kind, expression.to_owned()),
        in_order,
        attempts_max: settings::attempts(&rules),
        invisible_ms,
        renew,
        topic: queue.and_then(|queue| queue.topic.clone()).unwrap_or_default(),
        attempt_id: request.attempt_id,
    })
}

type Pop = Pin<Box<dyn Future<Output = Result<Vec<Taken>, Failure>> + Send>>;

/// A pop under way. Dropped before its end, because the client has left or its time is over, it goes on by
/// itself and gives back what still comes.
struct Taking {
    front: Arc<Front>,
    wanted: Arc<Wanted>,
    pop: Option<Pop>,
    /// Tells the pop that nobody waits for it any more.
    gone: Shutdown,
}

impl Taking {
    fn new(front: Arc<Front>, wanted: Arc<Wanted>, polling: Duration) -> Self {
        let gone = Shutdown::new();
        let pop = take(front.clone(), wanted.clone(), polling, gone.clone());
        Self { front, wanted, pop: Some(Box::pin(pop)), gone }
    }
}

impl Future for Taking {
    type Output = Result<Given, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        let Some(pop) = &mut self.pop else { return Poll::Ready(Err(nothing())) };
        let outcome = std::task::ready!(pop.as_mut().poll(cx));
        self.pop = None;
        Poll::Ready(outcome.map(|taken| Given { taken, wanted: self.wanted.clone() }))
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        let Some(pop) = self.pop.take() else { return };
        self.gone.cancel();
        let (front, wanted) = (self.front.clone(), self.wanted.clone());
        tokio::spawn(async move {
            if let Ok(taken) = pop.await {
                give_back(&front, &wanted, taken.into_iter().map(|taken| taken.handle));
            }
        });
    }
}

/// Gives messages back that do not reach whoever asked, and renews them no more.
fn give_back(front: &Arc<Front>, wanted: &Wanted, handles: impl Iterator<Item = String>) {
    let Wanted { client, group, topic, .. } = wanted;
    let mut receipts = front.receipts.lock();
    let left: Vec<Left> = handles
        .map(|handle| {
            let renewed = receipts.abandon(client, group, &handle);
            let (group, topic) = (group.clone(), topic.name.clone());
            renewed.unwrap_or(Left { group, topic, handle })
        })
        .collect();
    drop(receipts);
    let front = front.clone();
    tokio::spawn(async move { front.give_back(left).await });
}

/// Messages on their way to whoever asked.
struct Given {
    taken: Vec<Taken>,
    wanted: Arc<Wanted>,
}

/// Pops, and sees to what must not reach the client.
async fn take(
    front: Arc<Front>,
    wanted: Arc<Wanted>,
    polling: Duration,
    gone: Shutdown,
) -> Result<Vec<Taken>, Failure> {
    let request = PopMessage {
        consumer_group: wanted.group.clone(),
        topic: wanted.topic.name.clone(),
        queue_id: wanted.queue_id,
        max_msg_nums: wanted.batch,
        invisible_time: wanted.invisible_ms,
        poll_time: i64::try_from(polling.as_millis()).unwrap_or(i64::MAX),
        born_time: clock::now_ms(),
        // A group that is new begins with what comes from now on.
        init_mode: 1,
        exp_type: Some(wanted.filter.0.to_owned()),
        exp: Some(wanted.filter.1.clone()),
        order: Some(wanted.in_order),
        attempt_id: wanted.attempt_id.clone(),
    };
    let popped = match front.backend.pop(&wanted.broker, &request, polling + GRACE, &gone).await {
        Ok(backend::Pop::Found(popped)) => popped,
        Ok(backend::Pop::Nothing) => return Err(nothing()),
        Ok(backend::Pop::Full) => {
            let message = "too many consumers wait for messages already";
            return Err(Failure::new(Code::TooManyRequests, message));
        }
        Err(failed) => return Err(failed.into()),
    };
    let mut wrong_tag = Vec::new();
    let mut dead = Vec::new();
    let mut taken = popped::messages(&popped, &wanted.broker, &wanted.topic, wanted.in_order);
    taken.retain(|taken| {
        let keeps = if !wants(&wanted.filter, &taken.message) {
            &mut wrong_tag
        } else if taken.attempt > wanted.attempts_max {
            &mut dead
        } else {
            return true;
        };
        keeps.push(taken.clone());
        false
    });
    settle_unwanted(&front, &wanted, wrong_tag, dead);
    if taken.is_empty() {
        return Err(nothing());
    }
    Ok(taken)
}

/// Brokers filter by the hash of a tag; here its letters count.
fn wants((kind, expression): &(&str, String), message: &Message) -> bool {
    if *kind != "TAG" || expression == "*" {
        return true;
    }
    let tag = message.system_properties.as_ref().and_then(|system| system.tag.as_deref());
    tag.is_some_and(|tag| expression.split("||").any(|wanted| wanted.trim() == tag))
}

/// Acknowledges what nobody asked for, and puts away what was delivered too often; without letting the
/// client wait for it.
fn settle_unwanted(front: &Arc<Front>, wanted: &Arc<Wanted>, other: Vec<Taken>, dead: Vec<Taken>) {
    if other.is_empty() && dead.is_empty() {
        return;
    }
    let (front, wanted) = (front.clone(), wanted.clone());
    tokio::spawn(async move {
        let (group, topic) = (&wanted.group, &wanted.topic.name);
        let other: Vec<_> =
            other.iter().filter_map(|taken| Handle::parse(&taken.handle).ok()).collect();
        for failure in front.ack(group, topic, &other).await.into_iter().filter_map(Result::err) {
            tracing::debug!(group, topic, %failure, "a message of another tag will come again");
        }
        for taken in dead {
            let Ok(handle) = Handle::parse(&taken.handle) else { continue };
            let system = taken.message.system_properties.unwrap_or_default();
            let id = system.message_id;
            let forwarded =
                super::forward_to_dead_letters::to_dead_letters(&front, group, topic, &handle, &id);
            if let Err(failure) = forwarded.await {
                tracing::warn!(group, topic, id, %failure, "cannot put a dead letter away yet");
            }
        }
    });
}

/// A status, the messages, and when they were delivered.
pub(super) struct Answers {
    rest: VecDeque<ReceiveMessageResponse>,
    /// Messages not yet handed over: their handles in order, and to whom they belong.
    held: VecDeque<String>,
    owner: Option<(Arc<Front>, Arc<Wanted>)>,
}

fn content(content: Content) -> ReceiveMessageResponse {
    ReceiveMessageResponse { content: Some(content) }
}

pub(super) fn failed(failure: Failure) -> Answers {
    let delivered = time::timestamp(clock::now_ms());
    let rest = [
        content(Content::Status(status(failure.code, failure.message))),
        content(Content::DeliveryTimestamp(delivered)),
    ];
    Answers { rest: rest.into(), held: VecDeque::new(), owner: None }
}

/// Renews the receipts from now on. Not for a client that has left while the pop went on: nobody would ever
/// settle them.
fn registered(front: &Front, given: &Given) -> bool {
    let Given { taken, wanted } = given;
    let Wanted { client, group, .. } = &**wanted;
    let topic = &wanted.topic.name;
    let now_ms = clock::now_ms();
    let mut receipts = front.receipts.lock();
    for one in taken {
        receipts.take(client, group, topic, &one.handle, one.visible_at_ms, now_ms);
    }
    drop(receipts);
    // Whoever leaves from here on finds them.
    front.clients.knows(client)
}

fn found(front: &Arc<Front>, given: Given) -> Answers {
    if given.wanted.renew && !registered(front, &given) {
        let handles = given.taken.into_iter().map(|taken| taken.handle);
        give_back(front, &given.wanted, handles);
        return failed(nothing());
    }
    front.stats.messages_out.fetch_add(given.taken.len() as u64, Ordering::Relaxed);
    let mut rest = VecDeque::with_capacity(given.taken.len() + 2);
    let mut held = VecDeque::with_capacity(given.taken.len());
    rest.push_back(content(Content::Status(ok())));
    for taken in given.taken {
        rest.push_back(content(Content::Message(taken.message)));
        held.push_back(taken.handle);
    }
    rest.push_back(content(Content::DeliveryTimestamp(time::timestamp(clock::now_ms()))));
    Answers { rest, held, owner: Some((front.clone(), given.wanted)) }
}

impl Stream for Answers {
    type Item = Result<ReceiveMessageResponse, tonic::Status>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> Poll<Option<Self::Item>> {
        let next = self.rest.pop_front();
        if matches!(&next, Some(ReceiveMessageResponse { content: Some(Content::Message(_)) })) {
            self.held.pop_front();
        }
        Poll::Ready(next.map(Ok))
    }
}

/// The client has gone before it could read everything.
impl Drop for Answers {
    fn drop(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let Some((front, wanted)) = self.owner.take() else { return };
        give_back(&front, &wanted, self.held.drain(..));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_alone_leaves_half_of_its_spare_time() {
        let seconds = Duration::from_secs;
        for (deadline, spare, polling) in [(20, 10, 15), (13, 4, 11), (10, 0, 10), (2, 6, 0)] {
            let polled = within(seconds(deadline), seconds(spare));
            assert_eq!(polled.as_secs(), polling, "{deadline} s, {spare} s of them to spare");
        }
    }
}
