//! What brokers want to know of transactions, asked of a producer that is connected here; and what makes
//! brokers ask us: the producers of each topic, reported as a group of that name.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use protocol::body::{HeartbeatData, ProducerData};
use protocol::frame::Command;
use protocol::grpc::telemetry_command::Command as Told;
use protocol::grpc::{RecoverOrphanedTransactionCommand, Resource, TelemetryCommand};
use protocol::header::client::UnregisterClient;
use protocol::header::transaction::CheckTransactionState;
use protocol::json::{self, Dialect};
use protocol::properties::{self, name};
use protocol::record::Record;
use protocol::request::RequestCode;
use remoting::process::Shutdown;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::backend::Failed;
use crate::front::Front;
use crate::grpc::end_transaction::TransactionId;
use crate::message::{Delivery, from_record};

/// Questions that wait here; brokers ask again anyway.
pub const QUESTIONS_MAX: usize = 1024;
/// Producer groups in one heartbeat.
const GROUPS_PER_BEAT: usize = 100;

/// One question of a broker.
#[derive(Debug)]
pub struct Question {
    /// As the broker names itself, if it does.
    pub broker: Option<String>,
    pub header: CheckTransactionState,
    /// The half message, as a record.
    pub record: Bytes,
}

impl Question {
    /// Reads a request of the code 39.
    pub fn read(request: &Command<'_>) -> Option<Self> {
        let header = request.fields.read().ok()?;
        let broker = request.fields.get("bname").filter(|name| !name.is_empty());
        let record = Bytes::copy_from_slice(&request.body);
        Some(Self { broker: broker.map(str::to_owned), header, record })
    }
}

/// Passes questions on until the process ends.
pub async fn pass_on(
    front: Arc<Front>,
    mut questions: mpsc::Receiver<Question>,
    shutdown: Shutdown,
) {
    loop {
        let question = tokio::select! {
            question = questions.recv() => question,
            () = shutdown.cancelled() => return,
        };
        let Some(question) = question else { return };
        if let Err(reason) = ask(&front, &question).await {
            debug!(reason, "a broker's question about a transaction goes unanswered");
        }
    }
}

async fn ask(front: &Front, question: &Question) -> Result<(), String> {
    let (record, _) = Record::decode(&question.record).map_err(|error| error.to_string())?;
    let broker = match &question.broker {
        Some(broker) => broker.clone(),
        None => broker_at(front, record.store_host).await?,
    };
    let id = properties::get_str(record.properties, name::UNIQ_KEY);
    let id = id.or(question.header.transaction_id.as_deref()).unwrap_or_default();
    let transaction_id = TransactionId {
        message_id: id,
        broker: &broker,
        position: question.header.commit_log_offset,
        queue_offset: question.header.tran_state_table_offset,
    };
    let topic = record.topic;
    let resource = Resource { resource_namespace: String::new(), name: topic.to_owned() };
    let delivery = Delivery { topic: resource, attempt: 1, ..Delivery::default() };
    let command = RecoverOrphanedTransactionCommand {
        transaction_id: transaction_id.to_string(),
        message: Some(from_record(&record, &question.record, delivery)),
    };
    let command = Told::RecoverOrphanedTransactionCommand(command);
    let command = TelemetryCommand { status: None, command: Some(command) };
    let turn = front.turn.fetch_add(1, Ordering::Relaxed);
    if front.clients.tell_producer(topic, turn, command) {
        Ok(())
    } else {
        Err(format!("no producer of `{topic}` is connected here"))
    }
}

async fn broker_at(front: &Front, address: SocketAddr) -> Result<String, String> {
    let broker = front.backend.broker_at(&address.to_string()).await;
    broker.ok_or_else(|| format!("no broker is known at {address}"))
}

/// Tells brokers who produces here, at once when somebody new does, and again and again.
///
/// A topic without producers is taken back: the stock broker closes the connection of whoever falls silent
/// about a group it once reported, and all other requests go over that connection too.
pub async fn report(front: Arc<Front>, shutdown: Shutdown) {
    let mut reported: BTreeSet<String> = BTreeSet::new();
    loop {
        tokio::select! {
            () = front.clients.published_changed.notified() => {}
            () = tokio::time::sleep(front.config.heartbeat_period) => {}
            () = shutdown.cancelled() => return,
        }
        let topics = front.clients.topics_published();
        if topics.is_empty() && reported.is_empty() {
            continue;
        }
        let brokers = match front.backend.brokers().await {
            Ok(brokers) => brokers,
            Err(error) => {
                warn!(%error, "brokers cannot be told who produces");
                continue;
            }
        };
        let gone: Vec<&String> = reported.difference(&topics).collect();
        let here: Vec<&String> = topics.iter().collect();
        for broker in &brokers {
            let mut outcome = Ok(());
            for topic in &gone {
                outcome = outcome.and(leave(&front, broker, topic).await);
            }
            for topics in here.chunks(GROUPS_PER_BEAT) {
                outcome = outcome.and(beat(&front, broker, topics).await);
            }
            if let Err(error) = outcome {
                debug!(broker, %error, "a broker cannot be told who produces");
            }
        }
        reported = topics;
    }
}

async fn leave(front: &Front, broker: &str, topic: &str) -> Result<(), Failed> {
    let request = UnregisterClient {
        client_id: front.own_id.clone(),
        producer_group: Some(topic.to_owned()),
        consumer_group: None,
    };
    front.backend.ask(broker, &request, Vec::new()).await.map(|_| ())
}

async fn beat(front: &Front, broker: &str, topics: &[&String]) -> Result<(), Failed> {
    let groups = topics.iter().map(|topic| ProducerData { group_name: (*topic).clone() });
    let beat = HeartbeatData {
        client_id: front.own_id.clone(),
        producer_data_set: groups.collect(),
        ..HeartbeatData::default()
    };
    let command = Command::request(RequestCode::Heartbeat.to_wire(), &protocol::header::Empty {});
    let command = command.with_body(json::write(&beat, Dialect::Standard));
    front.backend.command(broker, command).await.map(|_| ())
}
