//! What a client tells of itself, and what the server tells it to do.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::grpc::{self, ClientType, settings::PubSub};

use crate::retry::{Backoff, Policy, duration, to_wire};

/// What a receive may bring at most, whatever the server says.
const RECEIVE_BATCH_MAX: usize = 1024;
const LONG_POLLING_MAX: Duration = Duration::from_secs(300);

/// What is in force between a client and the servers: defaults until the first answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Agreed {
    pub(crate) retry: Policy,
    pub(crate) body_bytes_max: usize,
    pub(crate) validate_message_type: bool,
    pub(crate) fifo: bool,
    pub(crate) receive_batch: usize,
    pub(crate) long_polling: Duration,
}

impl Agreed {
    pub(crate) fn before(attempts_max: u32) -> Self {
        let (initial, max) = (Duration::from_millis(10), Duration::from_secs(1));
        let backoff = Backoff::Exponential { initial, max, multiplier: 2.0 };
        Self {
            retry: Policy { attempts_max, backoff },
            body_bytes_max: 4 << 20,
            validate_message_type: true,
            fifo: false,
            receive_batch: 32,
            long_polling: Duration::from_secs(20),
        }
    }

    /// The same after the server has spoken; what it leaves out stays.
    pub(crate) fn merged(&self, settings: &grpc::Settings) -> Self {
        let mut agreed = self.clone();
        agreed.retry = self.retry.merged(settings.backoff_policy.as_ref());
        match &settings.pub_sub {
            Some(PubSub::Publishing(publishing)) => {
                let bytes = usize::try_from(publishing.max_body_size).ok();
                if let Some(bytes) = bytes.filter(|bytes| *bytes > 0) {
                    agreed.body_bytes_max = bytes;
                }
                agreed.validate_message_type = publishing.validate_message_type;
            }
            Some(PubSub::Subscription(subscription)) => {
                agreed.fifo = subscription.fifo.unwrap_or(agreed.fifo);
                let batch = subscription.receive_batch_size.and_then(|size| size.try_into().ok());
                if let Some(batch) = batch.filter(|batch: &usize| *batch > 0) {
                    agreed.receive_batch = batch.min(RECEIVE_BATCH_MAX);
                }
                let polling = duration(subscription.long_polling_timeout.as_ref());
                if !polling.is_zero() {
                    agreed.long_polling = polling.min(LONG_POLLING_MAX);
                }
            }
            None => {}
        }
        agreed
    }
}

/// Which of a topic's messages a consumer wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    All,
    /// One tag, or several with `||` between them.
    Tag(String),
    /// An SQL92 expression over the messages' properties.
    Sql(String),
}

impl Filter {
    pub(crate) fn to_wire(&self) -> grpc::FilterExpression {
        let (r#type, expression) = match self {
            Self::All => (grpc::FilterType::Tag, "*"),
            Self::Tag(tags) => (grpc::FilterType::Tag, tags.as_str()),
            Self::Sql(expression) => (grpc::FilterType::Sql, expression.as_str()),
        };
        grpc::FilterExpression { r#type: r#type.into(), expression: expression.to_owned() }
    }
}

/// What a client is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Role {
    Producer { topics: Vec<String> },
    Consumer { push: bool, group: String, subscriptions: BTreeMap<String, Filter> },
}

impl Role {
    pub(crate) fn client_type(&self) -> ClientType {
        match self {
            Self::Producer { .. } => ClientType::Producer,
            Self::Consumer { push: true, .. } => ClientType::PushConsumer,
            Self::Consumer { push: false, .. } => ClientType::SimpleConsumer,
        }
    }

    pub(crate) fn group(&self) -> Option<&str> {
        match self {
            Self::Producer { .. } => None,
            Self::Consumer { group, .. } => Some(group),
        }
    }
}

/// How a client introduces itself.
#[derive(Debug, Clone)]
pub(crate) struct Introduction {
    pub(crate) namespace: String,
    pub(crate) access_point: grpc::Endpoints,
    pub(crate) request_timeout: Duration,
    pub(crate) hostname: String,
    /// How long a simple consumer waits for messages.
    pub(crate) await_duration: Option<Duration>,
    pub(crate) retry: Policy,
}

impl Introduction {
    pub(crate) fn of(&self, role: &Role) -> grpc::Settings {
        let resource = |name: &str| grpc::Resource {
            resource_namespace: self.namespace.clone(),
            name: name.to_owned(),
        };
        let pub_sub = match role {
            Role::Producer { topics } => PubSub::Publishing(grpc::Publishing {
                topics: topics.iter().map(|topic| resource(topic)).collect(),
                max_body_size: 0,
                validate_message_type: true,
            }),
            Role::Consumer { group, subscriptions, .. } => {
                PubSub::Subscription(grpc::Subscription {
                    group: Some(resource(group)),
                    subscriptions: subscriptions
                        .iter()
                        .map(|(topic, filter)| grpc::SubscriptionEntry {
                            topic: Some(resource(topic)),
                            expression: Some(filter.to_wire()),
                        })
                        .collect(),
                    fifo: Some(false),
                    long_polling_timeout: self.await_duration.map(to_wire),
                    ..Default::default()
                })
            }
        };
        grpc::Settings {
            client_type: Some(role.client_type().into()),
            access_point: Some(self.access_point.clone()),
            backoff_policy: matches!(role, Role::Producer { .. }).then(|| self.retry.to_wire()),
            request_timeout: Some(to_wire(self.request_timeout)),
            pub_sub: Some(pub_sub),
            user_agent: Some(grpc::Ua {
                language: grpc::Language::Rust.into(),
                version: VERSION.to_owned(),
                platform: std::env::consts::OS.to_owned(),
                hostname: self.hostname.clone(),
            }),
            ..Default::default()
        }
    }
}

/// What servers are told this client can do: the protocol's release, not this crate's.
pub(crate) const VERSION: &str = "5.2.0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_leaves_out_stays() {
        let before = Agreed::before(3);
        assert_eq!(before.merged(&grpc::Settings::default()), before);
        let subscription = grpc::Subscription {
            fifo: Some(true),
            receive_batch_size: Some(-1),
            long_polling_timeout: Some(to_wire(Duration::from_secs(86_400))),
            ..Default::default()
        };
        let pub_sub = Some(PubSub::Subscription(subscription));
        let agreed = before.merged(&grpc::Settings { pub_sub, ..Default::default() });
        assert!(agreed.fifo);
        assert_eq!((agreed.receive_batch, agreed.long_polling), (32, LONG_POLLING_MAX));
        let publishing = grpc::Publishing { max_body_size: 1024, ..Default::default() };
        let pub_sub = Some(PubSub::Publishing(publishing));
        let agreed = agreed.merged(&grpc::Settings { pub_sub, ..Default::default() });
        assert_eq!((agreed.body_bytes_max, agreed.validate_message_type), (1024, false));
        assert!(agreed.fifo);
    }
}
