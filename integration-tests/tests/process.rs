//! How a process starts, refuses to start, stops, and what bad input does to it.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic and tell, in its helpers too"
)]

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use integration_tests::ask::{self, pull_flag};
use integration_tests::cluster::{self, Process, Standalone};
use integration_tests::wire::Wire;
use protocol::frame::{Command, FRAME_BYTES_MAX};
use protocol::header::offset::GetMaxOffset;
use protocol::header::topic::GetTopicConfig;
use protocol::reply::ReplyCode;
use protocol::request::RequestCode;
use remoting::clock;

/// Times are promises of the binary that is shipped, with which these tests may be run.
fn timed() -> bool {
    !cfg!(debug_assertions) || std::env::var_os("CARGO_BIN_EXE_ferromq").is_some()
}

const START_MAX: Duration = Duration::from_millis(300);
const STOP_MAX: Duration = Duration::from_millis(500);

fn start(data: &Path) -> Standalone {
    Standalone::start(data, &[]).unwrap()
}

fn max_offset(wire: &mut Wire, topic: &str) -> i64 {
    let header = GetMaxOffset { topic: topic.to_owned(), queue_id: 0, committed: true };
    wire.ask(&header).unwrap().0.offset
}

/// Ends it as an operator would, and says how long that took.
fn stop(mut server: Standalone) -> Duration {
    let started = clock::instant();
    server.process.terminate().unwrap();
    let status = server.process.ended().unwrap();
    let took = started.elapsed();
    assert!(status.success(), "{status}:\n{}", server.process.said());
    took
}

/// What a process says that does not want to start.
fn refused(mut process: Process) -> String {
    let status = process.ended().unwrap();
    assert_eq!(status.code(), Some(1), "{status}:\n{}", process.said());
    process.said()
}

#[test]
fn it_starts_on_an_empty_store_and_says_where_everything_is() {
    let data = tempfile::tempdir().unwrap();
    let started = clock::instant();
    let server = start(data.path());
    let took = started.elapsed();
    println!("ready after {took:?}");
    assert!(!timed() || took < START_MAX, "ready after {took:?}");
    server.process.line(|line| line.contains("mqadmin topicStatus").then_some(())).unwrap();
    let said = server.process.said();
    assert!(said.contains(&data.path().join("store").display().to_string()), "{said}");
    assert_eq!(said.lines().filter(|line| line.contains(" WARN ")).count(), 0, "{said}");
}

#[test]
fn it_stops_at_once_when_nobody_asks_anything() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let mut wire = Wire::connect(server.broker).unwrap();
    ask::send_one(&mut wire, "demo", 0).unwrap();
    let took = stop(server);
    println!("stopped after {took:?}");
    assert!(!timed() || took < STOP_MAX, "stopped after {took:?}");
}

#[test]
fn a_second_process_on_the_same_store_is_refused_and_the_first_goes_on() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let second = Process::start(Standalone::command(data.path(), &[])).unwrap();
    let said = refused(second);
    let store = data.path().join("store").display().to_string();
    assert!(said.contains(&store) && said.contains("in use by another"), "{said}");
    ask::send_one(&mut Wire::connect(server.broker).unwrap(), "demo", 0).unwrap();
}

#[test]
fn what_was_taken_before_the_stop_is_answered_and_nothing_else_is_stored() {
    for flush in ["ASYNC_FLUSH", "SYNC_FLUSH"] {
        let data = tempfile::tempdir().unwrap();
        let mut server = Standalone::start(data.path(), &[("flushDiskType", flush)]).unwrap();
        let mut wire = Wire::connect(server.broker).unwrap();
        let mut writer = wire.stream.try_clone().unwrap();
        let writing = std::thread::spawn(move || {
            let mut requests = Vec::new();
            (0..64).for_each(|_| ask::plain_send("demo", 0, &[b'x'; 512]).encode(&mut requests));
            // More and more, until nobody takes it.
            while writer.write_all(&requests).is_ok() {}
        });
        let mut answered = || wire.receive().is_ok_and(|reply| reply.code == 0);
        let mut answers = 0;
        while answers < 1000 {
            assert!(answered());
            answers += 1;
        }
        server.process.terminate().unwrap();
        while answered() {
            answers += 1;
        }
        writing.join().unwrap();
        let status = server.process.ended().unwrap();
        assert!(status.success(), "{status}:\n{}", server.process.said());
        let again = start(data.path());
        let stored = max_offset(&mut Wire::connect(again.broker).unwrap(), "demo");
        println!("{flush}: {answers} answered, {stored} stored");
        assert_eq!(stored, answers, "{flush}");
    }
}

#[test]
fn a_waiting_pull_is_answered_when_the_process_stops() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let mut wire = Wire::connect(server.broker).unwrap();
    wire.ask(&ask::topic("demo", 1)).unwrap();
    let mut pull = ask::pull(&("g".to_owned(), "demo".to_owned(), 0), 0);
    pull.sys_flag |= pull_flag::SUSPEND;
    pull.suspend_timeout_millis = 60_000;
    let opaque = wire.push(ask::request(&pull));
    // What follows on the connection is answered, so the pull has been taken and waits.
    assert_eq!(max_offset(&mut wire, "demo"), 0);
    server.process.terminate().unwrap();
    let reply = wire.receive().unwrap();
    assert_eq!((reply.opaque, reply.code), (opaque, ReplyCode::PullNotFound.to_wire()));
}

#[test]
fn a_clean_stop_keeps_everything_and_leaves_nothing_to_recover() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let mut wire = Wire::connect(server.broker).unwrap();
    let consumed = ("g".to_owned(), "demo".to_owned(), 0);
    wire.ask(&ask::topic("demo", 3)).unwrap();
    ask::make_group(&mut wire, "g").unwrap();
    for _ in 0..10 {
        ask::send_one(&mut wire, "demo", 0).unwrap();
    }
    wire.ask(&ask::update_offset(&consumed, 7)).unwrap();
    stop(server);
    for file in ["topics.json", "subscriptionGroup.json", "consumerOffset.json"] {
        let text = std::fs::read_to_string(data.path().join("store/config").join(file)).unwrap();
        assert!(text.contains(if file.starts_with("sub") { "\"g\"" } else { "demo" }), "{text}");
    }
    let process = Process::start(Standalone::command(data.path(), &[])).unwrap();
    let broker = |line: &str| line.trim().strip_prefix("broker ")?.trim().parse().ok();
    let broker: SocketAddr = process.line(broker).unwrap();
    let opened = process.line(|line| line.contains("opened the log").then(|| line.to_owned()));
    let opened = opened.unwrap();
    assert!(opened.contains("messages=0"), "{opened}");
    let mut wire = Wire::connect(broker).unwrap();
    assert_eq!(wire.ask(&ask::query_offset(&consumed)).unwrap().0.offset, 7);
    assert_eq!(max_offset(&mut wire, "demo"), 10);
    let (_, config) = wire.ask(&GetTopicConfig { topic: "demo".to_owned() }).unwrap();
    let config = String::from_utf8(config).unwrap();
    assert!(config.contains("\"writeQueueNums\":3"), "{config}");
}

#[test]
fn an_unknown_key_is_refused_with_the_one_that_was_probably_meant() {
    let data = tempfile::tempdir().unwrap();
    let command = Standalone::command(data.path(), &[("flushDiscType", "SYNC_FLUSH")]);
    let said = refused(Process::start(command).unwrap());
    assert!(said.contains("`flushDiscType`") && said.contains("`flushDiskType`"), "{said}");

    let conf = data.path().join("namesrv.conf");
    std::fs::write(&conf, "listenPort=0\nscanNotActiveBrokerIntervall=1\n").unwrap();
    let mut command = cluster::ferromq();
    command.arg("nameserver").arg("-c").arg(conf).arg("-d").arg(data.path());
    let said = refused(Process::start(command).unwrap());
    assert!(said.contains("`scanNotActiveBrokerInterval`"), "{said}");
}

/// As it comes with the stock server, and with what people add to it.
const BROKER_CONF: &str = "\
# Licensed to whoever reads this
brokerClusterName = DefaultCluster
brokerName=broker-b
brokerId = 0
deleteWhen = 04
fileReservedTime = 48
brokerRole = ASYNC_MASTER
flushDiskType = ASYNC_FLUSH

sendMessageThreadPoolNums=32
useReentrantLockWhenPutMessage=true
osPageCacheBusyTimeOutMills=5000
autoCreateTopicEnable=true
";

#[test]
fn a_stock_broker_conf_is_accepted_with_one_warning_of_what_has_no_effect() {
    let data = tempfile::tempdir().unwrap();
    let conf = data.path().join("broker.conf");
    std::fs::write(&conf, BROKER_CONF).unwrap();
    let mut command = Standalone::command(data.path(), &[]);
    command.arg("-c").arg(conf);
    let process = Process::start(command).unwrap();
    let warning =
        process.line(|line| line.contains("tune a JVM").then(|| line.to_owned())).unwrap();
    assert!(warning.contains("sendMessageThreadPoolNums"), "{warning}");
    assert!(warning.contains("osPageCacheBusyTimeOutMills"), "{warning}");
    // What says no more than the default changes nothing anyway.
    assert!(!warning.contains("useReentrantLockWhenPutMessage"), "{warning}");
    process.line(|line| line.contains("mqadmin topicStatus").then_some(())).unwrap();
    assert_eq!(process.said().matches("tune a JVM").count(), 1);
}

#[test]
fn old_clients_are_served_on_the_port_two_below() {
    let data = tempfile::tempdir().unwrap();
    // A port whose second neighbour below is free as well; another process may still be quicker.
    let port = loop {
        let above = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = above.local_addr().unwrap().port();
        if TcpListener::bind(("127.0.0.1", port - 2)).is_ok() {
            break port.to_string();
        }
    };
    let server = Standalone::start(data.path(), &[("listenPort", &port)]).unwrap();
    let below = SocketAddr::new(server.broker.ip(), server.broker.port() - 2);
    ask::send_one(&mut Wire::connect(below).unwrap(), "demo", 0).unwrap();
    assert_eq!(max_offset(&mut Wire::connect(server.broker).unwrap(), "demo"), 1);
}

/// A frame of this header text, as JSON.
fn framed(header: &[u8]) -> Vec<u8> {
    let mut frame = (4 + header.len() as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(&(header.len() as u32).to_be_bytes());
    frame.extend_from_slice(header);
    frame
}

fn whole_request() -> Vec<u8> {
    let mut frame = Vec::new();
    ask::plain_send("demo", 0, &[b'x'; 100]).encode(&mut frame);
    frame
}

#[test]
fn bytes_that_are_no_command_cost_their_sender_the_connection_and_nobody_else() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let mut deep = b"{\"code\":10,\"extFields\":".to_vec();
    deep.extend(b"{\"a\":".repeat(200_000));
    let deep_bodies = [b"[".repeat(1_000_000), b"{\"a\":".repeat(1_000_000)];
    let oversized = (FRAME_BYTES_MAX as u32 + 1).to_be_bytes().to_vec();
    let cases: [(&str, Vec<u8>); 8] = [
        ("a length over the limit", oversized),
        ("a negative length", vec![0xFF; 8]),
        ("a length too short for a header", vec![0, 0, 0, 2, 0, 0]),
        ("a header longer than its frame", vec![0, 0, 0, 8, 0, 1, 0, 0, b'{', b'}', 0, 0]),
        ("an unknown form of header", vec![0, 0, 0, 4, 9, 0, 0, 0]),
        ("garbage in JSON", framed(b"\xfe\xed garbage")),
        ("a deep header", framed(&deep)),
        ("a request of another protocol", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
    ];
    for address in [server.broker, server.nameserver] {
        let mut other = Wire::connect(address).unwrap();
        for (case, bytes) in &cases {
            let mut bad = Wire::connect(address).unwrap();
            // It may be closed while the rest is still being written.
            let _ = bad.stream.write_all(bytes);
            assert!(bad.is_closed_by_server(), "{case} at {address}");
            other.call(ask::request(&ask::topic("other", 1))).unwrap();
        }
        for body in &deep_bodies {
            let code = RequestCode::Heartbeat.to_wire();
            let request = Command::request(code, &protocol::header::Empty {});
            let reply = other.call(request.with_body(body.clone())).unwrap();
            assert_ne!(reply.code, 0, "a deep body at {address}");
        }
    }
    ask::send_one(&mut Wire::connect(server.broker).unwrap(), "demo", 0).unwrap();
    assert!(!server.process.said().contains("panicked"), "{}", server.process.said());
}

#[test]
fn a_frame_that_ends_early_ends_its_connection() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let frame = whole_request();
    for length in [1, 3, 4, 7, 8, 20, frame.len() - 1] {
        let mut bad = Wire::connect(server.broker).unwrap();
        bad.stream.write_all(&frame[..length]).unwrap();
        bad.stream.shutdown(Shutdown::Write).unwrap();
        assert!(bad.is_closed_by_server(), "{length} bytes of {}", frame.len());
    }
    let mut wire = Wire::connect(server.broker).unwrap();
    assert_eq!(ask::send_one(&mut wire, "demo", 0).unwrap().queue_offset, 0);
}

#[test]
fn a_slow_sender_keeps_nobody_waiting_and_is_served_in_the_end() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let frame = whole_request();
    let mut slow: Vec<Wire> = (0..50).map(|_| Wire::connect(server.broker).unwrap()).collect();
    for (at, piece) in frame.chunks(frame.len() / 7).enumerate() {
        for wire in &mut slow {
            wire.stream.write_all(piece).unwrap();
        }
        let sent = ask::send_one(&mut Wire::connect(server.broker).unwrap(), "demo", 1).unwrap();
        assert_eq!(sent.queue_offset, at as i64);
    }
    for mut wire in slow {
        assert_eq!(wire.receive().unwrap().code, 0);
    }
}

#[test]
fn a_claimed_length_takes_no_memory_before_its_bytes_come() {
    const CLAIMS: usize = 64;
    // A gigabyte is claimed; a huge page or two may come and go beside it.
    const GROWTH_MAX: u64 = 8 << 20;
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let mut wire = Wire::connect(server.broker).unwrap();
    // What a connection takes by itself is not the claim's doing.
    let connect = |_| {
        let mut wire = Wire::connect(server.broker).unwrap();
        ask::send_one(&mut wire, "demo", 0).unwrap();
        wire
    };
    let mut lying: Vec<Wire> = (0..CLAIMS).map(connect).collect();
    let before = server.process.resident_bytes().unwrap();
    let mut claim = (FRAME_BYTES_MAX as u32).to_be_bytes().to_vec();
    claim.extend_from_slice(&(FRAME_BYTES_MAX as u32 - 4).to_be_bytes());
    for wire in &mut lying {
        wire.stream.write_all(&claim).unwrap();
    }
    // By then every worker has looked at its connections.
    for _ in 0..100 {
        ask::send_one(&mut wire, "demo", 0).unwrap();
    }
    let growth = server.process.resident_bytes().unwrap().saturating_sub(before);
    println!("{CLAIMS} claims of 16 MiB took {growth} bytes");
    assert!(growth < GROWTH_MAX, "{growth} bytes");
}
