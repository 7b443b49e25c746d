//! A loaded server is killed at random moments and started again, many times over on the same data;
//! nothing it promised is lost, nothing goes back.
//!
//! `CRASH_ROUNDS=200` runs the full proof, `CRASH_SEED=n` repeats the choices of a run.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic and tell, in its helpers too"
)]

mod check;
mod history;
mod load;
mod transact;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use check::Counts;
use history::{DELAYED, History, Seen, TOPICS};
use integration_tests::ask;
use integration_tests::cluster::{PATIENCE, Process, Standalone};
use integration_tests::wire::Wire;
use load::Task;
use protocol::reply::ReplyCode;
use rand::{Rng, SeedableRng, rngs::StdRng};
use remoting::clock;

const ROUNDS: usize = 12;
const SENDERS: usize = 4;
const COMMITTERS: usize = 2;
/// Answers after which a server is killed at the latest.
const ANSWERS_MAX: f64 = 4000.0;

#[test]
fn nothing_promised_is_lost_to_kills_when_every_answer_waits_for_the_disk() {
    prove("SYNC_FLUSH");
}

#[test]
fn nothing_promised_is_lost_to_kills_when_the_disk_follows_later() {
    prove("ASYNC_FLUSH");
}

/// What all rounds came to.
#[derive(Debug, Default)]
struct Totals {
    kills: usize,
    kills_while_starting: usize,
    clean_stops: usize,
    losses_of_what_is_derived: usize,
    answers: usize,
    refused: BTreeMap<i32, usize>,
    start_ms_max: u128,
}

fn prove(flush: &str) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let rounds = number("CRASH_ROUNDS").map_or(ROUNDS, |rounds| rounds as usize);
    let seed = number("CRASH_SEED").unwrap_or_else(|| rand::rng().random());
    println!("{flush}: seed {seed}, {rounds} rounds");
    let mut random = StdRng::seed_from_u64(seed);
    let data = tempfile::tempdir().unwrap();
    let mut history = History::default();
    let mut totals = Totals::default();
    let started = clock::instant();
    let mut counts = Counts::default();
    for round in 0..rounds {
        if round > 0 && round % 25 == 0 {
            println!("{flush}: {round} rounds, {:?}", started.elapsed());
        }
        let outcome =
            self::round(data.path(), flush, &mut random, &mut history, &mut totals, round);
        match outcome {
            Ok(seen) => counts = seen,
            Err(error) => {
                let kept = data.keep();
                panic!(
                    "{flush}, seed {seed}, round {round}: {error:#}; data in {}",
                    kept.display()
                );
            }
        }
    }
    let server = start(data.path(), flush).unwrap();
    check::delays_end(&mut Wire::connect(server.broker).unwrap(), &history).unwrap();
    transact::ends(server.broker, &history).unwrap();
    println!("{flush}: {:?}, {totals:?}", started.elapsed());
    println!("{flush}: the last check saw {counts:?}");
    assert!(counts.messages > 100 * rounds, "too little was stored: {counts:?}");
}

fn start(data: &Path, flush: &str) -> Result<Standalone> {
    Standalone::start(data, &settings(flush))
}

fn settings(flush: &str) -> [(&str, &str); 11] {
    [
        ("flushDiskType", flush),
        ("mappedFileSizeCommitLog", "1048576"),
        ("maxMessageSize", "262144"),
        ("maxTransferCountOnMessageInMemory", "1000"),
        ("maxTransferBytesOnMessageInMemory", "1048576"),
        // However full the disk of this machine is, nothing is deleted.
        ("diskMaxUsedSpaceRatio", "100"),
        ("diskSpaceCleanForciblyRatio", "100"),
        ("diskSpaceWarningLevelRatio", "100"),
        ("transactionTimeOut", "50"),
        ("transactionCheckInterval", "100"),
        ("transactionCheckMax", "1000000"),
    ]
}

/// Starts, checks, loads, kills.
fn round(
    data: &Path,
    flush: &str,
    random: &mut StdRng,
    history: &mut History,
    totals: &mut Totals,
    round: usize,
) -> Result<Counts> {
    while random.random_ratio(1, 6) {
        kill_while_starting(data, flush, random)?;
        totals.kills_while_starting += 1;
    }
    if random.random_ratio(1, 10) {
        lose_what_is_derived(data, random)?;
        totals.losses_of_what_is_derived += 1;
    }
    let started = clock::instant();
    let mut server = start(data, flush)?;
    totals.start_ms_max = totals.start_ms_max.max(started.elapsed().as_millis());
    let checked = prepared(server.broker, round)
        .and_then(|mut wire| check::everything(&mut wire, history, random, round));
    let counts = checked.with_context(|| server.process.condition())?;
    let answers = ANSWERS_MAX.powf(random.random()) as usize;
    let stop_cleanly = random.random_ratio(1, 10);
    let all = under_load(&server, random, history, round, |progress| {
        let mut left = answers;
        while left > 0 {
            let count = progress.recv_timeout(PATIENCE).context("the load stands still")?;
            left = left.saturating_sub(count);
        }
        if stop_cleanly { server.process.terminate() } else { kill(&server.process) }
    })?;
    if stop_cleanly {
        let status = server.process.ended()?;
        ensure!(status.success(), "stopped with {status}:\n{}", server.process.said());
        totals.clean_stops += 1;
    } else {
        server.process.kill();
        totals.kills += 1;
    }
    for seen in all {
        totals.answers += seen.answers;
        for (code, count) in &seen.refused {
            *totals.refused.entry(*code).or_default() += count;
        }
        history.learn(seen);
    }
    Ok(counts)
}

/// Everything but the log may be lost while nothing runs.
fn lose_what_is_derived(data: &Path, random: &mut StdRng) -> Result<()> {
    for folder in ["config", "ferromq"] {
        let path = data.join("store").join(folder);
        if random.random() && path.exists() {
            std::fs::remove_dir_all(path)?;
        }
    }
    Ok(())
}

fn kill(process: &Process) -> Result<()> {
    use rustix::process::{Pid, Signal, kill_process};
    let id = Pid::from_raw(process.id().cast_signed()).context("no process id")?;
    Ok(kill_process(id, Signal::KILL)?)
}

/// A start that does not get far.
fn kill_while_starting(data: &Path, flush: &str, random: &mut StdRng) -> Result<()> {
    let process = Process::start(Standalone::command(data, &settings(flush)))?;
    let moment = Duration::from_micros(random.random_range(0..60_000));
    let ready = |line: &str| line.contains("ready after").then_some(());
    // Whether it was ready by then does not matter.
    let _ = process.line_within(moment, ready);
    Ok(())
}

/// A connection; in the first round the topics and groups that the load wants are made over it.
fn prepared(broker: SocketAddr, round: usize) -> Result<Wire> {
    let mut wire = Wire::connect(broker)?;
    if round > 0 {
        return Ok(wire);
    }
    for topic in TOPICS.into_iter().chain([DELAYED, transact::TOPIC]) {
        wire.ask(&ask::topic(topic, history::QUEUES))?;
    }
    for number in SENDERS..SENDERS + COMMITTERS {
        ask::make_group(&mut wire, &format!("crash-group-{number}"))?;
    }
    Ok(wire)
}

/// Runs all workers until `end` has done away with the server.
fn under_load(
    server: &Standalone,
    random: &mut StdRng,
    history: &History,
    round: usize,
    end: impl FnOnce(&mpsc::Receiver<usize>) -> Result<()>,
) -> Result<Vec<Seen>> {
    type Work<'a> = dyn Fn(&Task, &mut StdRng, &mut Seen) -> Result<()> + Sync + 'a;
    let commit = |task: &Task, random: &mut StdRng, seen: &mut Seen| {
        load::commit(task, random, seen, &history.committed)
    };
    let mut jobs: Vec<&Work<'_>> = vec![&load::send; SENDERS];
    jobs.extend(vec![&commit as &Work<'_>; COMMITTERS]);
    jobs.extend([&load::read as &Work<'_>, &load::make, &transact::transact]);
    let (progress, answers) = mpsc::channel();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..)
            .zip(jobs)
            .map(|(number, job)| {
                let task =
                    Task { broker: server.broker, round, number, progress: progress.clone() };
                let mut random = StdRng::from_rng(random);
                scope.spawn(move || {
                    let mut seen = Seen::default();
                    // It ends when the server does; what else could be wrong is asserted on the way.
                    let outcome = job(&task, &mut random, &mut seen);
                    (seen, outcome)
                })
            })
            .collect();
        drop(progress);
        let ended = end(&answers);
        let mut all = Vec::new();
        for worker in workers {
            let (seen, outcome) = worker.join().map_err(|_| anyhow::anyhow!("a worker failed"))?;
            if let Err(error) = outcome {
                let refused = error.downcast_ref::<integration_tests::wire::Refused>();
                let leaves = ReplyCode::GoAway.to_wire();
                let wrong = refused.is_some_and(|refused| refused.code != leaves);
                ensure!(!wrong, "a worker was refused: {error:#}");
            }
            all.push(seen);
        }
        ended?;
        Ok(all)
    })
}
