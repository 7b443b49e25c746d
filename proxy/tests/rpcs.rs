//! What clients of the gRPC protocol rely on, with a broker in the same process and behind sockets alike.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::time::Duration;

use common::*;
use protocol::grpc::*;
use protocol::header::send::ConsumerSendMsgBack;

async fn stage(way: Way) -> Stage {
    Stage::new(way).await
}

// The protocol's cases run one after another in each of two ways; each has servers of its own.
both_ways! {
    a_message_is_received_once_and_gone_when_acknowledged
    every_message_of_a_request_has_an_entry_of_its_own
    messages_of_a_group_stay_in_order_however_they_are_sent
    whoever_does_not_push_takes_in_order_from_all_queues
    a_receive_ends_within_the_time_of_its_client
    a_receive_that_waits_is_answered_when_a_message_arrives
    a_changed_time_counts_and_the_old_handle_is_void
    what_pulling_members_gave_back_is_settled_where_it_lies
    what_failed_too_often_is_a_dead_letter
    a_client_that_goes_away_gives_back_what_it_did_not_read
    tags_are_compared_letter_by_letter
    who_asks_for_too_many_messages_gets_as_many_as_there_may_be
    in_order_only_who_pushes_keeps_to_one_queue
    a_queue_is_read_from_an_offset_and_a_group_keeps_its_place
    what_may_not_be_asked_is_refused_with_its_code
    settings_come_back_complete
    operators_see_what_is_there
    a_proxy_ends_when_it_is_told_to_and_says_so
}

async fn a_message_is_received_once_and_gone_when_acknowledged(stage: Stage) {
    stage.topic("t", "NORMAL", 4).await;
    stage.begun("t", "g").await;
    let mut sent = message("t", "hello");
    sent.user_properties.insert("colour".to_owned(), "red".to_owned());
    let answer = stage.send(vec![sent]).await;
    assert_eq!(codes([answer.status]), [OK]);
    assert_eq!(answer.entries[0].message_id, "01hello");

    let got = stage.gather("t", "g", 1).await;
    let system = got[0].system_properties.as_ref().unwrap();
    assert_eq!((body(&got[0]).as_str(), system.message_id.as_str()), ("hello", "01hello"));
    assert_eq!(got[0].user_properties.get("colour").map(String::as_str), Some("red"));
    assert_eq!(got[0].topic, named("t"));
    assert_eq!(system.delivery_attempt, Some(1));
    let (status, _) = stage.receive(receive("t", "g", 0), None).await;
    assert_eq!(status.code(), Code::MessageNotFound);

    let answer: AckMessageResponse = stage.ask("AckMessage", ack("t", "g", &got)).await;
    assert_eq!(codes([answer.status]), [OK]);
    // An answer may be lost on its way, and the same be asked again.
    let again: AckMessageResponse = stage.ask("AckMessage", ack("t", "g", &got)).await;
    assert_eq!(codes([again.status]), [OK]);
    let (status, _) = stage.receive(receive("t", "g", 0), None).await;
    assert_eq!(status.code(), Code::MessageNotFound);
    stage.end().await;
}

async fn every_message_of_a_request_has_an_entry_of_its_own(stage: Stage) {
    stage.topic("t", "NORMAL", 1).await;
    stage.begun("t", "g").await;
    let answer = stage.send((0..40).map(|n| message("t", &format!("m{n}"))).collect()).await;
    let ids: Vec<_> = answer.entries.iter().map(|entry| entry.message_id.clone()).collect();
    assert_eq!(ids, (0..40).map(|n| format!("01m{n}")).collect::<Vec<_>>());
    let offsets: Vec<_> = answer.entries.iter().map(|entry| entry.offset).collect();
    assert_eq!(offsets, (0..40).collect::<Vec<_>>());

    let got = stage.gather("t", "g", 40).await;
    assert_eq!(got.len(), 40);
    let mut wrong = ack("t", "g", &got);
    wrong.entries[3].receipt_handle = "nonsense".to_owned();
    let answer: AckMessageResponse = stage.ask("AckMessage", wrong).await;
    assert_eq!(codes([answer.status]), [Code::MultipleResults as i32]);
    let codes = codes(answer.entries.into_iter().map(|entry| entry.status));
    assert_eq!(codes[3], Code::InvalidReceiptHandle as i32);
    assert_eq!(codes.iter().filter(|code| **code == OK).count(), 39);
    stage.end().await;
}

async fn messages_of_a_group_stay_in_order_however_they_are_sent(stage: Stage) {
    stage.topic("t", "FIFO", 4).await;
    stage.group("g", true, 3).await;
    stage.begun("t", "g").await;
    let of = |group: &str, n: i32| in_group(message("t", &format!("{group}{n}")), group);
    let many = ["a", "b", "c"].iter().flat_map(|group| (0..5).map(|n| of(group, n))).collect();
    assert_eq!(codes([stage.send(many).await.status]), [OK]);
    for group in ["a", "b", "c"] {
        for n in 5..8 {
            assert_eq!(codes([stage.send(vec![of(group, n)]).await.status]), [OK]);
        }
    }
    let mut seen: std::collections::BTreeMap<String, Vec<String>> = Default::default();
    while seen.values().map(Vec::len).sum::<usize>() < 24 {
        let (status, got) = stage.receive(receive("t", "g", 5_000), None).await;
        assert_eq!(status.code(), Code::Ok, "{}", status.message);
        for message in &got {
            let group = message.system_properties.as_ref().unwrap().message_group.clone();
            seen.entry(group.unwrap()).or_default().push(body(message));
        }
        let answer: AckMessageResponse = stage.ask("AckMessage", ack("t", "g", &got)).await;
        assert_eq!(codes([answer.status]), [OK]);
    }
    for (group, bodies) in seen {
        assert_eq!(bodies, (0..8).map(|n| format!("{group}{n}")).collect::<Vec<_>>());
    }
    stage.end().await;
}

async fn whoever_does_not_push_takes_in_order_from_all_queues(stage: Stage) {
    stage.topic("t", "FIFO", 4).await;
    stage.group("g", true, 16).await;
    stage.begun("t", "g").await;
    stage.send(vec![in_group(message("t", "x"), "k")]).await;
    let consumer = |kind: ClientType| Settings {
        client_type: Some(kind.into()),
        pub_sub: Some(settings::PubSub::Subscription(Subscription {
            group: named("g"),
            ..Subscription::default()
        })),
        ..Settings::default()
    };
    // Clients of either kind name the queue that their turn has come to.
    let of_queue = |id: i32| {
        let mut request = receive("t", "g", 200);
        request.message_queue.as_mut().unwrap().id = id;
        request
    };
    for (kind, found_in) in [(ClientType::PushConsumer, 1), (ClientType::SimpleConsumer, 4)] {
        let told = stage.describe(consumer(kind)).await;
        let Some(settings::PubSub::Subscription(told)) = told.pub_sub else { panic!("{told:?}") };
        assert!(told.fifo());
        let mut found = 0;
        for id in 0..4 {
            let (_, got) = stage.receive(of_queue(id), None).await;
            for message in &got {
                assert_eq!(codes([stage.change(&handle(message), 0).await.status]), [OK]);
                found += 1;
            }
        }
        assert_eq!(found, found_in, "{kind:?}");
    }
    stage.end().await;
}

async fn a_receive_ends_within_the_time_of_its_client(stage: Stage) {
    stage.topic("t", "NORMAL", 1).await;
    stage.begun("t", "g").await;
    for (polling_ms, timeout) in [(20_000, 1_000), (1_000, 1_000), (300, 5_000), (20_000, 150)] {
        let timeout = Duration::from_millis(timeout);
        let answer = stage.receive(receive("t", "g", polling_ms), Some(timeout));
        // The client of this test would give up by itself with an error.
        let (status, _) = answer.await;
        assert_eq!(status.code(), Code::MessageNotFound, "{}", status.message);
    }
    // Older clients do not say how long to wait.
    let silent = ReceiveMessageRequest { long_polling_timeout: None, ..receive("t", "g", 0) };
    let (status, _) = stage.receive(silent, Some(Duration::from_secs(1))).await;
    assert_eq!(status.code(), Code::MessageNotFound, "{}", status.message);
    stage.end().await;
}

async fn a_receive_that_waits_is_answered_when_a_message_arrives(stage: Stage) {
    stage.topic("t", "NORMAL", 4).await;
    stage.begun("t", "g").await;
    let waiting = stage.receive(receive("t", "g", 20_000), None);
    let sending = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        stage.send(vec![message("t", "late")]).await
    };
    let ((status, got), _) =
        tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(waiting, sending) })
            .await
            .expect("long before the poll would end");
    assert_eq!((status.code(), got.len()), (Code::Ok, 1));
    stage.end().await;
}

async fn a_changed_time_counts_and_the_old_handle_is_void(stage: Stage) {
    stage.topic("t", "NORMAL", 1).await;
    stage.begun("t", "g").await;
    stage.send(vec![message("t", "again")]).await;
    let got = stage.gather("t", "g", 1).await;
    let changed = stage.change(&handle(&got[0]), 1).await;
    assert_eq!(codes([changed.status]), [OK]);
    assert_ne!(changed.receipt_handle, handle(&got[0]));
    let old = stage.change(&handle(&got[0]), 1).await;
    assert_eq!(codes([old.status]), [Code::InvalidReceiptHandle as i32]);
    let again = stage.gather("t", "g", 1).await;
    assert_eq!(body(&again[0]), "again");
    assert_eq!(again[0].system_properties.as_ref().unwrap().delivery_attempt, Some(2));
    for (seconds, words) in [(-1, "too small"), (13 * 3600, "too large")] {
        let refused = stage.change(&handle(&again[0]), seconds).await.status.unwrap();
        assert_eq!(refused.code(), Code::IllegalInvisibleTime);
        assert!(refused.message.contains(words), "{}", refused.message);
    }
    let given_back = stage.change(&handle(&again[0]), 0).await;
    assert_eq!(codes([given_back.status]), [OK]);
    let (status, third) = stage.receive(receive("t", "g", 1_000), None).await;
    assert_eq!((status.code(), third.len()), (Code::Ok, 1), "it is there at once");
    let late: AckMessageResponse = stage.ask("AckMessage", ack("t", "g", &again)).await;
    let late = late.status.unwrap();
    assert_eq!(late.code(), Code::InvalidReceiptHandle);
    assert!(late.message.starts_with("INVALID_RECEIPT_HANDLE: "), "{}", late.message);
    let settled: AckMessageResponse = stage.ask("AckMessage", ack("t", "g", &third)).await;
    assert_eq!(codes([settled.status]), [OK]);
    stage.end().await;
}

async fn what_pulling_members_gave_back_is_settled_where_it_lies(stage: Stage) {
    stage.topic("t", "NORMAL", 1).await;
    stage.group("g", false, 16).await;
    stage.begun("t", "g").await;
    stage.send(vec![message("t", "x")]).await;
    let first = stage.gather("t", "g", 1).await;
    // As a member does that pulls: a copy waits in `%RETRY%g`, at the place that the message has in `t`.
    let position = handle(&first[0]).split(' ').next_back().unwrap().parse().unwrap();
    let back = ConsumerSendMsgBack {
        offset: position,
        group: "g".to_owned(),
        delay_level: 1,
        origin_msg_id: None,
        origin_topic: Some("t".to_owned()),
        unit_mode: false,
        max_reconsume_times: None,
    };
    let address = stage.work.address.to_string();
    stage.pool.ask(&address, &back, Vec::new(), WAIT).await.unwrap();
    let copy = stage.gather("t", "g", 1).await;
    assert_eq!(copy[0].system_properties.as_ref().unwrap().delivery_attempt, Some(2));
    let nacked = stage.change(&handle(&copy[0]), 1).await;
    assert_eq!(codes([nacked.status]), [OK]);
    let copy = stage.gather("t", "g", 1).await;
    let answer: AckMessageResponse = stage.ask("AckMessage", ack("t", "g", &copy)).await;
    assert_eq!(codes([answer.status]), [OK]);
    // The message itself is still in the hands of its first consumer, and the copy is gone.
    let nacked = stage.change(&handle(&first[0]), 1).await;
    assert_eq!(codes([nacked.status]), [OK]);
    let again = stage.gather("t", "g", 1).await;
    assert!(handle(&again[0]).ends_with(&format!(" 0 {position}")), "{}", handle(&again[0]));
    let (status, _) = stage.receive(receive("t", "g", 2_000), None).await;
    assert_eq!(status.code(), Code::MessageNotFound);
    stage.end().await;
}

async fn what_failed_too_often_is_a_dead_letter(stage: Stage) {
    stage.topic("t", "NORMAL", 1).await;
    stage.group("g", false, 1).await;
    stage.begun("t", "g").await;
    stage.send(vec![message("t", "bad"), message("t", "worse")]).await;
    for attempt in [1, 2] {
        for message in stage.gather("t", "g", 2).await {
            let system = message.system_properties.as_ref().unwrap();
            assert_eq!(system.delivery_attempt, Some(attempt));
            if attempt == 2 && body(&message) == "worse" {
                let request = ForwardMessageToDeadLetterQueueRequest {
                    group: named("g"),
                    topic: named("t"),
                    receipt_handle: handle(&message),
                    message_id: system.message_id.clone(),
                    delivery_attempt: 2,
                    max_delivery_attempts: 2,
                    lite_topic: None,
                };
                let answer: ForwardMessageToDeadLetterQueueResponse =
                    stage.ask("ForwardMessageToDeadLetterQueue", request).await;
                assert_eq!(codes([answer.status]), [OK]);
            } else {
                let status = stage.change(&handle(&message), 1).await.status.unwrap();
                assert_eq!(status.code(), Code::Ok, "attempt {attempt}: {}", status.message);
            }
        }
    }
    let (status, _) = stage.receive(receive("t", "g", 3_000), None).await;
    assert_eq!(status.code(), Code::MessageNotFound, "two deliveries are all there are");
    let dead = || {
        let broker = &stage.work.broker;
        let queue = broker.store.find_queue("%DLQ%g", 0);
        queue.map_or(0, |queue| broker.store.max_offset(queue))
    };
    let both = async {
        while dead() < 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(WAIT, both).await.expect("both are among the dead letters");
    stage.end().await;
}

async fn a_client_that_goes_away_gives_back_what_it_did_not_read(stage: Stage) {
    stage.topic("t", "NORMAL", 1).await;
    stage.begun("t", "g").await;
    // Nobody waits for this answer any more when the message comes.
    let request = stage.request(receive("t", "g", 20_000), None);
    let gone = stage.stream::<_, ReceiveMessageResponse>("ReceiveMessage", request);
    assert!(tokio::time::timeout(Duration::from_millis(300), gone).await.is_err());
    stage.send(vec![message("t", "kept")]).await;
    // Hidden for 30 s if it were lost; given back it comes within one or two.
    let got = tokio::time::timeout(Duration::from_secs(15), stage.gather("t", "g", 1)).await;
    assert_eq!(body(&got.expect("it comes back soon")[0]), "kept");
    stage.end().await;
}

async fn tags_are_compared_letter_by_letter(stage: Stage) {
    stage.topic("t", "NORMAL", 1).await;
    stage.begun("t", "g").await;
    let tagged = |tag: &str| {
        let mut message = message("t", tag);
        message.system_properties.as_mut().unwrap().tag = Some(tag.to_owned());
        message
    };
    // `Aa` and `BB` have the same hash.
    stage.send(vec![tagged("Aa"), tagged("BB"), tagged("c")]).await;
    let expression =
        FilterExpression { r#type: FilterType::Tag.into(), expression: "BB||x".into() };
    let request =
        ReceiveMessageRequest { filter_expression: Some(expression), ..receive("t", "g", 5_000) };
    let (status, got) = stage.receive(request, None).await;
    assert_eq!((status.code(), got.len()), (Code::Ok, 1), "{}", status.message);
    assert_eq!(body(&got[0]), "BB");
    stage.end().await;
}

async fn who_asks_for_too_many_messages_gets_as_many_as_there_may_be(stage: Stage) {
    stage.topic("t", "NORMAL", 1).await;
    stage.begun("t", "g").await;
    stage.send((0..40).map(|n| message("t", &format!("m{n}"))).collect()).await;
    let request = ReceiveMessageRequest { batch_size: 100, ..receive("t", "g", 5_000) };
    let (status, got) = stage.receive(request, None).await;
    assert_eq!((status.code(), got.len()), (Code::Ok, 32), "{}", status.message);
    stage.end().await;
}

async fn in_order_only_who_pushes_keeps_to_one_queue(stage: Stage) {
    for (group, kind, queues) in
        [("simple", ClientType::SimpleConsumer, 4), ("push", ClientType::PushConsumer, 1)]
    {
        let topic = group;
        stage.topic(topic, "FIFO", 4).await;
        stage.group(group, true, 3).await;
        stage.begun(topic, group).await;
        let caller = stage.caller(group).await;
        let _stream = caller.telemetry(consumer(group, kind)).await;
        let many = (0..40).map(|n| in_group(message(topic, &format!("m{n}")), &n.to_string()));
        assert_eq!(codes([stage.send(many.collect()).await.status]), [OK]);
        let broker = Some(Broker { name: "b-a".to_owned(), ..Broker::default() });
        let queue = MessageQueue { topic: named(topic), id: 2, broker, ..MessageQueue::default() };
        let mut request = receive(topic, group, 5_000);
        request.message_queue = Some(queue);
        let (mut seen, mut got) = (std::collections::BTreeSet::new(), 0);
        while let (status, messages) = caller.receive(request.clone(), None).await
            && status.code() == Code::Ok
        {
            got += messages.len();
            let id = |message: &Message| message.system_properties.as_ref().unwrap().queue_id;
            seen.extend(messages.iter().map(id));
            let _: AckMessageResponse =
                caller.ask("AckMessage", ack(topic, group, &messages)).await;
            request.long_polling_timeout = Some(prost_types::Duration::default());
        }
        assert_eq!(seen.len(), queues, "{got} messages of the queues {seen:?}");
    }
    stage.end().await;
}

async fn a_queue_is_read_from_an_offset_and_a_group_keeps_its_place(stage: Stage) {
    stage.topic("t", "NORMAL", 1).await;
    stage.group("g", false, 3).await;
    let before = stage.send((0..5).map(|n| message("t", &format!("m{n}"))).collect()).await;
    assert_eq!(codes([before.status]), [OK]);
    let broker = Some(Broker { name: "b-a".to_owned(), ..Broker::default() });
    let queue = MessageQueue { topic: named("t"), id: 0, broker, ..MessageQueue::default() };
    let message_queue = Some(queue);
    let get = GetOffsetRequest { group: named("g"), message_queue: message_queue.clone() };
    let update =
        UpdateOffsetRequest { group: named("g"), message_queue: message_queue.clone(), offset: 3 };
    let answer: UpdateOffsetResponse = stage.ask("UpdateOffset", update).await;
    assert_eq!(codes([answer.status]), [OK]);
    let answer: GetOffsetResponse = stage.ask("GetOffset", get).await;
    assert_eq!((codes([answer.status]), answer.offset), (vec![OK], 3));
    for (policy, offset) in [(QueryOffsetPolicy::Beginning, 0), (QueryOffsetPolicy::End, 5)] {
        let request = QueryOffsetRequest {
            message_queue: message_queue.clone(),
            query_offset_policy: policy.into(),
            timestamp: None,
        };
        let answer: QueryOffsetResponse = stage.ask("QueryOffset", request).await;
        assert_eq!((codes([answer.status]), answer.offset), (vec![OK], offset));
    }
    let request = PullMessageRequest {
        group: named("g"),
        message_queue,
        offset: 3,
        batch_size: 32,
        filter_expression: None,
        long_polling_timeout: None,
    };
    let request = stage.request(request, None);
    let mut answers = stage.stream::<_, PullMessageResponse>("PullMessage", request).await;
    let mut said = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        said.push(match answer.content.unwrap() {
            pull_message_response::Content::Status(status) => status.code.to_string(),
            pull_message_response::Content::Message(message) => body(&message),
            pull_message_response::Content::NextOffset(offset) => format!("next {offset}"),
        });
    }
    assert_eq!(said, ["20000", "m3", "m4", "next 5"]);
    stage.end().await;
}

#[expect(clippy::too_many_lines, reason = "a table of cases")]
async fn what_may_not_be_asked_is_refused_with_its_code(stage: Stage) {
    stage.topic("t", "NORMAL", 1).await;
    let with = |change: &dyn Fn(&mut Message)| {
        let mut message = message("t", "x");
        change(&mut message);
        vec![message]
    };
    let system = |message: &mut Message| message.system_properties.clone().unwrap();
    let cases: Vec<(Vec<Message>, Code)> = vec![
        (Vec::new(), Code::MessageCorrupted),
        (vec![message("t", "x"), message("u", "x")], Code::MessageCorrupted),
        (vec![message("nowhere", "x")], Code::TopicNotFound),
        (vec![message("TBW102", "x")], Code::IllegalTopic),
        (vec![message("a b", "x")], Code::IllegalTopic),
        (vec![message("t", "")], Code::MessageBodyEmpty),
        (with(&|m| m.body = vec![0; (4 << 20) + 1].into()), Code::MessageBodyTooLarge),
        (
            with(&|m| {
                m.system_properties =
                    Some(SystemProperties { message_id: " ".to_owned(), ..system(m) });
            }),
            Code::IllegalMessageId,
        ),
        (
            with(&|m| {
                let tag = Some("a|b".to_owned());
                m.system_properties = Some(SystemProperties { tag, ..system(m) });
            }),
            Code::IllegalMessageTag,
        ),
        (
            with(&|m| {
                let keys = vec![" ".to_owned()];
                m.system_properties = Some(SystemProperties { keys, ..system(m) });
            }),
            Code::IllegalMessageKey,
        ),
        (vec![in_group(message("t", "x"), &"g".repeat(64))], Code::IllegalMessageGroup),
        (vec![in_group(message("t", "x"), "g")], Code::MessagePropertyConflictWithType),
        (
            with(&|m| {
                m.user_properties.insert("TAGS".to_owned(), "x".to_owned());
            }),
            Code::IllegalMessagePropertyKey,
        ),
        (
            with(&|m| {
                m.user_properties.insert("k".to_owned(), "x".repeat(16_384));
            }),
            Code::MessagePropertiesTooLarge,
        ),
        (
            with(&|m| {
                let far = prost_types::Timestamp { seconds: i64::MAX / 2000, nanos: 0 };
                let delivery_timestamp = Some(far);
                m.system_properties = Some(SystemProperties { delivery_timestamp, ..system(m) });
            }),
            Code::IllegalDeliveryTime,
        ),
    ];
    for (messages, code) in cases {
        let answer = stage.send(messages).await;
        let status = answer.status.unwrap();
        assert_eq!(status.code(), code, "{}", status.message);
    }
    let short = Some(prost_types::Duration { seconds: 9, nanos: 0 });
    let bad_sql = FilterExpression { r#type: FilterType::Sql.into(), expression: " ".into() };
    for (request, code) in [
        (ReceiveMessageRequest { batch_size: 0, ..receive("t", "g", 0) }, Code::BadRequest),
        (
            ReceiveMessageRequest { invisible_duration: short, ..receive("t", "g", 0) },
            Code::IllegalInvisibleTime,
        ),
        (
            ReceiveMessageRequest { filter_expression: Some(bad_sql), ..receive("t", "g", 0) },
            Code::IllegalFilterExpression,
        ),
        (receive("t", "CID_RMQ_SYS_TRANS", 0), Code::IllegalConsumerGroup),
        (receive("nowhere", "g", 0), Code::TopicNotFound),
    ] {
        let (status, _) = stage.receive(request, None).await;
        assert_eq!(status.code(), code, "{}", status.message);
    }
    let nameless = tonic::Request::new(HeartbeatRequest::default());
    let answer: HeartbeatResponse = stage.try_ask("Heartbeat", nameless).await.unwrap();
    assert_eq!(codes([answer.status]), [Code::ClientIdRequired as i32]);
    let lite = stage.request(SyncLiteSubscriptionRequest::default(), None);
    let lite = stage.try_ask::<_, SyncLiteSubscriptionResponse>("SyncLiteSubscription", lite).await;
    assert_eq!(lite.unwrap_err().code(), tonic::Code::Unimplemented);
    stage.end().await;
}

async fn settings_come_back_complete(stage: Stage) {
    stage.topic("t", "NORMAL", 2).await;
    let dialled = Endpoints {
        scheme: AddressScheme::DomainName.into(),
        addresses: vec![Address { host: "mq.example".to_owned(), port: 8081 }],
    };
    let request = QueryRouteRequest { topic: named("t"), endpoints: Some(dialled.clone()) };
    let route: QueryRouteResponse = stage.ask("QueryRoute", request).await;
    assert_eq!(codes([route.status]), [OK]);
    assert_eq!(route.message_queues.len(), 2);
    for (id, queue) in route.message_queues.iter().enumerate() {
        assert_eq!(queue.id, id as i32);
        assert_eq!(queue.permission(), Permission::ReadWrite);
        assert_eq!(queue.accept_message_types, [MessageType::Normal as i32]);
        let broker = queue.broker.as_ref().unwrap();
        assert_eq!((broker.name.as_str(), broker.id), ("b-a", 0));
        assert_eq!(broker.endpoints.as_ref(), Some(&dialled));
    }
    let request = QueryAssignmentRequest {
        topic: named("t"),
        group: named("g"),
        endpoints: Some(dialled.clone()),
    };
    let shared: QueryAssignmentResponse = stage.ask("QueryAssignment", request.clone()).await;
    let ids = |answer: &QueryAssignmentResponse| -> Vec<i32> {
        answer.assignments.iter().map(|it| it.message_queue.as_ref().unwrap().id).collect()
    };
    assert_eq!(ids(&shared), [-1]);
    stage.group("ordered", true, 3).await;
    let request = QueryAssignmentRequest { group: named("ordered"), ..request };
    let ordered: QueryAssignmentResponse = stage.ask("QueryAssignment", request).await;
    assert_eq!(ids(&ordered), [0, 1]);
    stage.end().await;
}

async fn operators_see_what_is_there(stage: Stage) {
    stage.topic("t", "FIFO", 1).await;
    let request = DescribeTopicStatusRequest { topic: named("t"), ..Default::default() };
    let answer: DescribeTopicStatusResponse = stage.ask("Admin/DescribeTopicStatus", request).await;
    assert_eq!(answer.topic_message_type(), MessageType::Fifo);
    let request = GetTopicRouteRequest { topic: named("t"), ..Default::default() };
    let answer: GetTopicRouteResponse = stage.ask("Admin/GetTopicRoute", request).await;
    assert!(answer.topic_route_data.contains("\"brokerName\":\"b-a\""), "{answer:?}");
    stage.begun("t", "g").await;
    stage.send(vec![in_group(message("t", "x"), "k")]).await;
    let request = DescribeGroupAccumulationRequest {
        group: named("g"),
        topics: vec![named("t").unwrap()],
        ..Default::default()
    };
    let answer: DescribeGroupAccumulationResponse =
        stage.ask("Admin/DescribeGroupAccumulation", request).await;
    assert_eq!(codes([answer.status]), [OK]);
    assert_eq!(answer.accumulation.unwrap().accumulation, 1);
    let request = ListMessageRequest {
        topic: named("t"),
        max_message_nums: 5,
        search_key: Some(list_message_request::SearchKey::MessageId("01x".to_owned())),
        ..Default::default()
    };
    let answer: ListMessageResponse = stage.ask("Admin/QueryMessage", request).await;
    assert_eq!(answer.messages.iter().map(body).collect::<Vec<_>>(), ["x"]);
    let request = GetProxyRuntimeStatsRequest {};
    let answer: GetProxyRuntimeStatsResponse =
        stage.ask("Admin/GetProxyRuntimeStats", request).await;
    assert_eq!(answer.connections, 1);

    let unserved = async |rpc: &str| {
        let request = stage.request(DeleteSubscriptionRequest::default(), None);
        let path = format!("Admin/{rpc}");
        stage.try_ask::<_, DeleteSubscriptionResponse>(&path, request).await.unwrap_err().code()
    };
    for rpc in
        ["DeleteSubscription", "AdminSendMessage", "GetConsumerRunningInfo", "ChangeLogLevel"]
    {
        assert_eq!(unserved(rpc).await, tonic::Code::Unimplemented, "{rpc}");
    }
    stage.end().await;
}

async fn a_proxy_ends_when_it_is_told_to_and_says_so(stage: Stage) {
    stage.topic("t", "NORMAL", 1).await;
    stage.begun("t", "g").await;
    let mut stream = stage.telemetry(consumer("g", ClientType::PushConsumer)).await;
    let alone = tokio::time::timeout(Duration::from_secs(5), stage.end_proxy()).await;
    let last = stream.answers.message().await.unwrap().unwrap().command.unwrap();
    assert!(matches!(last, telemetry_command::Command::ReconnectEndpointsCommand(_)), "{last:?}");
    assert!(stream.answers.message().await.unwrap().is_none());
    alone.expect("an open stream is no reason to stay").end().await;
}
