//! A proxy before brokers and nameservers that fail: what does not answer harms nothing else.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::time::Duration;

use common::fake::{self, Fake, Log};
use common::*;
use protocol::frame::Command;
use protocol::grpc::*;
use protocol::header::Empty;
use protocol::header::pop::{ChangeInvisibleTimeReply, PopMessage};
use protocol::reply::{Refusal, ReplyCode};
use protocol::request::RequestCode;
use proxy::backend::waiting::WAITING_MAX;
use proxy::config::Config;
use proxy::handle::Handle;
use proxy::process::Running;
use remoting::clock;
use remoting::outbox::{Outbox, ReplyTo};
use remoting::process::Shutdown;
use tokio::task::JoinSet;

/// A handle of the message at `offset`.
fn handle_at(broker: &str, offset: i64) -> String {
    format!("{offset} {} 5000 0 0 {broker} 0 {offset} 4711", clock::now_ms())
}

/// Has receipts of `broker` renewed for the client `c`, which are due at once.
fn hold(proxy: &Running, broker: &str, count: i64) -> Vec<String> {
    let now_ms = clock::now_ms();
    let handles: Vec<String> = (0..count).map(|offset| handle_at(broker, offset)).collect();
    let mut receipts = proxy.front.receipts.lock();
    for handle in &handles {
        assert!(receipts.take("c", "g", "t", handle, now_ms + 5_000, now_ms));
    }
    handles
}

fn settle(handles: &[String]) -> AckMessageRequest {
    let entry = |handle: &String| AckMessageEntry {
        message_id: "01".to_owned(),
        receipt_handle: handle.clone(),
        lite_topic: None,
    };
    AckMessageRequest {
        group: named("g"),
        topic: named("t"),
        entries: handles.iter().map(entry).collect(),
    }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(WAIT, waiting).await.expect(what);
}

async fn end(proxy: Running, shutdown: Shutdown) {
    shutdown.cancel();
    tokio::time::timeout(WAIT, proxy.finished()).await.unwrap();
}

/// Answers nothing.
fn silent(_: u64, _: Command<'_>, _: &mut Outbox) {}

fn succeed(request: &Command<'_>, out: &mut Outbox) {
    out.now.reply(ReplyTo::new(request), &Empty {}, &[]);
}

fn quick() -> Config {
    Config { renew_period: Duration::from_millis(50), ..Config::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_does_not_answer_keeps_no_others_receipts_from_being_renewed() {
    let log = Log::default();
    let noted = log.clone();
    let live = Fake::broker(move |peer, request, out| {
        noted.note(request.code, peer);
        let hidden = ChangeInvisibleTimeReply {
            pop_time: clock::now_ms(),
            invisible_time: 60_000,
            revive_qid: 0,
        };
        out.now.reply(ReplyTo::new(&request), &hidden, &[]);
    });
    let dead = Fake::broker(silent);
    let map = Fake::map(&[("live", live.address), ("dead", dead.address)]);
    let (proxy, shutdown) = fake::proxy(&map, quick()).await;
    hold(&proxy, "dead", 20);
    hold(&proxy, "live", 20);
    let started = clock::instant();
    until("all are renewed", || log.count(RequestCode::ChangeInvisibleTime) == 20).await;
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    end(proxy, shutdown).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_waits_for_renewals_together_and_not_for_long() {
    let log = Log::default();
    let noted = log.clone();
    let dead = Fake::broker(move |peer, request, _| noted.note(request.code, peer));
    let map = Fake::map(&[("dead", dead.address)]);
    let (proxy, shutdown) = fake::proxy(&map, quick()).await;
    let handles = hold(&proxy, "dead", 10);
    until("all are being renewed", || log.count(RequestCode::ChangeInvisibleTime) == 10).await;
    let caller = Caller::new(proxy.addresses[0], "c").await;
    let started = clock::instant();
    let answer: AckMessageResponse = caller.ask("AckMessage", settle(&handles)).await;
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    // Not that the handles are void: their client may try again.
    assert_eq!(codes([answer.status]), [Code::ProxyTimeout as i32]);
    assert_eq!(answer.entries.len(), 10);
    end(proxy, shutdown).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_that_was_stored_is_a_success_whatever_becomes_of_the_message() {
    let log = Log::default();
    let noted = log.clone();
    let broker = Fake::broker(move |peer, request, out| {
        noted.note(request.code, peer);
        if request.code == RequestCode::ConsumerSendMsgBack.to_wire() {
            return succeed(&request, out);
        }
        let refusal = Refusal::new(ReplyCode::SystemError, "not now");
        out.now.refuse(ReplyTo::new(&request), &refusal);
    });
    let map = Fake::map(&[("b", broker.address)]);
    let (proxy, shutdown) = fake::proxy(&map, Config::default()).await;
    let caller = Caller::new(proxy.addresses[0], "c").await;
    let request = ForwardMessageToDeadLetterQueueRequest {
        group: named("g"),
        topic: named("t"),
        receipt_handle: handle_at("b", 0),
        message_id: "01".to_owned(),
        delivery_attempt: 2,
        max_delivery_attempts: 2,
        lite_topic: None,
    };
    let answer: ForwardMessageToDeadLetterQueueResponse =
        caller.ask("ForwardMessageToDeadLetterQueue", request).await;
    assert_eq!(codes([answer.status]), [OK]);
    assert_eq!(log.count(RequestCode::AckMessage), 1);
    end(proxy, shutdown).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_goes_on_with_what_it_knows_when_no_nameserver_answers() {
    let broker = Fake::broker(|_, request, out| succeed(&request, out));
    let map = Fake::map(&[("b", broker.address)]);
    let (proxy, shutdown) = fake::proxy(&map, Config::default()).await;
    let caller = Caller::new(proxy.addresses[0], "c").await;
    let acked = async || {
        let request = settle(&[handle_at("b", 0)]);
        let answer: AckMessageResponse = caller.ask("AckMessage", request).await;
        codes([answer.status])
    };
    assert_eq!(acked().await, [OK]);
    drop(map);
    for _ in 0..2 {
        // As when a broker could not be connected to, or is not known.
        proxy.front.backend.moved();
        assert!(proxy.front.backend.address("elsewhere").await.is_err());
        assert_eq!(acked().await, [OK]);
    }
    end(proxy, shutdown).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_wait_nobody_who_settles_is_behind_them() {
    let log = Log::default();
    let noted = log.clone();
    let broker = Fake::broker(move |peer, request, out| {
        noted.note(request.code, peer);
        if request.code != RequestCode::PopMessage.to_wire() {
            succeed(&request, out);
        }
    });
    let map = Fake::map(&[("b", broker.address)]);
    let (proxy, shutdown) = fake::proxy(&map, Config::default()).await;
    let mut waiting = JoinSet::new();
    for _ in 0..=WAITING_MAX {
        let front = proxy.front.clone();
        waiting.spawn(async move {
            let request = PopMessage {
                consumer_group: "g".to_owned(),
                topic: "t".to_owned(),
                queue_id: -1,
                max_msg_nums: 32,
                invisible_time: 30_000,
                poll_time: 30_000,
                born_time: clock::now_ms(),
                init_mode: 1,
                exp_type: None,
                exp: None,
                order: None,
                attempt_id: None,
            };
            let timeout = Duration::from_secs(40);
            front.backend.pop("b", &request, timeout, &Shutdown::new()).await.unwrap();
        });
    }
    until("all wait", || log.count(RequestCode::PopMessage) == WAITING_MAX + 1).await;
    let handle = handle_at("b", 0);
    let handle = Handle::parse(&handle).unwrap();
    let acked = proxy.front.backend.ack("b", "g", "t", &[handle]).await;
    assert_eq!(acked, [Ok(())]);
    let (pops, acks) = (log.peers(RequestCode::PopMessage), log.peers(RequestCode::AckMessage));
    assert_eq!((pops.len(), acks.len()), (2, 1));
    assert!(!pops.contains(&acks[0]), "an acknowledgement goes over a connection of its own");
    drop(waiting);
    end(proxy, shutdown).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_flight_at_the_end_has_as_long_as_is_configured() {
    let log = Log::default();
    let noted = log.clone();
    let broker = Fake::broker(move |peer, request, _| noted.note(request.code, peer));
    let map = Fake::map(&[("b", broker.address)]);
    let drain_max = Duration::from_millis(100);
    let (proxy, shutdown) = fake::proxy(&map, Config { drain_max, ..Config::default() }).await;
    let caller = Caller::new(proxy.addresses[0], "c").await;
    let request = caller.request(settle(&[handle_at("b", 0)]), None);
    let asking = caller.try_ask::<_, AckMessageResponse>("AckMessage", request);
    let ending = async {
        until("the broker is asked", || log.count(RequestCode::AckMessage) == 1).await;
        let started = clock::instant();
        end(proxy, shutdown).await;
        started.elapsed()
    };
    let (_, took) = tokio::join!(asking, ending);
    assert!(took < Duration::from_secs(2), "{took:?}");
}
