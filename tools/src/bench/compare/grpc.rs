//! `ferromq bench compare-grpc`: the same gRPC loads on FerroMQ as two processes, as one, and on the stock
//! nameserver, broker and proxy; and their ratios.
//!
//! As with the rows over remoting, all servers of a row are up at once, and all but the one that is measured
//! are stopped by a signal.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use remoting::clock;

use super::clusters::{Cluster, Shape};
use super::servers::{self, Ground};
use super::table::{self, Runs, State};
use super::{NATIVE_WARMUP_MAX, SETTLE, say};
use crate::bench::figures::Figures;
use crate::bench::target::{self, Header, Target};
use crate::bench::{grpc, process, send};

const MIB: f64 = 1024.0 * 1024.0;
/// Each run begins with so much of its load, unmeasured, after the other server ran.
const RUN_WARMUP: f64 = 0.5;
const TOPIC: &str = "bench-grpc";
/// Messages whose bytes in the log are counted.
const LOGGED: u64 = 20_000;
/// What a server may still write when the last answer has come.
const LOG_SETTLE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Those before the last are each compared with the last
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Shape::Two, Shape::One, Shape::Stock])]
    servers: Vec<Shape>,
    /// Only these rows: unary, one, batch, receive, e2e; log-bytes, consumers, start
    #[arg(long, value_delimiter = ',', value_name = "ROW")]
    only: Vec<String>,
    /// Short runs and a hardly warm JVM, to see that everything works
    #[arg(long)]
    quick: bool,
    /// Runs of each server, in turns [default: 3, quick: 1]
    #[arg(long)]
    pairs: Option<usize>,
    /// Seconds of load before the first run of a stock server [default: 30, quick: 3]
    #[arg(long)]
    warmup: Option<f64>,
    /// Seconds of one run [default: 8, quick: 2]
    #[arg(long)]
    seconds: Option<f64>,
    /// Messages to receive in the receive row, at least [default: 1000000, quick: 400000]
    #[arg(long)]
    backlog: Option<u64>,
    /// Consumers of the consumers row [default: 1000, quick: 100]
    #[arg(long)]
    consumers: Option<usize>,
    /// Stores, logs and the jars of the stock server go here
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    /// The first of a hundred ports to use
    #[arg(long, default_value_t = 19_700)]
    port: u16,
    /// Java heap of the stock broker
    #[arg(long, default_value = "4g")]
    heap: String,
    /// Java heap of the stock proxy
    #[arg(long, default_value = "2g")]
    proxy_heap: String,
    /// Print everything measured as one line of JSON at the end
    #[arg(long)]
    json: bool,
}

/// A load that is run in turns.
#[derive(Debug, Clone, Copy)]
struct Row {
    name: &'static str,
    work: Work,
}

#[derive(Debug, Clone, Copy)]
enum Work {
    Send { connections: usize, depth: usize, batch: usize },
    Receive,
    EndToEnd,
}

const ROWS: [Row; 5] = [
    Row { name: "unary", work: Work::Send { connections: 4, depth: 16, batch: 1 } },
    Row { name: "one", work: Work::Send { connections: 1, depth: 1, batch: 1 } },
    Row { name: "batch", work: Work::Send { connections: 4, depth: 1, batch: 32 } },
    Row { name: "receive", work: Work::Receive },
    Row { name: "e2e", work: Work::EndToEnd },
];

const STATES: [&str; 3] = ["log-bytes", "consumers", "start"];

struct Comparison {
    ground: Ground,
    proxy_heap: String,
    shapes: Vec<Shape>,
    pairs: usize,
    warmup: f64,
    seconds: f64,
    backlog: u64,
    consumers: usize,
    idle: Duration,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(!args.servers.is_empty(), "there is nothing to compare");
    for name in &args.only {
        let known = ROWS.iter().any(|row| row.name == name) || STATES.contains(&name.as_str());
        ensure!(known, "there is no row {name}");
    }
    fs::create_dir_all(&args.dir)?;
    let dir = fs::canonicalize(&args.dir)?;
    let ground = Ground { dir, port: args.port, heap: args.heap.clone() };
    servers::end_with_this_process()?;
    if args.servers.contains(&Shape::Stock) {
        say("resolving the stock server");
        ground.resolve_stock()?;
    }
    let pick = |full: f64, quick: f64| if args.quick { quick } else { full };
    let comparison = Comparison {
        ground,
        proxy_heap: args.proxy_heap.clone(),
        shapes: args.servers.clone(),
        pairs: args.pairs.unwrap_or(if args.quick { 1 } else { 3 }).max(1),
        warmup: args.warmup.unwrap_or_else(|| pick(30.0, 3.0)),
        seconds: args.seconds.unwrap_or_else(|| pick(8.0, 2.0)),
        backlog: args.backlog.unwrap_or(if args.quick { 400_000 } else { 1_000_000 }),
        consumers: args.consumers.unwrap_or(if args.quick { 100 } else { 1000 }),
        idle: Duration::from_secs_f64(pick(10.0, 3.0)),
    };
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    let mut runs = Vec::new();
    for row in ROWS.into_iter().filter(|row| wanted(row.name)) {
        runs.extend(comparison.row(row).with_context(|| row.name)?);
    }
    let mut states = Vec::new();
    for name in STATES.into_iter().filter(|name| wanted(name)) {
        comparison.state(name, &mut states).with_context(|| name)?;
    }
    print(args, &comparison, &runs, &states)
}

fn print(args: &Args, comparison: &Comparison, runs: &[Runs], states: &[State]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let cores = thread::available_parallelism().map_or(0, usize::from);
    writeln!(
        out,
        "\nFerroMQ {} and RocketMQ {} over gRPC; {cores} cores shared with the load generator; 1 KiB messages; \
         medians of {} runs of {} s, in turns, after {} s of warm-up (JVM).\n\
         CPU and RSS are those of broker and proxy together. Each cell: first server / second = ratio.\n",
        env!("CARGO_PKG_VERSION"),
        servers::STOCK,
        comparison.pairs,
        comparison.seconds,
        comparison.warmup,
    )?;
    if !runs.is_empty() {
        writeln!(out, "{}", table::workloads(&opposed(runs)))?;
    }
    if !states.is_empty() {
        let names: Vec<&str> = comparison.shapes.iter().map(|shape| shape.name()).collect();
        writeln!(out, "{}", table::states(states, &names))?;
    }
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&(runs, states))?)?;
    }
    Ok(())
}

/// Each server of a row beside the last one.
fn opposed(runs: &[Runs]) -> Vec<Runs> {
    let mut pairs = Vec::new();
    for row in runs.chunk_by(|a, b| a.workload == b.workload) {
        let Some((rival, subjects)) = row.split_last() else { continue };
        for subject in subjects {
            let workload = format!("{}, {}", subject.workload, subject.server);
            for one in [subject, rival] {
                pairs.push(Runs { workload: workload.clone(), ..one.clone() });
            }
        }
        if subjects.is_empty() {
            pairs.push(rival.clone());
        }
    }
    pairs
}

impl Comparison {
    fn row(&self, row: Row) -> Result<Vec<Runs>> {
        let mut clusters: Vec<Cluster> = Vec::new();
        let mut all = Vec::new();
        for &shape in &self.shapes {
            clusters.iter().try_for_each(Cluster::freeze)?;
            let cluster = Cluster::start(&self.ground, shape, &self.proxy_heap, true)?;
            let warmup = match shape {
                Shape::Stock => self.warmup,
                Shape::One | Shape::Two => self.warmup.min(NATIVE_WARMUP_MAX),
            };
            say(&format!("{}: {} is up, warming up for {warmup} s", row.name, shape.name()));
            self.work(row.work, &cluster, 0.0, warmup)?;
            all.push(Runs {
                workload: row.name.to_owned(),
                server: shape.name(),
                start_ms: cluster.started_in.as_secs_f64() * 1000.0,
                others_cores: 0.0,
                runs: Vec::new(),
            });
            clusters.push(cluster);
        }
        for _ in 0..self.pairs {
            for (cluster, runs) in clusters.iter().zip(&mut all) {
                clusters.iter().try_for_each(Cluster::freeze)?;
                rustix::fs::syncfs(fs::File::open(&self.ground.dir)?)?;
                cluster.thaw()?;
                thread::sleep(SETTLE);
                let (figures, others) = self.watched(row, cluster)?;
                say(&format!(
                    "{}: {} {:.0}/s, p50 {:.0} µs, p99 {:.0} µs; others used {others:.2} cores",
                    row.name,
                    cluster.shape.name(),
                    figures.per_second,
                    figures.latency.p50,
                    figures.latency.p99,
                ));
                runs.others_cores = runs.others_cores.max(others);
                runs.runs.push(figures);
            }
        }
        for cluster in clusters {
            cluster.end(&self.ground)?;
        }
        Ok(all)
    }

    /// One run, and how many cores were taken by others meanwhile.
    fn watched(&self, row: Row, cluster: &Cluster) -> Result<(Figures, f64)> {
        let used = || -> Result<f64> {
            let servers = cluster.all_pids();
            let servers = servers.into_iter().map(|pid| Ok(process::of(pid)?.cpu_seconds));
            Ok(servers.sum::<Result<f64>>()? + process::own()?.cpu_seconds)
        };
        if matches!(row.work, Work::Receive) {
            self.fill(cluster, self.backlog)?;
        }
        let (start, busy, known) = (clock::instant(), process::machine_busy_seconds()?, used()?);
        let figures = self.work(row.work, cluster, RUN_WARMUP, self.seconds)?;
        let seconds = (clock::instant() - start).as_secs_f64();
        let others = (process::machine_busy_seconds()? - busy) - (used()? - known);
        Ok((figures, (others / seconds).max(0.0)))
    }

    /// Sends so many messages over remoting, as fast as it goes.
    fn fill(&self, cluster: &Cluster, count: u64) -> Result<()> {
        let mut load = super::rows::load(TOPIC, 8, 64);
        (load.duration, load.count, load.warmup) = (300.0, Some(count), 0.0);
        let target = Target {
            broker: cluster.broker.clone(),
            namesrv: None,
            header: Header::Binary,
            server_pid: None,
            json: false,
        };
        let sent = send::run(&send::Args { target, load })?;
        ensure!(sent.messages >= count, "only {} of {count} messages were taken", sent.messages);
        Ok(())
    }

    fn target(&self, cluster: &Cluster, warmup: f64, duration: f64) -> grpc::Target {
        grpc::Target {
            proxy: cluster.proxy.clone(),
            broker: Some(cluster.broker.clone()),
            topic: TOPIC.to_owned(),
            queues: 8,
            group: TOPIC.to_owned(),
            server_pids: cluster.charged_pids(),
            warmup,
            duration,
            count: None,
            json: false,
        }
    }

    fn work(&self, work: Work, cluster: &Cluster, warmup: f64, seconds: f64) -> Result<Figures> {
        const MESSAGES_MAX: u64 = 1_000_000;
        let mut target = self.target(cluster, warmup, seconds);
        target.count = Some(MESSAGES_MAX);
        let size = 1024;
        match work {
            Work::Send { connections, depth, batch } => {
                grpc::send(&grpc::SendArgs { target, connections, depth, batch, size, rate: None })
            }
            Work::Receive => {
                let (connections, depth, batch, prefill) = (4, 4, 32, None);
                if warmup == 0.0 {
                    // A group that is new to a long topic may begin at its end.
                    let mut target = target.clone();
                    target.duration = 0.1;
                    let first =
                        grpc::ReceiveArgs { target, connections, depth, batch, prefill, size };
                    grpc::receive(&first)?;
                    self.fill(cluster, self.backlog / 4)?;
                }
                // The rest of the backlog is for the warm-up of the run.
                target.count = Some(self.backlog / 2);
                grpc::receive(&grpc::ReceiveArgs {
                    target,
                    connections,
                    depth,
                    batch,
                    prefill,
                    size,
                })
            }
            Work::EndToEnd => {
                target.topic = format!("{TOPIC}-e2e");
                let (rate, producers, consumers, depth) = (2000, 4, 4, 1);
                grpc::e2e(&grpc::E2eArgs { target, rate, producers, consumers, depth, size })
            }
        }
    }

    fn state(&self, name: &str, all: &mut Vec<State>) -> Result<()> {
        for &shape in &self.shapes {
            let rounds = if name == "start" { self.pairs } else { 1 };
            for _ in 0..rounds {
                let cluster = Cluster::start(&self.ground, shape, &self.proxy_heap, false)?;
                let measured = match name {
                    "log-bytes" => self.log_bytes(&cluster),
                    "consumers" => self.idle_consumers(&cluster),
                    "start" => self.idle(&cluster),
                    _ => bail!("there is no row {name}"),
                };
                let measured = measured.with_context(|| format!("{name} of {}", shape.name()))?;
                cluster.end(&self.ground)?;
                for (what, value) in measured {
                    say(&format!("{}: {what} {value:.1}", shape.name()));
                    let server = shape.name();
                    let known = |state: &&mut State| state.server == server && state.what == what;
                    match all.iter_mut().find(known) {
                        Some(state) => state.values.push(value),
                        None => all.push(State { what, server, values: vec![value] }),
                    }
                }
            }
        }
        Ok(())
    }

    fn log_bytes(&self, cluster: &Cluster) -> Result<Vec<(String, f64)>> {
        let mut measured = Vec::new();
        for batch in [1, 32] {
            let mut target = self.target(cluster, 0.0, 120.0);
            target.topic = format!("{TOPIC}-log-{batch}");
            target.group = target.topic.clone();
            target.count = Some(LOGGED);
            target.server_pids.clear();
            let end = || {
                thread::sleep(LOG_SETTLE);
                target::log_end(&cluster.broker)
            };
            // The group and the topic are written down before anything is counted.
            let (connections, depth, size) = (2, 4, 1024);
            let mut nothing = target.clone();
            nothing.duration = 0.1;
            let receive = |target, prefill| {
                grpc::receive(&grpc::ReceiveArgs {
                    target,
                    connections,
                    depth,
                    batch,
                    prefill,
                    size,
                })
            };
            receive(nothing, None)?;
            let before = end()?;
            let send = grpc::SendArgs {
                target: target.clone(),
                connections,
                depth,
                batch: 1,
                size,
                rate: None,
            };
            let sent = grpc::send(&send)?.messages as f64;
            let stored = end()?;
            let popped = receive(target, None)?.messages as f64;
            let settled = end()?;
            let each = |bytes: i64, messages: f64| bytes as f64 / messages.max(1.0);
            if batch == 1 {
                measured.push(("log bytes a message sent".to_owned(), each(stored - before, sent)));
            }
            let what = format!("log bytes a message popped and acknowledged, batches of {batch}");
            measured.push((what, each(settled - stored, popped)));
        }
        Ok(measured)
    }

    fn idle_consumers(&self, cluster: &Cluster) -> Result<Vec<(String, f64)>> {
        let mut target = self.target(cluster, 0.0, self.idle.as_secs_f64());
        target.server_pids = vec![cluster.proxy_pid()];
        let consumers = self.consumers;
        let idle = grpc::idle(&grpc::IdleArgs { target, consumers })?;
        let grown = idle.after.rss_bytes.saturating_sub(idle.before.rss_bytes) as f64;
        let what = format!("{consumers} idle push consumers");
        Ok(vec![
            (format!("proxy RSS with {what}, MiB"), idle.after.rss_bytes as f64 / MIB),
            (format!("KiB for each of {what}"), grown / 1024.0 / consumers as f64),
        ])
    }

    fn idle(&self, cluster: &Cluster) -> Result<Vec<(String, f64)>> {
        // A start has its aftermath; a JVM compiles on for seconds.
        thread::sleep(self.idle);
        let pids = cluster.all_pids();
        let used = || -> Result<(f64, f64)> {
            let mut sum = (0.0, 0.0);
            for pid in &pids {
                let one = process::of(*pid)?;
                sum = (sum.0 + one.cpu_seconds, sum.1 + one.rss_bytes as f64);
            }
            Ok(sum)
        };
        let (before, start) = (used()?.0, clock::instant());
        thread::sleep(self.idle);
        let (after, rss) = used()?;
        let cpu = (after - before) / (clock::instant() - start).as_secs_f64() * 100.0;
        Ok(vec![
            ("all processes ready, ms".to_owned(), cluster.started_in.as_secs_f64() * 1000.0),
            ("idle RSS of all processes, MiB".to_owned(), rss / MIB),
            ("idle CPU of all processes, % of a core".to_owned(), cpu),
        ])
    }
}
