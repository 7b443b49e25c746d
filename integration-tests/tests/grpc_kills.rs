//! Proxies and brokers are killed under an official client that sends and receives. Runs with `FERROMQ_CLIENT_SUITES=1`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic and tell, in its helpers too"
)]

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use integration_tests::cluster::{self, Process, workspace};
use integration_tests::stock;
use integration_tests::suites::{self, Waits};

/// How long the clients send.
const SECONDS: u64 = 20;
/// Those of a load that send, and those that receive.
const THREADS: usize = 2;
/// What one of them asks for at a time, and so what it may have in hand.
const BATCH: usize = 16;
/// How long the load may take to start, to send, and to see that nothing comes any more.
const PATIENCE: Duration = Duration::from_secs(180);

/// What a load has said, in order.
#[derive(Debug, Default)]
struct History {
    sent: Vec<(u64, String)>,
    acked: Vec<(u64, String)>,
    /// How often each message was received.
    got: HashMap<String, usize>,
    /// How many were received although their acknowledgement had been answered.
    back: usize,
}

impl History {
    fn of(load: &Process) -> Self {
        let mut history = Self::default();
        let mut settled = HashSet::new();
        for line in load.said().lines() {
            let mut words = line.split(' ');
            let (Some(at), Some(what), Some(body)) = (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let (Ok(at), body) = (at.parse(), body.to_owned()) else {
                continue;
            };
            match what {
                "sent" => history.sent.push((at, body)),
                "acked" => {
                    settled.insert(body.clone());
                    history.acked.push((at, body));
                }
                "got" => {
                    // As attempt 1 it is the same text stored twice: sent again when no answer came.
                    let again = words.next() != Some("1");
                    history.back += usize::from(again && settled.contains(&body));
                    *history.got.entry(body).or_default() += 1;
                }
                _ => {}
            }
        }
        history
    }

    /// Demands that all that was sent arrived, and not much of it twice.
    fn whole(&self, kills: usize) {
        let lost: Vec<_> =
            self.sent.iter().filter(|(_, body)| !self.got.contains_key(body)).collect();
        assert!(lost.is_empty(), "{} of {} were lost: {lost:?}", lost.len(), self.sent.len());
        let again: usize = self.got.values().map(|times| times - 1).sum();
        println!("{} sent, {again} came again, {} after their ack", self.sent.len(), self.back);
        // Each receiver may have a batch in hand, and each sender a message that was stored and not answered.
        let in_flight = kills * THREADS * (BATCH + 1);
        assert_eq!(self.back, 0, "came again although their acknowledgement was answered");
        assert!(again <= in_flight, "{again} came again, {in_flight} were in flight");
    }
}

/// The longest time between two things in milliseconds.
fn longest_gap(times: &[(u64, String)]) -> u64 {
    // Threads say what they did in about the order in which they did it.
    let mut times: Vec<u64> = times.iter().map(|(at, _)| *at).collect();
    times.sort_unstable();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

/// A topic, and the Java client sending to it and receiving from it.
fn load(nameserver: SocketAddr, endpoints: &str) -> Process {
    let plain = suites::cases().into_iter().find(|case| case.name == "send").unwrap();
    suites::prepare(nameserver, "kill", &[plain], Waits::Listed).unwrap();
    let mut command = Command::new(workspace().join("integration-tests/clients/run"));
    command.args(["java5-load", "5.2.0", "--endpoints", endpoints, "--topic", "T-kill-send"]);
    command.args(["--group", "G-kill-send", "--seconds", &SECONDS.to_string()]);
    command.args(["--threads", &THREADS.to_string()]);
    Process::start(command).unwrap()
}

/// Waits until this many more messages have been acknowledged.
fn goes_on(load: &Process, more: usize) {
    let count = || load.said().matches(" acked ").count();
    let wanted = count() + more;
    let enough = |line: &str| line.contains(" acked ") && count() >= wanted;
    load.line_within(PATIENCE, |line| enough(line).then_some(())).unwrap();
}

fn done(load: &Process) -> History {
    load.line_within(PATIENCE, |line| line.ends_with(" done").then_some(())).unwrap();
    History::of(load)
}

fn broker(data: &Path, nameserver: SocketAddr, port: &str) -> (Process, SocketAddr) {
    cluster::broker(data, &nameserver.to_string(), &[("listenPort", port)]).unwrap()
}

#[test]
fn clients_go_on_at_once_with_another_proxy_when_theirs_is_killed() {
    if !stock::wanted() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let (_map, nameserver) = cluster::nameserver(&data.path().join("map")).unwrap();
    let (_work, _) = broker(&data.path().join("work"), nameserver, "0");
    let (mut first, one) = cluster::proxy(nameserver, &[]).unwrap();
    let (_second, other) = cluster::proxy(nameserver, &[]).unwrap();
    let load = load(nameserver, &format!("{one};{other}"));
    goes_on(&load, 500);
    first.kill();
    goes_on(&load, 500);
    let history = done(&load);
    let (sending, receiving) = (longest_gap(&history.sent), longest_gap(&history.acked));
    println!("no message was sent for {sending} ms, none acknowledged for {receiving} ms");
    history.whole(1);
    assert!(sending < 1000 && receiving < 1000, "{sending} and {receiving} ms");
}

#[test]
fn a_broker_killed_under_receivers_loses_nothing() {
    if !stock::wanted() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let (_map, nameserver) = cluster::nameserver(&data.path().join("map")).unwrap();
    let store = data.path().join("work");
    let (mut work, address) = broker(&store, nameserver, "0");
    let port = address.port().to_string();
    let (_door, proxy) = cluster::proxy(nameserver, &[]).unwrap();
    let load = load(nameserver, &proxy.to_string());
    const KILLS: usize = 2;
    for _ in 0..KILLS {
        goes_on(&load, 300);
        work.kill();
        (work, _) = broker(&store, nameserver, &port);
    }
    goes_on(&load, 300);
    done(&load).whole(KILLS);
}
