//! What the proxy asks of brokers: one contract, served by a cluster behind sockets or by a broker in this process.

pub mod cache;
pub mod cluster;
mod commands;
pub mod faults;
pub mod local;
pub mod route;
pub mod waiting;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protocol::body::{SubscriptionGroupConfig, TopicConfig};
use protocol::frame::Command;
use protocol::header::pop::{
    ChangeInvisibleTime, ChangeInvisibleTimeReply, PopMessage, PopMessageReply,
};
use protocol::header::pull::PullMessage;
use protocol::request::Request;
pub use remoting::pool::Failed;
use remoting::process::Shutdown;

use crate::handle::Handle;
use cluster::Cluster;
use local::Local;
use route::Route;

/// How long a broker may take for an answer that does not wait for anything.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Where the brokers are.
///
/// Callers may rely on this: a call ends with an answer, a refusal or a failure, never later than its
/// time-out; a refusal carries the broker's own code; a send that failed without an answer may still
/// have been stored; nothing is tried twice that was not said to be safe.
#[derive(Debug)]
pub enum Backend {
    Cluster(Box<Cluster>),
    Local(Local),
}

/// Messages for one queue, to be stored together.
#[derive(Debug)]
pub struct Outgoing<'a> {
    pub topic: &'a str,
    pub queue_id: i32,
    pub sys_flag: i32,
    pub born_ms: i64,
    pub messages: &'a [Entry],
}

/// One message to be stored.
#[derive(Debug, Clone)]
pub struct Entry {
    pub body: Bytes,
    pub properties: Vec<u8>,
    pub reconsume_times: i32,
}

/// What became of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// How safe it is: 0, or one of the codes 10 to 12.
    pub code: i32,
    pub queue_offset: i64,
    /// Where it lies in the broker's log.
    pub position: i64,
    pub recall_handle: Option<String>,
}

/// What a pop brought.
#[derive(Debug)]
pub struct Popped {
    pub header: PopMessageReply,
    /// Records, one after another, in pieces of whole records.
    pub records: Vec<Bytes>,
}

/// How a pop ended.
#[derive(Debug)]
pub enum Pop {
    Found(Popped),
    Nothing,
    /// Too many wait already.
    Full,
}

/// How a pull ended.
#[derive(Debug)]
pub enum Pulled {
    /// Records, one after another.
    Found {
        records: Bytes,
        next_offset: i64,
    },
    Nothing {
        next_offset: i64,
    },
    /// The queue begins later or ends earlier.
    Moved {
        next_offset: i64,
    },
}

impl Backend {
    /// Where a topic's queues are; `None` when nobody knows the topic.
    pub async fn route(&self, topic: &str) -> Result<Option<Arc<Route>>, Failed> {
        match self {
            Self::Cluster(cluster) => cluster.route(topic).await,
            Self::Local(local) => Ok(local.route(topic)),
        }
    }

    /// How a topic is configured, as one of its brokers says.
    pub async fn topic(&self, topic: &str) -> Result<Option<Arc<TopicConfig>>, Failed> {
        match self {
            Self::Cluster(cluster) => cluster.topic(topic).await,
            Self::Local(local) => Ok(local.topic(topic)),
        }
    }

    /// The rules of a group, as a broker says; made there if groups make themselves.
    pub async fn group(&self, group: &str) -> Result<Arc<SubscriptionGroupConfig>, Failed> {
        match self {
            Self::Cluster(cluster) => cluster.group(group).await,
            Self::Local(local) => local.group(group),
        }
    }

    /// Stores messages in one queue; as many answers as messages.
    pub async fn send(&self, broker: &str, messages: Outgoing<'_>) -> Result<Vec<Stored>, Failed> {
        match self {
            Self::Cluster(cluster) => cluster.send(broker, messages).await,
            Self::Local(local) => local.send(broker, messages).await,
        }
    }

    /// Takes messages, waiting for them as long as the request says; `timeout` is the limit of everything.
    /// A broker in this process waits no longer once whoever asked is `gone`, and takes its time for what it
    /// has begun to take, which would be lost otherwise.
    pub async fn pop(
        &self,
        broker: &str,
        request: &PopMessage,
        timeout: Duration,
        gone: &Shutdown,
    ) -> Result<Pop, Failed> {
        match self {
            Self::Cluster(cluster) => cluster.pop(broker, request, timeout).await,
            Self::Local(local) => local.pop(broker, request, gone).await,
        }
    }

    /// Reads a queue, waiting for messages up to `polling`.
    pub async fn pull(
        &self,
        broker: &str,
        request: &PullMessage,
        polling: Duration,
    ) -> Result<Pulled, Failed> {
        match self {
            Self::Cluster(cluster) => cluster.pull(broker, request, polling).await,
            Self::Local(local) => local.pull(broker, request, polling).await,
        }
    }

    /// Settles messages of one broker that were taken from `topic` by `group`; as many outcomes as handles.
    pub async fn ack(
        &self,
        broker: &str,
        group: &str,
        topic: &str,
        handles: &[Handle<'_>],
    ) -> Vec<Result<(), Failed>> {
        match self {
            Self::Cluster(cluster) => cluster.ack(broker, group, topic, handles).await,
            Self::Local(local) => local.ack(broker, group, topic, handles),
        }
    }

    /// Hides a message for `invisible_ms` from now on.
    pub async fn hide(
        &self,
        group: &str,
        topic: &str,
        handle: &Handle<'_>,
        invisible_ms: i64,
        suspend: bool,
    ) -> Result<ChangeInvisibleTimeReply, Failed> {
        let request = ChangeInvisibleTime {
            consumer_group: group.to_owned(),
            topic: handle.real_topic(topic, group).into_owned(),
            queue_id: handle.queue_id,
            extra_info: handle.extra_info.to_owned(),
            offset: handle.offset,
            invisible_time: invisible_ms,
            lite_topic: None,
            suspend,
        };
        self.ask(handle.broker, &request, Vec::new()).await.map(|(reply, _)| reply)
    }

    /// Anything else a broker answers.
    pub async fn ask<R: Request>(
        &self,
        broker: &str,
        request: &R,
        body: Vec<u8>,
    ) -> Result<(R::Reply, Command<'static>), Failed> {
        match self {
            Self::Cluster(cluster) => cluster.ask(broker, request, body, ANSWER_TIMEOUT).await,
            Self::Local(local) => local.ask_named(broker, request, body, ANSWER_TIMEOUT).await,
        }
    }

    /// As [`Backend::ask`] for a command made by hand.
    pub async fn command(
        &self,
        broker: &str,
        command: Command<'static>,
    ) -> Result<Command<'static>, Failed> {
        match self {
            Self::Cluster(cluster) => cluster.command(broker, command, ANSWER_TIMEOUT).await,
            Self::Local(local) => local.command(broker, command, ANSWER_TIMEOUT).await,
        }
    }

    /// The broker that listens at this address.
    pub async fn broker_at(&self, address: &str) -> Option<String> {
        match self {
            Self::Cluster(cluster) => cluster.broker_at(address).await,
            Self::Local(local) => local.brokers().pop(),
        }
    }

    /// Where the broker of this name is: its master, or the one with the lowest id without it.
    pub async fn address(&self, broker: &str) -> Result<String, Failed> {
        match self {
            Self::Cluster(cluster) => cluster.address(broker).await,
            Self::Local(local) => local.address(broker),
        }
    }

    /// A broker was not where it should be: look again before it is told to anybody.
    pub fn moved(&self) {
        match self {
            Self::Cluster(cluster) => cluster.moved(),
            Self::Local(_) => {}
        }
    }

    /// What a nameserver answers.
    pub async fn nameserver(&self, command: Command<'static>) -> Result<Command<'static>, Failed> {
        match self {
            Self::Cluster(cluster) => cluster.nameserver(command).await,
            Self::Local(local) => local.nameserver(command).await,
        }
    }

    /// The masters of all brokers there are, by name.
    pub async fn brokers(&self) -> Result<Vec<String>, Failed> {
        match self {
            Self::Cluster(cluster) => cluster.brokers().await,
            Self::Local(local) => Ok(local.brokers()),
        }
    }
}

/// A refusal of our own making.
pub fn refused(code: protocol::reply::ReplyCode, remark: impl Into<String>) -> Failed {
    Failed::Refused { code: code.to_wire(), remark: remark.into() }
}
