//! `ferromq bench compare`: the same loads on FerroMQ and on the stock server, and their ratios.
//!
//! All servers of a row are up at once, but only the one being measured runs: the others are
//! stopped by a signal. So one warm-up serves all pairs, and runs alternate within seconds.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use remoting::clock;
use serde::Serialize;

use super::figures::Figures;
use super::target::{Header, Target};
use super::{disk, e2e, process, pull, send};
use rows::{ROWS, Row, Work};
use servers::{Ground, Kind, Process, Server, Setting};
use table::Runs;

mod clusters;
pub(super) mod grpc;
mod rows;
mod servers;
mod states;
mod table;

/// A compiled server needs no long warm-up.
const NATIVE_WARMUP_MAX: f64 = 2.0;
/// Each run begins with so much of its load, unmeasured, after the other server ran.
const RUN_WARMUP: f64 = 1.0;
/// Between stopping one server and measuring the next.
const SETTLE: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// The first is compared with each of the others
    #[arg(long, value_enum, value_delimiter = ',',
          default_values_t = [Kind::Ferromq, Kind::Stock, Kind::StockPwrite])]
    servers: Vec<Kind>,
    /// Only these rows: pipelined, pipelined-json, one, … or disk, start, idle, memory, …
    #[arg(long, value_delimiter = ',', value_name = "ROW")]
    only: Vec<String>,
    /// A smaller table in about three minutes, with a JVM that is hardly warm
    #[arg(long)]
    quick: bool,
    /// Also the restarts after kill -9, with a large log and with many topics
    #[arg(long)]
    restart: bool,
    /// Runs of each server, in turns [default: 3, quick: 1]
    #[arg(long)]
    pairs: Option<usize>,
    /// Seconds of load before the first run of a stock server [default: 30, quick: 3]
    #[arg(long)]
    warmup: Option<f64>,
    /// Seconds of one run [default: 8, quick: 2]
    #[arg(long)]
    seconds: Option<f64>,
    /// Log to restart on, in GB
    #[arg(long, default_value_t = 2.0)]
    restart_gb: f64,
    /// Topics to restart with, of 4 queues each, one of them in use
    #[arg(long, default_value_t = 16_000)]
    restart_topics: usize,
    /// Stores, logs and the jars of the stock server go here
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    /// The first of a hundred ports to use
    #[arg(long, default_value_t = 19_600)]
    port: u16,
    /// Java heap of the stock broker
    #[arg(long, default_value = "4g")]
    heap: String,
    /// Print everything measured as one line of JSON at the end
    #[arg(long)]
    json: bool,
}

/// A round is disturbed when something else used more than this.
const OTHERS_CORES_MAX: f64 = 0.1;

/// How much is done for each row.
#[derive(Debug, Clone, Copy)]
struct Effort {
    pairs: usize,
    warmup: f64,
    seconds: f64,
    /// A run ends early after so many messages, so that a fast server does not fill the disk.
    messages_max: u64,
    /// Messages to read in the catch-up row.
    backlog: u64,
    /// Messages after which memory is looked at.
    memory_messages: u64,
    idle_seconds: f64,
}

/// Everything the tables are made of.
#[derive(Debug, Serialize)]
struct Measured {
    runs: Vec<Runs>,
    states: Vec<table::State>,
    disk: Option<Figures>,
}

struct Comparison {
    args: Args,
    effort: Effort,
    ground: Ground,
    nameserver: Option<Process>,
}

pub(super) fn run(args: &Args) -> Result<()> {
    ensure!(!args.servers.is_empty(), "there is nothing to compare");
    let effort = effort(args);
    fs::create_dir_all(&args.dir)?;
    let dir = fs::canonicalize(&args.dir)?;
    let ground = Ground { dir, port: args.port, heap: args.heap.clone() };
    servers::end_with_this_process()?;
    let stock = args.servers.iter().any(|kind| *kind != Kind::Ferromq);
    let mut nameserver = None;
    if stock {
        say("resolving the stock server");
        ground.resolve_stock()?;
        nameserver = Some(ground.stock_nameserver()?);
    }
    let mut comparison = Comparison { args: args.clone(), effort, ground, nameserver };
    let (rows, states) = comparison.selected()?;
    let mut runs = Vec::new();
    for row in rows {
        runs.extend(comparison.row(row).with_context(|| row.name)?);
    }
    let mut measured = Measured { runs, states: Vec::new(), disk: None };
    for state in states {
        match state {
            rows::State::Disk => measured.disk = Some(comparison.disk()?),
            _ => measured.states.extend(comparison.state(state)?),
        }
    }
    comparison.nameserver = None;
    print(args, effort, &measured)
}

fn effort(args: &Args) -> Effort {
    let mut effort = Effort {
        pairs: 3,
        warmup: 30.0,
        seconds: 8.0,
        messages_max: 3_000_000,
        backlog: 1_000_000,
        memory_messages: 5_000_000,
        idle_seconds: 10.0,
    };
    if args.quick {
        effort = Effort {
            pairs: 1,
            warmup: 3.0,
            seconds: 2.0,
            messages_max: 1_000_000,
            backlog: 100_000,
            memory_messages: 300_000,
            idle_seconds: 3.0,
        };
    }
    effort.pairs = args.pairs.unwrap_or(effort.pairs).max(1);
    effort.warmup = args.warmup.unwrap_or(effort.warmup);
    effort.seconds = args.seconds.unwrap_or(effort.seconds);
    effort
}

fn print(args: &Args, effort: Effort, measured: &Measured) -> Result<()> {
    let Measured { runs, states, disk } = measured;
    let mut out = std::io::stdout().lock();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = thread::available_parallelism().map_or(0, usize::from);
    writeln!(
        out,
        "\nFerroMQ {} and RocketMQ {}; {cores} cores shared with the load generator, Linux {}; \
         1 KiB messages; medians of {} runs of {} s, in turns, after {} s of warm-up (JVM).\n\
         Each cell: first server / second = ratio. \"others\": cores used by anything else.\n",
        env!("CARGO_PKG_VERSION"),
        servers::STOCK,
        kernel.trim(),
        effort.pairs,
        effort.seconds,
        effort.warmup
    )?;
    if !runs.is_empty() {
        writeln!(out, "{}", table::workloads(runs))?;
    }
    if !states.is_empty() {
        let kinds = args.servers.iter().filter(|kind| **kind != Kind::StockPwrite);
        let names: Vec<&str> = kinds.map(|kind| kind.name()).collect();
        writeln!(out, "{}", table::states(states, &names))?;
    }
    if let Some(disk) = disk {
        writeln!(out, "{}", table::disk(disk, runs))?;
    }
    if args.json {
        writeln!(out, "{}", serde_json::to_string(measured)?)?;
    }
    Ok(())
}

/// Tells the person who waits what goes on; the table goes to standard output alone.
fn say(text: &str) {
    // Nobody may be listening.
    let _ = writeln!(std::io::stderr(), "{text}");
}

impl Comparison {
    /// The rows that were asked for.
    fn selected(&self) -> Result<(Vec<&'static Row>, Vec<rows::State>)> {
        use clap::ValueEnum as _;
        use rows::State;
        let Args { only, quick, restart, .. } = &self.args;
        if only.is_empty() {
            let rows = ROWS.iter().filter(|row| !quick || row.quick).collect();
            let mut states = vec![State::Disk, State::Start, State::Idle];
            if !quick {
                states.push(State::Memory);
            }
            if *restart {
                states.extend([State::RestartLog, State::RestartTopics]);
            }
            return Ok((rows, states));
        }
        let (mut rows, mut states) = (Vec::new(), Vec::new());
        for name in only {
            if let Some(row) = ROWS.iter().find(|row| row.name == name) {
                rows.push(row);
            } else if let Ok(state) = State::from_str(name, true) {
                states.push(state);
            } else {
                let known = ROWS.iter().map(|row| row.name.to_owned());
                let states = State::value_variants().iter().filter_map(State::to_possible_value);
                let all: Vec<_> =
                    known.chain(states.map(|state| state.get_name().to_owned())).collect();
                bail!("there is no row {name}; there are {}", all.join(", "));
            }
        }
        Ok((rows, states))
    }

    /// Runs one load on all servers, in turns.
    fn row(&self, row: &'static Row) -> Result<Vec<Runs>> {
        let setting = Setting { flush: row.flush, pretouch: true };
        let kinds = self.args.servers.iter().copied().filter(|kind| row.concerns(*kind));
        let mut servers: Vec<Server> = Vec::new();
        let mut all = Vec::new();
        for kind in kinds {
            servers.iter().try_for_each(|server| server.process.freeze())?;
            self.ground.clear(kind)?;
            self.thaw_nameserver(kind)?;
            let server = self.ground.start(kind, setting)?;
            let start_ms = server.started_in.as_secs_f64() * 1000.0;
            let warmup = match kind {
                Kind::Ferromq => self.effort.warmup.min(NATIVE_WARMUP_MAX),
                Kind::Stock | Kind::StockPwrite => self.effort.warmup,
            };
            say(&format!("{}: {} is up, warming up for {warmup} s", row.name, kind.name()));
            self.prepare(row, &server)?;
            self.work(row, &server, 0.0, warmup)?;
            servers.push(server);
            let (workload, server) = (row.name.to_owned(), kind.name());
            all.push(Runs { workload, server, start_ms, others_cores: 0.0, runs: vec![] });
        }
        self.pairs(row, &servers, &mut all)?;
        let kinds: Vec<Kind> = servers.iter().map(|server| server.kind).collect();
        drop(servers);
        kinds.into_iter().try_for_each(|kind| self.ground.clear(kind))?;
        Ok(all)
    }

    /// Runs the load on each server in turn. A round that others disturbed is run again, as many
    /// times as there are rounds; the quietest count.
    fn pairs(&self, row: &Row, servers: &[Server], all: &mut [Runs]) -> Result<()> {
        let pairs = self.effort.pairs;
        let most = if self.args.quick { pairs } else { 2 * pairs };
        let mut rounds: Vec<(f64, Vec<Figures>)> = Vec::new();
        let is_quiet = |round: &(f64, Vec<Figures>)| round.0 <= OTHERS_CORES_MAX;
        while rounds.len() < most && rounds.iter().filter(|round| is_quiet(round)).count() < pairs {
            let (mut disturbed, mut round) = (0.0f64, Vec::new());
            for server in servers {
                self.alone(server, servers)?;
                let (figures, others) = self.watched(row, server)?;
                say(&format!(
                    "{}: {} {:.0}/s, p50 {:.0} µs; others used {others:.2} cores",
                    row.name,
                    server.kind.name(),
                    figures.per_second,
                    figures.latency.p50
                ));
                disturbed = disturbed.max(others);
                round.push(figures);
            }
            rounds.push((disturbed, round));
        }
        rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
        rounds.truncate(pairs);
        for (disturbed, round) in rounds {
            for (runs, figures) in all.iter_mut().zip(round) {
                runs.others_cores = runs.others_cores.max(disturbed);
                runs.runs.push(figures);
            }
        }
        Ok(())
    }

    /// Lets only `server` run, with nothing left to write from before.
    fn alone(&self, server: &Server, servers: &[Server]) -> Result<()> {
        servers.iter().try_for_each(|other| other.process.freeze())?;
        rustix::fs::syncfs(fs::File::open(&self.ground.dir)?)?;
        self.thaw_nameserver(server.kind)?;
        server.process.thaw()?;
        thread::sleep(SETTLE);
        Ok(())
    }

    fn thaw_nameserver(&self, kind: Kind) -> Result<()> {
        match (&self.nameserver, kind) {
            (None, _) => Ok(()),
            (Some(nameserver), Kind::Ferromq) => nameserver.freeze(),
            (Some(nameserver), Kind::Stock | Kind::StockPwrite) => nameserver.thaw(),
        }
    }

    /// One run, and how many cores were taken by others meanwhile.
    fn watched(&self, row: &Row, server: &Server) -> Result<(Figures, f64)> {
        let used = || -> Result<f64> {
            let server = process::of(server.process.id())?.cpu_seconds;
            Ok(server + process::own()?.cpu_seconds)
        };
        let (start, busy, known) = (clock::instant(), process::machine_busy_seconds()?, used()?);
        let figures = self.work(row, server, RUN_WARMUP, self.effort.seconds)?;
        let seconds = (clock::instant() - start).as_secs_f64();
        let others = (process::machine_busy_seconds()? - busy) - (used()? - known);
        Ok((figures, (others / seconds).max(0.0)))
    }

    fn prepare(&self, row: &Row, server: &Server) -> Result<()> {
        if matches!(row.work, Work::Pull) {
            self.fill(row.header, server, self.effort.backlog)?;
        }
        Ok(())
    }

    /// Sends so many messages, as fast as it goes.
    fn fill(&self, header: Header, server: &Server, count: u64) -> Result<()> {
        let mut load = rows::load("bench", 8, 64);
        (load.duration, load.count) = (300.0, Some(count));
        let sent = send::run(&send::Args { target: target(server, header), load })?;
        ensure!(sent.messages >= count, "only {} of {count} messages were taken", sent.messages);
        Ok(())
    }

    fn work(&self, row: &Row, server: &Server, warmup: f64, duration: f64) -> Result<Figures> {
        let target = target(server, row.header);
        match row.work {
            Work::Send { connections, depth, topics } => {
                let mut load = rows::load("bench", connections, depth);
                if topics > 1 {
                    (load.topics, load.queues) = (topics, 4);
                }
                (load.warmup, load.duration) = (warmup, duration);
                load.count = Some(self.effort.messages_max);
                send::run(&send::Args { target, load })
            }
            Work::Pull => pull::run(&pull::Args {
                target,
                connections: 4,
                depth: 2,
                batch: 32,
                topic: "bench".to_owned(),
                queues: 8,
                passes: None,
                warmup,
                duration,
            }),
            Work::EndToEnd => e2e::run(&e2e::Args {
                target,
                rate: 500,
                size: 1024,
                topic: "bench-e2e".to_owned(),
                queues: 1,
                warmup,
                duration,
            }),
        }
    }

    fn disk(&self) -> Result<Figures> {
        let dir = self.ground.dir.clone();
        if let Some(nameserver) = &self.nameserver {
            nameserver.freeze()?;
        }
        disk::run(&disk::Args { dir, duration: self.effort.seconds, json: false })
    }

    fn state(&self, state: rows::State) -> Result<Vec<table::State>> {
        let mut all: Vec<table::State> = Vec::new();
        for &kind in self.args.servers.iter().filter(|kind| **kind != Kind::StockPwrite) {
            self.thaw_nameserver(kind)?;
            let mut measured = Vec::new();
            let rounds = if state == rows::State::Start { self.effort.pairs } else { 1 };
            for _ in 0..rounds {
                self.ground.clear(kind)?;
                let outcome = self.measure(state, kind);
                self.ground.clear(kind)?;
                let outcome = outcome.with_context(|| format!("{state:?} of {}", kind.name()))?;
                measured.extend(outcome);
            }
            for (what, value) in measured {
                say(&format!("{}: {what} {value:.1}", kind.name()));
                let server = kind.name();
                let known =
                    |state: &&mut table::State| state.server == server && state.what == what;
                match all.iter_mut().find(known) {
                    Some(state) => state.values.push(value),
                    None => {
                        all.push(table::State { what, server, values: vec![value] });
                    }
                }
            }
        }
        Ok(all)
    }
}

fn target(server: &Server, header: Header) -> Target {
    Target {
        broker: server.address.clone(),
        namesrv: None,
        header,
        server_pid: Some(server.process.id()),
        json: false,
    }
}
