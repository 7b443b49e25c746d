//! What producers and consumers share: sessions with proxies, routes, heartbeats, calls that find another proxy.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use protocol::grpc::telemetry_command::Command;
use protocol::grpc::{self, Code, TelemetryCommand};
use remoting::clock;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::metadata::MetadataMap;
use tracing::{debug, info, warn};

use crate::credentials::{date_time, hex};
use crate::dial::Dialler;
use crate::endpoints::Address;
use crate::error::{self, Error};
use crate::id::Ids;
use crate::name::Topic;
use crate::options::Options;
use crate::route::Route;
use crate::session::{self, Heard, Hub, Session, State, Stub};
use crate::settings::{Agreed, Introduction, Role, VERSION};

const HEARTBEAT_EVERY: Duration = Duration::from_secs(10);
const ROUTES_EVERY: Duration = Duration::from_secs(30);
/// How long the first proxy is waited for before the next one is opened as well.
const NEXT_PROXY_AFTER: Duration = Duration::from_millis(300);
/// What proxies may say before it is acted on.
const HEARD_MAX: usize = 1024;
/// Between two questions for a route at start.
const ROUTE_AGAIN: Duration = Duration::from_millis(100);
/// How long a proxy is waited for at start beyond one request.
const START_TIMEOUT: Duration = Duration::from_secs(3);

/// The part of a client that knows its servers.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) options: Options,
    pub(crate) client_id: String,
    pub(crate) hostname: String,
    pub(crate) ids: Ids,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    pub(crate) agreed: watch::Sender<Agreed>,
    hub: Arc<Hub>,
    sessions: Mutex<HashMap<Address, Arc<Session>>>,
    routes: Mutex<HashMap<Topic, Arc<Route>>>,
    introduction: Introduction,
    role: Mutex<Role>,
    introduced: watch::Sender<grpc::Settings>,
    /// The same in every request.
    headers: HeaderMap,
    /// Where this client begins in lists of proxies, so that many spread over them.
    seed: usize,
    requests: AtomicUsize,
}

impl Core {
    /// Makes a client of this role and waits until a proxy has answered it. What proxies ask of the client
    /// comes out of the channel.
    pub(crate) async fn start(
        options: Options,
        role: Role,
        before: Agreed,
        await_duration: Option<Duration>,
    ) -> Result<(Arc<Self>, mpsc::Receiver<Heard>), Error> {
        let (core, heard) = Self::new(options, role, before, await_duration)?;
        let (forward, asked) = mpsc::channel(HEARD_MAX);
        core.tasks.spawn(listen(core.clone(), heard, forward));
        core.tasks.spawn(beat(core.clone()));
        core.tasks.spawn(refresh(core.clone()));
        let until = clock::instant() + core.options.request_timeout + START_TIMEOUT;
        match core.ready(&[], &[], until).await {
            Ok(session) => {
                info!(client_id = core.client_id, proxy = %session.address, "connected");
                Ok((core, asked))
            }
            Err(error) => {
                core.stop.cancel();
                Err(error)
            }
        }
    }

    fn new(
        options: Options,
        role: Role,
        before: Agreed,
        await_duration: Option<Duration>,
    ) -> Result<(Arc<Self>, mpsc::Receiver<Heard>), Error> {
        static CLIENTS: AtomicUsize = AtomicUsize::new(0);
        let (process, random) = (std::process::id(), rand::random::<[u8; 6]>());
        let number = CLIENTS.fetch_add(1, Ordering::Relaxed);
        let hostname = hostname();
        let client_id = format!("{hostname}@{process}@{number}@{}", hex(&random));
        let introduction = Introduction {
            namespace: options.namespace.clone(),
            access_point: options.endpoints.to_wire(),
            request_timeout: options.request_timeout,
            hostname: hostname.clone(),
            await_duration,
            retry: before.retry.clone(),
        };
        let introduced = watch::Sender::new(introduction.of(&role));
        let (heard, hears) = mpsc::channel(HEARD_MAX);
        let stop = CancellationToken::new();
        let hub = Hub {
            dialler: Dialler::new(&options.security)?,
            introduction: introduced.subscribe(),
            heard,
            stop: stop.clone(),
            changed: Notify::new(),
        };
        let core = Self {
            headers: headers(&options, &client_id)?,
            ids: Ids::new(random, process, clock::now_ms()),
            client_id,
            hostname,
            stop,
            tasks: TaskTracker::new(),
            agreed: watch::Sender::new(before),
            hub: Arc::new(hub),
            sessions: Mutex::default(),
            routes: Mutex::default(),
            introduction,
            role: Mutex::new(role),
            introduced,
            seed: rand::random::<u32>() as usize,
            requests: AtomicUsize::new(0),
            options,
        };
        Ok((Arc::new(core), hears))
    }

    pub(crate) fn resource(&self, name: &str) -> grpc::Resource {
        let resource_namespace = self.options.namespace.clone();
        grpc::Resource { resource_namespace, name: name.to_owned() }
    }

    pub(crate) fn agreed(&self) -> Agreed {
        self.agreed.borrow().clone()
    }

    /// Changes what the client is, and tells the proxies if that makes a difference.
    pub(crate) fn change_role(&self, change: impl FnOnce(&mut Role)) {
        let mut role = self.role.lock();
        let before = role.clone();
        change(&mut role);
        if *role != before {
            self.introduced.send_replace(self.introduction.of(&role));
        }
    }

    pub(crate) fn role(&self) -> Role {
        self.role.lock().clone()
    }

    /// The headers of one request.
    pub(crate) fn request_headers(&self) -> HeaderMap {
        let mut headers = self.headers.clone();
        let time = date_time(clock::now_ms());
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        if let Some(credentials) = &self.options.credentials {
            insert(&mut headers, "authorization", &credentials.authorization(&time));
        }
        insert(&mut headers, "x-mq-date-time", &time);
        insert(&mut headers, "x-mq-request-id", &format!("{:08x}-{number:x}", self.seed));
        headers
    }

    /// Calls one of `proxies`, or one of the access point's, within the time of one request. A proxy that turns
    /// out to be gone is passed over.
    pub(crate) async fn call<Q, A, F>(
        &self,
        proxies: &[Address],
        request: Q,
        call: impl Fn(Stub, tonic::Request<Q>) -> F,
    ) -> Result<(Address, A), Error>
    where
        Q: Clone,
        F: Future<Output = Result<A, tonic::Status>>,
    {
        self.call_within(self.options.request_timeout, proxies, request, call).await
    }

    pub(crate) async fn call_within<Q, A, F>(
        &self,
        timeout: Duration,
        proxies: &[Address],
        request: Q,
        call: impl Fn(Stub, tonic::Request<Q>) -> F,
    ) -> Result<(Address, A), Error>
    where
        Q: Clone,
        F: Future<Output = Result<A, tonic::Status>>,
    {
        let until = clock::instant() + timeout;
        let mut gone: Vec<Address> = Vec::new();
        loop {
            let session = self.ready(proxies, &gone, until).await?;
            let left = until.saturating_duration_since(clock::instant());
            let mut request = tonic::Request::new(request.clone());
            *request.metadata_mut() = MetadataMap::from_headers(self.request_headers());
            request.set_timeout(left);
            let answer = tokio::select! {
                answer = tokio::time::timeout(left, call(session.stub(), request)) => answer,
                () = self.stop.cancelled() => return Err(Error::Closed),
            };
            match answer {
                Ok(Ok(answer)) => {
                    session.answered();
                    return Ok((session.address.clone(), answer));
                }
                Ok(Err(status)) => match failure(&session, &status, timeout) {
                    Error::Unreachable { reason, .. } => {
                        debug!(proxy = %session.address, reason, "the proxy went away in a call");
                        gone.push(session.address.clone());
                    }
                    error => return Err(error),
                },
                Err(_) => {
                    session.unanswered();
                    return Err(Error::TimedOut(timeout));
                }
            }
        }
    }

    /// A proxy that answers, but for those known to be `gone`; waits for one until then.
    async fn ready(
        &self,
        proxies: &[Address],
        gone: &[Address],
        until: Instant,
    ) -> Result<Arc<Session>, Error> {
        let order = self.order(proxies);
        let mut open = 1;
        let mut gone = gone;
        loop {
            let changed = self.hub.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.stop.is_cancelled() {
                return Err(Error::Closed);
            }
            let opened: Vec<_> = self.open(&order, open)?;
            let up = |session: &&Arc<Session>| {
                session.state() == State::Up && !gone.contains(&session.address)
            };
            let mut usable = opened.iter().filter(up);
            let spoken = usable.clone().find(|session| !session.is_silent());
            if let Some(session) = spoken.or_else(|| usable.next()) {
                return Ok(session.clone());
            }
            let now = clock::instant();
            if now >= until {
                let reason = opened.first().map(|session| session.why()).unwrap_or_default();
                return Err(Error::Unreachable { endpoints: listed(&order), reason });
            }
            let down = opened
                .iter()
                .all(|session| session.state() == State::Down || gone.contains(&session.address));
            if down && open < order.len() {
                open += 1;
                continue;
            }
            let wait = NEXT_PROXY_AFTER.min(until - now);
            if tokio::time::timeout(wait, changed).await.is_err() {
                open = (open + 1).min(order.len());
                // Whoever was gone may be back on a new connection.
                gone = &[];
            }
        }
    }

    /// Proxies in the order in which this client prefers them: those given, then the access point's.
    fn order(&self, proxies: &[Address]) -> Vec<Address> {
        let mut order = Vec::new();
        for list in [proxies, &self.options.endpoints.addresses] {
            let from = self.seed.checked_rem(list.len()).unwrap_or_default();
            for address in list[from..].iter().chain(&list[..from]) {
                if !order.contains(address) {
                    order.push(address.clone());
                }
            }
        }
        order
    }

    /// The sessions with these proxies that are open already; at least the first `count` are opened.
    fn open(&self, order: &[Address], count: usize) -> Result<Vec<Arc<Session>>, Error> {
        let mut sessions = self.sessions.lock();
        let mut opened = Vec::new();
        for (at, address) in order.iter().enumerate() {
            if let Some(session) = sessions.get(address) {
                opened.push(session.clone());
            } else if at < count {
                let session = Arc::new(Session::new(address.clone(), &self.hub.dialler)?);
                sessions.insert(address.clone(), session.clone());
                let signer = self.signer();
                self.tasks.spawn(session::keep(session.clone(), self.hub.clone(), signer));
                opened.push(session);
            }
        }
        Ok(opened)
    }

    /// Makes the headers of telemetry streams.
    fn signer(&self) -> impl Fn() -> HeaderMap + Send + 'static {
        let (base, credentials) = (self.headers.clone(), self.options.credentials.clone());
        move || {
            let mut headers = base.clone();
            let time = date_time(clock::now_ms());
            if let Some(credentials) = &credentials {
                insert(&mut headers, "authorization", &credentials.authorization(&time));
            }
            insert(&mut headers, "x-mq-date-time", &time);
            headers
        }
    }

    /// The proxies that answer now.
    fn up(&self) -> Vec<Arc<Session>> {
        let sessions = self.sessions.lock();
        sessions.values().filter(|session| session.state() == State::Up).cloned().collect()
    }

    /// The queues of a topic, asked for when first wanted.
    pub(crate) async fn route(&self, topic: &Topic) -> Result<Arc<Route>, Error> {
        if let Some(route) = self.routes.lock().get(topic) {
            return Ok(route.clone());
        }
        self.fetch_route(topic).await
    }

    /// Asks for the routes a client begins with; what may pass is waited for.
    pub(crate) async fn learn(
        &self,
        topics: impl IntoIterator<Item = &Topic>,
    ) -> Result<(), Error> {
        let until = clock::instant() + self.options.request_timeout + START_TIMEOUT;
        for topic in topics {
            while let Err(error) = self.route(topic).await {
                if !error.is_retryable() || clock::instant() >= until {
                    return Err(error);
                }
                debug!(%topic, %error, "asking for the route again");
                tokio::time::sleep(ROUTE_AGAIN).await;
            }
        }
        Ok(())
    }

    async fn fetch_route(&self, topic: &Topic) -> Result<Arc<Route>, Error> {
        let request = grpc::QueryRouteRequest {
            topic: Some(self.resource(topic.as_str())),
            endpoints: Some(self.options.endpoints.to_wire()),
        };
        let call = |mut stub: Stub, request| async move {
            stub.query_route(request).await.map(tonic::Response::into_inner)
        };
        let (_, answer) = self.call(&[], request, call).await?;
        error::check(answer.status.as_ref(), topic.as_str())?;
        let route = Arc::new(Route::from_wire(answer.message_queues));
        debug!(%topic, queues = route.queues.len(), "route");
        self.routes.lock().insert(topic.clone(), route.clone());
        Ok(route)
    }

    /// Says good-bye to the proxies and ends all tasks.
    pub(crate) async fn end(&self) {
        const PATIENCE: Duration = Duration::from_secs(1);
        let group = self.role().group().map(|group| self.resource(group));
        let farewells = self.up().into_iter().map(|session| {
            let request = grpc::NotifyClientTerminationRequest { group: group.clone() };
            let request = self.signed(request, PATIENCE);
            async move {
                let mut stub = session.stub();
                let said = tokio::time::timeout(PATIENCE, stub.notify_client_termination(request));
                if let Ok(Err(status)) = said.await {
                    debug!(proxy = %session.address, %status, "did not hear the good-bye");
                }
            }
        });
        futures_util::future::join_all(farewells).await;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        info!(client_id = self.client_id, "ended");
    }

    fn signed<Q>(&self, request: Q, timeout: Duration) -> tonic::Request<Q> {
        let mut request = tonic::Request::new(request);
        *request.metadata_mut() = MetadataMap::from_headers(self.request_headers());
        request.set_timeout(timeout);
        request
    }

    /// One heartbeat to one proxy.
    async fn beat(&self, session: &Session) {
        let role = self.role();
        let request = grpc::HeartbeatRequest {
            group: role.group().map(|group| self.resource(group)),
            client_type: role.client_type().into(),
        };
        let timeout = self.options.request_timeout;
        let request = self.signed(request, timeout);
        let mut stub = session.stub();
        match tokio::time::timeout(timeout, stub.heartbeat(request)).await {
            Ok(Ok(answer)) => {
                session.answered();
                let status = answer.into_inner().status.unwrap_or_default();
                if status.code == Code::UnrecognizedClientType as i32 {
                    session.introduce_again();
                } else if let Err(error) = error::check(Some(&status), "") {
                    warn!(proxy = %session.address, %error, "a heartbeat was not taken");
                }
            }
            Ok(Err(status)) => debug!(proxy = %session.address, %status, "no heartbeat"),
            Err(_) => session.unanswered(),
        }
    }
}

/// Sends heartbeats: to a proxy that has just come up, and to all from time to time.
async fn beat(core: Arc<Core>) {
    let mut beaten: HashSet<Address> = HashSet::new();
    let mut next = tokio::time::interval(HEARTBEAT_EVERY);
    loop {
        tokio::select! {
            _ = next.tick() => beaten.clear(),
            () = core.hub.changed.notified() => {}
            () = core.stop.cancelled() => return,
        }
        let up = core.up();
        beaten.retain(|address| up.iter().any(|session| session.address == *address));
        let due: Vec<_> =
            up.iter().filter(|session| beaten.insert(session.address.clone())).collect();
        futures_util::future::join_all(due.iter().map(|session| core.beat(session))).await;
    }
}

/// Asks for the routes in use from time to time.
async fn refresh(core: Arc<Core>) {
    let mut next = tokio::time::interval(ROUTES_EVERY);
    next.reset();
    loop {
        tokio::select! {
            _ = next.tick() => {}
            () = core.stop.cancelled() => return,
        }
        let topics: Vec<Topic> = core.routes.lock().keys().cloned().collect();
        for topic in topics {
            match core.fetch_route(&topic).await {
                Ok(_) => {}
                Err(error @ Error::TopicNotFound { .. }) => {
                    warn!(%error, "forgetting the route");
                    core.routes.lock().remove(&topic);
                }
                Err(error) => debug!(%topic, %error, "the route stays as it was"),
            }
        }
    }
}

/// Hears what proxies say; what is not for every client is passed on.
async fn listen(core: Arc<Core>, mut heard: mpsc::Receiver<Heard>, forward: mpsc::Sender<Heard>) {
    loop {
        let heard = tokio::select! {
            heard = heard.recv() => heard,
            () = core.stop.cancelled() => return,
        };
        let Some(heard) = heard else { return };
        match &heard.command {
            Command::Settings(settings) => {
                core.agreed.send_if_modified(|agreed| {
                    let merged = agreed.merged(settings);
                    let differs = merged != *agreed;
                    *agreed = merged;
                    differs
                });
            }
            Command::PrintThreadStackTraceCommand(command) => {
                let text =
                    format!("{} tasks on an async runtime, without stacks", core.tasks.len());
                let trace = grpc::ThreadStackTrace {
                    nonce: command.nonce.clone(),
                    thread_stack_trace: Some(text),
                };
                answer(&heard, Code::Ok, Command::ThreadStackTrace(trace));
            }
            // Asked again if it matters and nobody is there to hear it now.
            Command::RecoverOrphanedTransactionCommand(_) | Command::VerifyMessageCommand(_) => {
                let _ = forward.try_send(heard);
            }
            _ => {}
        }
    }
}

/// Answers a command on the stream it came from.
pub(crate) fn answer(heard: &Heard, code: Code, command: Command) {
    let status = Some(grpc::Status { code: code.into(), message: String::new() });
    let said = heard.answer.try_send(TelemetryCommand { status, command: Some(command) });
    if said.is_err() {
        debug!(proxy = %heard.proxy, "the proxy does not hear the answer");
    }
}

/// What a failed call means.
fn failure(session: &Session, status: &tonic::Status, timeout: Duration) -> Error {
    use tonic::Code::{
        Cancelled, DeadlineExceeded, PermissionDenied, ResourceExhausted, Unauthenticated,
        Unavailable, Unknown,
    };
    let reason = session::reason(status);
    match status.code() {
        Unavailable => session::unreachable(session, status),
        // A connection that breaks in a call; an answer with these codes has no such cause.
        Cancelled | Unknown if std::error::Error::source(status).is_some() => {
            session::unreachable(session, status)
        }
        DeadlineExceeded | Cancelled => Error::TimedOut(timeout),
        PermissionDenied => Error::Forbidden { reason },
        Unauthenticated => Error::Unauthenticated { reason },
        ResourceExhausted => Error::Throttled { reason },
        tonic::Code::Internal if std::error::Error::source(status).is_some() => {
            session::unreachable(session, status)
        }
        code @ (tonic::Code::Internal | Unknown) => Error::Server { code: code.into(), reason },
        code => Error::Refused { code: code.into(), reason },
    }
}

fn listed(addresses: &[Address]) -> String {
    addresses.iter().map(Address::to_string).collect::<Vec<_>>().join(";")
}

fn headers(options: &Options, client_id: &str) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    let namespace = HeaderValue::from_str(&options.namespace)
        .map_err(|error| Error::invalid("the namespace", error.to_string()))?;
    insert(&mut headers, "x-mq-client-id", client_id);
    insert(&mut headers, "x-mq-language", "RUST");
    insert(&mut headers, "x-mq-client-version", VERSION);
    insert(&mut headers, "x-mq-protocol", "v2");
    if !namespace.is_empty() {
        headers.insert("x-mq-namespace", namespace);
    }
    if let Some(Some(token)) = options.credentials.as_ref().map(|known| &known.session_token) {
        let token = HeaderValue::from_str(token)
            .map_err(|error| Error::invalid("the session token", error.to_string()))?;
        headers.insert("x-mq-session-token", token);
    }
    if let Some(credentials) = &options.credentials {
        HeaderValue::from_str(&credentials.access_key)
            .map_err(|error| Error::invalid("the access key", error.to_string()))?;
    }
    Ok(headers)
}

fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) {
    let value = HeaderValue::from_str(value).expect("it was made of checked parts");
    headers.insert(name, value);
}

/// The name of this machine, of characters that go into ids and headers.
fn hostname() -> String {
    let given = std::env::var("HOSTNAME").or_else(|_| std::env::var("COMPUTERNAME"));
    let known = given.or_else(|_| std::fs::read_to_string("/proc/sys/kernel/hostname"));
    let allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let name: String = known.unwrap_or_default().chars().filter(allowed).take(64).collect();
    if name.is_empty() { "unknown".to_owned() } else { name }
}
