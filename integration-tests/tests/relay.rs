//! Remoting clients through the proxy, before one broker and before two, ours and stock.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic and tell, in its helpers too"
)]

use std::net::SocketAddr;
use std::time::Duration;

use integration_tests::ask;
use integration_tests::cluster::{self, PATIENCE, Process};
use integration_tests::stock;
use integration_tests::wire::{Wire, success};
use protocol::body::{
    ConsumerConnection, ConsumerData, GetConsumerListByGroupResponseBody, HeartbeatData,
    SubscriptionData, TopicRouteData,
};
use protocol::frame::Command;
use protocol::header::client::{GetConsumerConnectionList, GetConsumerListByGroup};
use protocol::header::route::GetRouteInfo;
use protocol::header::send::Send;
use protocol::json::{self, Dialect};
use protocol::reply::ReplyCode;
use protocol::request::RequestCode;
use remoting::clock;

/// A nameserver, brokers of these names, and a proxy before them.
struct Cluster {
    _processes: Vec<Process>,
    _data: tempfile::TempDir,
    brokers: Vec<SocketAddr>,
    proxy: SocketAddr,
}

fn cluster(names: &[&str]) -> Cluster {
    let data = tempfile::tempdir().unwrap();
    let (map, namesrv) = cluster::nameserver(&data.path().join("map")).unwrap();
    let mut processes = vec![map];
    let mut brokers = Vec::new();
    for name in names {
        let settings = [("brokerName", *name)];
        let store = data.path().join(name);
        let (work, address) = cluster::broker(&store, &namesrv.to_string(), &settings).unwrap();
        processes.push(work);
        brokers.push(address);
    }
    let (door, proxy) = cluster::proxy(namesrv, &[]).unwrap();
    processes.push(door);
    Cluster { _processes: processes, _data: data, brokers, proxy }
}

fn route(wire: &mut Wire, topic: &str) -> TopicRouteData {
    let request = GetRouteInfo { topic: topic.to_owned(), accept_standard_json_only: None };
    json::read(&wire.ask(&request).unwrap().1).unwrap()
}

fn heartbeat(client: &str, topic: &str) -> Command<'static> {
    let subscription = SubscriptionData {
        topic: topic.to_owned(),
        sub_string: "*".to_owned(),
        ..Default::default()
    };
    let group = ConsumerData {
        group_name: "group".to_owned(),
        subscription_data_set: vec![subscription],
        ..Default::default()
    };
    let data = HeartbeatData {
        client_id: client.to_owned(),
        consumer_data_set: vec![group],
        ..Default::default()
    };
    let code = RequestCode::Heartbeat.to_wire();
    Command::request(code, &protocol::header::Empty {})
        .with_body(json::write(&data, Dialect::Standard))
}

fn members(wire: &mut Wire) -> Vec<String> {
    let request = GetConsumerListByGroup { consumer_group: "group".to_owned() };
    let (_, body) = wire.ask(&request).unwrap();
    let body: GetConsumerListByGroupResponseBody = json::read(&body).unwrap();
    let mut members: Vec<String> = body.consumer_id_list.into_iter().collect();
    members.sort();
    members
}

#[test]
fn what_a_request_names_is_asked_and_nothing_else_is_shown() {
    let cluster = cluster(&["a", "b"]);
    for (broker, queues) in cluster.brokers.iter().zip([2, 3]) {
        Wire::connect(*broker).unwrap().ask(&ask::topic("t", queues)).unwrap();
    }
    let mut wire = Wire::connect(cluster.proxy).unwrap();
    let route = route(&mut wire, "t");
    let names: Vec<&str> = route.broker_datas.iter().map(|it| it.broker_name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    for broker in &route.broker_datas {
        let addresses: Vec<&String> = broker.broker_addrs.values().collect();
        assert_eq!(addresses, [&cluster.proxy.to_string()]);
    }

    for (broker, count) in [("a", 2), ("b", 5)] {
        for _ in 0..count {
            let Some(reply) = send(&mut wire, Some(broker)) else { panic!("{broker} is there") };
            assert_eq!(reply, ReplyCode::Success.to_wire());
        }
    }
    for (broker, count) in cluster.brokers.iter().zip([2, 5]) {
        let mut direct = Wire::connect(*broker).unwrap();
        let consumed = ("group".to_owned(), "t".to_owned(), 0);
        let max = protocol::header::offset::GetMaxOffset {
            topic: consumed.1.clone(),
            queue_id: 0,
            committed: true,
        };
        assert_eq!(direct.ask(&max).unwrap().0.offset, count);
    }
    assert_eq!(send(&mut wire, None), Some(ReplyCode::VersionNotSupported.to_wire()));
    assert_eq!(send(&mut wire, Some("c")), Some(ReplyCode::ServiceNotAvailable.to_wire()));
}

/// Sends a message to queue 0 of topic `t` on a broker; what is answered.
fn send(wire: &mut Wire, broker: Option<&str>) -> Option<i32> {
    let header = Send {
        producer_group: "tests",
        topic: "t",
        default_topic: "TBW102",
        default_topic_queue_nums: 4,
        queue_id: 0,
        sys_flag: 0,
        born_timestamp: 0,
        flag: 0,
        properties: None,
        reconsume_times: Some(0),
        unit_mode: false,
        max_reconsume_times: None,
        batch: false,
        broker_name: broker,
    };
    let request = ask::send(RequestCode::SendMessageV2, &header, b"hello".to_vec());
    Some(wire.call(request).unwrap().code)
}

#[test]
fn brokers_know_each_client_and_tell_it_when_another_comes_or_goes() {
    let cluster = cluster(&["a"]);
    Wire::connect(cluster.brokers[0]).unwrap().ask(&ask::topic("t", 2)).unwrap();
    let mut first = Wire::connect(cluster.proxy).unwrap();
    success(34, first.call(heartbeat("first", "t")).unwrap()).unwrap();
    let mut second = Wire::connect(cluster.proxy).unwrap();
    success(34, second.call(heartbeat("second", "t")).unwrap()).unwrap();
    assert_eq!(members(&mut second), ["first", "second"]);
    told(&mut first);
    drop(second);
    told(&mut first);
    assert_eq!(members(&mut first), ["first"]);
    // The broker lists the client under its own address, not the proxy's.
    let mut direct = Wire::connect(cluster.brokers[0]).unwrap();
    let request = GetConsumerConnectionList { consumer_group: "group".to_owned() };
    let listed: ConsumerConnection = json::read(&direct.ask(&request).unwrap().1).unwrap();
    let addresses: Vec<&str> =
        listed.connection_set.iter().map(|it| it.client_addr.as_str()).collect();
    assert_eq!(addresses, [first.stream.local_addr().unwrap().to_string()]);
}

/// Waits for the notice that the members of a group have changed (40).
fn told(wire: &mut Wire) {
    let started = clock::instant();
    loop {
        let command = wire.receive().unwrap();
        if command.code == RequestCode::NotifyConsumerIdsChanged.to_wire() && !command.is_reply() {
            return;
        }
        assert!(started.elapsed() < PATIENCE);
    }
}

#[test]
fn a_broker_that_comes_back_is_found_again() {
    let data = tempfile::tempdir().unwrap();
    let (_map, namesrv) = cluster::nameserver(&data.path().join("map")).unwrap();
    let store = data.path().join("store");
    let settings = [("brokerName", "a")];
    let (mut work, _) = cluster::broker(&store, &namesrv.to_string(), &settings).unwrap();
    let (_door, proxy) = cluster::proxy(namesrv, &[]).unwrap();
    let mut wire = Wire::connect(proxy).unwrap();
    assert_eq!(send(&mut wire, Some("a")), Some(0), "topics make themselves");
    work.kill();
    assert_ne!(send(&mut wire, Some("a")), Some(0));
    // It is somewhere else now, under its name.
    let (_work, _) = cluster::broker(&store, &namesrv.to_string(), &settings).unwrap();
    let started = clock::instant();
    while send(&mut wire, Some("a")) != Some(0) {
        assert!(started.elapsed() < PATIENCE, "the broker is not found again");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Runs an official client's suite through a proxy before our broker.
fn passes(client: &[&str]) {
    if !stock::wanted() {
        return;
    }
    let cluster = cluster(&["broker-a"]);
    let address = cluster.proxy.to_string();
    let args: Vec<&str> = client.iter().copied().chain([address.as_str()]).collect();
    println!("{}", stock::suite(&args, &[]).unwrap().lines().last().unwrap_or_default());
}

#[test]
fn java_clients_of_5_5_0_see_no_difference() {
    passes(&["java", "5.5.0"]);
}

#[test]
fn java_clients_of_4_9_8_see_no_difference() {
    passes(&["java", "4.9.8"]);
}

#[test]
fn go_clients_see_no_difference() {
    passes(&["go"]);
}

#[test]
fn clients_of_a_stock_broker_see_no_difference() {
    if !stock::wanted() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let (_map, namesrv) = stock::nameserver(&data.path().join("map")).unwrap();
    let (_work, _) = stock::broker(&data.path().join("stock"), namesrv, "broker-a").unwrap();
    let (_door, proxy) = cluster::proxy(namesrv, &[]).unwrap();
    for client in [&["java", "5.5.0"][..], &["java", "4.9.8"], &["go"]] {
        let address = proxy.to_string();
        let args: Vec<&str> = client.iter().copied().chain([address.as_str()]).collect();
        println!("{client:?}: {}", stock::suite(&args, &[]).unwrap().lines().last().unwrap());
    }
}
