//! Requests that tests make again and again.

use anyhow::Result;
use protocol::body::SubscriptionGroupConfig;
use protocol::fields::Fields;
use protocol::frame::Command;
use protocol::header::Empty;
use protocol::header::offset::{QueryConsumerOffset, UpdateConsumerOffset};
use protocol::header::pull::PullMessage;
use protocol::header::send::{Send, SendMessageReply};
use protocol::header::topic::CreateTopic;
use protocol::json::{self, Dialect};
use protocol::request::{Request, RequestCode};

use crate::wire::{Wire, success};

/// Bits of a pull's `sysFlag`.
pub mod pull_flag {
    pub const COMMIT: i32 = 1;
    pub const SUSPEND: i32 = 2;
    pub const SUBSCRIPTION: i32 = 4;
}

/// The request that makes a topic.
pub fn topic(name: &str, queues: i32) -> CreateTopic {
    CreateTopic::plain(name, queues)
}

/// Makes a group.
pub fn make_group(wire: &mut Wire, name: &str) -> Result<()> {
    let config = SubscriptionGroupConfig { group_name: name.to_owned(), ..Default::default() };
    let body = json::write(&config, Dialect::Standard);
    wire.ask_plain(RequestCode::UpdateSubscriptionGroup, body)?;
    Ok(())
}

/// A send of one message, or of a batch.
pub fn send(code: RequestCode, send: &Send<'_>, body: Vec<u8>) -> Command<'static> {
    let mut fields = Fields::default();
    if code == RequestCode::SendMessage {
        protocol::fields::Header::write(send, &mut fields);
    } else {
        send.write_letters(&mut fields);
    }
    let mut request = Command::request(code.to_wire(), &Empty {});
    request.fields = fields;
    request.with_body(body)
}

/// A send with nothing special about it.
pub fn plain_send(topic: &str, queue_id: i32, body: &[u8]) -> Command<'static> {
    let header = Send {
        producer_group: "tests",
        topic,
        default_topic: "TBW102",
        default_topic_queue_nums: 4,
        queue_id,
        sys_flag: 0,
        born_timestamp: 0,
        flag: 0,
        properties: None,
        reconsume_times: Some(0),
        unit_mode: false,
        max_reconsume_times: None,
        batch: false,
        broker_name: None,
    };
    send(RequestCode::SendMessageV2, &header, body.to_vec())
}

/// Sends one message; where it went.
pub fn send_one(wire: &mut Wire, topic: &str, queue_id: i32) -> Result<SendMessageReply> {
    let code = RequestCode::SendMessageV2.to_wire();
    let reply = success(code, wire.call(plain_send(topic, queue_id, b"hello"))?)?;
    Ok(reply.fields.read()?)
}

/// A queue that a group consumes: group, topic, queue.
pub type Consumed = (String, String, i32);

/// A pull of all that a subscription to everything may have, answered at once.
pub fn pull((group, topic, queue_id): &Consumed, from: i64) -> PullMessage {
    PullMessage::everything(group, topic, *queue_id, from, 1000)
}

/// The commit of an offset.
pub fn update_offset((group, topic, queue_id): &Consumed, offset: i64) -> UpdateConsumerOffset {
    UpdateConsumerOffset {
        consumer_group: group.clone(),
        topic: topic.clone(),
        queue_id: *queue_id,
        commit_offset: offset,
    }
}

/// The question for a committed offset.
pub fn query_offset((group, topic, queue_id): &Consumed) -> QueryConsumerOffset {
    QueryConsumerOffset {
        consumer_group: group.clone(),
        topic: topic.clone(),
        queue_id: *queue_id,
        set_zero_if_not_found: None,
    }
}

/// A header as a request under its own code.
pub fn request<R: Request>(header: &R) -> Command<'static> {
    Command::request(R::CODE.to_wire(), header)
}
