//! What becomes of messages whose receipts the proxy renews: with whom they stay, and when they come back.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::time::Duration;

use common::*;
use protocol::grpc::*;
use protocol::header::pop::PopMessage;
use proxy::config::Config;

// Each runs in two ways; each has servers of its own.
both_ways! {
    a_stream_that_ends_takes_nothing_from_its_client
    what_nobody_received_is_held_by_nobody
    what_was_not_read_is_held_by_nobody
    who_has_left_gets_nothing_more
    a_proxy_that_ends_gives_back_what_it_renewed
}

/// Renewed as soon as somebody has it.
fn quick() -> Config {
    let renew_period = Duration::from_millis(100);
    Config { renew_period, invisible_default_ms: 5_000, ..Config::default() }
}

async fn stage(way: Way) -> Stage {
    let stage = Stage::with(way, quick()).await;
    stage.topic("t", "NORMAL", 1).await;
    stage.begun("t", "g").await;
    stage
}

fn renewing(polling_ms: i32) -> ReceiveMessageRequest {
    ReceiveMessageRequest { auto_renew: true, ..receive("t", "g", polling_ms) }
}

async fn leave(caller: &Caller) {
    let request = NotifyClientTerminationRequest { group: named("g") };
    let answer: NotifyClientTerminationResponse =
        caller.ask("NotifyClientTermination", request).await;
    assert_eq!(codes([answer.status]), [OK]);
}

async fn a_stream_that_ends_takes_nothing_from_its_client(stage: Stage) {
    let owner = stage.caller("owner").await;
    let stream = owner.telemetry(consumer("g", ClientType::PushConsumer)).await;
    stage.send(vec![message("t", "kept")]).await;
    let (status, got) = owner.receive(renewing(5_000), None).await;
    assert_eq!((status.code(), got.len()), (Code::Ok, 1), "{}", status.message);
    drop(stream);
    // Longer than the message was hidden for at first.
    let (status, _) = stage.receive(receive("t", "g", 7_000), None).await;
    assert_eq!(status.code(), Code::MessageNotFound);
    leave(&owner).await;
    assert_eq!(body(&stage.gather("t", "g", 1).await[0]), "kept");
    stage.end().await;
}

async fn what_nobody_received_is_held_by_nobody(stage: Stage) {
    stage.group("g", true, 16).await;
    let owner = stage.caller("owner").await;
    let _stream = owner.telemetry(consumer("g", ClientType::PushConsumer)).await;
    let request = owner.request(renewing(20_000), None);
    let gone = owner.stream::<_, ReceiveMessageResponse>("ReceiveMessage", request);
    assert!(tokio::time::timeout(Duration::from_millis(300), gone).await.is_err());
    // What the proxy hears on the same connection comes after the end of that request.
    let beat = HeartbeatRequest { group: named("g"), client_type: ClientType::PushConsumer.into() };
    let answer: HeartbeatResponse = owner.ask("Heartbeat", beat).await;
    assert_eq!(codes([answer.status]), [OK]);
    stage.send(vec![message("t", "free")]).await;
    assert_eq!(body(&stage.gather("t", "g", 1).await[0]), "free");
    assert!(stage.proxy.front.receipts.lock().is_empty());
    stage.end().await;
}

async fn what_was_not_read_is_held_by_nobody(stage: Stage) {
    const SENT: usize = 7;
    let owner = Caller::narrow(stage.proxy.addresses[0], "owner", 1024).await;
    let large = "x".repeat(30_000);
    stage.send((0..SENT).map(|n| message("t", &format!("{n}{large}"))).collect()).await;
    let request = owner.request(renewing(5_000), None);
    let mut answers = owner.stream::<_, ReceiveMessageResponse>("ReceiveMessage", request).await;
    assert!(answers.message().await.unwrap().is_some(), "the status");
    drop(answers);
    // One or two are on their way, as far as anybody can know.
    let back = stage.gather("t", "g", SENT - 2).await.len();
    assert!(stage.proxy.front.receipts.lock().len() <= SENT - back);
    stage.end().await;
}

async fn who_has_left_gets_nothing_more(stage: Stage) {
    let owner = stage.caller("owner").await;
    let _stream = owner.telemetry(consumer("g", ClientType::PushConsumer)).await;
    let waiting = owner.receive(renewing(20_000), None);
    let leaving = async {
        let waits = async {
            while stage.work.broker.pops.find("g", "t").is_none_or(|pop| pop.waiting() == 0) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(WAIT, waits).await.unwrap();
        leave(&owner).await;
        stage.send(vec![message("t", "free")]).await
    };
    let ((status, _), _) = tokio::join!(waiting, leaving);
    assert_eq!(status.code(), Code::MessageNotFound);
    assert_eq!(body(&stage.gather("t", "g", 1).await[0]), "free");
    assert!(stage.proxy.front.receipts.lock().is_empty());
    stage.end().await;
}

async fn a_proxy_that_ends_gives_back_what_it_renewed(stage: Stage) {
    stage.group("g", stage.way == Way::Cluster, 16).await;
    let front = stage.proxy.front.clone();
    let mut renewed = std::pin::pin!(front.renewed.notified());
    renewed.as_mut().enable();
    stage.send(vec![message("t", "back")]).await;
    let (status, got) = stage.receive(renewing(5_000), None).await;
    assert_eq!((status.code(), got.len()), (Code::Ok, 1), "{}", status.message);
    tokio::time::timeout(WAIT, renewed).await.unwrap();
    let in_order = stage.way == Way::Cluster;
    let alone = stage.end_proxy().await;
    let request = PopMessage {
        consumer_group: "g".to_owned(),
        topic: "t".to_owned(),
        queue_id: -1,
        max_msg_nums: 32,
        invisible_time: 30_000,
        poll_time: 10_000,
        born_time: remoting::clock::now_ms(),
        init_mode: 1,
        exp_type: None,
        exp: None,
        order: Some(in_order),
        attempt_id: None,
    };
    // Hidden for a minute otherwise.
    let address = alone.work.address.to_string();
    let popped = alone.pool.ask(&address, &request, Vec::new(), WAIT).await;
    assert!(popped.is_ok(), "{popped:?}");
    alone.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_silent_for_too_long_gives_back_what_was_renewed_for_it() {
    let client_silent_max = Duration::from_secs(1);
    let stage = Stage::with(Way::Inside, Config { client_silent_max, ..quick() }).await;
    stage.topic("t", "NORMAL", 1).await;
    stage.begun("t", "g").await;
    stage.send(vec![message("t", "back")]).await;
    let owner = stage.caller("owner").await;
    let (status, got) = owner.receive(renewing(5_000), None).await;
    assert_eq!((status.code(), got.len()), (Code::Ok, 1), "{}", status.message);
    // Renewed for a minute by then.
    let (status, _) = stage.receive(receive("t", "g", 500), None).await;
    assert_eq!(status.code(), Code::MessageNotFound);
    assert_eq!(body(&stage.gather("t", "g", 1).await[0]), "back");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_poll_of_a_client_that_goes_away_ends_with_it() {
    let stage = stage(Way::Inside).await;
    let waiting = async |wanted: usize| {
        let pop = stage.work.broker.pops.find("g", "t").unwrap();
        let waiting = async {
            while pop.waiting() != wanted {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), waiting).await.expect("long before its time");
    };
    let request = stage.request(receive("t", "g", 20_000), None);
    let gone = stage.stream::<_, ReceiveMessageResponse>("ReceiveMessage", request);
    tokio::select! {
        _ = gone => panic!("nobody sends"),
        () = waiting(1) => {}
    }
    waiting(0).await;
    stage.end().await;
}
