//! Takes connections: encrypted or plain, HTTP/2 or remoting, as their first bytes say.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use protocol::grpc::Endpoints;
use remoting::opening::{self, Language};
use remoting::process::Shutdown;
use remoting::server;
use remoting::tls::Acceptor;
use remoting::workers::Workers;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tower::Service;
use tower::util::BoxCloneSyncService;
use tracing::{debug, warn};

use crate::admin::Admin;
use crate::authority::OneAuthority;
use crate::front::Front;
use crate::grpc::Messaging;
use crate::grpc::context::Connection;
use crate::relay::Door;
use crate::service::admin_server::AdminServer;
use crate::service::messaging_service_server::MessagingServiceServer;

type Reflection = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// Connections one listener serves at a time; one more is closed at once.
pub const CONNECTIONS_MAX: u64 = 16_000;
const STREAMS_MAX: u32 = 4096;
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
const HEADER_BYTES_MAX: u32 = 64 * 1024;
/// Streams a client may have opened and reset before they were looked at.
const RESETS_MAX: usize = 1024;
/// A connection that is silent for so long is asked whether it is still there.
const PING_AFTER: Duration = Duration::from_secs(60);
const PING_MAX: Duration = Duration::from_secs(20);

/// A listening socket and what it says of itself.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    pub address: SocketAddr,
    advertise: Option<Endpoints>,
}

impl Listener {
    /// Listens on `address`; the error names it.
    pub fn bind(address: SocketAddr, advertise: Option<Endpoints>) -> std::io::Result<Self> {
        let named = |error: std::io::Error| {
            std::io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
        };
        let socket = std::net::TcpListener::bind(address).map_err(named)?;
        socket.set_nonblocking(true)?;
        let socket = TcpListener::from_std(socket)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address, advertise })
    }

    /// Serves until `shutdown`, then lets what is in flight end.
    pub async fn serve(
        self,
        workers: Arc<Workers>,
        front: Arc<Front>,
        door: Arc<Door>,
        acceptor: Arc<Acceptor>,
        shutdown: Shutdown,
    ) {
        let service = Services::new(&front);
        let tasks = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = self.socket.accept() => accepted,
            };
            let (stream, remote) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors: others have to close before this can go on.
                    warn!(%error, "cannot accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            if front.stats.connections.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
                warn!(%remote, limit = CONNECTIONS_MAX, "too many connections, closing a new one");
                continue;
            }
            let Ok(local) = stream.local_addr() else { continue };
            let Ok(stream) = stream.into_std() else { continue };
            let advertise = self.advertise.clone();
            let connection = Connection { remote, local, advertise };
            let (front, service) = (front.clone(), service.clone());
            let (door, acceptor) = (door.clone(), acceptor.clone());
            let shutdown = shutdown.child_token();
            front.stats.connections.fetch_add(1, Ordering::Relaxed);
            workers.spawn(&tasks, async move {
                let serving = serve_one(stream, connection, &acceptor, service, &door, shutdown);
                if let Err(error) = serving.await {
                    debug!(%remote, error, "connection lost");
                }
                front.stats.connections.fetch_sub(1, Ordering::Relaxed);
            });
        }
        drop(self.socket);
        tasks.close();
        tasks.wait().await;
    }
}

async fn serve_one(
    stream: std::net::TcpStream,
    mut connection: Connection,
    acceptor: &Acceptor,
    service: Services,
    door: &Arc<Door>,
    shutdown: Shutdown,
) -> Result<(), String> {
    // Known to the runtime of its worker from here on.
    let stream = TcpStream::from_std(stream).map_err(|error| error.to_string())?;
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "cannot set nodelay");
    }
    let opened = tokio::select! {
        opened = opening::open(stream, acceptor) => opened.map_err(|error| error.to_string())?,
        () = shutdown.cancelled() => return Ok(()),
    };
    // Behind a load balancer the client is whom that one names.
    if let Some((client, asked)) = opened.origin.as_ref().and_then(|origin| origin.addresses) {
        connection.remote = client;
        connection.local = asked;
    }
    if opened.language == Language::Remoting {
        let between = (connection.remote, connection.local);
        let serving = server::serve_stream(opened.stream, opened.head, between, door, shutdown);
        Box::pin(serving).await;
        return Ok(());
    }
    let drain_max = door.front.config.drain_max;
    let stream = OneAuthority::new(opened.into_io());
    serve_http(stream, Arc::new(connection), service, shutdown, drain_max).await
}

async fn serve_http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    connection: Arc<Connection>,
    service: Services,
    shutdown: Shutdown,
    drain_max: Duration,
) -> Result<(), String> {
    let answer = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(connection.clone());
        let mut service = service.clone();
        // In a box, which goes when the answer begins: most streams are polls that go on for long after that.
        Box::pin(async move { service.call(request).await })
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(RESETS_MAX)
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_MAX);
    let mut serving = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), answer));
    let ended = tokio::select! {
        ended = serving.as_mut() => return ended.map_err(|error| error.to_string()),
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            tokio::time::timeout(drain_max, serving).await
        }
    };
    ended.unwrap_or(Ok(())).map_err(|error| error.to_string())
}

/// What is served on a connection, by the beginning of the path.
#[derive(Clone)]
struct Services {
    messaging: MessagingServiceServer<Messaging>,
    admin: AdminServer<Admin>,
    /// Made when first asked for, which is seldom.
    reflection: Arc<OnceLock<[Reflection; 2]>>,
}

impl Services {
    fn new(front: &Arc<Front>) -> Self {
        let limit = front.config.request_bytes_max;
        Self {
            messaging: MessagingServiceServer::new(Messaging(front.clone()))
                .max_decoding_message_size(limit)
                .max_encoding_message_size(usize::MAX),
            admin: AdminServer::new(Admin(front.clone())),
            reflection: Arc::default(),
        }
    }

    async fn call(&mut self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let path = request.uri().path();
        if path.starts_with("/apache.rocketmq.v2.MessagingService/") {
            self.messaging.call(request).await
        } else if path.starts_with("/apache.rocketmq.v2.Admin/") {
            self.admin.call(request).await
        } else if path.starts_with("/grpc.reflection.") {
            let old = path.starts_with("/grpc.reflection.v1alpha.");
            let mut reflection = self.reflection.get_or_init(reflection)[usize::from(old)].clone();
            reflection.call(request.map(Body::new)).await
        } else {
            Ok(tonic::Status::unimplemented("this service is not served here").into_http())
        }
    }
}

/// The services that tell what is served here: the one in use, and its predecessor.
fn reflection() -> [Reflection; 2] {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(protocol::grpc::DESCRIPTORS)
    };
    let known = "the descriptors are those we are compiled from";
    [
        BoxCloneSyncService::new(builder().build_v1().expect(known)),
        BoxCloneSyncService::new(builder().build_v1alpha().expect(known)),
    ]
}
