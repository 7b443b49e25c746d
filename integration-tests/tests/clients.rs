//! The official Java and Go clients against our server. Runs with `FERROMQ_CLIENT_SUITES=1`.
#![allow(clippy::print_stdout, reason = "a test may tell")]

use std::time::Duration;

use integration_tests::ask;
use integration_tests::cluster::{self, Process, Standalone};
use integration_tests::stock;
use integration_tests::wire::Wire;
use protocol::body::GetConsumerStatusBody;
use protocol::frame::Command;
use protocol::header::client::GetConsumerStatus;
use protocol::json;
use protocol::request::RequestCode;
use remoting::clock;

/// A JVM has to start, and a first commit comes after ten seconds.
const JVM_PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn java_clients_see_no_difference_where_the_broker_has_settings_of_its_own() {
    if !stock::wanted() {
        return;
    }
    let data = tempfile::tempdir().expect("a folder for the server");
    let settings = [
        ("enablePropertyFilter", "true"),
        ("transactionCheckInterval", "1000"),
        ("transactionTimeOut", "1000"),
        ("transactionCheckMax", "3"),
    ];
    let server = Standalone::start(data.path(), &settings).expect("the server starts");
    let address = server.nameserver.to_string();
    let cases = ["--only", "consume-sql,transaction-check-max"];
    for version in ["5.5.0", "4.9.8"] {
        let said = stock::suite(&[&["java", version, &address], &cases[..]].concat(), &[]);
        println!("{}", said.expect("all cases pass").lines().last().unwrap_or_default());
    }
}

#[test]
fn java_clients_are_told_to_reset_their_offsets_and_say_where_they_stand() {
    if !stock::wanted() {
        return;
    }
    let data = tempfile::tempdir().expect("a folder for the server");
    let settings = [("useServerSideResetOffset", "false")];
    let server = Standalone::start(data.path(), &settings).expect("the server starts");
    let (map, topic, group) = (server.nameserver.to_string(), "reset-topic", "reset-group");
    let mut wire = Wire::connect(server.broker).expect("a connection");
    wire.ask(&ask::topic(topic, 1)).expect("a topic");
    for _ in 0..10 {
        ask::send_one(&mut wire, topic, 0).expect("a message");
    }
    let consume = ["java-consume", "5.5.0", &map, "--topic", topic, "--group", group];
    let idle = ["--idle-ms", "600000"];
    let command = stock::client(&[&consume[..], &idle].concat());
    let consumer = Process::start(command).expect("a consumer starts");
    let received = |count: usize| {
        let started = clock::instant();
        while consumer.said().lines().filter(|line| line.ends_with(" hello")).count() < count {
            assert!(started.elapsed() < JVM_PATIENCE, "{}", consumer.said());
            cluster::a_moment();
        }
    };
    received(10);
    // Its first commit comes after ten seconds; without one nothing can be reset.
    let consumed = (group.to_owned(), topic.to_owned(), 0);
    let started = clock::instant();
    while wire.ask(&ask::query_offset(&consumed)).expect("an offset").0.offset < 10 {
        assert!(started.elapsed() < JVM_PATIENCE, "it never committed");
        cluster::a_moment();
    }
    let stands =
        GetConsumerStatus { topic: topic.to_owned(), group: group.to_owned(), client_addr: None };
    let code = RequestCode::InvokeBrokerToGetConsumerStatus.to_wire();
    let told = wire.call(Command::request(code, &stands)).expect("it says where it stands");
    assert_eq!(told.code, 0, "{told:?}");
    let body: GetConsumerStatusBody = json::read(&told.body).expect("a table");
    let offsets: Vec<i64> =
        body.consumer_table.values().flat_map(|queues| queues.values().copied()).collect();
    assert_eq!(offsets, [10]);
    let said =
        stock::mqadmin(&["resetOffsetByTime", "-n", &map, "-g", group, "-t", topic, "-s", "0"]);
    println!("{}", said.expect("mqadmin resets"));
    received(20);
}

fn passes(client: &[&str], environment: &[(&str, &str)]) {
    passes_some(client, &[], environment);
}

fn passes_some(client: &[&str], flags: &[&str], environment: &[(&str, &str)]) {
    if !stock::wanted() {
        return;
    }
    let data = tempfile::tempdir().expect("a folder for the server");
    let server = Standalone::start(data.path(), &[]).expect("the server starts");
    let address = server.nameserver.to_string();
    let args: Vec<&str> = [client, &[address.as_str()], flags].concat();
    match stock::suite(&args, environment) {
        Ok(said) => println!("{}", said.lines().last().unwrap_or_default()),
        Err(error) => panic!("{error:#}\nthe server said:\n{}", server.process.said()),
    }
    let said = server.process.said();
    assert!(!said.contains("panicked") && !said.contains(" ERROR "), "{said}");
}

#[test]
fn java_clients_of_5_5_0_see_no_difference() {
    passes(&["java", "5.5.0"], &[]);
}

#[test]
fn java_clients_of_5_5_0_with_binary_headers_see_no_difference() {
    passes(&["java", "5.5.0"], &[("JAVA_OPTS", "-Drocketmq.serialize.type=ROCKETMQ")]);
}

#[test]
fn java_clients_of_4_9_8_see_no_difference() {
    passes(&["java", "4.9.8"], &[]);
}

#[test]
fn go_clients_see_no_difference() {
    passes(&["go"], &[]);
}

#[test]
fn encrypted_clients_see_no_difference() {
    let cases = "send-sync,send-batch,consume-rebalance,consume-tags,order-by-key,body-sizes";
    for version in ["5.5.0", "4.9.8"] {
        let encrypted = [("JAVA_OPTS", "-Dtls.enable=true")];
        passes_some(&["java", version], &["--only", cases], &encrypted);
    }
}
