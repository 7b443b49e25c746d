//! A consumer that asks for messages and settles each when it likes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tokio_util::sync::DropGuard;
use tracing::warn;

use crate::core::Core;
use crate::delivery::Delivery;
use crate::error::Error;
use crate::name::{Group, Topic};
use crate::options::Options;
use crate::settings::{Agreed, Filter, Role};
use crate::settle::{self, Wanted};

const AWAIT: Duration = Duration::from_secs(15);
const INVISIBLE_MAX: Duration = Duration::from_secs(12 * 3600);

/// Receives messages when asked to. Made by [`SimpleConsumer::builder`]; can be shared between tasks.
#[derive(Debug)]
pub struct SimpleConsumer {
    core: Arc<Core>,
    group: Group,
    await_duration: Duration,
    subscriptions: RwLock<BTreeMap<Topic, Filter>>,
    received: AtomicUsize,
    /// Ends the client's tasks when the consumer is dropped without [`SimpleConsumer::shutdown`].
    _end: DropGuard,
}

/// Builds a [`SimpleConsumer`].
#[derive(Debug)]
pub struct Builder {
    options: Options,
    group: Result<Group, Error>,
    subscriptions: Result<BTreeMap<Topic, Filter>, Error>,
    await_duration: Duration,
}

impl SimpleConsumer {
    pub fn builder(options: Options, group: &str) -> Builder {
        Builder {
            options,
            group: Group::new(group),
            subscriptions: Ok(BTreeMap::new()),
            await_duration: AWAIT,
        }
    }

    /// Waits for up to `max` messages of one of the topics, which take turns, and hides them for `invisible`.
    /// None within the await duration is an empty list.
    pub async fn receive(&self, max: usize, invisible: Duration) -> Result<Vec<Delivery>, Error> {
        if max == 0 {
            return Err(Error::invalid("the number of messages", "it is 0"));
        }
        check_invisible(invisible)?;
        let number = self.received.fetch_add(1, Ordering::Relaxed);
        let (topic, filter, turn) = {
            let subscriptions = self.subscriptions.read();
            let count = subscriptions.len();
            let at = number.checked_rem(count);
            let Some((topic, filter)) = at.and_then(|at| subscriptions.iter().nth(at)) else {
                return Err(Error::invalid("the subscription", "there is none"));
            };
            (topic.clone(), filter.clone(), number / count)
        };
        let route = self.core.route(&topic).await?;
        let mut brokers = route.brokers_to_read();
        let Some(at) = turn.checked_rem(brokers.len()) else {
            let why = format!("topic {topic} has no queue that can be read");
            return Err(Error::invalid("the subscription", why));
        };
        let wanted = Wanted {
            group: self.group.as_str(),
            queue: brokers.swap_remove(at),
            filter: &filter,
            batch: max,
            invisible: Some(invisible),
            polling: self.await_duration,
            attempt_id: None,
        };
        let received = settle::receive(&self.core, wanted).await?;
        for (delivery, damage) in &received.damaged {
            // It comes again, and in the end it is a dead letter.
            warn!(%topic, delivery.message_id, damage, "leaving out a damaged message");
        }
        Ok(received.messages)
    }

    /// Says that a message has been dealt with.
    pub async fn ack(&self, delivery: &Delivery) -> Result<(), Error> {
        let outcomes = settle::acknowledge(&self.core, self.group.as_str(), &[delivery]).await?;
        outcomes.into_iter().collect()
    }

    /// Says that messages have been dealt with, with as few requests as there are topics and proxies; each has an
    /// outcome of its own, in the order given.
    pub async fn ack_all(&self, deliveries: &[Delivery]) -> Vec<Result<(), Error>> {
        let mut groups: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for (at, delivery) in deliveries.iter().enumerate() {
            groups.entry((&delivery.topic, &delivery.proxy)).or_default().push(at);
        }
        let mut outcomes: Vec<Result<(), Error>> = vec![Ok(()); deliveries.len()];
        for places in groups.into_values() {
            let some: Vec<&Delivery> = places.iter().map(|at| &deliveries[*at]).collect();
            match settle::acknowledge(&self.core, self.group.as_str(), &some).await {
                Ok(each) => {
                    for (at, outcome) in places.into_iter().zip(each) {
                        outcomes[at] = outcome;
                    }
                }
                Err(error) => {
                    for at in places {
                        outcomes[at] = Err(error.clone());
                    }
                }
            }
        }
        outcomes
    }

    /// Hides a message for so long from now: longer to have more time for it, shorter to have it again soon.
    /// Its receipt handle changes.
    pub async fn change_invisible_duration(
        &self,
        delivery: &mut Delivery,
        invisible: Duration,
    ) -> Result<(), Error> {
        check_invisible(invisible)?;
        let group = self.group.as_str();
        let handle = settle::hide(&self.core, group, delivery, invisible).await?;
        delivery.receipt_handle = handle;
        Ok(())
    }

    /// Adds a topic, or changes what is wanted of it.
    pub async fn subscribe(&self, topic: &str, filter: Filter) -> Result<(), Error> {
        let topic = Topic::new(topic)?;
        self.core.route(&topic).await?;
        self.subscriptions.write().insert(topic.clone(), filter.clone());
        self.core.change_role(|role| {
            if let Role::Consumer { subscriptions, .. } = role {
                subscriptions.insert(topic.as_str().to_owned(), filter);
            }
        });
        Ok(())
    }

    /// Receives no more of a topic.
    pub fn unsubscribe(&self, topic: &Topic) {
        self.subscriptions.write().remove(topic);
        self.core.change_role(|role| {
            if let Role::Consumer { subscriptions, .. } = role {
                subscriptions.remove(topic.as_str());
            }
        });
    }

    /// Says good-bye and ends. What was received and not acknowledged comes again, here or elsewhere.
    pub async fn shutdown(self) {
        self.core.end().await;
    }
}

fn check_invisible(invisible: Duration) -> Result<(), Error> {
    if invisible.is_zero() || invisible > INVISIBLE_MAX {
        return Err(Error::invalid("the invisible duration", "it is not within 12 hours"));
    }
    Ok(())
}

impl Builder {
    /// A topic to receive, and what is wanted of it.
    pub fn subscribe(mut self, topic: &str, filter: Filter) -> Self {
        self.subscriptions = self.subscriptions.and_then(|mut subscriptions| {
            subscriptions.insert(Topic::new(topic)?, filter);
            Ok(subscriptions)
        });
        self
    }

    /// How long a receive waits for the first message.
    pub fn await_duration(mut self, duration: Duration) -> Self {
        self.await_duration = duration;
        self
    }

    /// Connects, and waits until a server has answered.
    pub async fn start(self) -> Result<SimpleConsumer, Error> {
        let (group, subscriptions) = (self.group?, self.subscriptions?);
        let role = consumer_role(false, &group, &subscriptions);
        let before = Agreed::before(1);
        let await_duration = Some(self.await_duration);
        let (core, _) = Core::start(self.options, role, before, await_duration).await?;
        let end = core.stop.clone().drop_guard();
        core.learn(subscriptions.keys()).await?;
        Ok(SimpleConsumer {
            core,
            group,
            await_duration: self.await_duration,
            subscriptions: RwLock::new(subscriptions),
            received: AtomicUsize::new(rand::random::<u16>().into()),
            _end: end,
        })
    }
}

pub(crate) fn consumer_role(
    push: bool,
    group: &Group,
    subscriptions: &BTreeMap<Topic, Filter>,
) -> Role {
    let named = subscriptions.iter();
    Role::Consumer {
        push,
        group: group.as_str().to_owned(),
        subscriptions: named.map(|(topic, filter)| (topic.to_string(), filter.clone())).collect(),
    }
}
