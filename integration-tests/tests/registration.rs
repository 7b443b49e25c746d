//! A broker with very many topics and its nameservers.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic and tell, in its helpers too"
)]

use std::net::SocketAddr;
use std::time::Duration;

use integration_tests::ask;
use integration_tests::cluster::{self, PATIENCE};
use integration_tests::stock;
use integration_tests::wire::Wire;
use protocol::body::{CreateTopicListRequestBody, TopicConfig, TopicRouteData};
use protocol::header::route::GetRouteInfo;
use protocol::json::{self, Dialect};
use protocol::request::RequestCode;
use remoting::clock;

const TOPICS: usize = 100_000;
/// Changes whose time is taken.
const CHANGES: usize = 50;

#[test]
fn a_change_among_a_hundred_thousand_topics_is_told_alone() {
    let data = tempfile::tempdir().unwrap();
    let (_map, namesrv) = cluster::nameserver(&data.path().join("map")).unwrap();
    among_many(&data.path().join("broker"), namesrv, &[]);
}

#[test]
fn compressed_and_split_registrations_are_understood() {
    let data = tempfile::tempdir().unwrap();
    let (_map, namesrv) = cluster::nameserver(&data.path().join("map")).unwrap();
    let settings = [("compressedRegister", "true"), ("enableSplitRegistration", "true")];
    let (_work, broker) =
        cluster::broker(&data.path().join("broker"), &namesrv.to_string(), &settings).unwrap();
    make(broker, 0, 3000);
    let mut names = Wire::connect(namesrv).unwrap();
    for topic in [0, 799, 800, 2999] {
        found(&mut names, &name(topic), 4);
    }
}

#[test]
fn whoever_hears_that_a_first_message_is_stored_finds_its_topic() {
    let data = tempfile::tempdir().unwrap();
    let (_map, namesrv) = cluster::nameserver(&data.path().join("map")).unwrap();
    let (_work, broker) =
        cluster::broker(&data.path().join("broker"), &namesrv.to_string(), &[]).unwrap();
    let mut names = Wire::connect(namesrv).unwrap();
    // The broker is registered itself once one of its topics is found.
    found(&mut names, "TBW102", 8);
    let mut wire = Wire::connect(broker).unwrap();
    for number in 0..20 {
        let topic = format!("first-{number}");
        ask::send_one(&mut wire, &topic, 0).unwrap();
        assert_eq!(queues(&mut names, &topic), Some(4), "{topic}");
    }
}

#[test]
fn a_stock_nameserver_takes_a_hundred_thousand_topics() {
    if !stock::wanted() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let (_map, namesrv) = stock::nameserver(&data.path().join("map")).unwrap();
    among_many(&data.path().join("broker"), namesrv, &[]);
    let single = [("enableSingleTopicRegister", "true"), ("brokerName", "another")];
    let (_work, broker) =
        cluster::broker(&data.path().join("another"), &namesrv.to_string(), &single).unwrap();
    make(broker, TOPICS, TOPICS + 1);
    found(&mut Wire::connect(namesrv).unwrap(), &name(TOPICS), 4);
}

fn among_many(store: &std::path::Path, namesrv: SocketAddr, settings: &[(&str, &str)]) {
    let (mut work, broker) = cluster::broker(store, &namesrv.to_string(), settings).unwrap();
    let started = clock::instant();
    const AT_ONCE: usize = 10_000;
    for first in (0..TOPICS).step_by(AT_ONCE) {
        make(broker, first, first + AT_ONCE);
    }
    println!("{TOPICS} topics were made in {:?}", started.elapsed());
    let mut names = Wire::connect(namesrv).unwrap();
    found(&mut names, &name(TOPICS - 1), 4);

    let mut wire = Wire::connect(broker).unwrap();
    let mut took = Vec::new();
    for change in 0..CHANGES {
        let started = clock::instant();
        // Every other change is of a topic that is there already.
        let topic = if change % 2 == 0 { name(change) } else { format!("new-{change}") };
        wire.ask(&ask::topic(&topic, 7)).unwrap();
        found(&mut names, &topic, 7);
        took.push(started.elapsed());
    }
    took.sort_unstable();
    println!("a change takes {:?}, at most {:?}", took[CHANGES / 2], took[CHANGES - 1]);
    assert!(took[CHANGES / 2] < Duration::from_millis(250), "the whole table is told each time");

    // After a restart everything is told anew, in parts that fit into frames.
    work.terminate().unwrap();
    work.ended().unwrap();
    assert_eq!(queues(&mut names, &name(0)), None, "a broker that left is in no route");
    let started = clock::instant();
    let (_work, _) = cluster::broker(store, &namesrv.to_string(), settings).unwrap();
    for topic in ["new-1", &name(TOPICS - 1), &name(TOPICS / 2)] {
        found(&mut names, topic, if topic == "new-1" { 7 } else { 4 });
    }
    println!("all are told {:?} after a start", started.elapsed());
}

fn name(number: usize) -> String {
    format!("many-{number:06}")
}

/// Makes topics with four queues.
fn make(broker: SocketAddr, first: usize, end: usize) {
    let topics = (first..end).map(|number| TopicConfig {
        topic_name: name(number),
        read_queue_nums: 4,
        write_queue_nums: 4,
        perm: 6,
        ..TopicConfig::default()
    });
    let body = CreateTopicListRequestBody { topic_config_list: topics.collect() };
    let mut wire = Wire::connect(broker).unwrap();
    wire.ask_plain(RequestCode::UpdateTopicList, json::write(&body, Dialect::Standard)).unwrap();
}

/// Write queues of a topic, as the nameserver says.
fn queues(names: &mut Wire, topic: &str) -> Option<i32> {
    let request = GetRouteInfo { topic: topic.to_owned(), accept_standard_json_only: Some(true) };
    let (_, body) = names.ask(&request).ok()?;
    let route: TopicRouteData = json::read(&body).unwrap();
    route.queue_datas.first().map(|queues| queues.write_queue_nums)
}

fn found(names: &mut Wire, topic: &str, wanted: i32) {
    let started = clock::instant();
    while queues(names, topic) != Some(wanted) {
        assert!(started.elapsed() < PATIENCE, "{topic} is in no route");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_broker_finds_a_nameserver_that_takes_encrypted_connections_only() {
    let data = tempfile::tempdir().unwrap();
    let mut command = cluster::ferromq();
    command.arg("nameserver").arg("--data").arg(data.path().join("map"));
    command.args(["--set", "listenPort=0", "--set", "tls.server.mode=enforcing"]);
    let map = cluster::Process::start(command).unwrap();
    let namesrv = map
        .line(|line| {
            let (_, rest) = line.split_once("the nameserver is ready")?;
            rest.trim().strip_prefix("address=").map(str::to_owned)
        })
        .unwrap();
    let store = data.path().join("broker");
    let (work, _) = cluster::broker(&store, &namesrv, &[("tls.enable", "true")]).unwrap();
    work.line(|line| line.contains(" registered nameserver=").then_some(())).unwrap();
    let (_door, proxy) =
        cluster::proxy(namesrv.parse().unwrap(), &[("tls.enable", "true")]).unwrap();
    let mut through = Wire::connect(proxy).unwrap();
    through.ask(&ask::topic("through", 1)).unwrap();
    found(&mut through, "through", 1);
    let mut plain = Wire::connect(namesrv.parse().unwrap()).unwrap();
    assert!(plain.ask_plain(RequestCode::GetBrokerClusterInfo, Vec::new()).is_err());
}
