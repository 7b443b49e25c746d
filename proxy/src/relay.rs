//! The remoting front door: what a 4.x client asks is passed on to the broker it is meant for.
//!
//! Every client has connections of its own to brokers, so that a broker sees each client as if it had come
//! straight to it: rebalancing, notices, transaction checks and replies need no state here. Routes name the
//! address that the client dialled instead of the brokers'.

mod client;
mod route;
mod target;

use std::sync::Arc;

use protocol::frame::Command;
use protocol::reply::Refusal;
use remoting::connection;
use remoting::outbox::{Chunk, Outbox, ReplyTo};
use remoting::peer::Peer;
use remoting::process::Shutdown;
use remoting::server::Service;
use remoting::tls::Connector;

use crate::front::Front;
use client::Client;

/// Where remoting clients come in.
#[derive(Debug)]
pub struct Door {
    pub front: Arc<Front>,
    /// What clients are told to dial, `host:port`; without it what they dialled.
    pub advertise: Option<String>,
    /// How brokers are spoken to, if not plainly.
    pub tls: Option<Connector>,
    /// Ends the connections to brokers, after everything that may use them.
    pub calls: Shutdown,
}

/// One client.
#[derive(Debug)]
pub struct Session(Arc<Client>);

impl Service for Door {
    type Session = Session;

    fn open(self: &Arc<Self>, peer: &Arc<Peer>) -> Session {
        Session(Client::new(self.clone(), peer.clone()))
    }
}

impl connection::Session for Session {
    fn request(&mut self, request: Command<'_>, out: &mut Outbox) {
        let to = ReplyTo::new(&request);
        let (client, request) = (self.0.clone(), request.into_owned());
        out.later(async move {
            let mut chunk = Chunk::default();
            match client.serve(request).await {
                Ok(reply) => chunk.answer(to, reply),
                Err(refusal) => chunk.refuse(to, &refusal),
            }
            chunk
        });
    }

    fn flush(&mut self, _: &mut Outbox) {}

    fn closed(&mut self) {
        self.0.end();
    }
}

/// How most requests end.
type Outcome = Result<Command<'static>, Refusal>;
