//! The start and the end of a proxy.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use protocol::reply::Refusal;
use protocol::request::RequestCode;
use remoting::outbox::ReplyTo;
use remoting::process::{DropGuard, Shutdown};
use remoting::tls::{self, Acceptor, Connector};
use remoting::workers::Workers;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tracing::warn;

use crate::backend::Backend;
use crate::backend::cluster::Cluster;
use crate::backend::local::Local;
use crate::checks::{self, QUESTIONS_MAX, Question};
use crate::config::Config;
use crate::front::Front;
use crate::grpc::query_route::endpoints_of;
use crate::listener::Listener;
use crate::relay::Door;
use crate::renewal;

/// A proxy that serves.
#[derive(Debug)]
pub struct Running {
    pub front: Arc<Front>,
    pub addresses: Vec<SocketAddr>,
    serving: JoinSet<()>,
    renewing: JoinHandle<()>,
    /// Ends renewals, when nobody settles anything any more.
    served: DropGuard,
    /// Ends our own connections, after everything that may use them.
    calls: Option<DropGuard>,
    /// Where they run.
    _workers: Arc<Workers>,
}

/// Listens before a cluster; when this returns, the proxy serves.
pub async fn start(config: Config, shutdown: Shutdown) -> anyhow::Result<Running> {
    let (ask, questions) = mpsc::channel(QUESTIONS_MAX);
    // Calls outlive the listeners: what is in flight still needs brokers.
    let calls = Shutdown::new();
    let tls = Connector::new(&config.tls)?;
    let cluster = Cluster::new(config.nameservers.clone(), calls.clone(), move |request, out| {
        if request.code == RequestCode::CheckTransactionState.to_wire() {
            if let Some(question) = Question::read(&request) {
                // A broker asks again what is not answered.
                let _ = ask.try_send(question);
            }
            return;
        }
        out.now.refuse(ReplyTo::new(&request), &Refusal::unsupported(request.code));
    });
    let cluster = Box::new(cluster.with_tls(tls));
    let front = Front::new(config, Backend::Cluster(cluster), shutdown.clone());
    let workers = Arc::new(Workers::start().context("cannot start threads")?);
    let mut running = serve(front.clone(), &workers, calls.clone(), shutdown.clone())?;
    running.serving.spawn(checks::pass_on(front.clone(), questions, shutdown.clone()));
    running.serving.spawn(checks::report(front, shutdown));
    running.calls = Some(calls.drop_guard());
    Ok(running)
}

/// Listens before a broker in this process, on the same threads.
pub fn start_local(
    config: Config,
    work: &broker::process::Running,
    shutdown: Shutdown,
) -> anyhow::Result<Running> {
    let (ask, questions) = mpsc::channel(QUESTIONS_MAX);
    let calls = Shutdown::new();
    let (local, mut asked) = Local::new(work.broker.clone(), calls.clone());
    let front = Front::new(config, Backend::Local(local), shutdown.clone());
    let mut running = serve(front.clone(), &work.workers, calls.clone(), shutdown.clone())?;
    let ended = shutdown.clone();
    running.serving.spawn(async move {
        while let Some(Some(request)) = ended.run_until_cancelled(asked.recv()).await {
            if request.code == RequestCode::CheckTransactionState.to_wire()
                && let Some(question) = Question::read(&request)
            {
                // A broker asks again what is not answered.
                let _ = ask.try_send(question);
            }
        }
    });
    running.serving.spawn(checks::pass_on(front.clone(), questions, shutdown.clone()));
    running.serving.spawn(checks::report(front, shutdown));
    running.calls = Some(calls.drop_guard());
    Ok(running)
}

fn serve(
    front: Arc<Front>,
    workers: &Arc<Workers>,
    calls: Shutdown,
    shutdown: Shutdown,
) -> anyhow::Result<Running> {
    let mut serving = JoinSet::new();
    let acceptor = Acceptor::new(encryption(&front.config), &[b"h2"])?;
    let period = front.config.certificate_watch;
    serving.spawn(acceptor.clone().watch(period, shutdown.clone()));
    let brokers = Connector::new(&front.config.tls)?;
    let mut addresses = Vec::new();
    for listener in &front.config.listeners {
        let advertise = listener.advertise.as_deref().map(advertised).transpose()?;
        let door = Door {
            front: front.clone(),
            advertise: listener.advertise.clone(),
            tls: brokers.clone(),
            calls: calls.clone(),
        };
        let door = Arc::new(door);
        let listener = match Listener::bind(listener.bind, advertise) {
            Err(error) if listener.optional => {
                warn!(%error, "remoting clients come in beside those of gRPC only");
                continue;
            }
            bound => bound?,
        };
        addresses.push(listener.address);
        let (workers, acceptor) = (workers.clone(), acceptor.clone());
        serving.spawn(listener.serve(workers, front.clone(), door, acceptor, shutdown.clone()));
    }
    let served = Shutdown::new();
    let renewing = tokio::spawn(renewal::run(front.clone(), served.clone()));
    Ok(Running {
        front,
        addresses,
        serving,
        renewing,
        served: served.drop_guard(),
        calls: None,
        _workers: workers.clone(),
    })
}

/// Encrypted and plain connections; with a certificate of our own if none is given.
fn encryption(config: &Config) -> tls::Settings {
    let mut settings = config.tls.clone();
    if let Some((certificate, key)) = &config.certificate {
        settings.test_mode = false;
        settings.server.cert_path = Some(certificate.clone());
        settings.server.key_path = Some(key.clone());
    }
    settings
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
    /// Waits for the shutdown and for what is in flight, and gives back what only this proxy could settle.
    pub async fn finished(mut self) {
        while self.serving.join_next().await.is_some() {}
        drop(self.served);
        if let Err(error) = self.renewing.await {
            warn!(%error, "messages come back only after their time");
        }
        drop(self.calls);
    }
}
