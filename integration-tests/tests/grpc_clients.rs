//! The official 5.x clients against our proxy, alone and mixed with stock servers. Runs with `FERROMQ_CLIENT_SUITES=1`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic and tell, in its helpers too"
)]

use std::net::SocketAddr;

use integration_tests::cluster::{self, Cluster, Process};
use integration_tests::stock;
use integration_tests::suites::{self, CLIENTS, Place, Side};

/// Something of everything, for what was tried without TLS before.
const OVER_TLS: [&str; 8] = [
    "send",
    "send-sizes",
    "simple-ack",
    "simple-change-invisible",
    "push",
    "push-retry",
    "fifo-order",
    "many-clients",
];
/// Those whose default TLS is.
const TLS_CLIENTS: [&str; 3] = ["java-5.2.0", "java-5.0.7", "go-5.1.4"];

/// Runs the cases and demands that each ended as it should, and that no process of ours complained.
fn passes(clients: &[&'static str], place: &Place, only: &[&str], ours: &[Process]) {
    let results = suites::run_all(clients, place, only).unwrap();
    println!("{}", suites::table(&results));
    let mut wrong = String::new();
    for (client, outcomes) in &results {
        for (case, outcome) in outcomes.iter().filter(|(_, outcome)| !outcome.is_right()) {
            wrong += &format!("{client}: {case} {outcome}\n");
        }
    }
    let complaints = ours.iter().map(Process::said);
    let complaint = |line: &&str| line.contains("panicked") || line.contains(" ERROR ");
    for said in complaints {
        said.lines().filter(complaint).for_each(|line| wrong += &format!("{line}\n"));
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn place(side: Side, nameserver: SocketAddr, proxy: SocketAddr) -> Place {
    Place { side, nameserver, endpoints: proxy.to_string(), tls: false }
}

#[test]
fn every_client_works_with_a_proxy_before_a_broker() {
    if !stock::wanted() {
        return;
    }
    let cluster = Cluster::start().unwrap();
    let all = CLIENTS.map(|(name, _)| name);
    passes(&all, &cluster.place(false), &[], &cluster.processes);
    passes(&TLS_CLIENTS, &cluster.place(true), &OVER_TLS, &cluster.processes);
}

#[test]
fn a_client_may_be_given_several_proxies() {
    if !stock::wanted() {
        return;
    }
    let cluster = Cluster::start().unwrap();
    let (_second, other) = cluster::proxy(cluster.nameserver, &[]).unwrap();
    let mut here = cluster.place(false);
    here.endpoints = format!("{};{other}", here.endpoints);
    let some = ["send", "simple-ack", "push"];
    passes(&["python-5.1.2", "java-5.2.0"], &here, &some, &cluster.processes);
}

#[test]
fn our_proxy_works_before_a_stock_broker() {
    if !stock::wanted() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let (_map, nameserver) = stock::nameserver(&data.path().join("map")).unwrap();
    let settings = [
        ("enablePropertyFilter", "true"),
        ("recallMessageEnable", "true"),
        ("transactionCheckInterval", "5000"),
    ];
    let home = data.path().join("work");
    let (_work, _) = stock::broker_with(&home, nameserver, "stock-broker", &settings).unwrap();
    let (door, proxy) = cluster::proxy(nameserver, &[]).unwrap();
    let here = place(Side::OurProxy, nameserver, proxy);
    passes(&["java-5.2.0", "python-5.1.2"], &here, &[], &[door]);
}

#[test]
fn a_stock_proxy_works_before_our_broker() {
    if !stock::wanted() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let (map, nameserver) = cluster::nameserver(&data.path().join("map")).unwrap();
    let filters = [("enablePropertyFilter", "true")];
    let (work, _) =
        cluster::broker(&data.path().join("work"), &nameserver.to_string(), &filters).unwrap();
    let (_door, proxy) = stock::proxy(&data.path().join("door"), nameserver).unwrap();
    let here = place(Side::StockProxy, nameserver, proxy);
    passes(&["java-5.2.0", "python-5.1.2"], &here, &[], &[map, work]);
}
