//! What becomes of messages whose receipts the proxy renews: with whom they stay, and when they come back.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::time::Duration;

use common::*;
use protocol::grpc::*;
use proxy::config::Config;

// Each runs in two ways; each has servers of its own.
both_ways! {
    a_stream_that_ends_takes_nothing_from_its_client
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
