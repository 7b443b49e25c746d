//! Runs the official Rust 5.x client through its paces against whatever serves at the given endpoints.

mod cases;
mod stage;

use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use stage::Stage;

const USAGE: &str = "--endpoints HOST:PORT --run NAME [--only CASE,CASE] [--jobs N] | --list";

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|argument| argument == "--list") {
        cases::NAMES.iter().for_each(|name| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    let value = |name: &str| {
        let at = args.iter().position(|argument| argument == name)?;
        args.get(at + 1).cloned()
    };
    let (Some(endpoints), Some(run)) = (value("--endpoints"), value("--run")) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if args.iter().any(|argument| argument == "--tls") {
        eprintln!("this client has no TLS that works");
        return ExitCode::from(2);
    }
    let only = value("--only");
    let wanted =
        |name: &&str| only.as_ref().is_none_or(|only| only.split(',').any(|one| one == *name));
    let names: VecDeque<&'static str> = cases::NAMES.iter().copied().filter(wanted).collect();
    let count = names.len();
    let waiting = Arc::new(Mutex::new(names));
    let jobs = value("--jobs").and_then(|jobs| jobs.parse().ok()).unwrap_or(16);
    let workers: Vec<_> = (0..jobs)
        .map(|_| tokio::spawn(work(waiting.clone(), endpoints.clone(), run.clone())))
        .collect();
    let mut failed = 0;
    for worker in workers {
        failed += worker.await.expect("a worker has no reason to panic");
    }
    println!("{} passed, {failed} failed", count - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs cases until none wait; how many failed.
async fn work(
    waiting: Arc<Mutex<VecDeque<&'static str>>>,
    endpoints: String,
    run: String,
) -> usize {
    let mut failed = 0;
    loop {
        let Some(name) = waiting.lock().expect("nobody panics with it").pop_front() else {
            return failed;
        };
        let started = Instant::now();
        let stage = Stage::new(name, &endpoints, &run);
        // What the client or a demand panics with ends the case and nothing else.
        let ended = tokio::spawn(cases::run(name, stage)).await;
        let seconds = started.elapsed().as_secs_f64();
        match ended {
            Ok(()) => println!("PASS {name} {seconds:.1}s"),
            Err(error) => {
                failed += 1;
                let thrown = error.into_panic();
                let said = thrown.downcast_ref::<String>().cloned();
                let said =
                    said.or_else(|| thrown.downcast_ref::<&str>().map(|said| said.to_string()));
                let said = said.unwrap_or_default().replace('\n', " ");
                println!("FAIL {name}: {said}, after {seconds:.1}s");
            }
        }
    }
}
