//! The suites of the official 5.x clients: what their cases need, running them, and what came out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::{fmt, fs};

use anyhow::{Context, Result, bail, ensure};
use protocol::body::{
    ClusterInfo, CustomizedRetryPolicy, ExponentialRetryPolicy, GroupRetryPolicy,
    GroupRetryPolicyType, SubscriptionGroupConfig,
};
use protocol::header::route::GetRouteInfo;
use protocol::json::{self, Dialect};
use protocol::reply::ReplyCode;
use protocol::request::RequestCode;
use remoting::clock;

use crate::ask;
use crate::cluster::{self, PATIENCE, workspace};
use crate::wire::Wire;

/// A client's name in reports, and what `clients/run` is told to run it.
pub const CLIENTS: [(&str, &[&str]); 6] = [
    ("java-5.2.0", &["java5", "5.2.0"]),
    ("java-5.0.7", &["java5", "5.0.7"]),
    ("go-5.1.4", &["go5"]),
    ("python-5.1.2", &["python"]),
    ("node-1.0.8", &["node"]),
    ("rust-5.0.0", &["rust5"]),
];

/// How long a suite may take: several times what it does on a busy machine.
const SUITE_SECONDS_MAX: &str = "400";
/// How many suites run side by side: they mostly wait.
const LANES: usize = 2;
/// How the reason of an exception begins if the case may also pass.
const SOMETIMES: &str = "sometimes: ";
/// How many cases that failed are tried once more; with more than these something is wrong.
const TRIED_AGAIN_MAX: usize = 4;
/// Queues of a topic: several, so that order and balance have something to get wrong.
const QUEUES: i32 = 4;
/// When a failed message comes again; the default of 10 s and more only costs patience.
const RETRY_AFTER_MILLIS: i64 = 1000;

/// Whose proxy and broker answer: what is expected of them differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Ours,
    Stock,
    /// Our proxy before a stock broker.
    OurProxy,
    /// A stock proxy before our broker.
    StockProxy,
}

impl FromStr for Side {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "ours" => Ok(Self::Ours),
            "stock" => Ok(Self::Stock),
            "our-proxy" => Ok(Self::OurProxy),
            "stock-proxy" => Ok(Self::StockProxy),
            _ => bail!("{word} is neither ours nor stock, our-proxy nor stock-proxy"),
        }
    }
}

/// Where clients connect, and where their topics are made.
#[derive(Clone, Debug)]
pub struct Place {
    pub side: Side,
    pub nameserver: SocketAddr,
    /// `host:port`, or several of them with `;` between.
    pub endpoints: String,
    pub tls: bool,
}

/// A line of `cases.tsv`.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub name: &'static str,
    pub topic: &'static str,
    pub group: &'static str,
    pub shows: &'static str,
}

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    /// It failed, as `exceptions.tsv` says it does.
    Expected(&'static str),
    /// It failed, and why.
    Failed(String),
    /// It passed, but `exceptions.tsv` says that it fails.
    Unexpected,
}

impl Outcome {
    pub fn is_right(&self) -> bool {
        matches!(self, Self::Passed | Self::Expected(_))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => write!(f, "passed"),
            Self::Expected(why) => write!(f, "failed as expected: {why}"),
            Self::Failed(why) => write!(f, "FAILED: {why}"),
            Self::Unexpected => write!(f, "PASSED, take it off exceptions.tsv"),
        }
    }
}

/// Every case there is, in the order of the table.
pub fn cases() -> Vec<Case> {
    let line = |line: &'static str| {
        let mut fields = line.split('\t');
        let mut next = || fields.next().unwrap_or_default();
        Case { name: next(), topic: next(), group: next(), shows: next() }
    };
    rows(include_str!("../clients/cases.tsv")).map(line).collect()
}

fn rows(table: &'static str) -> impl Iterator<Item = &'static str> {
    table.lines().filter(|line| !line.starts_with('#') && !line.is_empty())
}

/// Why this case is known to fail there; `*` stands for every client.
fn exception(side: Side, client: &str, case: &str) -> Option<&'static str> {
    rows(include_str!("../clients/exceptions.tsv")).find_map(|line| {
        let mut fields = line.split('\t');
        let mut next = || fields.next().unwrap_or_default();
        let (server, who, what, why) = (next(), next(), next(), next());
        let is_this = |word: &str| word == "*" || word.parse::<Side>().is_ok_and(|it| it == side);
        let is_side = server.split(',').any(is_this);
        let is_client = who == "*" || who == client;
        (is_side && is_client && what == case).then_some(why)
    })
}

/// Runs a client's suite, or the cases of it that are named; a case that fails is tried once more by itself.
///
/// The clients have timers of their own (a first rebalance that is skipped comes much later), and on a busy
/// machine a case may run out of patience. What is wrong with a server fails twice.
pub fn run(client: &str, place: &Place, only: &[&str]) -> Result<BTreeMap<&'static str, Outcome>> {
    let offered = offered(client)?;
    let wanted = |case: &&Case| only.is_empty() || only.contains(&case.name);
    let wanted: Vec<Case> = offered.iter().filter(wanted).copied().collect();
    let mut outcomes = attempt(client, place, &wanted)?;
    let failed = |case: &&Case| matches!(outcomes.get(case.name), Some(Outcome::Failed(_)));
    let failed: Vec<Case> = wanted.iter().filter(failed).copied().collect();
    if (1..=TRIED_AGAIN_MAX).contains(&failed.len()) {
        outcomes.extend(attempt(client, place, &failed)?);
    }
    Ok(outcomes)
}

/// Runs these clients' suites, `LANES` of them at a time, in the order given.
pub fn run_all(
    clients: &[&'static str],
    place: &Place,
    only: &[&str],
) -> Result<Vec<(&'static str, BTreeMap<&'static str, Outcome>)>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                while let Some(client) = clients.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcomes = run(client, place, only);
                    done.lock().unwrap_or_else(PoisonError::into_inner).insert(*client, outcomes);
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut results = Vec::new();
    for client in clients {
        results.push((*client, done.remove(client).context("every client was run")??));
    }
    Ok(results)
}

/// The cases that a client's suite has.
pub fn offered(client: &str) -> Result<Vec<Case>> {
    let (said, ended) = script(client, &["--list"])?;
    ensure!(ended, "{client} does not list its cases: {said}");
    let all = cases();
    let named = |name: &str| all.iter().find(|case| case.name == name).copied();
    let lines = said.lines().filter(|line| !line.is_empty());
    lines.map(|name| named(name).with_context(|| format!("{client}: no case {name}"))).collect()
}

fn attempt(client: &str, place: &Place, cases: &[Case]) -> Result<BTreeMap<&'static str, Outcome>> {
    let run = format!("{:x}", rand::random::<u32>());
    // Python understands only the customized waits, Node only the exponential ones.
    let waits = if client.starts_with("python") { Waits::Listed } else { Waits::Growing };
    prepare(place.nameserver, &run, cases, waits)?;
    let names: Vec<&str> = cases.iter().map(|case| case.name).collect();
    let only = names.join(",");
    let mut args = vec!["--endpoints", &place.endpoints, "--run", &run, "--only", &only];
    if place.tls {
        args.push("--tls");
    }
    let (said, _) = script(client, &args)?;
    // Kept for whoever wonders what took so long.
    let logs = workspace().join("integration-tests/clients/target/logs");
    fs::create_dir_all(&logs)?;
    fs::write(logs.join(format!("{client}-{run}.log")), &said)?;
    ensure!(said.contains("PASS ") || said.contains("FAIL "), "{client} does not run:\n{said}");
    let mut outcomes = BTreeMap::new();
    for case in cases {
        let passed = said.lines().any(|line| is_about(line, "PASS ", case.name, ' '));
        let failed = said.lines().find(|line| is_about(line, "FAIL ", case.name, ':'));
        let why = exception(place.side, client, case.name);
        let outcome = match (passed, failed, why) {
            (true, _, why) if why.is_none_or(|why| why.starts_with(SOMETIMES)) => Outcome::Passed,
            (true, _, _) => Outcome::Unexpected,
            (false, Some(_), Some(why)) => Outcome::Expected(why),
            (false, Some(line), None) => Outcome::Failed(line.to_owned()),
            (false, None, _) => Outcome::Failed("never ended".to_owned()),
        };
        outcomes.insert(case.name, outcome);
    }
    Ok(outcomes)
}

fn is_about(line: &str, word: &str, case: &str, then: char) -> bool {
    let rest = line.strip_prefix(word).and_then(|rest| rest.strip_prefix(case));
    rest.is_some_and(|rest| rest.starts_with(then))
}

/// What a client's suite printed, and whether it ended well.
fn script(client: &str, args: &[&str]) -> Result<(String, bool)> {
    let (_, how) = CLIENTS.iter().find(|(name, _)| *name == client).context("no such client")?;
    // Some clients wait for ever for what does not come.
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", SUITE_SECONDS_MAX]);
    command.arg(workspace().join("integration-tests/clients/run")).args(*how).args(args);
    let output = command.stdin(Stdio::null()).output()?;
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok((said, output.status.success()))
}

/// How groups in order say when a message comes again; the others always have a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    Listed,
    Growing,
}

/// Makes the topics and groups that the cases need, on every broker there is.
pub fn prepare(nameserver: SocketAddr, run: &str, cases: &[Case], waits: Waits) -> Result<()> {
    let mut map = Wire::connect(nameserver)?;
    for address in brokers(&mut map)? {
        let mut broker = Wire::connect(address)?;
        for case in cases {
            if case.topic != "-" {
                let mut topic = ask::topic(&format!("T-{run}-{}", case.name), QUEUES);
                topic.attributes = Some(format!("+message.type={}", case.topic));
                broker.ask(&topic)?;
            }
            let config = group(&format!("G-{run}-{}", case.name), case.group, waits);
            let body = json::write(&config, Dialect::Standard);
            broker.ask_plain(RequestCode::UpdateSubscriptionGroup, body)?;
        }
    }
    for case in cases.iter().filter(|case| case.topic != "-") {
        routed(&mut map, &format!("T-{run}-{}", case.name))?;
    }
    Ok(())
}

/// The masters that the nameserver knows; waits until there is one.
fn brokers(map: &mut Wire) -> Result<Vec<SocketAddr>> {
    let started = clock::instant();
    loop {
        let body = map.ask_plain(RequestCode::GetBrokerClusterInfo, Vec::new())?;
        let cluster: ClusterInfo = json::read(&body)?;
        let masters =
            cluster.broker_addr_table.values().filter_map(|data| data.broker_addrs.get(&0));
        let masters: Vec<SocketAddr> =
            masters.map(|address| Ok(address.parse()?)).collect::<Result<_>>()?;
        if !masters.is_empty() {
            return Ok(masters);
        }
        ensure!(started.elapsed() < PATIENCE, "no broker has registered");
        cluster::a_moment();
    }
}

fn group(name: &str, kind: &str, waits: Waits) -> SubscriptionGroupConfig {
    let is_ordered = kind.starts_with("ordered");
    let (initial, max, multiplier) = (RETRY_AFTER_MILLIS, 2 * RETRY_AFTER_MILLIS, 2);
    let group_retry_policy = if is_ordered && waits == Waits::Growing {
        GroupRetryPolicy {
            r#type: GroupRetryPolicyType::Exponential,
            exponential_retry_policy: Some(ExponentialRetryPolicy { initial, max, multiplier }),
            customized_retry_policy: None,
        }
    } else {
        let next = vec![RETRY_AFTER_MILLIS];
        GroupRetryPolicy {
            r#type: GroupRetryPolicyType::Customized,
            exponential_retry_policy: None,
            customized_retry_policy: Some(CustomizedRetryPolicy { next }),
        }
    };
    SubscriptionGroupConfig {
        group_name: name.to_owned(),
        consume_message_orderly: is_ordered,
        retry_max_times: if kind.ends_with("twice") { 1 } else { 16 },
        group_retry_policy,
        ..Default::default()
    }
}

/// Waits until the nameserver knows the topic.
fn routed(map: &mut Wire, topic: &str) -> Result<()> {
    let started = clock::instant();
    loop {
        let question =
            GetRouteInfo { topic: topic.to_owned(), accept_standard_json_only: Some(true) };
        let reply = map.call(ask::request(&question))?;
        if reply.code == ReplyCode::Success.to_wire() {
            return Ok(());
        }
        ensure!(started.elapsed() < PATIENCE, "{topic} has no route");
        cluster::a_moment();
    }
}

/// The table of a run: a row a case, a column a client.
pub fn table(results: &[(&str, BTreeMap<&'static str, Outcome>)]) -> String {
    let mut table = "| case | what it shows |".to_owned();
    for (client, _) in results {
        table += &format!(" {client} |");
    }
    table += "\n| --- | --- |";
    table += &" :-: |".repeat(results.len());
    for case in cases() {
        table += &format!("\n| `{}` | {} |", case.name, case.shows);
        for (_, outcomes) in results {
            table += match outcomes.get(case.name) {
                Some(Outcome::Passed) => " ✓ |",
                Some(Outcome::Unexpected) => " ✓! |",
                Some(Outcome::Expected(_)) => " – |",
                Some(Outcome::Failed(_)) => " **✗** |",
                None => "  |",
            };
        }
    }
    table += "\n";
    table
}
