//! Catch-up reads: every queue from its first message to its last, again and again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use protocol::fields::Header as _;
use protocol::frame::{self, Command, Head};
use protocol::header::pull::{PullMessage, PullMessageReply};
use protocol::language::{Language, version};
use protocol::reply::ReplyCode;
use protocol::request::RequestCode;
use remoting::clock;

use super::figures::{self, Errors, Figures};
use super::poll::Poll;
use super::process;
use super::record;
use super::target::{self, Target};
use super::template::OPAQUE_MIN;
use super::wire::{Wire, glance};

/// The subscription travels with each pull, so that no heartbeat is needed.
pub(super) const SYS_FLAG_SUBSCRIPTION: i32 = 1 << 2;
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// The CRC of one body in so many is checked; queue offsets always are.
const BODIES_PER_CHECK: i64 = 16;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) target: Target,
    /// The queues are divided over so many connections
    #[arg(long, default_value_t = 4)]
    pub(super) connections: usize,
    /// Pulls in flight on each connection, of different queues
    #[arg(long, default_value_t = 1)]
    pub(super) depth: usize,
    /// Messages asked for by one pull
    #[arg(long, default_value_t = 32)]
    pub(super) batch: i32,
    #[arg(long, default_value = "bench")]
    pub(super) topic: String,
    #[arg(long, default_value_t = 8)]
    pub(super) queues: i32,
    /// Stop after reading everything so many times
    #[arg(long)]
    pub(super) passes: Option<u64>,
    /// Seconds of the same load before measuring
    #[arg(long, default_value_t = 0.0)]
    pub(super) warmup: f64,
    /// Seconds to measure
    #[arg(long, default_value_t = 10.0)]
    pub(super) duration: f64,
}

pub(super) fn run(args: &Args) -> Result<Figures> {
    ensure!(args.connections > 0 && args.depth > 0, "there is nothing to pull with");
    let address = args.target.address()?;
    let mut reader = Reader::new(args, &address)?;
    let watch = || args.target.server_pid.map(process::of).transpose();
    reader.until(args.warmup, u64::MAX)?;
    reader.tally = Tally::new();
    let (client, server) = (process::own()?, watch()?);
    let start = clock::instant();
    reader.until(args.duration, args.passes.unwrap_or(u64::MAX))?;
    let seconds = clock::instant().duration_since(start).as_secs_f64();
    let client = (client, process::own()?);
    let server = server.zip(watch()?);
    let Tally { messages, bytes, latency, errors } = reader.tally;
    let figures = Figures {
        workload: format!(
            "pull: {} × {} in flight, {} messages a pull, {} queues",
            args.connections, args.depth, args.batch, args.queues
        ),
        messages,
        bytes,
        seconds,
        timed: "pull",
        errors,
        ..Figures::default()
    };
    Ok(figures.complete(&latency, client, server))
}

struct Reader {
    poll: Poll,
    lanes: Vec<Lane>,
    head: Head<'static>,
    tally: Tally,
}

/// One connection; each cursor has one pull in flight.
struct Lane {
    wire: Wire,
    cursors: Vec<Cursor>,
}

/// Reads its queues one after another.
struct Cursor {
    queues: Vec<Queue>,
    at: usize,
    passes: u64,
    since: Instant,
}

struct Queue {
    pull: PullMessage,
    min: i64,
    max: i64,
}

struct Tally {
    messages: u64,
    bytes: u64,
    latency: Histogram<u64>,
    errors: Errors,
}

impl Tally {
    fn new() -> Self {
        let latency = figures::histogram();
        Self { messages: 0, bytes: 0, latency, errors: Errors::new() }
    }
}

/// A pull of one queue that tells nothing about offsets.
pub(super) fn request(topic: &str, queue_id: i32, batch: i32) -> PullMessage {
    PullMessage {
        sub_version: clock::now_ms(),
        expression_type: Some("TAG".to_owned()),
        ..PullMessage::everything("ferromq-bench", topic, queue_id, 0, batch)
    }
}

/// The head of a pull; its opaque is set for each.
pub(super) fn head(target: &Target) -> Head<'static> {
    Head {
        code: RequestCode::PullMessage.to_wire(),
        language: Language::Java,
        version: version::OURS,
        opaque: OPAQUE_MIN,
        flag: 0,
        remark: None,
        encoding: target.header.into(),
    }
}

impl Reader {
    fn new(args: &Args, address: &str) -> Result<Self> {
        let poll = Poll::new()?;
        let mut lanes = Vec::new();
        let head = head(&args.target);
        let streams = args.connections * args.depth;
        for number in 0..args.connections {
            let mut wire = Wire::connect(address)?;
            let mut cursors = Vec::new();
            for stream in (number..streams).step_by(args.connections) {
                let mut queues = Vec::new();
                for queue_id in (0..args.queues).skip(stream).step_by(streams) {
                    let (min, max) = target::offsets(&mut wire, &args.topic, queue_id)?;
                    if min < max {
                        let mut pull = request(&args.topic, queue_id, args.batch);
                        pull.queue_offset = min;
                        queues.push(Queue { pull, min, max });
                    }
                }
                ensure!(!queues.is_empty(), "there are messages for fewer than {streams} streams");
                cursors.push(Cursor { queues, at: 0, passes: 0, since: clock::instant() });
            }
            poll.add(&wire.stream, number)?;
            let mut lane = Lane { wire, cursors };
            for number in 0..lane.cursors.len() {
                lane.pull(head, number);
            }
            lane.wire.flush()?;
            lanes.push(lane);
        }
        Ok(Self { poll, lanes, head, tally: Tally::new() })
    }

    /// Reads for so long, or until every cursor has gone round `passes` times.
    fn until(&mut self, seconds: f64, passes: u64) -> Result<()> {
        let mut heard = clock::instant();
        let end = heard + Duration::from_secs_f64(seconds);
        let mut ready = Vec::new();
        let is_done = |lane: &Lane| lane.cursors.iter().all(|cursor| cursor.passes >= passes);
        while heard < end && !self.lanes.iter().all(is_done) {
            self.poll.wait(SILENCE_MAX, &mut ready)?;
            ensure!(!ready.is_empty(), "no answer for {SILENCE_MAX:?}");
            heard = clock::instant();
            for &lane in &ready {
                self.lanes[lane].receive(self.head, heard, &mut self.tally, passes)?;
            }
        }
        Ok(())
    }
}

impl Lane {
    fn pull(&mut self, head: Head<'_>, number: usize) {
        let cursor = &mut self.cursors[number];
        cursor.since = clock::instant();
        let queue = &cursor.queues[cursor.at];
        let head = Head { opaque: OPAQUE_MIN + number as i32, ..head };
        frame::encode(&mut self.wire.out, &head, |sink| queue.pull.write(sink), 0);
    }

    fn receive(
        &mut self,
        head: Head<'_>,
        now: Instant,
        tally: &mut Tally,
        passes: u64,
    ) -> Result<()> {
        if !self.wire.fill().context("the server closed a connection")? {
            return Ok(());
        }
        while let Some(frame) = self.wire.frame()? {
            let seen = glance(frame)?;
            let number = usize::try_from(seen.opaque - OPAQUE_MIN).unwrap_or(usize::MAX);
            let cursor = self.cursors.get_mut(number).context("an answer to nothing asked")?;
            let waited = now.saturating_duration_since(cursor.since);
            figures::record(&mut tally.latency, waited.as_nanos() as u64);
            let queue = &mut cursor.queues[cursor.at];
            queue.take(frame, seen.code, tally)?;
            if queue.pull.queue_offset >= queue.max {
                queue.pull.queue_offset = queue.min;
                cursor.at = (cursor.at + 1) % cursor.queues.len();
                cursor.passes += u64::from(cursor.at == 0);
            }
            if cursor.passes < passes {
                self.pull(head, number);
            }
        }
        // Requests are small and few: the socket takes them.
        ensure!(self.wire.flush()?, "the server does not read its requests");
        Ok(())
    }
}

impl Queue {
    /// Counts and checks the messages of one answer.
    fn take(&mut self, frame: &mut [u8], code: i32, tally: &mut Tally) -> Result<()> {
        if code != ReplyCode::Success.to_wire() {
            *tally.errors.entry(code.to_string()).or_default() += 1;
            let reply = Command::decode(frame)?;
            if let Ok(header) = reply.fields.read::<PullMessageReply>() {
                self.pull.queue_offset = header.next_begin_offset.clamp(self.min, self.max);
            }
            return Ok(());
        }
        let header_len = u32::from_be_bytes([0, frame[5], frame[6], frame[7]]) as usize;
        let mut records = &frame[8 + header_len..];
        ensure!(!records.is_empty(), "a successful pull without a message");
        while !records.is_empty() {
            let record = record::next(&mut records)?;
            ensure!(
                record.queue_offset == self.pull.queue_offset,
                "queue {} gave offset {} where {} comes next",
                self.pull.queue_id,
                record.queue_offset,
                self.pull.queue_offset
            );
            if record.queue_offset % BODIES_PER_CHECK == 0 {
                record.check_body()?;
            }
            self.pull.queue_offset += 1;
            tally.messages += 1;
            tally.bytes += record.body.len() as u64;
        }
        Ok(())
    }
}
