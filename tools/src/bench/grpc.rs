//! Loads over gRPC, on any proxy that speaks it: ours and the stock one alike.

use anyhow::{Result, ensure};

use super::figures::{Errors, Figures};
use super::process::{self, Use};
use super::wire::Wire;
use super::{poll, target};
use engine::{Engine, Place, Receiving, Sending};

mod calls;
mod engine;
mod http2;

/// A receive that waits for nothing has found the end of the backlog.
const WARMUP: f64 = 2.0;

/// Where to send, and what to watch.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Target {
    /// The proxy, host:port
    #[arg(long, default_value = "127.0.0.1:8081")]
    pub(super) proxy: String,
    /// The broker behind it, host:port, where the topic is created; without it, the topic must exist
    #[arg(long)]
    pub(super) broker: Option<String>,
    #[arg(long, default_value = "bench-grpc")]
    pub(super) topic: String,
    /// Queues of the topic if it is created
    #[arg(long, default_value_t = 8)]
    pub(super) queues: i32,
    /// The consumer group
    #[arg(long, default_value = "bench-grpc")]
    pub(super) group: String,
    /// Also report what these processes, the servers, use together
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pub(super) server_pids: Vec<u32>,
    /// Seconds of the same load before measuring
    #[arg(long, default_value_t = WARMUP)]
    pub(super) warmup: f64,
    /// Seconds to measure
    #[arg(long, default_value_t = 10.0)]
    pub(super) duration: f64,
    /// Stop measuring after so many messages
    #[arg(long)]
    pub(super) count: Option<u64>,
    /// Print the figures as one line of JSON at the end
    #[arg(long)]
    pub(super) json: bool,
}

/// Produce, in closed loops or at a fixed rate.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SendArgs {
    #[command(flatten)]
    pub(super) target: Target,
    #[arg(long, default_value_t = 4)]
    pub(super) connections: usize,
    /// Requests in flight on each connection
    #[arg(long, default_value_t = 16)]
    pub(super) depth: usize,
    /// Messages in one request
    #[arg(long, default_value_t = 1)]
    pub(super) batch: usize,
    /// Bytes of one message
    #[arg(long, default_value_t = 1024)]
    pub(super) size: usize,
    /// Requests a second in all, instead of as fast as answers come
    #[arg(long)]
    pub(super) rate: Option<u64>,
}

/// Receive and acknowledge what is there.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ReceiveArgs {
    #[command(flatten)]
    pub(super) target: Target,
    #[arg(long, default_value_t = 4)]
    pub(super) connections: usize,
    /// Receives on each connection at once
    #[arg(long, default_value_t = 4)]
    pub(super) depth: usize,
    /// Messages of one receive, acknowledged with one request
    #[arg(long, default_value_t = 32)]
    pub(super) batch: usize,
    /// Send so many messages first
    #[arg(long)]
    pub(super) prefill: Option<u64>,
    /// Bytes of one of them
    #[arg(long, default_value_t = 1024)]
    pub(super) size: usize,
}

/// Time messages from when they are due to their receipt by a push consumer.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct E2eArgs {
    #[command(flatten)]
    pub(super) target: Target,
    /// Messages a second
    #[arg(long, default_value_t = 2000)]
    pub(super) rate: u64,
    #[arg(long, default_value_t = 4)]
    pub(super) producers: usize,
    #[arg(long, default_value_t = 4)]
    pub(super) consumers: usize,
    /// Receives that wait at once for each consumer
    #[arg(long, default_value_t = 1)]
    pub(super) depth: usize,
    #[arg(long, default_value_t = 1024)]
    pub(super) size: usize,
}

/// Let push consumers wait for messages that do not come, and look at the servers' memory.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct IdleArgs {
    #[command(flatten)]
    pub(super) target: Target,
    #[arg(long, default_value_t = 1000)]
    pub(super) consumers: usize,
}

/// What idle consumers cost.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Idle {
    pub(super) consumers: usize,
    pub(super) before: Use,
    pub(super) after: Use,
    pub(super) seconds: f64,
}

impl Target {
    fn place(&self) -> Place {
        let (proxy, topic, group) = (self.proxy.clone(), self.topic.clone(), self.group.clone());
        Place { proxy, topic, group }
    }

    /// Creates the topic if the broker is known.
    fn prepare(&self) -> Result<()> {
        poll::wake_punctually()?;
        if let Some(broker) = &self.broker {
            let mut wire = Wire::connect(broker)?;
            target::create_topics(&mut wire, std::slice::from_ref(&self.topic), self.queues)?;
        }
        Ok(())
    }

    /// What the servers have used so far, together.
    fn used(&self) -> Result<Option<Use>> {
        if self.server_pids.is_empty() {
            return Ok(None);
        }
        let mut all = Use::default();
        for pid in &self.server_pids {
            let one = process::of(*pid)?;
            all.cpu_seconds += one.cpu_seconds;
            all.rss_bytes += one.rss_bytes;
            all.rss_anon_bytes += one.rss_anon_bytes;
            all.threads += one.threads;
        }
        Ok(Some(all))
    }

    /// Runs the warm-up and the measured window; its length and what was used in it.
    fn measure(&self, engine: &mut Engine, done: fn(&engine::Tally) -> u64) -> Result<Window> {
        engine.run(self.warmup, |_| false)?;
        engine.count_from_now();
        let (client, server) = (process::own()?, self.used()?);
        let count = self.count.unwrap_or(u64::MAX);
        let seconds = engine.run(self.duration, |tally| done(tally) >= count)?;
        let client = (client, process::own()?);
        Ok(Window { seconds, client, server: server.zip(self.used()?) })
    }
}

struct Window {
    seconds: f64,
    client: (Use, Use),
    server: Option<(Use, Use)>,
}

impl Window {
    fn figures(
        self,
        workload: String,
        (messages, size): (u64, usize),
        (timed, latency): (&'static str, &hdrhistogram::Histogram<u64>),
        errors: Errors,
    ) -> Figures {
        let figures = Figures {
            workload,
            messages,
            bytes: messages * size as u64,
            seconds: self.seconds,
            timed,
            errors,
            ..Figures::default()
        };
        figures.complete(latency, self.client, self.server)
    }
}

/// Sends one message through a proxy to a topic that is made for it.
pub(super) fn first_send(proxy: &str, broker: &str) -> Result<()> {
    let topic = "bench-first-grpc".to_owned();
    target::create_topics(&mut Wire::connect(broker)?, std::slice::from_ref(&topic), 1)?;
    let place = Place { proxy: proxy.to_owned(), topic, group: String::new() };
    let sending = Sending { connections: 1, depth: 1, batch: 1, size: 1, rate: None };
    let mut engine = Engine::new(place, Some(sending), None)?;
    engine.run(5.0, |tally| tally.sent > 0 || !tally.errors.is_empty())?;
    ensure!(engine.tally.sent > 0, "refused with {:?}", engine.tally.errors);
    Ok(())
}

pub(super) fn send(args: &SendArgs) -> Result<Figures> {
    let SendArgs { target, connections, depth, batch, size, rate } = args.clone();
    ensure!(connections > 0 && depth > 0 && batch > 0, "there is nothing to send");
    target.prepare()?;
    let sending = Sending { connections, depth, batch, size, rate };
    let mut engine = Engine::new(target.place(), Some(sending), None)?;
    let window = target.measure(&mut engine, |tally| tally.sent)?;
    let paced = rate.map(|rate| format!(", {rate} requests/s")).unwrap_or_default();
    let workload =
        format!("gRPC send: {connections} × {depth} in flight, {size} B × {batch}{paced}");
    let tally = &engine.tally;
    let (sent, latency) = ((tally.sent, size), ("send", &tally.send_ns));
    let figures = window.figures(workload, sent, latency, tally.errors.clone());
    engine.drain()?;
    Ok(figures)
}

pub(super) fn receive(args: &ReceiveArgs) -> Result<Figures> {
    let ReceiveArgs { target, connections, depth, batch, prefill, size } = args.clone();
    ensure!(connections > 0 && depth > 0 && batch > 0, "there is nothing to receive");
    target.prepare()?;
    // The group begins at the front of the topic only if it is there before the messages.
    let receiving = Receiving { connections, depth, batch, push: false };
    if let Some(prefill) = prefill {
        let sending = Sending { connections: 4, depth: 4, batch: 32, size, rate: None };
        let mut engine = Engine::new(target.place(), Some(sending), None)?;
        engine.run(600.0, |tally| tally.sent >= prefill)?;
        engine.drain()?;
    }
    let mut engine = Engine::new(target.place(), None, Some(receiving))?;
    let window = target.measure(&mut engine, |tally| tally.acknowledged)?;
    let workload =
        format!("gRPC receive + ack: {connections} × {depth} at once, batches of {batch}");
    let tally = &engine.tally;
    let (got, latency) = ((tally.acknowledged, size), ("receive+ack", &tally.cycle_ns));
    let figures = window.figures(workload, got, latency, tally.errors.clone());
    engine.drain()?;
    Ok(figures)
}

pub(super) fn e2e(args: &E2eArgs) -> Result<Figures> {
    let E2eArgs { target, rate, producers, consumers, depth, size } = args.clone();
    ensure!(producers > 0 && consumers > 0 && depth > 0, "there is nothing to send");
    target.prepare()?;
    let sending = Sending { connections: producers, depth: 64, batch: 1, size, rate: Some(rate) };
    let receiving = Receiving { connections: consumers, depth, batch: 32, push: true };
    let mut engine = Engine::new(target.place(), Some(sending), Some(receiving))?;
    let window = target.measure(&mut engine, |tally| tally.arrived)?;
    let workload = format!("gRPC e2e: {rate} messages/s of {size} B, {consumers} push consumers");
    let tally = &engine.tally;
    let (got, latency) = ((tally.arrived, size), ("end to end", &tally.arrival_ns));
    let mut figures = window.figures(workload, got, latency, tally.errors.clone());
    // What is on its way at both ends of the window cancels out, but for a rate that is not held.
    let missing = tally.sent.saturating_sub(tally.arrived + rate / 10);
    if missing > 0 {
        figures.errors.insert("late".to_owned(), missing);
    }
    engine.drain()?;
    Ok(figures)
}

pub(super) fn idle(args: &IdleArgs) -> Result<Idle> {
    let IdleArgs { target, consumers } = args.clone();
    target.prepare()?;
    let before = target.used()?.unwrap_or_default();
    let receiving = Receiving { connections: consumers, depth: 1, batch: 32, push: true };
    let mut engine = Engine::new(target.place(), None, Some(receiving))?;
    let seconds = engine.run(target.duration, |_| false)?;
    let errors = &engine.tally.errors;
    ensure!(errors.is_empty(), "the consumers were refused: {errors:?}");
    Ok(Idle { consumers, before, after: target.used()?.unwrap_or_default(), seconds })
}

impl Idle {
    pub(super) fn print(&self) -> Result<()> {
        use std::io::Write as _;
        const KIB: f64 = 1024.0;
        let grown = self.after.rss_bytes.saturating_sub(self.before.rss_bytes) as f64;
        let cpu = (self.after.cpu_seconds - self.before.cpu_seconds) / self.seconds * 100.0;
        writeln!(
            std::io::stdout().lock(),
            "{} idle push consumers: RSS {:.1} MiB before, {:.1} MiB with them, {:.1} KiB each; \
             {cpu:.1} % of a core",
            self.consumers,
            self.before.rss_bytes as f64 / KIB / KIB,
            self.after.rss_bytes as f64 / KIB / KIB,
            grown / KIB / self.consumers.max(1) as f64,
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::figures;
    use super::*;

    #[test]
    fn figures_take_their_latency_from_the_histogram() {
        let mut latency = figures::histogram();
        figures::record(&mut latency, 2_000);
        let window = Window { seconds: 2.0, client: Default::default(), server: None };
        let figures = window.figures("x".into(), (10, 100), ("send", &latency), Errors::new());
        assert_eq!((figures.bytes, figures.per_second), (1000, 5.0));
        assert!((figures.latency.p50 - 2.0).abs() < 0.01);
    }
}
