//! The requests of the load as bytes, most of them encoded once; and the few fields of answers that are wanted.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use prost::Message as _;
use protocol::grpc::{self, ClientType, Code, MessageType};

/// Digits of a message id.
const ID_DIGITS: usize = 34;
/// Bytes at the start of each body that the generator uses: when the message was due, in nanoseconds.
pub(super) const STAMP_BYTES: usize = 8;
/// What servers are told; the latest release whose clients the stock server knows.
const CLIENT_VERSION: &str = "5.2.0";
const TIMEOUT: &str = "30S";

/// The calls the load makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rpc {
    QueryRoute,
    Heartbeat,
    SendMessage,
    QueryAssignment,
    ReceiveMessage,
    AckMessage,
    Telemetry,
}

impl Rpc {
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::QueryRoute => "/apache.rocketmq.v2.MessagingService/QueryRoute",
            Self::Heartbeat => "/apache.rocketmq.v2.MessagingService/Heartbeat",
            Self::SendMessage => "/apache.rocketmq.v2.MessagingService/SendMessage",
            Self::QueryAssignment => "/apache.rocketmq.v2.MessagingService/QueryAssignment",
            Self::ReceiveMessage => "/apache.rocketmq.v2.MessagingService/ReceiveMessage",
            Self::AckMessage => "/apache.rocketmq.v2.MessagingService/AckMessage",
            Self::Telemetry => "/apache.rocketmq.v2.MessagingService/Telemetry",
        }
    }
}

/// The header fields of a call by this client.
pub(super) fn fields<'a>(
    rpc: Rpc,
    authority: &'a str,
    client: &'a str,
) -> [(&'a str, &'a str); 12] {
    [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", rpc.path()),
        (":authority", authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("grpc-timeout", if rpc == Rpc::Telemetry { "8760H" } else { TIMEOUT }),
        ("x-mq-client-id", client),
        ("x-mq-language", "RUST"),
        ("x-mq-client-version", CLIENT_VERSION),
        ("x-mq-protocol", "v2"),
        ("x-mq-date-time", "20260101T000000Z"),
    ]
}

pub(super) fn resource(name: &str) -> grpc::Resource {
    grpc::Resource { resource_namespace: String::new(), name: name.to_owned() }
}

/// A SendMessage of so many messages, with places for their ids and times.
#[derive(Debug, Clone)]
pub(super) struct Send {
    bytes: Vec<u8>,
    ids: Vec<usize>,
    bodies: Vec<usize>,
    /// How the ids of these messages begin.
    id_start: String,
}

impl Send {
    pub(super) fn new(topic: &str, batch: usize, size: usize, run: u32) -> Self {
        let id_start = format!("01{run:08X}");
        let id = |number: usize| format!("{id_start}{number:024X}");
        let body = |number: usize| {
            let mut body = format!("body {number:016X} ").into_bytes();
            body.resize(size.max(STAMP_BYTES), b'x');
            body.truncate(size.max(STAMP_BYTES));
            body
        };
        let message = |number: usize| grpc::Message {
            topic: Some(resource(topic)),
            system_properties: Some(grpc::SystemProperties {
                message_id: id(number),
                body_encoding: grpc::Encoding::Identity.into(),
                message_type: MessageType::Normal.into(),
                born_timestamp: Some(prost_types::Timestamp { seconds: 1_767_225_600, nanos: 0 }),
                born_host: "bench".to_owned(),
                ..Default::default()
            }),
            body: Bytes::from(body(number)),
            ..Default::default()
        };
        let messages: Vec<grpc::Message> = (0..batch).map(message).collect();
        let bytes = grpc::SendMessageRequest { messages }.encode_to_vec();
        let (mut ids, mut bodies) = (Vec::new(), Vec::new());
        let mut from = 0;
        for number in 0..batch {
            let at = find(&bytes, from, id(number).as_bytes());
            ids.push(at + ID_DIGITS - 16);
            from = find(&bytes, at, &body(number));
            bodies.push(from);
        }
        Self { bytes, ids, bodies, id_start }
    }

    /// Messages in the request.
    pub(super) fn count(&self) -> usize {
        self.ids.len()
    }

    /// When a received message was due, if it is one of these.
    pub(super) fn due(&self, id: &[u8], body: &[u8]) -> Option<u64> {
        let own = id.starts_with(self.id_start.as_bytes());
        body.first_chunk().filter(|_| own).map(|due| u64::from_be_bytes(*due))
    }

    /// The request with new ids and this time.
    pub(super) fn stamp(&mut self, sequence: &mut u64, due_ns: u64) -> &[u8] {
        for (id, body) in self.ids.iter().zip(&self.bodies) {
            *sequence += 1;
            hex(*sequence, &mut self.bytes[*id..*id + 16]);
            self.bytes[*body..*body + STAMP_BYTES].copy_from_slice(&due_ns.to_be_bytes());
        }
        &self.bytes
    }
}

fn find(bytes: &[u8], from: usize, wanted: &[u8]) -> usize {
    let at = bytes[from..].windows(wanted.len()).position(|window| window == wanted);
    from + at.expect("it was just encoded")
}

fn hex(value: u64, digits: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for (at, digit) in digits.iter_mut().rev().enumerate() {
        *digit = DIGITS[(value >> (4 * at)) as usize & 0xf];
    }
}

/// What a client says of itself first.
pub(super) fn settings(role: ClientType, topic: &str, group: &str) -> Vec<u8> {
    use grpc::settings::PubSub;
    let second = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let pub_sub = match role {
        ClientType::Producer => PubSub::Publishing(grpc::Publishing {
            topics: vec![resource(topic)],
            ..Default::default()
        }),
        _ => PubSub::Subscription(grpc::Subscription {
            group: Some(resource(group)),
            subscriptions: vec![grpc::SubscriptionEntry {
                topic: Some(resource(topic)),
                expression: Some(all()),
            }],
            long_polling_timeout: second(20),
            ..Default::default()
        }),
    };
    let settings = grpc::Settings {
        client_type: Some(role.into()),
        request_timeout: second(3),
        pub_sub: Some(pub_sub),
        user_agent: Some(grpc::Ua {
            language: grpc::Language::Rust.into(),
            version: CLIENT_VERSION.to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let command = Some(grpc::telemetry_command::Command::Settings(settings));
    let status = Some(grpc::Status { code: Code::Ok.into(), message: String::new() });
    grpc::TelemetryCommand { status, command }.encode_to_vec()
}

fn all() -> grpc::FilterExpression {
    let expression = "*".to_owned();
    grpc::FilterExpression { r#type: grpc::FilterType::Tag.into(), expression }
}

pub(super) fn heartbeat(role: ClientType, group: &str) -> Vec<u8> {
    let group = (role != ClientType::Producer).then(|| resource(group));
    grpc::HeartbeatRequest { group, client_type: role.into() }.encode_to_vec()
}

pub(super) fn query_route(topic: &str, proxy: &grpc::Endpoints) -> Vec<u8> {
    let request =
        grpc::QueryRouteRequest { topic: Some(resource(topic)), endpoints: Some(proxy.clone()) };
    request.encode_to_vec()
}

pub(super) fn query_assignment(topic: &str, group: &str, proxy: &grpc::Endpoints) -> Vec<u8> {
    let request = grpc::QueryAssignmentRequest {
        topic: Some(resource(topic)),
        group: Some(resource(group)),
        endpoints: Some(proxy.clone()),
    };
    request.encode_to_vec()
}

/// All queues of the topic on the first broker of a route.
pub(super) fn queue_of_route(answer: &[u8]) -> Result<grpc::MessageQueue> {
    let answer = grpc::QueryRouteResponse::decode(answer)?;
    let status = answer.status.unwrap_or_default();
    if status.code != Code::Ok as i32 {
        bail!("no route: {} {}", status.code, status.message);
    }
    let mut queue = answer.message_queues.into_iter().next().context("the topic has no queue")?;
    queue.id = -1;
    Ok(queue)
}

/// A ReceiveMessage; without a duration as a push consumer asks.
pub(super) fn receive(
    group: &str,
    queue: &grpc::MessageQueue,
    batch: usize,
    invisible_seconds: Option<i64>,
    polling_seconds: i64,
) -> Vec<u8> {
    let seconds = |seconds| prost_types::Duration { seconds, nanos: 0 };
    let request = grpc::ReceiveMessageRequest {
        group: Some(resource(group)),
        message_queue: Some(queue.clone()),
        filter_expression: Some(all()),
        batch_size: i32::try_from(batch).unwrap_or(i32::MAX),
        invisible_duration: invisible_seconds.map(seconds),
        auto_renew: invisible_seconds.is_none(),
        long_polling_timeout: Some(seconds(polling_seconds)),
        attempt_id: None,
    };
    request.encode_to_vec()
}

/// Makes AckMessage requests: what is the same in all of them is encoded once.
#[derive(Debug, Clone)]
pub(super) struct Acks {
    head: Vec<u8>,
}

impl Acks {
    pub(super) fn new(group: &str, topic: &str) -> Self {
        let request = grpc::AckMessageRequest {
            group: Some(resource(group)),
            topic: Some(resource(topic)),
            entries: Vec::new(),
        };
        Self { head: request.encode_to_vec() }
    }

    pub(super) fn begin(&self, request: &mut Vec<u8>) {
        request.clear();
        request.extend_from_slice(&self.head);
    }

    /// Adds one entry: field 3, with the id as its field 1 and the handle as 2.
    pub(super) fn add(request: &mut Vec<u8>, id: &[u8], handle: &[u8]) {
        let length = |text: &[u8]| 1 + varint_len(text.len()) + text.len();
        request.push(3 << 3 | 2);
        varint(request, length(id) + length(handle));
        for (field, text) in [(1u8, id), (2, handle)] {
            request.push(field << 3 | 2);
            varint(request, text.len());
            request.extend_from_slice(text);
        }
    }
}

fn varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 128 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_len(value: usize) -> usize {
    let mut bytes = Vec::new();
    varint(&mut bytes, value);
    bytes.len()
}

/// One field of a message: its number, and its bytes or its number's value.
enum Value<'a> {
    Bytes(&'a [u8]),
    Number(u64),
}

/// Walks over the fields of an encoded message without decoding them.
struct Walk<'a>(&'a [u8]);

impl Walk<'_> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = (u64, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let tag = self.varint()?;
        let length = match tag & 7 {
            0 => return Some((tag >> 3, Value::Number(self.varint()?))),
            1 => 8,
            2 => usize::try_from(self.varint()?).ok()?,
            5 => 4,
            _ => return None,
        };
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some((tag >> 3, Value::Bytes(bytes)))
    }
}

fn field(message: &[u8], number: u64) -> Option<&[u8]> {
    Walk(message).find_map(|(found, value)| match value {
        Value::Bytes(bytes) if found == number => Some(bytes),
        _ => None,
    })
}

/// The code in an answer whose field 1 is its status, as all have it; 0 if there is none.
pub(super) fn code(answer: &[u8]) -> i32 {
    let Some(status) = field(answer, 1) else { return 0 };
    let code = Walk(status).find_map(|(number, value)| match value {
        Value::Number(code) if number == 1 => Some(code),
        _ => None,
    });
    code.and_then(|code| i32::try_from(code).ok()).unwrap_or(0)
}

/// The first sentence that an AckMessage's answer has for a failure.
pub(super) fn ack_refusal(answer: &[u8]) -> String {
    let answer = grpc::AckMessageResponse::decode(answer).unwrap_or_default();
    let entries = answer.entries.into_iter().filter_map(|entry| entry.status);
    let mut failed = entries.filter(|status| status.code != OK);
    failed.next().or(answer.status).unwrap_or_default().message
}

pub(super) const OK: i32 = Code::Ok as i32;

/// What one message of a ReceiveMessage's answer is.
pub(super) enum Received<'a> {
    Status(i32),
    Message { id: &'a [u8], handle: &'a [u8], body: &'a [u8] },
    Other,
}

pub(super) fn received(answer: &[u8]) -> Received<'_> {
    if let Some(message) = field(answer, 2) {
        let system = field(message, 3).unwrap_or_default();
        return Received::Message {
            id: field(system, 3).unwrap_or_default(),
            handle: field(system, 12).unwrap_or_default(),
            body: field(message, 4).unwrap_or_default(),
        };
    }
    match field(answer, 1) {
        Some(_) => Received::Status(code(answer)),
        None => Received::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamped_request_decodes_to_messages_with_ids_of_their_own() {
        let mut send = Send::new("orders", 3, 100, 7);
        let mut sequence = 0;
        send.stamp(&mut sequence, 1);
        let request = grpc::SendMessageRequest::decode(send.stamp(&mut sequence, 42)).unwrap();
        let ids: Vec<String> = request
            .messages
            .iter()
            .map(|message| message.system_properties.clone().unwrap().message_id)
            .collect();
        assert_eq!(ids[0], "0100000007000000000000000000000004");
        assert_eq!(ids[2], "0100000007000000000000000000000006");
        for message in request.messages {
            assert_eq!((message.body.len(), &message.body[..8]), (100, &42u64.to_be_bytes()[..]));
            let id = message.system_properties.unwrap().message_id;
            assert_eq!(send.due(id.as_bytes(), &message.body), Some(42));
            assert_eq!(send.due(b"010000000800", &message.body), None, "of another run");
            assert_eq!(message.topic.unwrap().name, "orders");
        }
    }

    #[test]
    fn acknowledgements_written_by_hand_are_what_the_protocol_says() {
        let acks = Acks::new("group", "orders");
        let mut request = Vec::new();
        acks.begin(&mut request);
        let handle = "h".repeat(200);
        Acks::add(&mut request, b"id", handle.as_bytes());
        Acks::add(&mut request, b"other", b"x");
        let request = grpc::AckMessageRequest::decode(&*request).unwrap();
        let entries: Vec<_> = request
            .entries
            .into_iter()
            .map(|entry| (entry.message_id, entry.receipt_handle))
            .collect();
        assert_eq!(entries, [("id".into(), handle), ("other".into(), "x".into())]);
        assert_eq!(request.group.unwrap().name, "group");
        assert_eq!(request.topic.unwrap().name, "orders");
    }

    #[test]
    fn an_answer_is_read_where_it_is() {
        use grpc::receive_message_response::Content;
        let status = grpc::Status { code: 40401, message: "none".into() };
        let content = Some(Content::Status(status.clone()));
        let bytes = grpc::ReceiveMessageResponse { content }.encode_to_vec();
        assert!(matches!(received(&bytes), Received::Status(40401)));
        let message = grpc::Message {
            system_properties: Some(grpc::SystemProperties {
                message_id: "id".into(),
                receipt_handle: Some("handle".into()),
                ..Default::default()
            }),
            body: Bytes::from_static(b"body"),
            ..Default::default()
        };
        let content = Some(Content::Message(message));
        let bytes = grpc::ReceiveMessageResponse { content }.encode_to_vec();
        let Received::Message { id, handle, body } = received(&bytes) else { panic!() };
        assert_eq!((id, handle, body), (&b"id"[..], &b"handle"[..], &b"body"[..]));
        let answer = grpc::SendMessageResponse { status: Some(status), entries: vec![] };
        assert_eq!(code(&answer.encode_to_vec()), 40401);
        assert_eq!(code(b"\xff\xff"), 0);
    }
}
