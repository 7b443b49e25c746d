//! Half of the cluster is stock, half is ours. Runs with `FERROMQ_CLIENT_SUITES=1`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic and tell, in its helpers too"
)]

use std::net::SocketAddr;

use integration_tests::cluster::{self, PATIENCE};
use integration_tests::stock;
use integration_tests::wire::Wire;
use protocol::request::RequestCode;
use remoting::clock;

/// Something of everything that passes through both halves.
const CASES: &str = "send-sync,send-async,send-one-way,send-batch,send-creates-topic,\
                     send-create-topic-call,consume-rebalance,consume-tags,consume-broadcast,\
                     order-by-key,pull-statuses,query-by-key,retry-then-dead-letter,delay-levels,\
                     offset-over-restart,request-reply";

#[test]
fn a_stock_broker_works_with_our_nameserver() {
    if !stock::wanted() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let (map, namesrv) = cluster::nameserver(&data.path().join("ours")).unwrap();
    let (_work, broker) =
        stock::broker(&data.path().join("stock"), namesrv, "stock-broker").unwrap();
    works(namesrv, broker, "stock-broker");
    assert!(!map.said().contains("panicked"), "{}", map.said());
}

#[test]
fn our_broker_works_with_a_stock_nameserver() {
    if !stock::wanted() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let (_map, namesrv) = stock::nameserver(&data.path().join("stock")).unwrap();
    let settings = [("brokerName", "our-broker")];
    let (work, broker) =
        cluster::broker(&data.path().join("ours"), &namesrv.to_string(), &settings).unwrap();
    works(namesrv, broker, "our-broker");
    assert!(!work.said().contains("panicked"), "{}", work.said());
}

/// Clients produce and consume, and `mqadmin` sees the broker and its topics.
fn works(namesrv: SocketAddr, broker: SocketAddr, name: &str) {
    registered(namesrv, name);
    let address = namesrv.to_string();
    let said = stock::suite(&["java", "5.5.0", &address, "--only", CASES], &[]);
    println!("{name}: {}", said.unwrap().lines().last().unwrap());
    let clusters = stock::mqadmin(&["clusterList", "-n", &address]).unwrap();
    for word in ["DefaultCluster", name, &broker.to_string()] {
        assert!(clusters.contains(word), "{clusters}");
    }
    let topics = stock::mqadmin(&["topicList", "-n", &address]).unwrap();
    for topic in ["DefaultCluster", name, "TBW102", "SCHEDULE_TOPIC_XXXX"] {
        assert!(topics.lines().any(|line| line.trim() == topic), "{topic} in {topics}");
    }
}

/// Waits until the nameserver knows the broker; nothing announces it.
fn registered(namesrv: SocketAddr, name: &str) {
    let mut wire = Wire::connect(namesrv).unwrap();
    let started = clock::instant();
    loop {
        let body = wire.ask_plain(RequestCode::GetBrokerClusterInfo, Vec::new()).unwrap();
        if String::from_utf8_lossy(&body).contains(name) {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{name} never registered");
        std::thread::yield_now();
    }
}
