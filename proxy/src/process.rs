//! The start and the end of a proxy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use protocol::grpc::TelemetryCommand;
use protocol::grpc::telemetry_command::Command;
use remoting::clock;
use remoting::process::Shutdown;
use tokio::task::JoinSet;
use tracing::debug;

use crate::backend::Backend;
use crate::backend::cluster::Cluster;
use crate::config::Config;
use crate::front::Front;
use crate::grpc::query_route::endpoints_of;
use crate::handle::Handle;
use crate::listener::Listener;

/// How often receipts and silent clients are looked at.
const PERIOD: Duration = Duration::from_secs(5);

/// A proxy that serves.
#[derive(Debug)]
pub struct Running {
    pub front: Arc<Front>,
    pub addresses: Vec<SocketAddr>,
    serving: JoinSet<()>,
}

/// Listens before a cluster; when this returns, the proxy serves.
pub async fn start(config: Config, shutdown: Shutdown) -> anyhow::Result<Running> {
    let cluster = Cluster::new(config.nameservers.clone(), shutdown.clone(), |request, out| {
        let to = remoting::outbox::ReplyTo::new(&request);
        out.now.refuse(to, &protocol::reply::Refusal::unsupported(request.code));
    });
    serve(Front::new(config, Backend::Cluster(cluster)), shutdown)
}

fn serve(front: Arc<Front>, shutdown: Shutdown) -> anyhow::Result<Running> {
    let mut serving = JoinSet::new();
    let mut addresses = Vec::new();
    for listener in &front.config.listeners {
        let advertise = listener.advertise.as_deref().map(advertised).transpose()?;
        let listener = Listener::bind(listener.bind, advertise)?;
        addresses.push(listener.address);
        serving.spawn(listener.serve(front.clone(), shutdown.clone()));
    }
    serving.spawn(renew(front.clone(), shutdown.clone()));
    serving.spawn(drain(front.clone(), shutdown));
    Ok(Running { front, addresses, serving })
}

/// `host:port` as clients are told it.
fn advertised(text: &str) -> anyhow::Result<protocol::grpc::Endpoints> {
    let (host, port) = text
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse().ok()?)))
        .with_context(|| format!("`{text}` is not host:port"))?;
    Ok(endpoints_of(host.trim_matches(['[', ']']), port))
}

impl Running {
    /// Waits for the shutdown and for what is in flight.
    pub async fn finished(mut self) {
        while self.serving.join_next().await.is_some() {}
    }
}

/// Asks clients to go elsewhere when the process is told to end.
async fn drain(front: Arc<Front>, shutdown: Shutdown) {
    shutdown.cancelled().await;
    let reconnect = protocol::grpc::ReconnectEndpointsCommand { nonce: String::new() };
    let command = Command::ReconnectEndpointsCommand(reconnect);
    front.clients.close(&TelemetryCommand { status: None, command: Some(command) });
}

/// Renews receipts, and forgets clients that are silent.
async fn renew(front: Arc<Front>, shutdown: Shutdown) {
    let mut period = tokio::time::interval(PERIOD);
    loop {
        tokio::select! {
            _ = period.tick() => {}
            () = shutdown.cancelled() => return,
        }
        for client in front.clients.expire(clock::instant()) {
            for left in front.receipts.lock().leave(&client) {
                debug!(client, group = left.group, topic = left.topic, "a silent client's message");
            }
        }
        let due = front.receipts.lock().due(clock::now_ms());
        for renewal in due {
            let outcome = match Handle::parse(&renewal.newest) {
                Ok(handle) => {
                    let (group, topic) = (&renewal.group, &renewal.topic);
                    front.hide(group, topic, &handle, renewal.invisible_ms, false).await
                }
                Err(error) => Err(crate::grpc::status::Failure::new(
                    protocol::grpc::Code::InvalidReceiptHandle,
                    error.to_string(),
                )),
            };
            let mut receipts = front.receipts.lock();
            match outcome {
                Ok(newest) => {
                    let visible = Handle::parse(&newest).map_or(0, |handle| handle.visible_at_ms());
                    receipts.renewed(&renewal, newest, visible);
                }
                Err(failure) => {
                    let finally = failure.code == protocol::grpc::Code::InvalidReceiptHandle;
                    receipts.failed(&renewal, finally);
                }
            }
            drop(receipts);
            front.renewed.notify_waiters();
        }
    }
}
