//! The cases: this client has producers and simple consumers, and no way to change an invisible time.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use rocketmq::model::common::{FilterExpression, FilterType};
use rocketmq::model::message::{MessageBuilder, MessageView};
use rocketmq::model::transaction::{Transaction, TransactionResolution};
use rocketmq::{Producer, SimpleConsumer};

use crate::stage::{INVISIBLE, PATIENCE, Stage, beginning, numbered, sorted, text, texts};

/// The longest waits come first, so that the short cases run beside them.
pub const NAMES: [&str; 24] = [
    "transaction-check",
    "delay",
    "transaction-commit",
    "transaction-rollback",
    "simple-late-ack",
    "simple-redelivery",
    "simple-at-once",
    "simple-ack",
    "simple-wakes",
    "simple-empty",
    "fifo-simple",
    "tag-filter",
    "sql-filter",
    "share-simple",
    "two-groups",
    "many-clients",
    "restart",
    "send",
    "send-sizes",
    "send-concurrent",
    "send-batch",
    "send-fifo",
    "send-wrong-type",
    "unknown-topic",
];

pub async fn run(name: &str, stage: Stage) {
    match name {
        "transaction-check" => transaction_check(stage).await,
        "delay" => delay(stage).await,
        "transaction-commit" => transaction_commit(stage).await,
        "transaction-rollback" => transaction_rollback(stage).await,
        "simple-late-ack" => late_ack(stage).await,
        "simple-redelivery" => redelivery(stage).await,
        "simple-at-once" => at_once(stage).await,
        "simple-ack" => ack(stage).await,
        "simple-wakes" => wakes(stage).await,
        "simple-empty" => empty(stage).await,
        "fifo-simple" => fifo_simple(stage).await,
        "tag-filter" => tag_filter(stage).await,
        "sql-filter" => sql_filter(stage).await,
        "share-simple" => share(stage).await,
        "two-groups" => two_groups(stage).await,
        "many-clients" => many_clients(stage).await,
        "restart" => restart(stage).await,
        "send" => send(stage).await,
        "send-sizes" => sizes(stage).await,
        "send-concurrent" => concurrent(stage).await,
        "send-batch" => batch(stage).await,
        "send-fifo" => fifo(stage).await,
        "send-wrong-type" => wrong_type(stage).await,
        "unknown-topic" => unknown_topic(stage).await,
        other => unreachable!("{other} is not in the list"),
    }
}

fn now() -> i64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64
}

async fn send(stage: Stage) {
    let properties = HashMap::from([("color", "blau"), ("ключ", "значение = \"x\"")]);
    let message = stage
        .message("grüße, 世界 🦀")
        .set_tag("Tag-ä")
        .set_keys(vec!["k1", "schlüssel"])
        .set_properties(properties.clone());
    let receipt = stage.producer().await.send(message.build().unwrap()).await.unwrap();
    let got = stage.simple().await.take(1).await.remove(0);
    assert_eq!(text(&got), "grüße, 世界 🦀");
    assert_eq!(got.message_id(), receipt.message_id());
    assert_eq!(got.tag(), Some("Tag-ä"));
    assert_eq!(sorted(got.keys().to_vec()), ["k1", "schlüssel"]);
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    assert_eq!(got.properties(), &properties.into_iter().map(owned).collect());
    assert_eq!(got.topic(), stage.topic);
    assert_eq!(got.delivery_attempt(), 1);
    assert!((now() - got.born_timestamp()).abs() < 60, "born at {}", got.born_timestamp());
    assert!(!got.born_host().is_empty(), "a born host");
}

async fn sizes(stage: Stage) {
    const MOST: usize = 4 * 1024 * 1024;
    let producer = stage.producer().await;
    // What is around the largest is more than this client receives.
    for (tag, size) in [("received", 1), ("received", MOST - 4096), ("whole", MOST)] {
        let message = stage.message(vec![7; size]).set_tag(tag).build().unwrap();
        producer.send(message).await.unwrap();
    }
    let refused = producer.send(stage.message(vec![7; MOST + 1]).build().unwrap()).await;
    refused.expect_err("one byte too many");
    let filter = FilterExpression::new(FilterType::Tag, "received");
    for message in stage.simple_of(&stage.group, filter).await.take(2).await {
        assert!(message.body().iter().all(|byte| *byte == 7), "the same bytes");
        assert!([1, MOST - 4096].contains(&message.body().len()), "{}", message.body().len());
    }
}

async fn concurrent(stage: Stage) {
    let producer = Arc::new(stage.producer().await);
    let bodies = numbered("m", 300);
    let sends: Vec<_> = bodies
        .iter()
        .map(|body| {
            let (producer, message) =
                (producer.clone(), stage.message(body.as_bytes()).build().unwrap());
            tokio::spawn(
                async move { producer.send(message).await.unwrap().message_id().to_owned() },
            )
        })
        .collect();
    let mut ids = HashSet::new();
    for send in sends {
        ids.insert(send.await.expect("a send beside others"));
    }
    assert_eq!(ids.len(), bodies.len(), "different message ids");
    let consumer = stage.simple().await;
    assert_eq!(sorted(texts(&consumer.take(bodies.len()).await)), sorted(bodies));
    consumer.nothing_more().await;
}

async fn batch(stage: Stage) {
    let bodies = numbered("m", 10);
    let message = |body: &String| stage.message(body.as_bytes()).build().unwrap();
    let receipts =
        stage.producer().await.batch_send(bodies.iter().map(message).collect()).await.unwrap();
    let ids: HashSet<&str> = receipts.iter().map(|receipt| receipt.message_id()).collect();
    assert_eq!(ids.len(), bodies.len(), "different message ids");
    let got = stage.simple().await.take(bodies.len()).await;
    assert_eq!(sorted(texts(&got)), bodies);
    assert!(got.iter().all(|message| ids.contains(message.message_id())), "the ids answered");
}

async fn fifo(stage: Stage) {
    let producer = stage.producer().await;
    stage.send_in_group(&producer, "a", 10).await;
    stage.send_in_group(&producer, "b", 10).await;
    let got = stage.simple().await.take(20).await;
    assert_eq!(beginning("a", &texts(&got)), numbered("a", 10));
    assert_eq!(beginning("b", &texts(&got)), numbered("b", 10));
    for message in got {
        assert_eq!(message.message_group(), Some(&text(&message)[..1]));
    }
}

async fn wrong_type(stage: Stage) {
    let producer = stage.producer().await;
    let normal = producer.send(stage.message("normal").build().unwrap()).await;
    normal.expect_err("a normal message to a FIFO topic");
    let late = MessageBuilder::delay_message_builder(&stage.topic, b"late".into(), now() + 10);
    producer.send(late.build().unwrap()).await.expect_err("a delayed message to a FIFO topic");
    stage.send_in_group(&producer, "g", 1).await;
}

async fn unknown_topic(stage: Stage) {
    let mut option = rocketmq::conf::ProducerOption::default();
    option.set_topics(vec![&stage.topic]);
    let mut producer = Producer::new(option, stage.client()).unwrap();
    let refused = producer.start().await.expect_err("a producer for a topic that does not exist");
    assert!(format!("{refused:?}").contains("TOPIC_NOT_FOUND"), "{refused:?}");
    let mut option = rocketmq::conf::SimpleConsumerOption::default();
    option.set_consumer_group(&stage.group);
    option.set_topics(vec![&stage.topic]);
    let mut consumer = SimpleConsumer::new(option, stage.client()).unwrap();
    consumer.start().await.expect_err("a consumer of a topic that does not exist");
}

async fn at_once(stage: Stage) {
    stage.send(&stage.producer().await, "m", 1).await;
    assert_eq!(texts(&stage.simple().await.take(1).await), ["m0"]);
}

async fn ack(stage: Stage) {
    let sent = stage.send(&stage.producer().await, "m", 20).await;
    let consumer = stage.simple().await;
    assert_eq!(sorted(texts(&consumer.take(20).await)), sorted(sent));
    consumer.nothing_again().await;
}

async fn wakes(stage: Stage) {
    let producer = stage.producer().await;
    let consumer = Arc::new(stage.simple().await);
    consumer.nothing_more().await;
    for _ in 0..3 {
        let waiting = consumer.clone();
        let waiting = tokio::spawn(async move { waiting.poll(1, INVISIBLE).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!waiting.is_finished(), "a receive of nothing waits");
        stage.send(&producer, "now", 1).await;
        let sent = Instant::now();
        let got = waiting.await.unwrap();
        assert_eq!(texts(&got), ["now0"]);
        assert!(sent.elapsed() < Duration::from_millis(1500), "woken after {:?}", sent.elapsed());
        consumer.ack(&got[0]).await;
    }
}

async fn empty(stage: Stage) {
    let consumer = stage.simple().await;
    for _ in 0..2 {
        let started = Instant::now();
        consumer.nothing_more().await;
        let took = started.elapsed();
        let about_right = Duration::from_secs(3)..Duration::from_secs(12);
        assert!(about_right.contains(&took), "an empty receive of 8 s took {took:?}");
    }
}

async fn redelivery(stage: Stage) {
    stage.send(&stage.producer().await, "m", 4).await;
    let consumer = stage.simple().await;
    let started = Instant::now();
    let first = consumer.receive(4, INVISIBLE).await;
    consumer.ack(&first[0]).await;
    consumer.ack(&first[1]).await;
    for attempt in 2..=3 {
        let again = consumer.receive(2, INVISIBLE).await;
        let took = started.elapsed();
        assert_eq!(sorted(texts(&again)), sorted(texts(&first[2..])));
        assert!(again.iter().all(|message| message.delivery_attempt() == attempt), "{attempt}");
        let least = INVISIBLE * (attempt as u32 - 1) - Duration::from_millis(500);
        assert!(took > least, "attempt {attempt} came after {took:?}");
        if attempt == 3 {
            consumer.ack(&again[0]).await;
            consumer.ack(&again[1]).await;
        }
    }
}

async fn late_ack(stage: Stage) {
    stage.send(&stage.producer().await, "m", 1).await;
    let consumer = stage.simple().await;
    let first = consumer.receive(1, INVISIBLE).await;
    tokio::time::sleep(INVISIBLE + Duration::from_secs(2)).await;
    let refused = consumer.consumer.ack(&first[0]).await.expect_err("a late ack");
    assert!(format!("{refused:?}").contains("INVALID_RECEIPT_HANDLE"), "{refused:?}");
    assert_eq!(texts(&consumer.take(1).await), ["m0"]);
}

async fn fifo_simple(stage: Stage) {
    stage.send_in_group(&stage.producer().await, "a", 4).await;
    let consumer = stage.simple().await;
    let first = consumer.receive(1, Duration::from_secs(60)).await;
    assert_eq!(texts(&first), ["a0"]);
    assert_eq!(texts(&consumer.poll(8, INVISIBLE).await), [""; 0], "while the first is out");
    consumer.ack(&first[0]).await;
    assert_eq!(texts(&consumer.take(3).await), ["a1", "a2", "a3"]);
}

async fn tag_filter(stage: Stage) {
    let producer = stage.producer().await;
    for (i, tag) in ["red", "green", "blue"].iter().cycle().take(30).enumerate() {
        let message = stage.message(format!("m{i}")).set_tag(*tag).build().unwrap();
        producer.send(message).await.unwrap();
    }
    stage.send(&producer, "untagged", 1).await;
    let filter = FilterExpression::new(FilterType::Tag, "red || blue");
    let consumer = stage.simple_of(&stage.group, filter).await;
    let red_or_blue = |message: &MessageView| [Some("red"), Some("blue")].contains(&message.tag());
    assert!(consumer.take(20).await.iter().all(red_or_blue), "no green ones");
    consumer.nothing_more().await;
}

async fn sql_filter(stage: Stage) {
    let producer = stage.producer().await;
    for i in 0..10 {
        let size = HashMap::from([("size", i.to_string())]);
        let message = stage.message(format!("m{i}")).set_tag(format!("t{}", i % 2));
        producer.send(message.set_properties(size).build().unwrap()).await.unwrap();
    }
    let filter = FilterExpression::new(FilterType::Sql, "size > 4 AND TAGS = 't1'");
    let consumer = stage.simple_of(&stage.group, filter).await;
    assert_eq!(sorted(texts(&consumer.take(3).await)), ["m5", "m7", "m9"]);
    consumer.nothing_more().await;
}

async fn share(stage: Stage) {
    let sent = stage.send(&stage.producer().await, "m", 200).await;
    let mut consumers = Vec::new();
    for _ in 0..4 {
        consumers.push(stage.simple().await);
    }
    let shares: Vec<_> = consumers
        .into_iter()
        .map(|consumer| {
            tokio::spawn(async move {
                let mut mine = Vec::new();
                loop {
                    let some = consumer.poll(8, Duration::from_secs(60)).await;
                    if some.is_empty() {
                        return texts(&mine);
                    }
                    for message in &some {
                        consumer.ack(message).await;
                    }
                    mine.extend(some);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for share in shares {
        let mine = share.await.unwrap();
        assert!(mine.len() >= 10, "a share of {} among four of 200", mine.len());
        all.extend(mine);
    }
    assert_eq!(sorted(all), sorted(sent));
}

async fn two_groups(stage: Stage) {
    let sent = stage.send(&stage.producer().await, "m", 10).await;
    for group in [stage.group.clone(), format!("{}-2", stage.group)] {
        let filter = FilterExpression::new(FilterType::Tag, "*");
        let consumer = stage.simple_of(&group, filter).await;
        assert_eq!(sorted(texts(&consumer.take(10).await)), sent, "{group}");
    }
}

async fn many_clients(stage: Stage) {
    let mut consumers = Vec::new();
    for _ in 0..20 {
        consumers.push(stage.simple().await);
    }
    let waiting: Vec<_> = consumers
        .into_iter()
        .map(|consumer| {
            tokio::spawn(async move {
                let mut mine = Vec::new();
                loop {
                    let some = consumer.poll(8, Duration::from_secs(60)).await;
                    for message in &some {
                        consumer.ack(message).await;
                    }
                    if some.is_empty() {
                        return texts(&mine);
                    }
                    mine.extend(some);
                }
            })
        })
        .collect();
    let mut sent = Vec::new();
    for i in 0..10 {
        sent.extend(stage.send(&stage.producer().await, &format!("p{i}-"), 20).await);
    }
    let mut all = Vec::new();
    for mine in waiting {
        all.extend(mine.await.unwrap());
    }
    all.extend(texts(&stage.simple().await.poll(32, INVISIBLE).await));
    assert_eq!(sorted(all), sorted(sent));
}

async fn restart(stage: Stage) {
    let producer = stage.producer().await;
    for round in 0..2 {
        let sent = stage.send(&producer, &format!("round{round}-"), 20).await;
        let consumer = stage.simple().await;
        assert_eq!(sorted(texts(&consumer.take(20).await)), sorted(sent));
        consumer.consumer.shutdown().await.unwrap();
    }
    stage.simple().await.nothing_more().await;
}

async fn delay(stage: Stage) {
    let producer = stage.producer().await;
    let consumer = stage.simple().await;
    let due = now() + 6;
    for (body, due) in [("late", due), ("past", due - 60)] {
        let message = MessageBuilder::delay_message_builder(&stage.topic, body.into(), due);
        producer.send(message.build().unwrap()).await.unwrap();
    }
    assert_eq!(texts(&consumer.take(1).await), ["past"]);
    assert_eq!(texts(&consumer.take(1).await), ["late"]);
    // The stock server counts in whole seconds.
    assert!((-1..5).contains(&(now() - due)), "it came {} s after its time", now() - due);
}

fn unknown(_: &MessageView) -> TransactionResolution {
    TransactionResolution::UNKNOWN
}

fn in_transaction(stage: &Stage, body: &str) -> impl rocketmq::model::message::Message + use<> {
    MessageBuilder::transaction_message_builder(&stage.topic, body.into()).build().unwrap()
}

async fn transaction_commit(stage: Stage) {
    let producer = stage.transactional(unknown).await;
    let consumer = stage.simple().await;
    let message = in_transaction(&stage, "m0");
    let transaction = producer.send_transaction_message(message).await.unwrap();
    consumer.nothing_more().await;
    transaction.commit().await.unwrap();
    assert_eq!(texts(&consumer.take(1).await), ["m0"]);
}

async fn transaction_rollback(stage: Stage) {
    let producer = stage.transactional(unknown).await;
    let consumer = stage.simple().await;
    let never = producer.send_transaction_message(in_transaction(&stage, "never")).await.unwrap();
    never.rollback().await.unwrap();
    let message = in_transaction(&stage, "committed");
    producer.send_transaction_message(message).await.unwrap().commit().await.unwrap();
    assert_eq!(texts(&consumer.take(1).await), ["committed"]);
    consumer.nothing_more().await;
}

async fn transaction_check(stage: Stage) {
    let asked = Arc::new(Mutex::new(HashSet::new()));
    let seen = asked.clone();
    let producer = stage.transactional(move |message| {
        seen.lock().unwrap().insert(text(message));
        match text(message).as_str() {
            "yes" => TransactionResolution::COMMIT,
            _ => TransactionResolution::ROLLBACK,
        }
    });
    let producer = producer.await;
    for body in ["yes", "no"] {
        producer.send_transaction_message(in_transaction(&stage, body)).await.unwrap();
    }
    // The server asks about open transactions every half minute, those that are some seconds old.
    let started = Instant::now();
    while asked.lock().unwrap().len() < 2 {
        assert!(started.elapsed() < PATIENCE * 3 / 2, "asked about {:?}", asked.lock().unwrap());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let consumer = stage.simple().await;
    assert_eq!(texts(&consumer.take(1).await), ["yes"]);
    consumer.nothing_more().await;
}
