//! One connection to a broker: sends are collected and committed as a group, the rest is dispatched.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use protocol::frame::Command;
use protocol::reply::Refusal;
use protocol::request::RequestCode;
use remoting::connection;
use remoting::outbox::{Outbox, ReplyTo};
use remoting::peer::Peer;
use remoting::server::Service;
use tokio::sync::Semaphore;
use tracing::error;

use crate::answer::{Context, THREADS_PER_CONNECTION_MAX};
use crate::broker::Broker;
use crate::dispatch;
use crate::send;

/// A connection that a client or tool made.
#[derive(Debug)]
pub struct Session {
    broker: Arc<Broker>,
    peer: Arc<Peer>,
    sends: send::Group,
    threads: Arc<Semaphore>,
    /// Whether the peer came through the port that is for sends only.
    fast: bool,
    /// A request that waits for the disk to catch up, as it must not pass what was sent before it.
    held: Option<Command<'static>>,
}

impl Service for Broker {
    type Session = Session;

    fn open(self: &Arc<Self>, peer: &Arc<Peer>) -> Session {
        Session {
            broker: self.clone(),
            peer: peer.clone(),
            sends: send::Group::new(self, self.gates.here()),
            threads: Arc::new(Semaphore::new(THREADS_PER_CONNECTION_MAX)),
            fast: peer.local.port().checked_add(2) == Some(self.store_host.port()),
            held: None,
        }
    }
}

impl connection::Session for Session {
    fn request(&mut self, request: Command<'_>, out: &mut Outbox) {
        let to = ReplyTo::new(&request);
        // A defect ends the request that met it, nothing else.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.serve(&request, to, out)));
        if outcome.is_err() {
            error!(code = request.code, peer = %self.peer.remote, "a request met a defect");
            let refusal = crate::broker::defect();
            out.now.refuse(to, &refusal);
            self.sends.abandon(&refusal, out);
        }
    }

    fn flush(&mut self, out: &mut Outbox) {
        self.sends.commit(&self.broker, out);
        if !out.is_paused()
            && let Some(request) = self.held.take()
        {
            connection::Session::request(self, request, out);
        }
    }

    fn closed(&mut self) {
        let changes = self.broker.clients.closed(self.peer.id);
        // At the end of the process everyone goes, and nobody has to look again.
        if !self.broker.shutdown.is_cancelled() {
            self.broker.notify_changed(changes);
        }
    }
}

impl Session {
    fn serve(&mut self, request: &Command<'_>, to: ReplyTo, out: &mut Outbox) {
        let code = RequestCode::from_wire(request.code);
        if let Some(
            RequestCode::SendMessage | RequestCode::SendMessageV2 | RequestCode::SendBatchMessage,
        ) = code
        {
            if let Err(refusal) = self.sends.add(&self.broker, &self.peer, request, out) {
                out.now.refuse(to, &refusal);
            }
            return;
        }
        // What was sent before counts for what is asked after it.
        self.sends.commit(&self.broker, out);
        if let Some(position) = self.broker.store.behind()
            && code.is_some_and(writes)
            && !out.is_paused()
        {
            let durable = self.broker.store.durable(position);
            out.pause(async move {
                // A failed disk is reported by the append that follows.
                let _ = durable.await;
            });
        }
        if out.is_paused() {
            self.held = Some(request.clone().into_owned());
            return;
        }
        let Self { broker, peer, threads, .. } = self;
        let context = Context { broker, peer, request, to, threads };
        match code {
            Some(code) if self.fast && consumes(code) => {
                out.now.refuse(to, &Refusal::unsupported(code.to_wire()));
            }
            Some(code) => dispatch::serve(&context, code, out),
            None => out.now.refuse(to, &Refusal::unsupported(request.code)),
        }
    }
}

/// What consumers wait with is not served where it would be in the way of sends.
fn consumes(code: RequestCode) -> bool {
    use RequestCode as Code;
    matches!(
        code,
        Code::PullMessage
            | Code::LitePullMessage
            | Code::PeekMessage
            | Code::PopMessage
            | Code::Notification
            | Code::PollingInfo
    )
}

/// Requests that enter the log, and wait like sends while the disk is behind.
fn writes(code: RequestCode) -> bool {
    use RequestCode as Code;
    matches!(
        code,
        Code::UpdateConsumerOffset
            | Code::ConsumerSendMsgBack
            | Code::EndTransaction
            | Code::SendReplyMessage
            | Code::SendReplyMessageV2
            | Code::RecallMessage
            | Code::PopMessage
            | Code::AckMessage
            | Code::BatchAckMessage
            | Code::ChangeInvisibleTime
            | Code::UpdateTopic
            | Code::UpdateTopicList
            | Code::DeleteTopicInBroker
            | Code::UpdateSubscriptionGroup
            | Code::UpdateSubscriptionGroupList
            | Code::DeleteSubscriptionGroup
            | Code::UpdateAndGetGroupForbidden
            | Code::CloneGroupOffset
            | Code::InvokeBrokerToResetOffset
            | Code::CleanUnusedTopic
    )
}
