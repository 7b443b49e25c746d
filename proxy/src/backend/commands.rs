//! Sends, pops and pulls as commands, and what their answers mean.

use bytes::Bytes;
use protocol::body::{BatchAckEntry, BatchAckMessageRequestBody};
use protocol::fields::{Fields, Header};
use protocol::frame::{Command, Encoding};
use protocol::header::pop::{AckMessage, PopMessageReply};
use protocol::header::pull::PullMessageReply;
use protocol::header::send::{Send, SendMessageReply};
use protocol::id;
use protocol::json::{self, Dialect};
use protocol::message::BatchEntry;
use protocol::reply::ReplyCode;
use protocol::request::RequestCode;
use remoting::pool::successful;

use super::{Entry, Failed, Outgoing, Pop, Popped, Pulled, Stored, refused};
use crate::handle::Handle;

/// The command that stores these messages.
pub(super) fn sending(outgoing: &Outgoing<'_>) -> Result<Command<'static>, Failed> {
    match outgoing.messages {
        [message] => Ok(single(outgoing, message)),
        _ => batch(outgoing),
    }
}

/// A send of one message.
fn single(outgoing: &Outgoing<'_>, message: &Entry) -> Command<'static> {
    // What we wrote are names and values of valid UTF-8.
    let properties = std::str::from_utf8(&message.properties).unwrap_or_default();
    let header = header(outgoing, properties, message.reconsume_times, false);
    command(RequestCode::SendMessageV2, &header).with_body(message.body.to_vec())
}

/// A send of many.
fn batch(outgoing: &Outgoing<'_>) -> Result<Command<'static>, Failed> {
    let bytes = outgoing.messages.iter().map(|m| m.body.len() + m.properties.len() + 22).sum();
    let mut body = Vec::with_capacity(bytes);
    for message in outgoing.messages {
        let entry = BatchEntry { flag: 0, body: &message.body, properties: &message.properties };
        entry
            .encode_into(&mut body)
            .map_err(|error| refused(ReplyCode::MessageIllegal, error.to_string()))?;
    }
    let header = header(outgoing, "WAIT\u{1}true\u{2}", 0, true);
    Ok(command(RequestCode::SendBatchMessage, &header).with_body(body))
}

fn header<'h>(
    outgoing: &Outgoing<'h>,
    properties: &'h str,
    reconsume_times: i32,
    batch: bool,
) -> Send<'h> {
    Send {
        // The group of a gRPC producer is its topic: that is whom brokers ask about transactions.
        producer_group: outgoing.topic,
        topic: outgoing.topic,
        default_topic: "",
        default_topic_queue_nums: 0,
        queue_id: outgoing.queue_id,
        sys_flag: outgoing.sys_flag,
        born_timestamp: outgoing.born_ms,
        flag: 0,
        properties: Some(properties),
        reconsume_times: Some(reconsume_times),
        unit_mode: false,
        max_reconsume_times: None,
        batch,
        broker_name: None,
    }
}

fn command(code: RequestCode, header: &Send<'_>) -> Command<'static> {
    let mut fields = Fields::default();
    header.write_letters(&mut fields);
    let mut command = Command::request(code.to_wire(), &protocol::header::Empty {});
    command.fields = fields;
    // A tenth of the work of JSON, and every broker reads it.
    command.encoding = Encoding::Binary;
    command
}

/// What a broker answers to a send of `count` messages.
pub(super) fn stored(reply: &Command<'static>, count: usize) -> Result<Vec<Stored>, Failed> {
    let code = reply.code;
    let kept = [
        ReplyCode::Success,
        ReplyCode::FlushDiskTimeout,
        ReplyCode::SlaveNotAvailable,
        ReplyCode::FlushSlaveTimeout,
    ];
    if !kept.iter().any(|kept| kept.to_wire() == code) {
        let remark = reply.remark.as_deref().unwrap_or_default().to_owned();
        return Err(Failed::Refused { code, remark });
    }
    let unreadable = |text: String| Failed::Unreadable(text);
    let header = SendMessageReply::read(&reply.fields).map_err(|e| unreadable(e.to_string()))?;
    let ids: Vec<&str> = header.msg_id.split(',').collect();
    if ids.len() != count {
        let text = format!("{} ids for {count} messages", ids.len());
        return Err(unreadable(text));
    }
    let place = |(at, id): (usize, &&str)| Stored {
        code,
        queue_offset: header.queue_offset + at as i64,
        position: id::decode_offset_id(id).map_or(-1, |(_, position)| position),
        recall_handle: header.recall_handle.clone().filter(|_| count == 1),
    };
    Ok(ids.iter().enumerate().map(place).collect())
}

/// Settles one message.
pub(super) fn ack(group: &str, topic: &str, handle: &Handle<'_>) -> AckMessage {
    AckMessage {
        consumer_group: group.to_owned(),
        topic: handle.real_topic(topic, group).into_owned(),
        queue_id: handle.queue_id,
        extra_info: handle.extra_info.to_owned(),
        offset: handle.offset,
        lite_topic: None,
    }
}

/// Messages of one delivery further apart than this are settled by entries of their own.
const SPAN_MAX: i64 = 4096;

/// Settles many: messages that were taken together are one entry.
pub(super) fn batch_ack(
    broker: &str,
    group: &str,
    topic: &str,
    handles: &[Handle<'_>],
) -> Command<'static> {
    let mut acks: Vec<BatchAckEntry> = Vec::new();
    for handle in handles {
        let fits = |ack: &&mut BatchAckEntry| {
            ack.queue_id == handle.queue_id
                && ack.pop_time == handle.pop_time_ms
                && ack.start_offset <= handle.offset
                && handle.offset - ack.start_offset < SPAN_MAX
                && ack.revive_queue_id == handle.revive_queue_id
                && ack.retry == handle.retry.flag()
                && ack.invisible_time == handle.invisible_ms
        };
        // A block starts where its broker says; ours needs it only to count from.
        let start_offset = match handle.offset - handle.start_offset {
            0..SPAN_MAX => handle.start_offset,
            _ => handle.offset,
        };
        let ack = match acks.iter_mut().find(|ack| fits(ack) && ack.start_offset == start_offset) {
            Some(ack) => ack,
            None => {
                acks.push(BatchAckEntry {
                    bit_set: Vec::new(),
                    consumer_group: group.to_owned(),
                    invisible_time: handle.invisible_ms,
                    pop_time: handle.pop_time_ms,
                    queue_id: handle.queue_id,
                    retry: handle.retry.flag().to_owned(),
                    revive_queue_id: handle.revive_queue_id,
                    start_offset,
                    // That of the retries is made from this one and the flag by whoever reads them.
                    topic: topic.to_owned(),
                });
                acks.last_mut().expect("just pushed")
            }
        };
        let bit = usize::try_from(handle.offset - ack.start_offset).expect("within the span");
        if ack.bit_set.len() <= bit / 8 {
            ack.bit_set.resize(bit / 8 + 1, 0);
        }
        ack.bit_set[bit / 8] |= 1 << (bit % 8);
    }
    let body = BatchAckMessageRequestBody { acks, broker_name: Some(broker.to_owned()) };
    let code = RequestCode::BatchAckMessage.to_wire();
    Command::request(code, &protocol::header::Empty {})
        .with_body(json::write(&body, Dialect::Standard))
}

/// What a broker answers to a pop.
pub(super) fn popped(
    answer: Result<(PopMessageReply, Command<'static>), Failed>,
) -> Result<Pop, Failed> {
    match answer {
        Ok((header, reply)) => {
            let records = vec![Bytes::from(reply.body.into_owned())];
            Ok(Pop::Found(Popped { header, records }))
        }
        Err(Failed::Refused { code, remark }) => match ReplyCode::from_wire(code) {
            Some(ReplyCode::PollingTimeout | ReplyCode::PullNotFound) => Ok(Pop::Nothing),
            Some(ReplyCode::PollingFull) => Ok(Pop::Full),
            _ => Err(Failed::Refused { code, remark }),
        },
        Err(error) => Err(error),
    }
}

/// What a broker answers to a pull.
pub(super) fn pulled(reply: Command<'static>) -> Result<Pulled, Failed> {
    let found = match ReplyCode::from_wire(reply.code) {
        Some(ReplyCode::Success) => true,
        Some(
            ReplyCode::PullNotFound | ReplyCode::PullRetryImmediately | ReplyCode::PullOffsetMoved,
        ) => false,
        _ => {
            let refused_without = || refused(ReplyCode::SystemError, "the answer makes no sense");
            return Err(successful(reply).err().unwrap_or_else(refused_without));
        }
    };
    let header = PullMessageReply::read(&reply.fields);
    let header = header.map_err(|error| Failed::Unreadable(error.to_string()))?;
    let next_offset = header.next_begin_offset;
    if found {
        return Ok(Pulled::Found { records: Bytes::from(reply.body.into_owned()), next_offset });
    }
    if reply.code == ReplyCode::PullOffsetMoved.to_wire() {
        return Ok(Pulled::Moved { next_offset });
    }
    Ok(Pulled::Nothing { next_offset })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_were_taken_together_are_settled_by_one_entry() {
        let texts = [
            "10 5 60000 3 0 b 2 10",
            "10 5 60000 3 0 b 2 19",
            "10 6 60000 3 0 b 2 11",
            "10 5 60000 3 1 b 2 12",
            "0 5 60000 3 0 b 2 999999",
        ];
        let handles: Vec<_> = texts.iter().map(|text| Handle::parse(text).unwrap()).collect();
        let command = batch_ack("b", "g", "t", &handles);
        let body: BatchAckMessageRequestBody = json::read(&command.body).unwrap();
        let seen: Vec<_> = body
            .acks
            .iter()
            .map(|ack| (ack.retry.as_str(), ack.pop_time, ack.start_offset, ack.bit_set.clone()))
            .collect();
        assert_eq!(
            seen,
            [
                ("0", 5, 10, vec![1, 2]),
                ("0", 6, 10, vec![2]),
                ("1", 5, 10, vec![4]),
                ("0", 5, 999_999, vec![1]),
            ]
        );
        assert!(body.acks.iter().all(|ack| ack.topic == "t"), "brokers put the prefix before it");
    }
}
