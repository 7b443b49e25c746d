//! The Rust SDK against real processes: everything it promises, seen from outside.
//!
//! `FERROMQ_SDK_PROXY` and `FERROMQ_SDK_BROKER` (`host:port`) name servers that run already, ours or stock.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use client::{
    Delivery, Error, Filter, Message, Outcome, Producer, PushConsumer, Resolution, SimpleConsumer,
};
use ground::{Ground, Kind};
use remoting::clock;
use tokio::sync::mpsc;

#[path = "sdk/ground.rs"]
mod ground;

/// How long a message may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(45);

type Seen = mpsc::UnboundedReceiver<Arc<Delivery>>;

async fn next(seen: &mut Seen) -> Result<Arc<Delivery>> {
    let delivery = tokio::time::timeout(PATIENCE, seen.recv()).await.context("no message came")?;
    delivery.context("the consumer ended")
}

/// A push consumer that shows what it is given; `decide` says what becomes of it.
async fn push(
    ground: &Ground,
    group: &str,
    topic: &str,
    filter: Filter,
    decide: impl Fn(&Delivery) -> Outcome + Send + Sync + 'static,
) -> Result<(PushConsumer, Seen)> {
    let (show, seen) = mpsc::unbounded_channel();
    let decide = Arc::new(decide);
    let consumer = PushConsumer::builder(ground.options()?, group)
        .subscribe(topic, filter)
        .start(move |delivery| {
            let (show, decide) = (show.clone(), decide.clone());
            async move {
                let outcome = decide(&delivery);
                let _ = show.send(delivery);
                outcome
            }
        })
        .await?;
    Ok((consumer, seen))
}

async fn simple(ground: &Ground, group: &str, topic: &str) -> Result<SimpleConsumer> {
    let builder = SimpleConsumer::builder(ground.options()?, group);
    let builder = builder.subscribe(topic, Filter::All).await_duration(Duration::from_secs(5));
    Ok(builder.start().await?)
}

/// Receives until something comes.
async fn receive(consumer: &SimpleConsumer, invisible: Duration) -> Result<Vec<Delivery>> {
    let started = clock::instant();
    while started.elapsed() < PATIENCE {
        let received = consumer.receive(32, invisible).await?;
        if !received.is_empty() {
            return Ok(received);
        }
    }
    anyhow::bail!("nothing was received")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_arrives_as_it_was_sent() -> Result<()> {
    let ground = Ground::shared()?;
    let (topic, group) = (ground.topic("plain", Kind::Normal)?, ground.group("plain", false, 16)?);
    let (consumer, mut seen) =
        push(&ground, &group, &topic, Filter::All, |_| Outcome::Success).await?;
    let producer =
        Producer::builder(ground.options()?).topic(&topic).compress_from(4096).start().await?;
    let message = Message::builder(&topic, "two shirts")
        .tag("new")
        .key("4711")
        .key("0815")
        .property("colour", "red")
        .build()?;
    let receipt = producer.send(&message).await?;
    let delivery = next(&mut seen).await?;
    assert_eq!(delivery.message_id, receipt.message_id);
    assert_eq!((&delivery.body[..], delivery.tag.as_deref()), (&b"two shirts"[..], Some("new")));
    assert_eq!(delivery.keys, ["4711", "0815"]);
    assert_eq!(delivery.properties.get("colour").map(String::as_str), Some("red"));
    assert_eq!((delivery.attempt, delivery.topic.as_str()), (1, topic.as_str()));

    let large: Vec<u8> = (0..100_000u32).map(|at| (at / 1000) as u8).collect();
    producer.send(&Message::builder(&topic, large.clone()).build()?).await?;
    assert_eq!(next(&mut seen).await?.body, large, "packed and unpacked");

    let batch: Vec<Message> = (0..32)
        .map(|number| Message::builder(&topic, format!("batch {number}")).build())
        .collect::<Result<_, _>>()?;
    let receipts: Vec<_> =
        producer.send_batch(&batch).await?.into_iter().collect::<Result<_, _>>()?;
    let sent: HashSet<String> = receipts.into_iter().map(|receipt| receipt.message_id).collect();
    let mut arrived = HashSet::new();
    for _ in 0..batch.len() {
        arrived.insert(next(&mut seen).await?.message_id.clone());
    }
    assert_eq!(arrived, sent);
    producer.shutdown().await;
    consumer.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_wanted_tags_arrive() -> Result<()> {
    let ground = Ground::shared()?;
    let (topic, group) = (ground.topic("tags", Kind::Normal)?, ground.group("tags", false, 16)?);
    let filter = Filter::Tag("a||c".to_owned());
    let (consumer, mut seen) = push(&ground, &group, &topic, filter, |_| Outcome::Success).await?;
    let producer = Producer::builder(ground.options()?).topic(&topic).start().await?;
    for tag in ["a", "b", "c", "d", "a"] {
        producer.send(&Message::builder(&topic, tag).tag(tag).build()?).await?;
    }
    let mut tags = Vec::new();
    for _ in 0..3 {
        tags.extend(next(&mut seen).await?.tag.clone());
    }
    tags.sort();
    assert_eq!(tags, ["a", "a", "c"]);
    consumer.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_comes_again_until_it_is_acknowledged() -> Result<()> {
    let ground = Ground::shared()?;
    let (topic, group) =
        (ground.topic("simple", Kind::Normal)?, ground.group("simple", false, 16)?);
    let consumer = simple(&ground, &group, &topic).await?;
    let producer = Producer::builder(ground.options()?).topic(&topic).start().await?;
    producer.send(&Message::builder(&topic, "once more").build()?).await?;
    let mut first = receive(&consumer, Duration::from_secs(30)).await?.remove(0);
    assert_eq!(first.attempt, 1);
    let old = first.receipt_handle.clone();
    consumer.change_invisible_duration(&mut first, Duration::from_secs(1)).await?;
    assert_ne!(first.receipt_handle, old);
    let second = receive(&consumer, Duration::from_secs(30)).await?.remove(0);
    assert_eq!((second.attempt, &second.message_id), (2, &first.message_id));
    consumer.ack(&second).await?;
    assert!(consumer.receive(32, Duration::from_secs(10)).await?.is_empty());
    let outcomes = consumer.ack_all(&[first]).await;
    assert!(matches!(outcomes[..], [Ok(()) | Err(Error::ReceiptInvalid { .. })]), "{outcomes:?}");
    consumer.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_fails_comes_again_later() -> Result<()> {
    let ground = Ground::shared()?;
    let (topic, group) = (ground.topic("again", Kind::Normal)?, ground.group("again", false, 16)?);
    let decide = |delivery: &Delivery| match delivery.attempt {
        1 => Outcome::Failure,
        _ => Outcome::Success,
    };
    let (consumer, mut seen) = push(&ground, &group, &topic, Filter::All, decide).await?;
    let producer = Producer::builder(ground.options()?).topic(&topic).start().await?;
    let receipt = producer.send(&Message::builder(&topic, "stubborn").build()?).await?;
    let attempts = [next(&mut seen).await?, next(&mut seen).await?];
    assert_eq!(attempts.each_ref().map(|delivery| delivery.attempt), [1, 2]);
    assert!(attempts.iter().all(|delivery| delivery.message_id == receipt.message_id));
    consumer.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn message_groups_keep_their_order_beside_one_that_fails() -> Result<()> {
    const GROUPS: usize = 4;
    const EACH: usize = 5;
    let ground = Ground::shared()?;
    let (topic, group) = (ground.topic("fifo", Kind::Fifo)?, ground.group("fifo", true, 3)?);
    let producer = Producer::builder(ground.options()?).topic(&topic).start().await?;
    for number in 0..EACH {
        for of in 0..GROUPS {
            let message = Message::builder(&topic, number.to_string());
            producer.send(&message.message_group(format!("g{of}")).build()?).await?;
        }
    }
    // The second message of each group fails once.
    let decide = |delivery: &Delivery| match (&delivery.body[..], delivery.attempt) {
        (b"1", 1) => Outcome::Failure,
        _ => Outcome::Success,
    };
    let (consumer, mut seen) = push(&ground, &group, &topic, Filter::All, decide).await?;
    let mut orders: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for _ in 0..GROUPS * (EACH + 1) {
        let delivery = next(&mut seen).await?;
        let body = String::from_utf8_lossy(&delivery.body).into_owned();
        orders.entry(delivery.message_group.clone().context("no group")?).or_default().push(body);
    }
    assert_eq!(orders.len(), GROUPS);
    for (group, order) in orders {
        assert_eq!(order, ["0", "1", "1", "2", "3", "4"], "{group}");
    }
    consumer.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordered_message_that_fails_too_often_makes_way() -> Result<()> {
    let ground = Ground::shared()?;
    let (topic, group) = (ground.topic("dead", Kind::Fifo)?, ground.group("dead", true, 1)?);
    let producer = Producer::builder(ground.options()?).topic(&topic).start().await?;
    for body in ["bad", "good"] {
        let message = Message::builder(&topic, body).message_group("one");
        producer.send(&message.build()?).await?;
    }
    let decide = |delivery: &Delivery| match &delivery.body[..] {
        b"bad" => Outcome::Failure,
        _ => Outcome::Success,
    };
    let (consumer, mut seen) = push(&ground, &group, &topic, Filter::All, decide).await?;
    let mut bodies = Vec::new();
    while bodies.last().is_none_or(|last| last != "good") {
        bodies.push(String::from_utf8_lossy(&next(&mut seen).await?.body).into_owned());
    }
    assert_eq!(bodies, ["bad", "bad", "good"]);
    consumer.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the broker has no timers yet"]
async fn a_delayed_message_is_never_early() -> Result<()> {
    const DELAY: Duration = Duration::from_secs(3);
    let ground = Ground::shared()?;
    let (topic, group) = (ground.topic("delay", Kind::Delay)?, ground.group("delay", false, 16)?);
    let (consumer, mut seen) =
        push(&ground, &group, &topic, Filter::All, |_| Outcome::Success).await?;
    let producer = Producer::builder(ground.options()?).topic(&topic).start().await?;
    let sent = clock::instant();
    producer.send(&Message::builder(&topic, "later").deliver_after(DELAY).build()?).await?;
    next(&mut seen).await?;
    // The two clocks count milliseconds.
    assert!(sent.elapsed() + Duration::from_millis(2) >= DELAY, "{:?}", sent.elapsed());
    consumer.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_counts_when_it_is_committed() -> Result<()> {
    let ground = Ground::shared()?;
    let (topic, group) = (ground.topic("tx", Kind::Transaction)?, ground.group("tx", false, 16)?);
    let (consumer, mut seen) =
        push(&ground, &group, &topic, Filter::All, |_| Outcome::Success).await?;
    let (show, mut checked) = mpsc::unbounded_channel();
    let producer = Producer::builder(ground.options()?)
        .topic(&topic)
        .checker(move |delivery: Delivery| {
            let _ = show.send(delivery.body);
            async { Resolution::Commit }
        })
        .start()
        .await?;
    let message = |body: &'static str| Message::builder(&topic, body).build();
    producer.send_in_transaction(&message("rolled back")?).await?.rollback().await?;
    producer.send_in_transaction(&message("committed")?).await?.commit().await?;
    assert_eq!(next(&mut seen).await?.body, "committed");
    drop(producer.send_in_transaction(&message("orphaned")?).await?);
    let asked = tokio::time::timeout(3 * PATIENCE, checked.recv()).await?;
    assert_eq!(asked.context("the checker is gone")?, "orphaned");
    assert_eq!(next(&mut seen).await?.body, "orphaned");
    producer.shutdown().await;
    consumer.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sent_is_told_apart() -> Result<()> {
    let ground = Ground::shared()?;
    let topic = ground.topic("errors", Kind::Normal)?;
    let missing = Producer::builder(ground.options()?).topic("no-such-topic").start().await;
    assert!(matches!(missing, Err(Error::TopicNotFound { .. })), "{missing:?}");
    let producer = Producer::builder(ground.options()?).topic(&topic).start().await?;
    let ordered = Message::builder(&topic, "x").message_group("g").build()?;
    let refused = producer.send(&ordered).await;
    assert!(matches!(refused, Err(Error::WrongMessageType { .. })), "{refused:?}");
    let large = Message::builder(&topic, vec![0; (4 << 20) + 1]).build()?;
    assert!(matches!(producer.send(&large).await, Err(Error::Invalid { .. })));
    let started = clock::instant();
    let nobody = client::Options::new("127.0.0.1:1")?.plaintext();
    let nobody = nobody.request_timeout(Duration::from_millis(100));
    let unreachable = Producer::builder(nobody).start().await;
    assert!(matches!(unreachable, Err(Error::Unreachable { .. })), "{unreachable:?}");
    ensure!(started.elapsed() < PATIENCE);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_looked_at_only_if_wanted() -> Result<()> {
    let ground = Ground::shared()?;
    let topic = ground.topic("tls", Kind::Normal)?;
    let options = ground.options()?.security(client::Security::Unverified);
    let producer = Producer::builder(options.clone()).topic(&topic).start().await?;
    producer.send(&Message::builder(&topic, "secret").build()?).await?;
    producer.shutdown().await;
    let strict = options.security(client::Security::SystemRoots);
    let refused =
        Producer::builder(strict.request_timeout(Duration::from_millis(100))).start().await;
    // A machine without certificate authorities says so.
    let expected = matches!(&refused, Err(Error::Unreachable { .. } | Error::Invalid { .. }));
    assert!(expected, "{refused:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_lets_listeners_finish() -> Result<()> {
    let ground = Ground::shared()?;
    let (topic, group) = (ground.topic("end", Kind::Normal)?, ground.group("end", false, 16)?);
    let producer = Producer::builder(ground.options()?).topic(&topic).start().await?;
    let (started, mut begun) = mpsc::unbounded_channel();
    let (finished, mut done) = mpsc::unbounded_channel();
    let consumer = PushConsumer::builder(ground.options()?, &group)
        .subscribe(&topic, Filter::All)
        .start(move |_| {
            let (started, finished) = (started.clone(), finished.clone());
            async move {
                let _ = started.send(());
                tokio::time::sleep(Duration::from_millis(500)).await;
                let _ = finished.send(());
                Outcome::Success
            }
        })
        .await?;
    producer.send(&Message::builder(&topic, "slow").build()?).await?;
    tokio::time::timeout(PATIENCE, begun.recv()).await?.context("the listener is gone")?;
    consumer.shutdown().await;
    assert!(done.try_recv().is_ok(), "the listener was cut off");
    // It was acknowledged too.
    let again = simple(&ground, &group, &topic).await?;
    assert!(again.receive(1, Duration::from_secs(10)).await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_proxy_is_not_missed() -> Result<()> {
    const GAP_MAX: Duration = Duration::from_secs(3);
    let ground = Ground::start(2)?;
    let (topic, group) = (ground.topic("kill", Kind::Normal)?, ground.group("kill", false, 16)?);
    // Clients choose their proxy at random: among several, some are at the one that is killed.
    let (show, mut seen) = mpsc::unbounded_channel();
    let mut consumers = Vec::new();
    for _ in 0..4 {
        let show = show.clone();
        let listener = move |delivery: Arc<Delivery>| {
            let _ = show.send(delivery);
            async { Outcome::Success }
        };
        let consumer = PushConsumer::builder(ground.options()?, &group);
        consumers.push(consumer.subscribe(&topic, Filter::All).start(listener).await?);
    }
    let mut producers = Vec::new();
    for _ in 0..4 {
        producers.push(Producer::builder(ground.options()?).topic(&topic).start().await?);
    }
    let mut sent = HashSet::new();
    let mut longest = Duration::ZERO;
    for number in 0..200 {
        if number == 100 {
            ground.kill_proxy(0);
        }
        let began = clock::instant();
        let message = Message::builder(&topic, format!("{number}")).build()?;
        sent.insert(producers[number % producers.len()].send(&message).await?.message_id);
        longest = longest.max(began.elapsed());
    }
    ensure!(longest < GAP_MAX, "a send took {longest:?}");
    while !sent.is_empty() {
        sent.remove(&next(&mut seen).await?.message_id);
    }
    for consumer in consumers {
        consumer.shutdown().await;
    }
    Ok(())
}
