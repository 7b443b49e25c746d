//! The stock `mqadmin` sees no difference between a stock cluster and ours. Runs with `FERROMQ_CLIENT_SUITES=1`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic and tell, in its helpers too"
)]

use integration_tests::cluster::Standalone;
use integration_tests::stock;

/// A figure of the moment that no rule of `accepted.tsv` names yet may differ once; a real difference is
/// there again with fresh clusters.
const ATTEMPTS: usize = 2;

#[test]
fn mqadmin_prints_of_ours_what_it_prints_of_stock() {
    if !stock::wanted() {
        return;
    }
    for attempt in 1..=ATTEMPTS {
        match compare() {
            Ok(said) => return println!("{}", said.lines().last().unwrap_or_default()),
            Err(error) if attempt == ATTEMPTS => panic!("{error:#}"),
            Err(error) => println!("once more, because of:\n{error:#}"),
        }
    }
}

fn compare() -> anyhow::Result<String> {
    let data = tempfile::tempdir().unwrap();
    let (_map, namesrv) = stock::nameserver(&data.path().join("stock")).unwrap();
    let (_work, _) = stock::broker(&data.path().join("stock"), namesrv, "broker-a").unwrap();
    let ours = Standalone::start(&data.path().join("ours"), &[]).unwrap();
    let compared = stock::compare_mqadmin(namesrv, ours.nameserver);
    assert!(!ours.process.said().contains("panicked"), "{}", ours.process.said());
    compared
}
