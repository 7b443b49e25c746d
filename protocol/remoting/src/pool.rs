//! Connections by address, made when first needed and again when lost; typed calls over them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use protocol::fields::Header;
use protocol::frame::Command;
use protocol::reply::{Refusal, ReplyCode};
use protocol::request::{Request, RequestCode};

use crate::connection::Session;
use crate::outbox::{Outbox, ReplyTo};
use crate::peer::{CallError, Peer};
use crate::process::Shutdown;
use crate::server;
use crate::tls::Connector;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// What serves requests that come back over connections of ours.
pub type Incoming = dyn Fn(Command<'_>, &mut Outbox) + Send + Sync;

/// Connections to other processes.
pub struct Pool {
    peers: Mutex<HashMap<String, Arc<Peer>>>,
    incoming: Arc<Incoming>,
    tls: Option<Connector>,
    shutdown: Shutdown,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("peers", &self.peers.lock().keys()).finish()
    }
}

/// Why a typed call gave no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("refused with code {code}: {remark}")]
    Refused { code: i32, remark: String },
    #[error("the reply cannot be read: {0}")]
    Unreadable(String),
}

impl Pool {
    /// A pool whose peers may only answer.
    pub fn new(shutdown: Shutdown) -> Self {
        Self::serving(shutdown, |request, out| {
            out.now.refuse(ReplyTo::new(&request), &Refusal::unsupported(request.code));
        })
    }

    /// A pool whose peers may also ask.
    pub fn serving(
        shutdown: Shutdown,
        incoming: impl Fn(Command<'_>, &mut Outbox) + Send + Sync + 'static,
    ) -> Self {
        Self { peers: Mutex::default(), incoming: Arc::new(incoming), tls: None, shutdown }
    }

    /// The same with encrypted connections, if there is something to encrypt them with.
    pub fn with_tls(self, tls: Option<Connector>) -> Self {
        Self { tls, ..self }
    }

    /// Sends `request` to `address` (host:port) and waits for the answer.
    pub async fn call(
        &self,
        address: &str,
        request: Command<'static>,
        timeout: Duration,
    ) -> Result<Command<'static>, CallError> {
        self.peer(address).await?.call(request, timeout).await
    }

    /// Sends `request` under its own code and reads the reply.
    pub async fn ask<R: Request>(
        &self,
        address: &str,
        request: &R,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<(R::Reply, Command<'static>), Failed> {
        let command = Command::request(R::CODE.to_wire(), request).with_body(body);
        read_reply::<R>(self.call(address, command, timeout).await?)
    }

    /// Sends a request that has no header of its own.
    pub async fn ask_plain(
        &self,
        address: &str,
        code: RequestCode,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Command<'static>, Failed> {
        let command = Command::request(code.to_wire(), &protocol::header::Empty {}).with_body(body);
        successful(self.call(address, command, timeout).await?)
    }

    /// The connection to `address`, made now if there is none.
    pub async fn peer(&self, address: &str) -> Result<Arc<Peer>, CallError> {
        if let Some(peer) = self.peers.lock().get(address).filter(|peer| !peer.is_closed()) {
            return Ok(peer.clone());
        }
        let failed = |reason: String| CallError::Connect { address: address.to_owned(), reason };
        let connect = async {
            let resolved = tokio::net::lookup_host(address).await?.next();
            let resolved = resolved.ok_or(std::io::ErrorKind::AddrNotAvailable)?;
            let session = Answering(self.incoming.clone());
            let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
            let host = host.trim_matches(['[', ']']);
            let shutdown = self.shutdown.clone();
            server::connect(host, resolved, self.tls.as_ref(), session, shutdown).await
        };
        let peer = tokio::time::timeout(CONNECT_TIMEOUT, connect)
            .await
            .map_err(|_| failed(format!("no connection within {CONNECT_TIMEOUT:?}")))?
            .map_err(|error| failed(error.to_string()))?;
        let mut peers = self.peers.lock();
        peers.retain(|_, peer| !peer.is_closed());
        // Two callers may have connected at once; the first connection serves both.
        Ok(peers.entry(address.to_owned()).or_insert(peer).clone())
    }
}

/// A reply that says success, or what it says instead.
pub fn successful(reply: Command<'static>) -> Result<Command<'static>, Failed> {
    if reply.code == ReplyCode::Success.to_wire() {
        return Ok(reply);
    }
    let remark = reply.remark.unwrap_or_default().into_owned();
    Err(Failed::Refused { code: reply.code, remark })
}

/// A reply to a request of this kind, if it says success.
pub fn read_reply<R: Request>(
    reply: Command<'static>,
) -> Result<(R::Reply, Command<'static>), Failed> {
    let reply = successful(reply)?;
    let header = R::Reply::read(&reply.fields);
    let header = header.map_err(|error| Failed::Unreadable(error.to_string()))?;
    Ok((header, reply))
}

struct Answering(Arc<Incoming>);

impl Session for Answering {
    fn request(&mut self, request: Command<'_>, out: &mut Outbox) {
        (self.0)(request, out);
    }
    fn flush(&mut self, _: &mut Outbox) {}
    fn closed(&mut self) {}
}
