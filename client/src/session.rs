//! One proxy, as a client sees it: a connection, the telemetry stream on it, and whether it answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use protocol::grpc::telemetry_command::Command;
use protocol::grpc::{self, Code, TelemetryCommand};
use tokio::sync::{Notify, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tracing::{debug, info, warn};

use crate::dial::Dialler;
use crate::endpoints::Address;
use crate::error::{self, Error};
use crate::retry::Backoff;
use crate::service::messaging_service_client::MessagingServiceClient;

pub(crate) type Stub = MessagingServiceClient<Channel>;

/// Answers a client owes a proxy at most; more are for a proxy that does not read.
const COMMANDS_MAX: usize = 64;
/// A proxy that has not answered the settings by then is taken for dead.
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(6);
/// Settings are told again so often, in case the proxy lost them.
const SETTINGS_EVERY: Duration = Duration::from_secs(300);
/// Calls without an answer after which a connection is opened anew.
const UNANSWERED_MAX: u32 = 2;
const RECONNECT: Backoff = Backoff::Exponential {
    initial: Duration::from_millis(100),
    max: Duration::from_secs(5),
    multiplier: 2.0,
};
/// A message with its properties, and the largest batch an old server answers in one piece.
const ANSWER_BYTES_MAX: usize = 128 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Connecting,
    Up,
    Down,
}

/// A proxy in use.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) address: Address,
    stub: ArcSwap<Stub>,
    state: watch::Sender<State>,
    /// Why it is not up.
    why: Mutex<String>,
    /// Calls without an answer since the last answer.
    unanswered: AtomicU32,
    /// Told when the stream should be opened anew.
    reopen: Notify,
    /// Told when settings should be told again.
    retell: Notify,
}

/// What the telemetry of all of a client's proxies shares.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) dialler: Dialler,
    /// What the client says of itself now.
    pub(crate) introduction: watch::Receiver<grpc::Settings>,
    /// What proxies say.
    pub(crate) heard: mpsc::Sender<Heard>,
    pub(crate) stop: CancellationToken,
    /// Told at every change of any session's state.
    pub(crate) changed: Notify,
}

/// Something a proxy says on its telemetry stream.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) proxy: Address,
    pub(crate) command: Command,
    /// Where an answer goes.
    pub(crate) answer: mpsc::Sender<TelemetryCommand>,
}

impl Session {
    pub(crate) fn new(address: Address, dialler: &Dialler) -> Result<Self, Error> {
        let stub = ArcSwap::from_pointee(stub(dialler.channel(&address)?));
        Ok(Self {
            address,
            stub,
            state: watch::Sender::new(State::Connecting),
            why: Mutex::new("it has not answered yet".to_owned()),
            unanswered: AtomicU32::new(0),
            reopen: Notify::new(),
            retell: Notify::new(),
        })
    }

    pub(crate) fn stub(&self) -> Stub {
        Stub::clone(&self.stub.load())
    }

    pub(crate) fn state(&self) -> State {
        *self.state.borrow()
    }

    pub(crate) fn why(&self) -> String {
        self.why.lock().clone()
    }

    pub(crate) fn answered(&self) {
        if self.unanswered.load(Ordering::Relaxed) > 0 {
            self.unanswered.store(0, Ordering::Relaxed);
        }
    }

    /// Whether the last call got no answer in time.
    pub(crate) fn is_silent(&self) -> bool {
        self.unanswered.load(Ordering::Relaxed) > 0
    }

    /// A call got no answer in time. One may be the server's affair; several put the connection in doubt.
    pub(crate) fn unanswered(&self) {
        if self.unanswered.fetch_add(1, Ordering::Relaxed) + 1 >= UNANSWERED_MAX {
            self.reopen.notify_one();
        }
    }

    /// The proxy has forgotten who this is.
    pub(crate) fn introduce_again(&self) {
        self.retell.notify_one();
    }

    fn set(&self, state: State, hub: &Hub) {
        if self.state.send_replace(state) != state {
            debug!(proxy = %self.address, ?state, "proxy");
        }
        hub.changed.notify_waiters();
    }
}

fn stub(channel: Channel) -> Stub {
    Stub::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

/// Keeps a telemetry stream to the proxy, on ever new connections, until the client stops.
pub(crate) async fn keep(
    session: Arc<Session>,
    hub: Arc<Hub>,
    headers: impl Fn() -> http::HeaderMap + Send,
) {
    let mut failures = 0;
    loop {
        let outcome = tokio::select! {
            outcome = stream(&session, &hub, headers()) => outcome,
            () = hub.stop.cancelled() => return,
        };
        let was_up = session.state() == State::Up;
        if let Err(error) = &outcome {
            *session.why.lock() = match error {
                Error::Unreachable { reason, .. } => reason.clone(),
                other => other.to_string(),
            };
        }
        session.answered();
        session.set(State::Down, &hub);
        failures = if was_up { 0 } else { failures + 1 };
        match outcome {
            Ok(()) => {
                info!(proxy = %session.address, "the telemetry stream ended; opening another")
            }
            Err(error) if failures <= 1 => {
                warn!(proxy = %session.address, %error, "the proxy is gone; trying again");
            }
            Err(error) => debug!(proxy = %session.address, %error, failures, "the proxy is away"),
        }
        if !was_up {
            tokio::select! {
                () = tokio::time::sleep(RECONNECT.after(failures)) => {}
                () = hub.stop.cancelled() => return,
            }
        }
        match hub.dialler.channel(&session.address) {
            Ok(channel) => session.stub.store(Arc::new(stub(channel))),
            Err(error) => warn!(proxy = %session.address, %error, "cannot be dialled"),
        }
        if was_up {
            session.set(State::Connecting, &hub);
        }
    }
}

/// One telemetry stream, from the introduction to its end.
async fn stream(session: &Session, hub: &Hub, headers: http::HeaderMap) -> Result<(), Error> {
    let (answer, outgoing) = mpsc::channel(COMMANDS_MAX);
    let mut introduction = hub.introduction.clone();
    let tell = |settings: grpc::Settings| TelemetryCommand {
        status: Some(grpc::Status { code: Code::Ok.into(), message: String::new() }),
        command: Some(Command::Settings(settings)),
    };
    let first = tell(introduction.borrow_and_update().clone());
    answer.try_send(first).expect("the channel is new");
    let mut request = tonic::Request::new(ReceiverStream::new(outgoing));
    *request.metadata_mut() = tonic::metadata::MetadataMap::from_headers(headers);
    let mut stub = session.stub();
    let opened = tokio::time::timeout(SETTINGS_TIMEOUT, stub.telemetry(request)).await;
    let mut incoming = match opened {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return Err(unreachable(session, &status)),
        Err(_) => return Err(Error::TimedOut(SETTINGS_TIMEOUT)),
    };
    let mut again = tokio::time::interval(SETTINGS_EVERY);
    again.reset();
    let silence = tokio::time::sleep(SETTINGS_TIMEOUT);
    tokio::pin!(silence);
    loop {
        let up = session.state() == State::Up;
        tokio::select! {
            heard = incoming.message() => match heard {
                Ok(Some(command)) => hear(session, hub, &answer, command)?,
                Ok(None) => return Ok(()),
                Err(status) => return Err(unreachable(session, &status)),
            },
            () = &mut silence, if !up => return Err(Error::TimedOut(SETTINGS_TIMEOUT)),
            () = session.reopen.notified() => {
                return Err(Error::Answer("a call got no answer".to_owned()));
            }
            changed = introduction.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                // A proxy that does not read is told at the next occasion.
                let _ = answer.try_send(tell(introduction.borrow_and_update().clone()));
            }
            _ = again.tick() => { let _ = answer.try_send(tell(introduction.borrow().clone())); }
            () = session.retell.notified() => {
                let _ = answer.try_send(tell(introduction.borrow().clone()));
            }
        }
    }
}

/// Takes one command; an error ends the stream.
fn hear(
    session: &Session,
    hub: &Hub,
    answer: &mpsc::Sender<TelemetryCommand>,
    said: TelemetryCommand,
) -> Result<(), Error> {
    let Some(command) = said.command else {
        if let Some(status) = &said.status {
            error::check(Some(status), "")?;
        }
        return Ok(());
    };
    if let Command::Settings(_) = &command {
        if let Some(status) = &said.status {
            error::check(Some(status), "")?;
        }
        session.set(State::Up, hub);
    }
    if let Command::ReconnectEndpointsCommand(_) = &command {
        info!(proxy = %session.address, "the proxy asks to be reconnected");
        session.reopen.notify_one();
        return Ok(());
    }
    let proxy = session.address.clone();
    if hub.heard.try_send(Heard { proxy, command, answer: answer.clone() }).is_err() {
        warn!(proxy = %session.address, "too many commands at once; one is left to be repeated");
    }
    Ok(())
}

pub(crate) fn unreachable(session: &Session, status: &tonic::Status) -> Error {
    Error::Unreachable { endpoints: session.address.to_string(), reason: reason(status) }
}

/// What the transport says, with what lies behind it.
pub(crate) fn reason(status: &tonic::Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}
