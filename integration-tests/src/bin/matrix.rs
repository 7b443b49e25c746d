//! Runs the suites of the official 5.x clients and prints which client does what: `clients/run matrix`.
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use integration_tests::cluster::Cluster;
use integration_tests::suites::{self, CLIENTS, Outcome, Place};

const USAGE: &str = "matrix [--nameserver HOST:PORT --endpoints HOST:PORT [--side ours|stock|our-proxy|stock-proxy]] \
                     [--tls] [--clients NAME,NAME] [--only CASE,CASE]";

fn main() -> Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = args.iter().position(|argument| argument == name)?;
        args.get(at + 1).map(String::as_str)
    };
    let known =
        ["--nameserver", "--endpoints", "--side", "--tls", "--clients", "--only"].as_slice();
    if let Some(flag) =
        args.iter().find(|word| word.starts_with("--") && !known.contains(&word.as_str()))
    {
        bail!("{flag} is unknown\n{USAGE}");
    }
    let tls = args.iter().any(|argument| argument == "--tls");
    let own = match value("--nameserver") {
        None => Some(Cluster::start()?),
        Some(_) => None,
    };
    let place = match &own {
        Some(cluster) => cluster.place(tls),
        None => Place {
            side: value("--side").unwrap_or("ours").parse()?,
            nameserver: value("--nameserver").context(USAGE)?.parse()?,
            endpoints: value("--endpoints").context(USAGE)?.to_owned(),
            tls,
        },
    };
    let listed = |name| value(name).map(|list| list.split(',').collect::<Vec<_>>());
    let known =
        |name: &str| CLIENTS.iter().map(|(client, _)| *client).find(|client| *client == name);
    let clients: Vec<&'static str> = match listed("--clients") {
        Some(names) => names
            .iter()
            .map(|name| known(name).with_context(|| format!("no client {name}")))
            .collect::<Result<_>>()?,
        None => CLIENTS.map(|(name, _)| name).to_vec(),
    };
    let results = suites::run_all(&clients, &place, &listed("--only").unwrap_or_default())?;
    for (client, outcomes) in &results {
        let right = outcomes.values().filter(|outcome| outcome.is_right()).count();
        println!("{client}: {right} of {} as they should be", outcomes.len());
        for (case, outcome) in outcomes.iter().filter(|(_, outcome)| **outcome != Outcome::Passed) {
            println!("  {case} {outcome}");
        }
    }
    println!("\n{}", suites::table(&results));
    let mut ended = results.iter().flat_map(|(_, outcomes)| outcomes.values());
    let right = ended.all(Outcome::is_right);
    Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
