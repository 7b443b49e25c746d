//! The SDK before proxies that misbehave: what it does on the wire.

#![allow(
    clippy::unwrap_used,
    missing_debug_implementations,
    unreachable_pub,
    reason = "a test that cannot go on panics; nobody prints or publishes its proxies"
)]

use std::sync::Arc;
use std::time::Duration;

use client::{Credentials, Error, Filter, Message, Options, Outcome, Producer, PushConsumer};
use fake::{Answer, Call, Proxy, Turns, one, status, usual};
use prost::Message as _;
use protocol::grpc::{self, Code, settings::PubSub};
use remoting::clock;
use tokio::sync::{mpsc, oneshot};

#[path = "proxies/fake.rs"]
mod fake;

const PATIENCE: Duration = Duration::from_secs(20);

fn producers() -> grpc::Settings {
    let publishing = grpc::Publishing { max_body_size: 1 << 20, ..Default::default() };
    let initial = prost_types::Duration { seconds: 0, nanos: 50_000_000 };
    let exponential =
        grpc::ExponentialBackoff { initial: Some(initial), max: Some(initial), multiplier: 1.0 };
    let strategy = Some(grpc::retry_policy::Strategy::ExponentialBackoff(exponential));
    grpc::Settings {
        pub_sub: Some(PubSub::Publishing(publishing)),
        backoff_policy: Some(grpc::RetryPolicy { max_attempts: 3, strategy }),
        ..Default::default()
    }
}

fn consumers() -> grpc::Settings {
    let polling = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let subscription = grpc::Subscription { long_polling_timeout: polling, ..Default::default() };
    grpc::Settings { pub_sub: Some(PubSub::Subscription(subscription)), ..Default::default() }
}

fn options(proxies: &[&Proxy]) -> Options {
    let list: Vec<String> = proxies.iter().map(|proxy| proxy.address.to_string()).collect();
    Options::new(&list.join(";")).unwrap().plaintext()
}

fn message() -> Message {
    Message::builder("orders", "body").build().unwrap()
}

fn refuse(code: Code) -> Answer {
    one(&grpc::SendMessageResponse { status: Some(status(code)), entries: vec![] })
}

#[tokio::test]
async fn a_send_finds_another_proxy_within_a_second_when_one_dies() {
    let proxies = [Proxy::start(producers(), usual).await, Proxy::start(producers(), usual).await];
    let options = options(&[&proxies[0], &proxies[1]]);
    let producer = Producer::builder(options).topic("orders").start().await.unwrap();
    producer.send(&message()).await.unwrap();
    let home = usize::from(proxies[1].count("SendMessage") > 0);
    proxies[home].die();
    let died = clock::instant();
    producer.send(&message()).await.unwrap();
    assert!(died.elapsed() < Duration::from_secs(1), "{:?}", died.elapsed());
    assert_eq!(proxies[1 - home].count("SendMessage"), 1);
    assert!(!proxies[1 - home].settings.lock().is_empty(), "it knows who calls");
}

#[tokio::test]
async fn a_proxy_that_breaks_a_connection_is_passed_over_in_the_same_call() {
    let turns = Turns::default();
    let break_once = move |call: &Call| match call.rpc.as_str() {
        "SendMessage" if turns.next() == 0 => Answer::Die,
        _ => usual(call),
    };
    let turns = Turns::default();
    let break_once_too = move |call: &Call| match call.rpc.as_str() {
        "SendMessage" if turns.next() == 0 => Answer::Die,
        _ => usual(call),
    };
    let one = Proxy::start(producers(), break_once).await;
    let other = Proxy::start(producers(), break_once_too).await;
    let producer = Producer::builder(options(&[&one, &other])).start().await.unwrap();
    producer.send(&message()).await.unwrap();
    assert!(one.count("SendMessage") + other.count("SendMessage") >= 2);
}

#[tokio::test]
async fn a_server_that_asks_for_patience_gets_it() {
    let turns = Turns::default();
    let proxy = Proxy::start(producers(), move |call: &Call| match call.rpc.as_str() {
        "SendMessage" if turns.next() < 2 => refuse(Code::TooManyRequests),
        _ => usual(call),
    })
    .await;
    let producer = Producer::builder(options(&[&proxy])).topic("orders").start().await.unwrap();
    let started = clock::instant();
    producer.send(&message()).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(100), "two pauses of the server's");
    assert_eq!(proxy.count("SendMessage"), 3);
}

#[tokio::test]
async fn what_is_the_callers_mistake_is_not_tried_again() {
    let proxy = Proxy::start(producers(), |call: &Call| match call.rpc.as_str() {
        "SendMessage" => refuse(Code::IllegalMessageTag),
        _ => usual(call),
    })
    .await;
    let producer = Producer::builder(options(&[&proxy])).start().await.unwrap();
    let refused = producer.send(&message()).await;
    assert!(matches!(refused, Err(Error::Refused { code: 40004, .. })), "{refused:?}");
    assert_eq!(proxy.count("SendMessage"), 1);
    let large = Message::builder("orders", vec![0; (1 << 20) + 1]).build().unwrap();
    assert!(matches!(producer.send(&large).await, Err(Error::Invalid { .. })));
    assert_eq!(proxy.count("SendMessage"), 1, "the server's limit is known here");
}

#[tokio::test]
async fn one_entry_for_a_batch_gives_each_message_its_id() {
    let proxy = Proxy::start(producers(), |call: &Call| match call.rpc.as_str() {
        "SendMessage" => {
            let ok = Some(status(Code::Ok));
            let message_id = "a,b,c".to_owned();
            let entry =
                grpc::SendResultEntry { status: ok.clone(), message_id, ..Default::default() };
            one(&grpc::SendMessageResponse { status: ok, entries: vec![entry] })
        }
        _ => usual(call),
    })
    .await;
    let producer = Producer::builder(options(&[&proxy])).start().await.unwrap();
    let receipts = producer.send_batch(&[message(), message(), message()]).await.unwrap();
    let ids: Vec<String> = receipts.into_iter().map(|one| one.unwrap().message_id).collect();
    assert!(ids.iter().all(|id| id.len() == 34), "{ids:?}");
    assert!(ids[0] < ids[1] && ids[1] < ids[2], "{ids:?}");
}

#[tokio::test]
async fn every_call_says_who_makes_it_and_is_signed() {
    let proxy = Proxy::start(producers(), usual).await;
    let options = options(&[&proxy]).credentials(Credentials::new("key", "secret")).namespace("ns");
    let producer = Producer::builder(options).topic("orders").start().await.unwrap();
    producer.send(&message()).await.unwrap();
    for call in proxy.calls.lock().iter() {
        let header = |name: &str| call.headers.get(name).and_then(|value| value.to_str().ok());
        assert_eq!(header("x-mq-language"), Some("RUST"));
        assert_eq!(header("x-mq-protocol"), Some("v2"));
        assert_eq!(header("x-mq-namespace"), Some("ns"));
        assert_eq!(header("x-mq-date-time").map(str::len), Some(16));
        let authorization = header("authorization").unwrap();
        assert!(authorization.starts_with("MQv2-HMAC-SHA1 Credential=key, "), "{authorization}");
        for name in ["x-mq-client-id", "x-mq-client-version", "x-mq-request-id", "grpc-timeout"] {
            assert!(header(name).is_some(), "{}: {name}", call.rpc);
        }
    }
    let told = proxy.settings.lock()[0].clone();
    assert_eq!(told.client_type(), grpc::ClientType::Producer);
}

fn delivered(number: usize, checksum: &str) -> Vec<u8> {
    let system = grpc::SystemProperties {
        message_id: format!("id-{number}"),
        receipt_handle: Some(format!("handle-{number}")),
        delivery_attempt: Some(1),
        body_digest: Some(grpc::Digest {
            r#type: grpc::DigestType::Crc32.into(),
            checksum: checksum.to_owned(),
        }),
        ..Default::default()
    };
    let name = "orders".to_owned();
    let message = grpc::Message {
        topic: Some(grpc::Resource { name, ..Default::default() }),
        system_properties: Some(system),
        body: "123456789".into(),
        ..Default::default()
    };
    let content = Some(grpc::receive_message_response::Content::Message(message));
    grpc::ReceiveMessageResponse { content }.encode_to_vec()
}

fn nothing() -> Answer {
    let content = grpc::receive_message_response::Content::Status(status(Code::MessageNotFound));
    one(&grpc::ReceiveMessageResponse { content: Some(content) })
}

const WHOLE: &str = "CBF43926";

#[tokio::test]
async fn a_damaged_message_is_hidden_and_not_shown() {
    let turns = Turns::default();
    let (tell, mut hidden) = mpsc::unbounded_channel();
    let proxy = Proxy::start(consumers(), move |call: &Call| match call.rpc.as_str() {
        "ReceiveMessage" if turns.next() == 0 => {
            Answer::Messages(vec![delivered(1, "00000000"), delivered(2, WHOLE)])
        }
        "ReceiveMessage" => nothing(),
        "ChangeInvisibleDuration" => {
            let asked = grpc::ChangeInvisibleDurationRequest::decode(call.request.clone()).unwrap();
            tell.send(asked.message_id).unwrap();
            usual(call)
        }
        _ => usual(call),
    })
    .await;
    let (show, mut seen) = mpsc::unbounded_channel();
    let consumer = PushConsumer::builder(options(&[&proxy]), "group")
        .subscribe("orders", Filter::All)
        .start(move |delivery| {
            show.send(delivery.message_id.clone()).unwrap();
            async { Outcome::Success }
        })
        .await
        .unwrap();
    let first = tokio::time::timeout(PATIENCE, hidden.recv()).await.unwrap();
    assert_eq!(first.as_deref(), Some("id-1"));
    let first = tokio::time::timeout(PATIENCE, seen.recv()).await.unwrap();
    assert_eq!(first.as_deref(), Some("id-2"));
    consumer.shutdown().await;
    assert!(seen.recv().await.is_none());
    assert_eq!(proxy.count("NotifyClientTermination"), 1);
}

#[tokio::test]
async fn a_full_consumer_asks_for_no_more() {
    const MAX: usize = 4;
    let turns = Turns::default();
    let (asked, mut batches) = mpsc::unbounded_channel();
    let proxy = Proxy::start(consumers(), move |call: &Call| match call.rpc.as_str() {
        "ReceiveMessage" => {
            let request = grpc::ReceiveMessageRequest::decode(call.request.clone()).unwrap();
            let from = turns.next() * MAX;
            let _ = asked.send(request.batch_size);
            Answer::Messages((from..from + MAX).map(|number| delivered(number, WHOLE)).collect())
        }
        _ => usual(call),
    })
    .await;
    let (open, gate) = oneshot::channel::<()>();
    let gate = Arc::new(tokio::sync::Mutex::new(Some(gate)));
    let (show, mut seen) = mpsc::unbounded_channel();
    let consumer = PushConsumer::builder(options(&[&proxy]), "group")
        .subscribe("orders", Filter::All)
        .cached_messages_max(MAX)
        .start(move |_| {
            let (show, gate) = (show.clone(), gate.clone());
            async move {
                let _ = show.send(());
                if let Some(gate) = gate.lock().await.take() {
                    let _ = gate.await;
                }
                Outcome::Success
            }
        })
        .await
        .unwrap();
    for _ in 0..MAX {
        tokio::time::timeout(PATIENCE, seen.recv()).await.unwrap();
    }
    // All wait for the gate, which the first holds: nothing more was asked for.
    assert_eq!(batches.recv().await, Some(MAX as i32));
    assert!(batches.try_recv().is_err());
    open.send(()).unwrap();
    let next = tokio::time::timeout(PATIENCE, batches.recv()).await.unwrap().unwrap();
    assert!((1..=MAX as i32).contains(&next), "{next}");
    drop(consumer);
}
