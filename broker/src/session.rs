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
}

impl Service for Broker {
    type Session = Session;

    fn open(self: &Arc<Self>, peer: &Arc<Peer>) -> Session {
        Session {
            broker: self.clone(),
            peer: peer.clone(),
            sends: send::Group::new(self, self.gates.here()),
            threads: Arc::new(Semaphore::new(THREADS_PER_CONNECTION_MAX)),
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
        let Self { broker, peer, threads, .. } = self;
        let context = Context { broker, peer, request, to, threads };
        match code {
            Some(code) => dispatch::serve(&context, code, out),
            None => out.now.refuse(to, &Refusal::unsupported(request.code)),
        }
    }
}
