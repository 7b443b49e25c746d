//! A proxy made of a closure: answers calls over HTTP/2, keeps telemetry streams, dies when told to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use parking_lot::Mutex;
use prost::Message as _;
use protocol::grpc::{self, Code, telemetry_command::Command};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// A call as it came: the name of the RPC, its headers, its request.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub rpc: String,
    pub headers: HeaderMap,
    pub request: Bytes,
}

/// What a proxy does with a call.
pub(crate) enum Answer {
    /// The messages of the answer, encoded.
    Messages(Vec<Vec<u8>>),
    /// The connection breaks.
    Die,
}

pub type Handler = dyn Fn(&Call) -> Answer + Send + Sync;

/// A proxy; it ends when it is dropped.
pub(crate) struct Proxy {
    pub address: SocketAddr,
    pub calls: Arc<Mutex<Vec<Call>>>,
    /// Settings that clients have told.
    pub settings: Arc<Mutex<Vec<grpc::Settings>>>,
    life: CancellationToken,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.life.cancel();
    }
}

/// Shared by the connections of one proxy.
struct Shared {
    handler: Box<Handler>,
    told: grpc::Settings,
    calls: Arc<Mutex<Vec<Call>>>,
    settings: Arc<Mutex<Vec<grpc::Settings>>>,
    life: CancellationToken,
}

impl Proxy {
    /// Answers with `handler`, and settings with `told`.
    pub(crate) async fn start(
        told: grpc::Settings,
        handler: impl Fn(&Call) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            told,
            calls: Arc::default(),
            settings: Arc::default(),
            life: CancellationToken::new(),
        });
        let (calls, settings) = (shared.calls.clone(), shared.settings.clone());
        let life = shared.life.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let (stream, _) = accepted.unwrap();
                        tokio::spawn(serve(stream, shared.clone()));
                    }
                    () = shared.life.cancelled() => return,
                }
            }
        });
        Self { address, calls, settings, life }
    }

    /// Breaks all connections and takes no more.
    pub(crate) fn die(&self) {
        self.life.cancel();
    }

    pub(crate) fn count(&self, rpc: &str) -> usize {
        self.calls.lock().iter().filter(|call| call.rpc == rpc).count()
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let life = shared.life.child_token();
    let connection = async {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, respond))) = connection.accept().await {
            tokio::spawn(answer(request, respond, shared.clone(), life.clone()));
        }
    };
    tokio::select! {
        () = connection => {}
        () = life.cancelled() => {}
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    shared: Arc<Shared>,
    life: CancellationToken,
) {
    let rpc = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let (parts, mut body) = request.into_parts();
    let response = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    if rpc == "Telemetry" {
        let mut out = respond.send_response(response, false).unwrap();
        telemetry(&mut body, &mut out, &shared).await;
        return;
    }
    let mut bytes = BytesMut::new();
    while let Some(Ok(chunk)) = body.data().await {
        let _ = body.flow_control().release_capacity(chunk.len());
        bytes.put(chunk);
    }
    let request = bytes.freeze().slice(5..);
    let call = Call { rpc, headers: parts.headers, request };
    shared.calls.lock().push(call.clone());
    match (shared.handler)(&call) {
        Answer::Die => life.cancel(),
        Answer::Messages(messages) => {
            let Ok(mut out) = respond.send_response(response, false) else { return };
            for message in messages {
                let _ = out.send_data(framed(&message), false);
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let _ = out.send_trailers(trailers);
        }
    }
}

/// Answers each settings with what this proxy tells.
async fn telemetry(body: &mut RecvStream, out: &mut SendStream<Bytes>, shared: &Shared) {
    let mut bytes = BytesMut::new();
    while let Some(Ok(chunk)) = body.data().await {
        let _ = body.flow_control().release_capacity(chunk.len());
        bytes.put(chunk);
        while let Some(head) = bytes.first_chunk::<5>() {
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            if bytes.len() < 5 + length {
                break;
            }
            let message = bytes.split_to(5 + length).freeze().slice(5..);
            let command = grpc::TelemetryCommand::decode(message).unwrap();
            if let Some(Command::Settings(settings)) = command.command {
                shared.settings.lock().push(settings);
                let answer = grpc::TelemetryCommand {
                    status: Some(status(Code::Ok)),
                    command: Some(Command::Settings(shared.told.clone())),
                };
                let _ = out.send_data(framed(&answer.encode_to_vec()), false);
            }
        }
    }
}

fn framed(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(message);
    framed.freeze()
}

pub(crate) fn status(code: Code) -> grpc::Status {
    grpc::Status { code: code.into(), message: format!("{code:?}") }
}

/// An answer of one message.
pub(crate) fn one(message: &impl prost::Message) -> Answer {
    Answer::Messages(vec![message.encode_to_vec()])
}

/// The answers any proxy gives to what is not tested: routes of one queue here, and OK.
pub(crate) fn usual(call: &Call) -> Answer {
    let ok = Some(status(Code::Ok));
    match call.rpc.as_str() {
        "QueryRoute" => {
            let asked = grpc::QueryRouteRequest::decode(call.request.clone()).unwrap();
            let broker = grpc::Broker { name: "a".to_owned(), id: 0, endpoints: asked.endpoints };
            let message_queues = vec![grpc::MessageQueue {
                topic: asked.topic,
                id: 0,
                permission: grpc::Permission::ReadWrite.into(),
                broker: Some(broker),
                accept_message_types: vec![grpc::MessageType::Normal.into()],
            }];
            one(&grpc::QueryRouteResponse { status: ok, message_queues })
        }
        "QueryAssignment" => {
            let asked = grpc::QueryAssignmentRequest::decode(call.request.clone()).unwrap();
            let broker = grpc::Broker { name: "a".to_owned(), id: 0, endpoints: asked.endpoints };
            let message_queue = Some(grpc::MessageQueue {
                topic: asked.topic,
                id: -1,
                permission: grpc::Permission::ReadWrite.into(),
                broker: Some(broker),
                ..Default::default()
            });
            let assignments = vec![grpc::Assignment { message_queue }];
            one(&grpc::QueryAssignmentResponse { status: ok, assignments })
        }
        "SendMessage" => {
            let asked = grpc::SendMessageRequest::decode(call.request.clone()).unwrap();
            let entry = |message: grpc::Message| grpc::SendResultEntry {
                status: Some(status(Code::Ok)),
                message_id: message.system_properties.unwrap().message_id,
                ..Default::default()
            };
            let entries = asked.messages.into_iter().map(entry).collect();
            one(&grpc::SendMessageResponse { status: ok, entries })
        }
        "AckMessage" => {
            let asked = grpc::AckMessageRequest::decode(call.request.clone()).unwrap();
            let entry = |entry: grpc::AckMessageEntry| grpc::AckMessageResultEntry {
                message_id: entry.message_id,
                receipt_handle: entry.receipt_handle,
                status: Some(status(Code::Ok)),
            };
            let entries = asked.entries.into_iter().map(entry).collect();
            one(&grpc::AckMessageResponse { status: ok, entries })
        }
        // The first field of all other answers is their status.
        _ => one(&grpc::HeartbeatResponse { status: ok }),
    }
}

/// Counts how often it is asked.
#[derive(Default)]
pub(crate) struct Turns(AtomicUsize);

impl Turns {
    /// 0 the first time.
    pub(crate) fn next(&self) -> usize {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}
