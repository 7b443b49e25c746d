//! Frames of C++ clients, written after their description: numbers in `extFields`, enums as
//! ordinals, and fields for another vendor's access control whether or not there is any.

use std::collections::BTreeMap;
use std::fs;

use protocol::body::{ConsumeFromWhere, ConsumeType, HeartbeatData, MessageModel};
use protocol::header::offset::UpdateConsumerOffset;
use protocol::header::pull::PullMessage;
use protocol::header::send::Send;
use protocol::json;
use protocol::language::Language;

use crate::common::{Golden, folder, frames, names};
use crate::{decode, encode, text};

fn cpp() -> BTreeMap<String, Golden> {
    let frames = frames(&folder().join("cpp"));
    frames.into_iter().map(|golden| (golden.name.clone(), golden)).collect()
}

#[test]
fn every_frame_says_what_its_text_says_also_once_numbers_are_text() {
    let folder = folder().join("cpp");
    assert_eq!(names(&folder, "hex"), names(&folder, "txt"));
    for (name, golden) in cpp() {
        let said = fs::read_to_string(folder.join(format!("{name}.txt"))).unwrap();
        let mut bytes = golden.bytes.clone();
        let command = decode(&mut bytes);
        assert_eq!(text::of(&command), said, "{name}");
        assert_eq!((command.language, command.remark.as_deref()), (Language::Cpp, Some("")));
        assert_eq!(command.fields.get("AccessKey"), Some(""), "{name}");
        let mut again = encode(&command);
        assert_ne!(again, golden.bytes, "{name}");
        assert_eq!(decode(&mut again), command, "{name}");
    }
}

#[test]
fn numbers_and_booleans_are_read_into_headers() {
    let mut frames = cpp();
    let mut frame = |name: &str| frames.remove(name).unwrap().bytes;

    let mut bytes = frame("send_message_v2.request");
    let command = decode(&mut bytes);
    let send: Send<'_> = command.fields.read().unwrap();
    assert_eq!(
        (send.producer_group, send.topic, send.default_topic),
        ("Writers", "Letters", "TBW102")
    );
    assert_eq!((send.default_topic_queue_nums, send.queue_id), (4, 2));
    assert_eq!(
        (send.born_timestamp, send.properties),
        (1_795_273_066_863, Some("TAGS\u{1}TagA\u{2}"))
    );
    assert_eq!((send.unit_mode, send.batch, send.max_reconsume_times), (false, false, Some(0)));
    assert_eq!(&*command.body, b"hello");

    let mut bytes = frame("pull_message.request");
    let pull: PullMessage = decode(&mut bytes).fields.read().unwrap();
    assert_eq!((pull.queue_id, pull.queue_offset, pull.max_msg_nums), (2, 12, 32));
    assert_eq!((pull.sub_version, pull.subscription.as_deref()), (1_795_273_074_963, Some("*")));

    let mut bytes = frame("update_consumer_offset.request");
    let command = decode(&mut bytes);
    assert!(command.is_oneway());
    let update: UpdateConsumerOffset = command.fields.read().unwrap();
    assert_eq!((update.queue_id, update.commit_offset), (2, 12));
}

#[test]
fn enums_of_a_heartbeat_are_read_by_ordinal() {
    let mut bytes = cpp().remove("heart_beat.request").unwrap().bytes;
    let heartbeat: HeartbeatData = json::read(&decode(&mut bytes).body).unwrap();
    let consumer = &heartbeat.consumer_data_set[0];
    assert_eq!(consumer.consume_type, ConsumeType::Passively);
    assert_eq!(consumer.message_model, MessageModel::Clustering);
    assert_eq!(consumer.consume_from_where, ConsumeFromWhere::LastOffset);
    assert_eq!(consumer.subscription_data_set[0].expression_type, "TAG");
    assert_eq!(heartbeat.producer_data_set[0].group_name, "Writers");
}
