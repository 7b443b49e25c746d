//! A broker in this process, called directly.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::Duration;

use broker::broker::Broker;
use broker::pop::{self, settle, take};
use parking_lot::Mutex;
use protocol::body::{SubscriptionGroupConfig, TopicConfig};
use protocol::frame::Command;
use protocol::header::pop::PopMessage;
use protocol::header::pull::PullMessage;
use protocol::reply::{Refusal, ReplyCode};
use protocol::request::Request;
use remoting::inside::Inside;
use remoting::pool::{read_reply, successful};
use remoting::process::Shutdown;
use tokio::sync::mpsc;

use super::commands::{pulled, sending, stored};
use super::route::{Holder, Route};
use super::{ANSWER_TIMEOUT, Failed, Outgoing, Pop, Popped, Pulled, Stored, refused};
use crate::handle::Handle;

/// The broker, and connections to it that are none.
#[derive(Debug)]
pub struct Local {
    broker: Arc<Broker>,
    inside: Inside,
    /// One for each thread that sends: to wake another for a message costs more than to store it.
    senders: Mutex<HashMap<ThreadId, Inside>>,
    shutdown: Shutdown,
}

const READ: i32 = 4;
const WRITE: i32 = 2;

impl Local {
    /// Calls `broker` until `shutdown`; what it asks comes out of the receiver.
    pub fn new(
        broker: Arc<Broker>,
        shutdown: Shutdown,
    ) -> (Self, mpsc::Receiver<Command<'static>>) {
        let (inside, asked) = Inside::open(&broker, shutdown.clone());
        (Self { broker, inside, senders: Mutex::default(), shutdown }, asked)
    }

    /// The connection of this thread. Nothing is asked on it: no client is registered there.
    fn sender(&self) -> Inside {
        let mut senders = self.senders.lock();
        let open = || Inside::open(&self.broker, self.shutdown.clone()).0;
        senders.entry(std::thread::current().id()).or_insert_with(open).clone()
    }

    fn name(&self) -> String {
        self.broker.config.load().name.clone()
    }

    /// There is but one broker: whoever names another has an old handle.
    fn check(&self, broker: &str) -> Result<(), Failed> {
        if broker == self.broker.config.load().name {
            return Ok(());
        }
        Err(refused(ReplyCode::BrokerNotExist, format!("there is no broker `{broker}`")))
    }

    pub(super) fn route(&self, topic: &str) -> Option<Arc<Route>> {
        let config = &self.broker.topics.get(topic)?.config;
        let ours = self.broker.config.load();
        let holder = Holder {
            broker: ours.name.clone(),
            cluster: ours.cluster.clone(),
            address: self.broker.store_host.to_string(),
            read_queues: config.read_queue_nums.max(0),
            write_queues: config.write_queue_nums.max(0),
            readable: config.perm & ours.permission & READ != 0,
            writable: config.perm & ours.permission & WRITE != 0,
        };
        Some(Arc::new(Route::of(vec![holder])))
    }

    pub(super) fn topic(&self, topic: &str) -> Option<Arc<TopicConfig>> {
        self.broker.topics.get(topic).map(|topic| Arc::new(topic.config.clone()))
    }

    pub(super) fn group(&self, group: &str) -> Result<Arc<SubscriptionGroupConfig>, Failed> {
        self.broker.group(group).map_err(failed)
    }

    pub(super) async fn send(
        &self,
        broker: &str,
        outgoing: Outgoing<'_>,
    ) -> Result<Vec<Stored>, Failed> {
        self.check(broker)?;
        let count = outgoing.messages.len();
        let reply = self.sender().call(sending(&outgoing)?, ANSWER_TIMEOUT).await?;
        stored(&reply, count)
    }

    pub(super) async fn pop(
        &self,
        broker: &str,
        request: &PopMessage,
        gone: &Shutdown,
    ) -> Result<Pop, Failed> {
        self.check(broker)?;
        let pop = take::Pop::check(&self.broker, request).map_err(failed)?;
        let reply = match pop.serve_until(gone).await {
            Ok(reply) => reply,
            Err(refusal) => return nothing_or(failed(refusal)),
        };
        match reply.code {
            ReplyCode::Success => {
                Ok(Pop::Found(Popped { header: reply.header, records: reply.slices }))
            }
            code => nothing_or(refused(code, "")),
        }
    }

    pub(super) fn ack(
        &self,
        broker: &str,
        group: &str,
        topic: &str,
        handles: &[Handle<'_>],
    ) -> Vec<Result<(), Failed>> {
        let each = |handle: &Handle<'_>| {
            self.check(broker)?;
            let read = pop::handle::Handle::read(handle.extra_info).map_err(failed)?;
            let ack = settle::Ack::of(&read, group, topic, handle.offset);
            if settle::ack(&self.broker, &ack).map_err(failed)? > 0 {
                let remark = "the message was delivered again since, or never";
                return Err(refused(ReplyCode::NoMessage, remark));
            }
            Ok(())
        };
        let outcomes: Vec<_> = handles.iter().map(each).collect();
        match settle::keep(&self.broker) {
            Ok(()) => outcomes,
            Err(refusal) => vec![Err(failed(refusal)); handles.len()],
        }
    }

    pub(super) async fn pull(
        &self,
        broker: &str,
        request: &PullMessage,
        polling: Duration,
    ) -> Result<Pulled, Failed> {
        self.check(broker)?;
        let code = protocol::request::RequestCode::PullMessage.to_wire();
        let command = Command::request(code, request);
        pulled(self.inside.call(command, polling + ANSWER_TIMEOUT).await?)
    }

    async fn ask<R: Request>(
        &self,
        request: &R,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<(R::Reply, Command<'static>), Failed> {
        let command = Command::request(R::CODE.to_wire(), request).with_body(body);
        read_reply::<R>(self.inside.call(command, timeout).await?)
    }

    pub(super) async fn ask_named<R: Request>(
        &self,
        broker: &str,
        request: &R,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<(R::Reply, Command<'static>), Failed> {
        self.check(broker)?;
        self.ask(request, body, timeout).await
    }

    pub(super) async fn command(
        &self,
        broker: &str,
        command: Command<'static>,
        timeout: Duration,
    ) -> Result<Command<'static>, Failed> {
        self.check(broker)?;
        successful(self.inside.call(command, timeout).await?)
    }

    pub(super) fn address(&self, broker: &str) -> Result<String, Failed> {
        self.check(broker)?;
        Ok(self.broker.store_host.to_string())
    }

    /// Asks the nameservers that the broker registers with.
    pub(super) async fn nameserver(
        &self,
        command: Command<'static>,
    ) -> Result<Command<'static>, Failed> {
        let addresses = self.broker.config.load().nameservers.clone();
        let mut failure = refused(
            protocol::reply::ReplyCode::SystemError,
            "the broker registers with no nameserver",
        );
        for address in addresses {
            match self.broker.pool.call(&address, command.clone(), ANSWER_TIMEOUT).await {
                Ok(reply) => return successful(reply),
                Err(error) => failure = error.into(),
            }
        }
        Err(failure)
    }

    pub(super) fn brokers(&self) -> Vec<String> {
        vec![self.name()]
    }
}

/// That there is nothing is no failure.
fn nothing_or(refusal: Failed) -> Result<Pop, Failed> {
    super::commands::popped(Err(refusal))
}

fn failed(refusal: Refusal) -> Failed {
    refused(refusal.code, refusal.remark)
}
