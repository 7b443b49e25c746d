//! Producers: closed loops of requests in flight, or a fixed rate.
//!
//! One thread serves all connections. At a fixed rate the latency of a message counts from when it
//! was due, so that a server that stalls is charged for all that had to wait.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use remoting::clock;

use super::figures::{self, Errors, Figures};
use super::poll::{self, Poll};
use super::process;
use super::target::{self, Target};
use super::template::{Body, OPAQUE_MIN, Stamp, Template};
use super::wire::{Wire, glance};

/// Requests in flight on one connection; their slots are part of the opaque.
const DEPTH_MAX: usize = 4096;
/// A server that answers nothing for so long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long answers to what is in flight at the end are awaited.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Requests encoded before they are written, so that the first are on their way early.
const BYTES_PER_WRITE: usize = 256 * 1024;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) target: Target,
    #[command(flatten)]
    pub(super) load: Load,
}

/// What is sent, for how long.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Load {
    #[arg(long, default_value_t = 8)]
    pub(super) connections: usize,
    /// Requests in flight on each connection
    #[arg(long, default_value_t = 64)]
    pub(super) depth: usize,
    /// Bytes of one message
    #[arg(long, default_value_t = 1024)]
    pub(super) size: usize,
    /// Messages in one request (code 320 if more than one)
    #[arg(long, default_value_t = 1)]
    pub(super) batch: usize,
    #[arg(long, default_value = "bench")]
    pub(super) topic: String,
    /// Spread over so many topics, TOPIC-0 …
    #[arg(long, default_value_t = 1)]
    pub(super) topics: usize,
    /// Queues of each topic
    #[arg(long, default_value_t = 8)]
    pub(super) queues: i32,
    /// Requests a second in all, instead of as fast as answers come
    #[arg(long)]
    pub(super) rate: Option<u64>,
    /// Seconds of the same load before measuring
    #[arg(long, default_value_t = 2.0)]
    pub(super) warmup: f64,
    /// Seconds to measure
    #[arg(long, default_value_t = 10.0)]
    pub(super) duration: f64,
    /// Stop measuring after so many messages
    #[arg(long)]
    pub(super) count: Option<u64>,
}

pub(super) fn run(args: &Args) -> Result<Figures> {
    run_queues(args, args.load.queues)
}

/// As [`run`], to the first queue of each topic only.
pub(super) fn run_first_queues(args: &Args) -> Result<Figures> {
    run_queues(args, 1)
}

fn run_queues(args: &Args, queues_used: i32) -> Result<Figures> {
    let load = &args.load;
    ensure!(load.connections > 0 && load.batch > 0 && load.topics > 0, "there is nothing to send");
    ensure!((1..=DEPTH_MAX).contains(&load.depth), "depth is 1 to {DEPTH_MAX}");
    ensure!(load.rate != Some(0), "a rate is at least 1");
    let address = args.target.address()?;
    let topics = target::topic_names(&load.topic, load.topics);
    target::create_topics(&mut Wire::connect(&address)?, &topics, load.queues)?;
    poll::wake_punctually()?;
    Generator::new(args, &address, &topics, queues_used)?.run(args)
}

struct Generator {
    poll: Poll,
    lanes: Vec<Lane>,
    templates: Vec<Template>,
    body: Body,
    origin: Instant,
    sequence: u64,
    tally: Tally,
}

/// One connection and what is in flight on it.
struct Lane {
    wire: Wire,
    slots: Vec<Slot>,
    free: Vec<usize>,
    next_template: usize,
    blocked: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    opaque: i32,
    /// When the request was sent, or was due at a fixed rate.
    since_ns: u64,
}

struct Tally {
    messages: u64,
    latency: Histogram<u64>,
    errors: Errors,
}

/// When requests are due.
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

impl Tally {
    fn new() -> Self {
        Self { messages: 0, latency: figures::histogram(), errors: Errors::new() }
    }
}

impl Generator {
    fn new(args: &Args, address: &str, topics: &[String], queues: i32) -> Result<Self> {
        let load = &args.load;
        let epoch = clock::now_ms() as u64 / 1000;
        // As Java's ids begin: the address and the process; then what makes a run unique.
        let id_prefix =
            format!("7F000001{:04X}{:04X}", std::process::id() & 0xFFFF, epoch & 0xFFFF);
        let body = Body::new(load.size, load.batch, &id_prefix)?;
        let encoding = args.target.header.into();
        let mut templates = Vec::new();
        for topic in topics {
            for queue_id in 0..queues {
                templates.push(Template::new(topic, queue_id, encoding, &body, &id_prefix));
            }
        }
        ensure!(!templates.is_empty(), "a topic has at least one queue");
        let poll = Poll::new()?;
        let mut lanes = Vec::new();
        for number in 0..load.connections {
            let wire = Wire::connect(address)?;
            poll.add(&wire.stream, number)?;
            lanes.push(Lane {
                wire,
                slots: vec![Slot::default(); load.depth],
                free: (0..load.depth).rev().collect(),
                next_template: number * templates.len() / load.connections,
                blocked: false,
            });
        }
        let (origin, tally) = (clock::instant(), Tally::new());
        Ok(Self { poll, lanes, templates, body, origin, sequence: 0, tally })
    }

    fn now_ns(&self) -> u64 {
        clock::instant().duration_since(self.origin).as_nanos() as u64
    }

    fn run(mut self, args: &Args) -> Result<Figures> {
        let load = &args.load;
        let watch = || args.target.server_pid.map(process::of).transpose();
        let mut pace = load.rate.map(|rate| Pace {
            start_ns: self.now_ns(),
            period_ns: 1e9 / rate as f64,
            sent: 0,
        });
        self.until(self.now_ns() + nanos(load.warmup), u64::MAX, &mut pace)?;
        self.tally = Tally::new();
        let (client, server) = (process::own()?, watch()?);
        let start_ns = self.now_ns();
        let count = load.count.unwrap_or(u64::MAX);
        self.until(start_ns + nanos(load.duration), count, &mut pace)?;
        let seconds = (self.now_ns() - start_ns) as f64 / 1e9;
        let client = (client, process::own()?);
        let server = server.zip(watch()?);
        let Tally { messages, latency, errors } = std::mem::replace(&mut self.tally, Tally::new());
        self.drain()?;
        let header = format!("{:?}", args.target.header).to_lowercase();
        let figures = Figures {
            workload: format!(
                "send: {} × {} in flight, {} B × {}, {} topics × {} queues, {header} headers{}",
                load.connections,
                load.depth,
                load.size,
                load.batch,
                load.topics,
                load.queues,
                load.rate.map(|rate| format!(", {rate} requests/s")).unwrap_or_default()
            ),
            messages,
            bytes: messages * load.size as u64,
            seconds,
            timed: "send",
            errors,
            ..Figures::default()
        };
        Ok(figures.complete(&latency, client, server))
    }

    /// Keeps the load up until `end_ns` or `count` answered messages.
    fn until(&mut self, end_ns: u64, count: u64, pace: &mut Option<Pace>) -> Result<()> {
        let mut ready = Vec::new();
        let mut now = self.now_ns();
        let mut heard_ns = now;
        while now < end_ns && self.tally.messages < count {
            self.send_due(pace)?;
            let wake_ns = match pace {
                Some(pace) if self.lanes.iter().any(|lane| !lane.free.is_empty()) => {
                    pace.next_ns().min(end_ns)
                }
                _ => end_ns,
            };
            let wait = wake_ns.saturating_sub(self.now_ns()).min(nanos(1.0));
            self.poll.wait(Duration::from_nanos(wait), &mut ready)?;
            now = self.now_ns();
            if ready.is_empty() {
                let busy = self.lanes.iter().any(|lane| lane.free.len() < lane.slots.len());
                ensure!(
                    !busy || now - heard_ns < SILENCE_MAX.as_nanos() as u64,
                    "no answer for {SILENCE_MAX:?}"
                );
                continue;
            }
            heard_ns = now;
            for &lane in &ready {
                self.receive(lane, now)?;
            }
        }
        Ok(())
    }

    /// Sends what may be sent now.
    fn send_due(&mut self, pace: &mut Option<Pace>) -> Result<()> {
        let born_ms = clock::now_ms();
        let now = self.now_ns();
        let Some(pace) = pace else {
            for lane in 0..self.lanes.len() {
                while !self.lanes[lane].blocked && !self.lanes[lane].free.is_empty() {
                    self.enqueue(lane, now, born_ms);
                    if self.lanes[lane].wire.out.len() >= BYTES_PER_WRITE {
                        self.flush(lane)?;
                    }
                }
                self.flush(lane)?;
            }
            return Ok(());
        };
        // What is due and finds no free slot waits, and its time counts from when it was due.
        let lanes = self.lanes.len();
        let mut tried = 0;
        while pace.next_ns() <= now && tried < lanes {
            let lane = (pace.sent as usize + tried) % lanes;
            if self.lanes[lane].blocked || self.lanes[lane].free.is_empty() {
                tried += 1;
                continue;
            }
            self.enqueue(lane, pace.next_ns(), born_ms);
            pace.sent += 1;
            tried = 0;
        }
        (0..lanes).try_for_each(|lane| self.flush(lane))
    }

    fn enqueue(&mut self, lane: usize, since_ns: u64, born_ms: i64) {
        let lane = &mut self.lanes[lane];
        let Some(slot) = lane.free.pop() else { return };
        let round = (self.sequence % 200_000) as i32;
        let opaque = OPAQUE_MIN + round * DEPTH_MAX as i32 + slot as i32;
        lane.slots[slot] = Slot { opaque, since_ns };
        let stamp = Stamp { opaque, born_ms, sequence: self.sequence, sent_ns: since_ns };
        self.templates[lane.next_template].stamp(&self.body, stamp, &mut lane.wire.out);
        lane.next_template = (lane.next_template + 1) % self.templates.len();
        self.sequence += self.body.count() as u64;
    }

    fn flush(&mut self, number: usize) -> Result<()> {
        let lane = &mut self.lanes[number];
        if lane.wire.out.is_empty() {
            return Ok(());
        }
        let blocked = !lane.wire.flush().context("the server closed a connection")?;
        if blocked != lane.blocked {
            lane.blocked = blocked;
            self.poll.want_write(&lane.wire.stream, number, blocked)?;
        }
        Ok(())
    }

    fn receive(&mut self, number: usize, now: u64) -> Result<()> {
        self.flush(number)?;
        let lane = &mut self.lanes[number];
        if !lane.wire.fill().context("the server closed a connection")? {
            return Ok(());
        }
        while let Some(frame) = lane.wire.frame()? {
            let reply = glance(frame)?;
            let slot = (reply.opaque - OPAQUE_MIN).rem_euclid(DEPTH_MAX as i32) as usize;
            let Some(sent) = lane.slots.get_mut(slot).filter(|slot| slot.opaque == reply.opaque)
            else {
                bail!("an answer to {}, which is not in flight", reply.opaque);
            };
            sent.opaque = 0;
            lane.free.push(slot);
            if reply.code == 0 {
                self.tally.messages += self.body.count() as u64;
                figures::record(&mut self.tally.latency, now.saturating_sub(sent.since_ns));
            } else {
                *self.tally.errors.entry(reply.code.to_string()).or_default() += 1;
            }
        }
        Ok(())
    }

    /// Waits for the answers to what is in flight, so that the next run meets a server at rest.
    fn drain(&mut self) -> Result<()> {
        let end_ns = self.now_ns() + DRAIN_MAX.as_nanos() as u64;
        let mut ready = Vec::new();
        while self.lanes.iter().any(|lane| lane.free.len() < lane.slots.len()) {
            let now = self.now_ns();
            ensure!(now < end_ns, "answers are missing {DRAIN_MAX:?} after the end");
            self.poll.wait(Duration::from_nanos(end_ns - now), &mut ready)?;
            for &lane in &ready {
                self.receive(lane, now)?;
            }
        }
        Ok(())
    }
}

fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use protocol::frame::Command;
    use protocol::header::Empty;
    use protocol::request::RequestCode;

    use super::super::target::Header;
    use super::super::template::read_stamp;
    use super::*;

    /// Answers every request on a thread for each connection; every third send is refused.
    fn server() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut wire = Wire::over(stream.unwrap());
                std::thread::spawn(move || while serve(&mut wire).is_ok() {});
            }
        });
        address
    }

    fn serve(wire: &mut Wire) -> Result<()> {
        wire.fill()?;
        let mut answers = Vec::new();
        while let Some(frame) = wire.frame()? {
            let request = Command::decode(frame)?;
            let is_send = request.code == RequestCode::SendMessageV2.to_wire();
            let mut reply = Command::reply(&Empty {});
            if is_send && read_stamp(&request.body).unwrap().0.is_multiple_of(3) {
                reply.code = 2;
            }
            // Out of order, as a server with several threads answers.
            answers.insert(0, reply.answering(request.opaque, request.encoding));
        }
        answers.iter().for_each(|reply| reply.encode(&mut wire.out));
        wire.flush()?;
        Ok(())
    }

    #[test]
    fn every_request_is_answered_or_counted_as_refused() {
        let broker = server();
        for header in [Header::Json, Header::Binary] {
            for rate in [None, Some(20_000)] {
                let target = Target {
                    broker: broker.clone(),
                    namesrv: None,
                    header,
                    server_pid: None,
                    json: false,
                };
                let load = Load {
                    connections: 3,
                    depth: 5,
                    size: 100,
                    batch: 1,
                    topic: "T".to_owned(),
                    topics: 2,
                    queues: 4,
                    rate,
                    warmup: 0.0,
                    duration: 60.0,
                    count: Some(2000),
                };
                let figures = run(&Args { target, load }).unwrap();
                assert!(figures.messages >= 2000, "{figures}");
                let (refused, in_flight) = (figures.errors["2"], 15);
                assert!(refused.abs_diff(figures.messages / 2) <= in_flight, "{figures}");
            }
        }
    }
}
