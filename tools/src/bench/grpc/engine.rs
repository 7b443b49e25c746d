//! Producers and consumers over gRPC on one thread: closed loops, or sends at a fixed rate.
//!
//! Latency at a fixed rate counts from when a message was due, which is written into its body: a server
//! that stalls is charged for all that had to wait.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use protocol::grpc::{Address, AddressScheme, ClientType, Code, Endpoints, MessageQueue};
use remoting::clock;

use super::calls::{self, Acks, Received, Rpc, Send};
use super::http2::{Connection, Event};
use crate::bench::figures::{self, Errors};
use crate::bench::poll::Poll;

/// Clients say that they live so often.
const BEAT_NS: u64 = 10_000_000_000;
const SILENCE_MAX: Duration = Duration::from_secs(45);
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// Requests enqueued before they are written, so that the first are on their way early.
const CALLS_PER_WRITE: usize = 16;

/// What producers do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sending {
    pub(super) connections: usize,
    pub(super) depth: usize,
    pub(super) batch: usize,
    pub(super) size: usize,
    /// Requests a second in all.
    pub(super) rate: Option<u64>,
}

/// What consumers do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Receiving {
    pub(super) connections: usize,
    /// Receives that wait at once on each connection.
    pub(super) depth: usize,
    pub(super) batch: usize,
    /// As push consumers: receipts are renewed by the server, and the next receive does not wait for the
    /// acknowledgement of the one before.
    pub(super) push: bool,
}

/// Who talks to whom.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) proxy: String,
    pub(super) topic: String,
    pub(super) group: String,
}

pub(super) struct Engine {
    poll: Poll,
    clients: Vec<Client>,
    place: Place,
    sending: Option<Sending>,
    send: Send,
    receiving: Option<(Receiving, Vec<u8>, Acks)>,
    sequence: u64,
    origin: Instant,
    pace: Option<Pace>,
    next_beat_ns: u64,
    /// What has been received is acknowledged, and nothing more is received.
    draining: bool,
    pub(super) tally: Tally,
}

/// One connection: a client of its own to the server.
struct Client {
    connection: Connection,
    id: String,
    role: ClientType,
    calls: HashMap<u32, Call>,
    sends: usize,
    blocked: bool,
    ended: Vec<(u32, Call)>,
}

/// A call that is under way.
enum Call {
    Send { since_ns: u64, code: i32 },
    Receive { since_ns: u64, acks: Vec<u8>, count: u64, code: i32 },
    Ack { since_ns: u64, count: u64, code: i32 },
    Beat,
    Telemetry,
}

/// What has happened since it was last looked at.
pub(super) struct Tally {
    pub(super) sent: u64,
    pub(super) received: u64,
    /// Of these, sent by this engine.
    pub(super) arrived: u64,
    pub(super) acknowledged: u64,
    pub(super) send_ns: Histogram<u64>,
    /// From when a message was due to its receipt.
    pub(super) arrival_ns: Histogram<u64>,
    /// From a receive to the end of its acknowledgement.
    pub(super) cycle_ns: Histogram<u64>,
    pub(super) errors: Errors,
}

impl Tally {
    fn new() -> Self {
        Self {
            sent: 0,
            received: 0,
            arrived: 0,
            acknowledged: 0,
            send_ns: figures::histogram(),
            arrival_ns: figures::histogram(),
            cycle_ns: figures::histogram(),
            errors: Errors::new(),
        }
    }

    fn refused(&mut self, what: &str, code: i32) {
        let what = if code == 0 { format!("{what}: no answer") } else { format!("{what}: {code}") };
        *self.errors.entry(what).or_default() += 1;
    }
}

struct Pace {
    start_ns: u64,
    period_ns: f64,
    sent: u64,
}

impl Pace {
    fn next_ns(&self) -> u64 {
        self.start_ns + (self.period_ns * self.sent as f64) as u64
    }
}

impl Client {
    /// Connects as a client of this role, and says hello as SDKs do.
    fn connect(place: &Place, role: ClientType, number: usize) -> Result<Self> {
        let id = format!("bench@{}@{number}@{:x}", std::process::id(), clock::now_ms());
        let mut client = Self {
            connection: Connection::connect(&place.proxy)?,
            id,
            role,
            calls: HashMap::new(),
            sends: 0,
            blocked: false,
            ended: Vec::new(),
        };
        let settings = calls::settings(role, &place.topic, &place.group);
        let fields = calls::fields(Rpc::Telemetry, &place.proxy, &client.id);
        let telemetry = client.connection.call(Rpc::Telemetry.path(), &fields, &settings, true);
        client.connection.flush()?;
        let (mut heard, mut refused) = (false, false);
        while !heard {
            let open = client.connection.read(|stream, event| {
                heard |= stream == telemetry && matches!(event, Event::Message(_));
                refused |= stream == telemetry && event == Event::End;
            })?;
            ensure!(open && !refused, "the server does not take the client's settings");
        }
        client.calls.insert(telemetry, Call::Telemetry);
        let beat = calls::heartbeat(role, &place.group);
        let answer = client.ask(place, Rpc::Heartbeat, &beat)?;
        let code = calls::code(&answer);
        ensure!(code == calls::OK, "a heartbeat was answered with {code}");
        Ok(client)
    }

    /// One call whose answer is waited for.
    fn ask(&mut self, place: &Place, rpc: Rpc, request: &[u8]) -> Result<Vec<u8>> {
        let fields = calls::fields(rpc, &place.proxy, &self.id);
        let wanted = self.connection.call(rpc.path(), &fields, request, false);
        let (mut answer, mut ended) = (None, false);
        while !ended {
            self.connection.flush()?;
            let open = self.connection.read(|stream, event| {
                if stream == wanted {
                    match event {
                        Event::Message(message) => answer = Some(message.to_vec()),
                        Event::End => ended = true,
                    }
                }
            })?;
            ensure!(open, "the server ended the connection");
        }
        answer.with_context(|| format!("{rpc:?} was not answered"))
    }
}

impl Engine {
    pub(super) fn new(
        place: Place,
        sending: Option<Sending>,
        receiving: Option<Receiving>,
    ) -> Result<Self> {
        let origin = clock::instant();
        let (batch, size) = sending.map_or((1, 0), |sending| (sending.batch, sending.size));
        let run = clock::now_ms() as u32;
        let mut engine = Self {
            poll: Poll::new()?,
            clients: Vec::new(),
            send: Send::new(&place.topic, batch, size, run),
            place,
            sending,
            receiving: None,
            sequence: 0,
            origin,
            pace: None,
            next_beat_ns: BEAT_NS,
            draining: false,
            tally: Tally::new(),
        };
        for _ in 0..sending.map_or(0, |sending| sending.connections) {
            engine.add(ClientType::Producer)?;
        }
        if let Some(receiving) = receiving {
            engine.add_consumers(receiving)?;
        }
        for (number, client) in engine.clients.iter().enumerate() {
            engine.poll.add(&client.connection.stream, number)?;
        }
        Ok(engine)
    }

    fn add(&mut self, role: ClientType) -> Result<()> {
        let number = self.clients.len();
        let client = Client::connect(&self.place, role, number)
            .with_context(|| format!("client {number}"))?;
        self.clients.push(client);
        Ok(())
    }

    fn add_consumers(&mut self, receiving: Receiving) -> Result<()> {
        let role = match receiving.push {
            true => ClientType::PushConsumer,
            false => ClientType::SimpleConsumer,
        };
        let first = self.clients.len();
        for _ in 0..receiving.connections {
            self.add(role)?;
        }
        let endpoints = endpoints(&self.place.proxy)?;
        let place = self.place.clone();
        let mut queue: Option<MessageQueue> = None;
        for client in &mut self.clients[first..] {
            if receiving.push {
                let request = calls::query_assignment(&place.topic, &place.group, &endpoints);
                let code = calls::code(&client.ask(&place, Rpc::QueryAssignment, &request)?);
                ensure!(code == calls::OK, "an assignment was answered with {code}");
            }
            if queue.is_none() || receiving.push {
                let request = calls::query_route(&place.topic, &endpoints);
                let answer = client.ask(&place, Rpc::QueryRoute, &request)?;
                queue = Some(calls::queue_of_route(&answer)?);
            }
        }
        let queue = queue.context("there is no consumer")?;
        let (invisible, polling) = if receiving.push { (None, 20) } else { (Some(60), 5) };
        let request = calls::receive(&place.group, &queue, receiving.batch, invisible, polling);
        self.receiving = Some((receiving, request, Acks::new(&place.group, &place.topic)));
        for number in first..self.clients.len() {
            for _ in 0..receiving.depth {
                self.receive(number);
            }
        }
        Ok(())
    }

    fn now_ns(&self) -> u64 {
        clock::instant().duration_since(self.origin).as_nanos() as u64
    }

    /// Keeps the load up for so long, or until `enough`; how long it took.
    pub(super) fn run(&mut self, seconds: f64, enough: impl Fn(&Tally) -> bool) -> Result<f64> {
        let start_ns = self.now_ns();
        let end_ns = start_ns + (seconds * 1e9) as u64;
        if let Some(rate) = self.sending.and_then(|sending| sending.rate) {
            let period_ns = 1e9 / rate.max(1) as f64;
            self.pace.get_or_insert(Pace { start_ns, period_ns, sent: 0 });
        }
        for number in 0..self.clients.len() {
            self.flush(number)?;
        }
        let mut ready = Vec::new();
        let mut now = start_ns;
        let mut heard_ns = now;
        while now < end_ns && !enough(&self.tally) {
            self.send_due(now)?;
            self.beat(now)?;
            let wake_ns = self.pace.as_ref().map_or(end_ns, |pace| pace.next_ns().min(end_ns));
            let wait = wake_ns.min(self.next_beat_ns).saturating_sub(self.now_ns());
            self.poll.wait(Duration::from_nanos(wait.min(1_000_000_000)), &mut ready)?;
            now = self.now_ns();
            if ready.is_empty() {
                let silent = Duration::from_nanos(now - heard_ns);
                ensure!(silent < SILENCE_MAX, "nothing came for {SILENCE_MAX:?}");
                continue;
            }
            heard_ns = now;
            for &client in &ready {
                self.read(client, now)?;
            }
        }
        Ok((self.now_ns() - start_ns) as f64 / 1e9)
    }

    /// Forgets what was counted.
    pub(super) fn count_from_now(&mut self) {
        self.tally = Tally::new();
    }

    /// Waits for what is in flight, but for polls.
    pub(super) fn drain(&mut self) -> Result<()> {
        self.sending = None;
        self.pace = None;
        self.draining = true;
        let end_ns = self.now_ns() + DRAIN_MAX.as_nanos() as u64;
        let mut ready = Vec::new();
        let busy = |client: &Client| {
            client.calls.values().any(|call| matches!(call, Call::Send { .. } | Call::Ack { .. }))
        };
        while self.clients.iter().any(busy) {
            let now = self.now_ns();
            ensure!(now < end_ns, "answers are missing {DRAIN_MAX:?} after the end");
            self.poll.wait(Duration::from_nanos(end_ns - now), &mut ready)?;
            for &client in &ready {
                self.read(client, now)?;
            }
        }
        Ok(())
    }

    fn beat(&mut self, now: u64) -> Result<()> {
        if now < self.next_beat_ns {
            return Ok(());
        }
        self.next_beat_ns = now + BEAT_NS;
        for number in 0..self.clients.len() {
            let client = &mut self.clients[number];
            let request = calls::heartbeat(client.role, &self.place.group);
            let fields = calls::fields(Rpc::Heartbeat, &self.place.proxy, &client.id);
            let stream = client.connection.call(Rpc::Heartbeat.path(), &fields, &request, false);
            client.calls.insert(stream, Call::Beat);
            self.flush(number)?;
        }
        Ok(())
    }

    fn send_due(&mut self, now: u64) -> Result<()> {
        let Some(sending) = self.sending else { return Ok(()) };
        let Some(pace) = &mut self.pace else {
            for number in 0..sending.connections {
                let mut enqueued = 0;
                while self.clients[number].sends < sending.depth && !self.clients[number].blocked {
                    self.send(number, now);
                    enqueued += 1;
                    if enqueued % CALLS_PER_WRITE == 0 {
                        self.flush(number)?;
                    }
                }
                self.flush(number)?;
            }
            return Ok(());
        };
        // What is due and finds no free place waits, and its time counts from when it was due.
        let (mut due, mut tried) = (Vec::new(), 0);
        let mut taken = vec![0; sending.connections];
        while pace.next_ns() <= now && tried < sending.connections {
            let number = (pace.sent as usize + tried) % sending.connections;
            if self.clients[number].sends + taken[number] >= sending.depth {
                tried += 1;
                continue;
            }
            due.push((number, pace.next_ns()));
            taken[number] += 1;
            pace.sent += 1;
            tried = 0;
        }
        for &(number, since_ns) in &due {
            self.send(number, since_ns);
        }
        for (number, _) in taken.iter().enumerate().filter(|(_, taken)| **taken > 0) {
            self.flush(number)?;
        }
        Ok(())
    }

    fn send(&mut self, number: usize, since_ns: u64) {
        let client = &mut self.clients[number];
        let fields = calls::fields(Rpc::SendMessage, &self.place.proxy, &client.id);
        let request = self.send.stamp(&mut self.sequence, since_ns);
        let stream = client.connection.call(Rpc::SendMessage.path(), &fields, request, false);
        client.calls.insert(stream, Call::Send { since_ns, code: 0 });
        client.sends += 1;
    }

    fn receive(&mut self, number: usize) {
        if self.draining {
            return;
        }
        let since_ns = self.now_ns();
        let Some((_, request, acks)) = &self.receiving else { return };
        let client = &mut self.clients[number];
        let fields = calls::fields(Rpc::ReceiveMessage, &self.place.proxy, &client.id);
        let stream = client.connection.call(Rpc::ReceiveMessage.path(), &fields, request, false);
        let mut head = Vec::new();
        acks.begin(&mut head);
        client.calls.insert(stream, Call::Receive { since_ns, acks: head, count: 0, code: 0 });
    }

    fn flush(&mut self, number: usize) -> Result<()> {
        let client = &mut self.clients[number];
        let blocked = !client.connection.flush().context("the server closed a connection")?;
        if blocked != client.blocked {
            client.blocked = blocked;
            self.poll.want_write(&client.connection.stream, number, blocked)?;
        }
        Ok(())
    }

    fn read(&mut self, number: usize, now: u64) -> Result<()> {
        let Self { clients, tally, send, .. } = self;
        let Client { connection, calls, ended, .. } = &mut clients[number];
        let open = connection.read(|stream, event| match event {
            Event::Message(message) => {
                if let Some(call) = calls.get_mut(&stream) {
                    call.hear(message, now, send, tally);
                }
            }
            Event::End => ended.extend(calls.remove(&stream).map(|call| (stream, call))),
        })?;
        if !open {
            bail!("the server ended a connection");
        }
        let mut ended = std::mem::take(&mut self.clients[number].ended);
        for (_, call) in ended.drain(..) {
            self.end(number, call, now)?;
        }
        self.clients[number].ended = ended;
        self.flush(number)
    }

    /// A call is over: counts it, and does what follows.
    fn end(&mut self, number: usize, call: Call, now: u64) -> Result<()> {
        match call {
            Call::Send { since_ns, code } => {
                self.clients[number].sends -= 1;
                if code == calls::OK {
                    self.tally.sent += self.send.count() as u64;
                    figures::record(&mut self.tally.send_ns, now.saturating_sub(since_ns));
                } else {
                    self.tally.refused("send", code);
                }
            }
            Call::Receive { count: 0, code, .. } => {
                if code != Code::MessageNotFound as i32 && code != calls::OK {
                    self.tally.refused("receive", code);
                }
                self.receive(number);
            }
            Call::Receive { since_ns, acks, count, .. } => {
                let client = &mut self.clients[number];
                let fields = calls::fields(Rpc::AckMessage, &self.place.proxy, &client.id);
                let stream = client.connection.call(Rpc::AckMessage.path(), &fields, &acks, false);
                client.calls.insert(stream, Call::Ack { since_ns, count, code: 0 });
                if self.receiving.as_ref().is_some_and(|(receiving, _, _)| receiving.push) {
                    self.receive(number);
                }
            }
            Call::Ack { since_ns, count, code } => {
                if code == calls::OK {
                    self.tally.acknowledged += count;
                    figures::record(&mut self.tally.cycle_ns, now.saturating_sub(since_ns));
                } else if code == 0 {
                    self.tally.refused("ack", code);
                }
                if self.receiving.as_ref().is_some_and(|(receiving, _, _)| !receiving.push) {
                    self.receive(number);
                }
            }
            Call::Beat => {}
            Call::Telemetry => bail!("the server ended a telemetry stream"),
        }
        Ok(())
    }
}

impl Call {
    /// Takes one message of the answer.
    fn hear(&mut self, message: &[u8], now: u64, send: &Send, tally: &mut Tally) {
        match self {
            Self::Send { code, .. } => *code = calls::code(message),
            Self::Ack { code, .. } => {
                *code = calls::code(message);
                if *code != calls::OK {
                    let why = format!("ack: {code} {}", calls::ack_refusal(message));
                    *tally.errors.entry(why).or_default() += 1;
                }
            }
            Self::Receive { acks, count, code, .. } => match calls::received(message) {
                Received::Status(said) => *code = said,
                Received::Message { id, handle, body } => {
                    Acks::add(acks, id, handle);
                    *count += 1;
                    tally.received += 1;
                    if let Some(due) = send.due(id, body) {
                        tally.arrived += 1;
                        figures::record(&mut tally.arrival_ns, now.saturating_sub(due));
                    }
                }
                Received::Other => {}
            },
            Self::Beat | Self::Telemetry => {}
        }
    }
}

/// The proxy as clients name it to the server.
fn endpoints(proxy: &str) -> Result<Endpoints> {
    let (host, port) = proxy.rsplit_once(':').context("the proxy is given as host:port")?;
    let scheme = match host.parse::<std::net::Ipv4Addr>() {
        Ok(_) => AddressScheme::IPv4,
        Err(_) => AddressScheme::DomainName,
    };
    let addresses = vec![Address { host: host.to_owned(), port: port.parse()? }];
    Ok(Endpoints { scheme: scheme.into(), addresses })
}
