//! End to end: from the moment a message is sent to its arrival at a consumer that waits for it.
//!
//! The producer keeps its rate whether or not answers come. A message counts from when it was sent;
//! from when it was due if the producer itself was held up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use protocol::fields::Header as _;
use protocol::frame::{self, Command, Head};
use protocol::header::pull::{PullMessage, PullMessageReply};
use protocol::reply::ReplyCode;
use remoting::clock;

use super::figures::{self, Errors, Figures};
use super::poll;
use super::process;
use super::pull;
use super::record;
use super::target::{self, Target};
use super::template::{self, Body, OPAQUE_MIN, Stamp, Template};
use super::wire::{Wire, glance};

/// Hold the pull until a message comes.
const SYS_FLAG_SUSPEND: i32 = 1 << 1;
const SUSPEND_MILLIS: i64 = 15_000;
/// A wake-up as late as this is the generator's own; later, something held it up.
const LATE_NS_MAX: u64 = 1_000_000;
/// How long the last messages are awaited.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// How often a thread that waits for bytes looks whether it should end.
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) target: Target,
    /// Messages a second
    #[arg(long, default_value_t = 500)]
    pub(super) rate: u64,
    #[arg(long, default_value_t = 1024)]
    pub(super) size: usize,
    #[arg(long, default_value = "bench-e2e")]
    pub(super) topic: String,
    #[arg(long, default_value_t = 1)]
    pub(super) queues: i32,
    /// Seconds of the same load before measuring
    #[arg(long, default_value_t = 2.0)]
    pub(super) warmup: f64,
    /// Seconds to measure
    #[arg(long, default_value_t = 10.0)]
    pub(super) duration: f64,
}

/// What the threads share.
#[derive(Debug, Default)]
struct Shared {
    /// Messages from here on are measured; those below were warm-up.
    first: AtomicU64,
    /// Measured messages that arrived.
    arrived: AtomicU64,
    stop: AtomicBool,
}

pub(super) fn run(args: &Args) -> Result<Figures> {
    ensure!(args.rate > 0 && args.queues > 0, "there is nothing to send");
    let address = args.target.address()?;
    target::create_topics(
        &mut Wire::connect(&address)?,
        std::slice::from_ref(&args.topic),
        args.queues,
    )?;
    poll::wake_punctually()?;
    let origin = clock::instant();
    let shared = Arc::new(Shared::default());
    shared.first.store(u64::MAX, Ordering::Relaxed);
    let consumer = Consumer::new(args, &address, origin, &shared)?;
    let consumer = thread::spawn(move || consumer.run());
    let mut producer = Producer::new(args, &address, origin)?;
    let answers = producer.answers(&shared)?;

    let watch = || args.target.server_pid.map(process::of).transpose();
    producer.send_for(args.warmup)?;
    shared.first.store(producer.sequence, Ordering::Release);
    let (client, server) = (process::own()?, watch()?);
    let start = clock::instant();
    producer.send_for(args.duration)?;
    let client = (client, process::own()?);
    let server = server.zip(watch()?);
    let seconds = clock::instant().duration_since(start).as_secs_f64();

    let sent = producer.sequence - shared.first.load(Ordering::Relaxed);
    let end = clock::instant() + DRAIN_MAX;
    while shared.arrived.load(Ordering::Acquire) < sent && clock::instant() < end {
        thread::sleep(Duration::from_millis(5));
    }
    shared.stop.store(true, Ordering::Release);
    let (latency, mut errors) = joined(consumer)?;
    for (kind, count) in joined(answers)? {
        *errors.entry(kind).or_default() += count;
    }
    let arrived = shared.arrived.load(Ordering::Acquire);
    if arrived < sent {
        errors.insert("lost".to_owned(), sent - arrived);
    }
    let figures = Figures {
        workload: format!(
            "e2e: {} messages/s of {} B, {} queues, long polling",
            args.rate, args.size, args.queues
        ),
        messages: arrived,
        bytes: arrived * args.size as u64,
        seconds,
        timed: "end to end",
        errors,
        ..Figures::default()
    };
    Ok(figures.complete(&latency, client, server))
}

fn joined<T>(thread: thread::JoinHandle<Result<T>>) -> Result<T> {
    match thread.join() {
        Ok(outcome) => outcome,
        Err(_) => bail!("a thread of the generator panicked"),
    }
}

struct Producer {
    wire: Wire,
    templates: Vec<Template>,
    body: Body,
    origin: Instant,
    period_ns: u64,
    sequence: u64,
}

impl Producer {
    fn new(args: &Args, address: &str, origin: Instant) -> Result<Self> {
        let id_prefix = format!("7F000001{:08X}", clock::now_ms() as u32);
        let body = Body::new(args.size, 1, &id_prefix)?;
        let encoding = args.target.header.into();
        let template = |queue_id| Template::new(&args.topic, queue_id, encoding, &body, &id_prefix);
        let templates = (0..args.queues).map(template).collect();
        let wire = Wire::connect(address)?;
        let period_ns = 1_000_000_000 / args.rate;
        Ok(Self { wire, templates, body, origin, period_ns, sequence: 0 })
    }

    /// Reads the answers to what is sent, on a thread of its own.
    fn answers(&self, shared: &Arc<Shared>) -> Result<thread::JoinHandle<Result<Errors>>> {
        let mut wire = self.wire.reader()?;
        wire.stream.set_read_timeout(Some(LOOK_EVERY))?;
        let shared = Arc::clone(shared);
        Ok(thread::spawn(move || {
            let mut errors = Errors::new();
            while !shared.stop.load(Ordering::Acquire) {
                wire.fill().context("the server closed the producer's connection")?;
                while let Some(frame) = wire.frame()? {
                    let code = glance(frame)?.code;
                    if code != ReplyCode::Success.to_wire() {
                        *errors.entry(format!("send {code}")).or_default() += 1;
                    }
                }
            }
            Ok(errors)
        }))
    }

    fn send_for(&mut self, seconds: f64) -> Result<()> {
        let now_ns = |origin| clock::instant().duration_since(origin).as_nanos() as u64;
        let mut due_ns = now_ns(self.origin);
        let end_ns = due_ns + (seconds * 1e9) as u64;
        while due_ns < end_ns {
            let wait = due_ns.saturating_sub(now_ns(self.origin));
            thread::sleep(Duration::from_nanos(wait));
            let now = now_ns(self.origin);
            let sent_ns = if now - due_ns > LATE_NS_MAX { due_ns } else { now };
            let stamp = Stamp {
                opaque: OPAQUE_MIN + (self.sequence % 1_000_000_000) as i32,
                born_ms: clock::now_ms(),
                sequence: self.sequence,
                sent_ns,
            };
            let template = &self.templates[self.sequence as usize % self.templates.len()];
            template.stamp(&self.body, stamp, &mut self.wire.out);
            self.wire.flush().context("the server closed the producer's connection")?;
            self.sequence += 1;
            due_ns += self.period_ns;
        }
        Ok(())
    }
}

struct Consumer {
    wire: Wire,
    head: Head<'static>,
    pulls: Vec<PullMessage>,
    origin: Instant,
    shared: Arc<Shared>,
    latency: Histogram<u64>,
    errors: Errors,
}

impl Consumer {
    fn new(args: &Args, address: &str, origin: Instant, shared: &Arc<Shared>) -> Result<Self> {
        let mut wire = Wire::connect(address)?;
        let mut pulls = Vec::new();
        for queue_id in 0..args.queues {
            let (_, max) = target::offsets(&mut wire, &args.topic, queue_id)?;
            pulls.push(PullMessage {
                queue_offset: max,
                sys_flag: pull::SYS_FLAG_SUBSCRIPTION | SYS_FLAG_SUSPEND,
                suspend_timeout_millis: SUSPEND_MILLIS,
                ..pull::request(&args.topic, queue_id, 32)
            });
        }
        wire.stream.set_read_timeout(Some(LOOK_EVERY))?;
        Ok(Self {
            wire,
            head: pull::head(&args.target),
            pulls,
            origin,
            shared: Arc::clone(shared),
            latency: figures::histogram(),
            errors: Errors::new(),
        })
    }

    fn run(mut self) -> Result<(Histogram<u64>, Errors)> {
        for queue in 0..self.pulls.len() {
            self.ask(queue);
        }
        while !self.shared.stop.load(Ordering::Acquire) {
            self.wire.flush()?;
            if !self.wire.fill().context("the server closed the consumer's connection")? {
                continue;
            }
            let now_ns = clock::instant().duration_since(self.origin).as_nanos() as u64;
            self.take(now_ns)?;
        }
        Ok((self.latency, self.errors))
    }

    fn ask(&mut self, queue: usize) {
        let head = Head { opaque: OPAQUE_MIN + queue as i32, ..self.head };
        let pull = &self.pulls[queue];
        frame::encode(&mut self.wire.out, &head, |sink| pull.write(sink), 0);
    }

    fn take(&mut self, now_ns: u64) -> Result<()> {
        let first = self.shared.first.load(Ordering::Acquire);
        let mut answered = Vec::new();
        while let Some(frame) = self.wire.frame()? {
            let reply = Command::decode(frame)?;
            let queue = usize::try_from(reply.opaque - OPAQUE_MIN).unwrap_or(usize::MAX);
            let pull = self.pulls.get_mut(queue).context("an answer to nothing asked")?;
            match ReplyCode::from_wire(reply.code) {
                Some(ReplyCode::Success) => {}
                Some(ReplyCode::PullNotFound | ReplyCode::PullRetryImmediately) => {}
                _ => *self.errors.entry(format!("pull {}", reply.code)).or_default() += 1,
            }
            let mut records = &*reply.body;
            while !records.is_empty() {
                let record = record::next(&mut records)?;
                record.check_body()?;
                if record.queue_offset != pull.queue_offset {
                    *self.errors.entry("out of order".to_owned()).or_default() += 1;
                }
                pull.queue_offset = record.queue_offset + 1;
                let (sequence, sent_ns) =
                    template::read_stamp(record.body).context("a message without a stamp")?;
                if sequence >= first {
                    figures::record(&mut self.latency, now_ns.saturating_sub(sent_ns));
                    self.shared.arrived.fetch_add(1, Ordering::AcqRel);
                }
            }
            if let Ok(header) = reply.fields.read::<PullMessageReply>() {
                pull.queue_offset = header.next_begin_offset;
            }
            answered.push(queue);
        }
        answered.into_iter().for_each(|queue| self.ask(queue));
        Ok(())
    }
}
