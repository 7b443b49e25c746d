//! Listens, accepts, and gives every connection its task on one of the workers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::connection::{self, Session};
use crate::peer::Peer;
use crate::process::Shutdown;
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
        Ok(Self { listener, address })
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
                    let Ok(local) = stream.local_addr() else { continue };
                    let Ok(stream) = stream.into_std() else { continue };
                    let (peer, commands) = Peer::new(remote, local);
                    let (peer, service) = (Arc::new(peer), service.clone());
                    // A token of its own, as each connection looks at it whenever it has read.
                    let (open, shutdown) = (open.clone(), shutdown.child_token());
                    open.fetch_add(1, Ordering::Relaxed);
                    workers.spawn(&tasks, async move {
                        // Known to the runtime of its worker from here on.
                        match TcpStream::from_std(stream) {
                            Ok(stream) => {
                                prepare(&stream);
                                let session = service.open(&peer);
                                connection::run(stream, session, peer, commands, shutdown).await;
                            }
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

/// Connects to `address` and serves what the other side asks with `session`.
pub async fn connect(
    address: SocketAddr,
    session: impl Session,
    shutdown: Shutdown,
) -> std::io::Result<Arc<Peer>> {
    let stream = TcpStream::connect(address).await?;
    prepare(&stream);
    let (peer, commands) = Peer::new(address, stream.local_addr()?);
    let peer = Arc::new(peer);
    tokio::spawn(connection::run(stream, session, peer.clone(), commands, shutdown));
    Ok(peer)
}

fn prepare(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "cannot set nodelay");
    }
}
