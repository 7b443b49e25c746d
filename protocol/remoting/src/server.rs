//! Listens, accepts, and gives every connection its task on one of the workers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use protocol::proxy_header;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::connection::{self, Session};
use crate::opening::{self, Language, Opened, Refused, Stream};
use crate::peer::Peer;
use crate::process::Shutdown;
use crate::tls::{Acceptor, Connector};
use crate::workers::Workers;

/// Connections one listener serves at a time; one more is closed at once.
pub const CONNECTIONS_MAX: usize = 16_000;

/// What answers requests: one session for each connection.
pub trait Service: Send + Sync + 'static {
    type Session: Session;
    fn open(self: &Arc<Self>, peer: &Arc<Peer>) -> Self::Session;
}

/// A listening socket.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    pub address: SocketAddr,
    tls: Arc<Acceptor>,
}

impl Server {
    /// Listens on `address`; the error names it.
    pub fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let named = |error: std::io::Error| {
            std::io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
        };
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into()).map_err(named)?;
        socket.listen(1024).map_err(named)?;
        let listener = TcpListener::from_std(socket.into())?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, tls: Acceptor::disabled() })
    }

    /// Serves encrypted connections, too, or only such, as `tls` says.
    pub fn with_tls(self, tls: Arc<Acceptor>) -> Self {
        Self { tls, ..self }
    }

    /// Serves until `shutdown`, then waits for the connections to answer what is in flight.
    pub async fn serve<S: Service>(self, service: Arc<S>, shutdown: Shutdown) {
        self.serve_on(&Workers::here(), service, shutdown).await;
    }

    /// The same, with the connections on `workers`.
    pub async fn serve_on<S: Service>(
        self,
        workers: &Workers,
        service: Arc<S>,
        shutdown: Shutdown,
    ) {
        let open = Arc::new(AtomicUsize::new(0));
        let tasks = TaskTracker::new();
        loop {
            let stream = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match stream {
                Ok((stream, remote)) if open.load(Ordering::Relaxed) >= CONNECTIONS_MAX => {
                    warn!(%remote, limit = CONNECTIONS_MAX, "too many connections, closing a new one");
                    drop(stream);
                }
                Ok((stream, remote)) => {
                    let Ok(stream) = stream.into_std() else { continue };
                    // A token of its own, as each connection looks at it whenever it has read.
                    let (open, shutdown) = (open.clone(), shutdown.child_token());
                    let (service, tls) = (service.clone(), self.tls.clone());
                    open.fetch_add(1, Ordering::Relaxed);
                    workers.spawn(&tasks, async move {
                        // Known to the runtime of its worker from here on.
                        match TcpStream::from_std(stream) {
                            Ok(stream) => serve_one(stream, remote, &service, &tls, shutdown).await,
                            Err(error) => warn!(%remote, %error, "cannot serve a connection"),
                        }
                        open.fetch_sub(1, Ordering::Relaxed);
                    });
                }
                Err(error) => {
                    // Out of descriptors: others have to close before this can go on.
                    warn!(%error, "cannot accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(self.listener);
        tasks.close();
        tasks.wait().await;
    }
}

async fn serve_one<S: Service>(
    stream: TcpStream,
    remote: SocketAddr,
    service: &Arc<S>,
    tls: &Acceptor,
    shutdown: Shutdown,
) {
    prepare(&stream);
    let Ok(local) = stream.local_addr() else { return };
    let opened = tokio::select! {
        opened = opening::open(stream, tls) => opened,
        () = shutdown.cancelled() => return,
    };
    let Opened { stream, head, language, origin } = match opened {
        Ok(opened) => opened,
        Err(Refused::Ended | Refused::Silent) => return,
        Err(error) => {
            warn!(%remote, %error, "closing a connection");
            return;
        }
    };
    if language == Language::Http2 {
        warn!(%remote, "closing a connection that speaks HTTP/2");
        return;
    }
    // Behind a load balancer everybody would look the same.
    let remote = origin.and_then(|it| it.addresses).map_or(remote, |(client, _)| client);
    serve_stream(stream, head, (remote, local), service, shutdown).await;
}

/// Serves a connection between `remote` and `local` of which `head` has been read already.
pub async fn serve_stream<S: Service>(
    stream: Stream,
    head: Vec<u8>,
    (remote, local): (SocketAddr, SocketAddr),
    service: &Arc<S>,
    shutdown: Shutdown,
) {
    let (peer, commands) = Peer::new(remote, local);
    let peer = Arc::new(peer);
    let session = service.open(&peer);
    match stream {
        Stream::Plain(stream) => {
            connection::run(stream, head, session, peer, commands, shutdown).await;
        }
        Stream::Tls(stream) => {
            let running = connection::run(stream, head, session, peer, commands, shutdown);
            Box::pin(running).await;
        }
    }
}

/// Connects to `host`, which is at `address`, and serves what the other side asks with `session`.
pub async fn connect(
    host: &str,
    address: SocketAddr,
    tls: Option<&Connector>,
    session: impl Session,
    shutdown: Shutdown,
) -> std::io::Result<Arc<Peer>> {
    let stream = TcpStream::connect(address).await?;
    prepare(&stream);
    speak(host, stream, address, tls, session, shutdown).await
}

/// The same on behalf of `client`, whom the other side is told of.
pub async fn connect_for(
    client: SocketAddr,
    host: &str,
    address: SocketAddr,
    tls: Option<&Connector>,
    session: impl Session,
    shutdown: Shutdown,
) -> std::io::Result<Arc<Peer>> {
    let mut stream = TcpStream::connect(address).await?;
    prepare(&stream);
    stream.write_all(&proxy_header::write(client, address)).await?;
    speak(host, stream, address, tls, session, shutdown).await
}

async fn speak(
    host: &str,
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<&Connector>,
    session: impl Session,
    shutdown: Shutdown,
) -> std::io::Result<Arc<Peer>> {
    let (peer, commands) = Peer::new(address, stream.local_addr()?);
    let peer = Arc::new(peer);
    let of_task = peer.clone();
    if let Some(tls) = tls {
        let stream = Box::new(tls.connect(host, stream).await?);
        tokio::spawn(async move {
            connection::run(stream, Vec::new(), session, of_task, commands, shutdown).await;
        });
    } else {
        tokio::spawn(connection::run(stream, Vec::new(), session, of_task, commands, shutdown));
    }
    Ok(peer)
}

fn prepare(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "cannot set nodelay");
    }
}
