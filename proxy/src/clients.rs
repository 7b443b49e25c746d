//! Who is connected: what each client said of itself, and the stream on which it can be told something.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use protocol::grpc::{ClientType, Settings, TelemetryCommand};
use tokio::sync::{Notify, mpsc, oneshot};
use tonic::Status;

use crate::grpc::context::Context;

/// Clients one proxy keeps in mind.
pub const CLIENTS_MAX: usize = 100_000;
/// A client that has said nothing for so long, on no stream, is forgotten.
pub const SILENT_MAX: Duration = Duration::from_secs(60);
/// Commands that wait for one client.
pub const COMMANDS_MAX: usize = 64;

/// What a client is told on its stream.
pub type Commands = mpsc::Sender<Result<TelemetryCommand, Status>>;

/// One client.
#[derive(Debug, Clone)]
pub struct Client {
    pub settings: Option<Arc<Settings>>,
    pub kind: ClientType,
    pub group: Option<String>,
    pub language: String,
    pub version: String,
    pub remote: String,
    pub seen: Instant,
    stream: Option<(u64, Commands)>,
}

/// All clients of this proxy.
#[derive(Debug, Default)]
pub struct Clients {
    table: Mutex<Table>,
    /// Who waits for the answer to a command, by its nonce.
    asked: Mutex<HashMap<String, oneshot::Sender<Told>>>,
    nonces: AtomicU64,
    /// Set off when somebody begins to publish.
    pub published_changed: Notify,
}

/// What a client answers to a command.
#[derive(Debug, Clone, Default)]
pub struct Told {
    pub status: Option<protocol::grpc::Status>,
    pub text: Option<String>,
}

/// A question whose answer nobody waits for any more leaves nothing behind.
struct Asking<'c>(&'c Clients, String);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.asked.lock().remove(&self.1);
    }
}

#[derive(Debug, Default)]
struct Table {
    clients: HashMap<String, Client>,
    streams: u64,
}

impl Table {
    /// The entry of whoever asks; `None` when there is no room for one more.
    fn entry(&mut self, context: &Context, now: Instant) -> Option<&mut Client> {
        if !self.clients.contains_key(&context.client_id) {
            if self.clients.len() >= CLIENTS_MAX {
                return None;
            }
            let client = Client {
                settings: None,
                kind: ClientType::Unspecified,
                group: None,
                language: context.language.clone(),
                version: context.version.clone(),
                remote: context.connection.remote.to_string(),
                seen: now,
                stream: None,
            };
            self.clients.insert(context.client_id.clone(), client);
        }
        let client = self.clients.get_mut(&context.client_id)?;
        client.seen = now;
        Some(client)
    }
}

impl Clients {
    /// Takes note of what a client says of itself; false when there is no room for it.
    pub fn describe(&self, context: &Context, settings: Arc<Settings>, now: Instant) -> bool {
        let mut table = self.table.lock();
        let Some(client) = table.entry(context, now) else { return false };
        client.kind = settings.client_type();
        if let Some(group) = group_of(&settings) {
            client.group = Some(group.to_owned());
        }
        let publishes = published(&settings).next().is_some();
        let news = publishes && client.settings.as_ref() != Some(&settings);
        client.settings = Some(settings);
        drop(table);
        if news {
            self.published_changed.notify_one();
        }
        true
    }

    /// The client is there and belongs to `group`.
    pub fn beat(
        &self,
        context: &Context,
        kind: ClientType,
        group: Option<&str>,
        now: Instant,
    ) -> bool {
        let mut table = self.table.lock();
        let Some(client) = table.entry(context, now) else { return false };
        if kind != ClientType::Unspecified {
            client.kind = kind;
        }
        if let Some(group) = group {
            client.group = Some(group.to_owned());
        }
        true
    }

    /// From now on the client is told things on this stream; the number names it.
    pub fn attach(&self, context: &Context, commands: Commands, now: Instant) -> Option<u64> {
        let mut table = self.table.lock();
        table.streams += 1;
        let stream = table.streams;
        table.entry(context, now)?.stream = Some((stream, commands));
        Some(stream)
    }

    /// The stream has ended; true if it was the client's last.
    pub fn detach(&self, client_id: &str, stream: u64, now: Instant) -> bool {
        let mut table = self.table.lock();
        let Some(client) = table.clients.get_mut(client_id) else { return false };
        if client.stream.as_ref().is_some_and(|(own, _)| *own == stream) {
            client.stream = None;
            client.seen = now;
            return true;
        }
        false
    }

    /// The client has left.
    pub fn remove(&self, client_id: &str) -> Option<Client> {
        self.table.lock().clients.remove(client_id)
    }

    pub fn settings(&self, client_id: &str) -> Option<Arc<Settings>> {
        self.table.lock().clients.get(client_id)?.settings.clone()
    }

    /// Whether a client is there on a stream.
    pub fn is_attached(&self, client_id: &str) -> bool {
        let table = self.table.lock();
        table.clients.get(client_id).is_some_and(|client| client.stream.is_some())
    }

    /// Forgets those that are silent and gives their ids.
    pub fn expire(&self, now: Instant) -> Vec<String> {
        let mut gone = Vec::new();
        self.table.lock().clients.retain(|id, client| {
            let stays = client.stream.is_some() || now.duration_since(client.seen) < SILENT_MAX;
            if !stays {
                gone.push(id.clone());
            }
            stays
        });
        gone
    }

    /// Tells one client something; false when it cannot be told.
    pub fn tell(&self, client_id: &str, command: TelemetryCommand) -> bool {
        let table = self.table.lock();
        let stream = table.clients.get(client_id).and_then(|client| client.stream.as_ref());
        stream.is_some_and(|(_, commands)| commands.try_send(Ok(command)).is_ok())
    }

    /// Tells one producer of a topic something; which one changes from call to call.
    pub fn tell_producer(&self, topic: &str, turn: usize, command: TelemetryCommand) -> bool {
        let table = self.table.lock();
        let producers: Vec<&Commands> = table
            .clients
            .values()
            .filter(|client| client.settings.as_deref().is_some_and(|s| publishes(s, topic)))
            .filter_map(|client| client.stream.as_ref().map(|(_, commands)| commands))
            .collect();
        (0..producers.len()).any(|step| {
            producers[(turn + step) % producers.len()].try_send(Ok(command.clone())).is_ok()
        })
    }

    /// Tells one client something and waits for its answer; `command` gets the nonce of the question.
    pub async fn ask(
        &self,
        client_id: &str,
        command: impl FnOnce(String) -> TelemetryCommand,
        timeout: Duration,
    ) -> Option<Told> {
        let nonce = format!("{:016x}", self.nonces.fetch_add(1, Ordering::Relaxed));
        let (sender, answer) = oneshot::channel();
        self.asked.lock().insert(nonce.clone(), sender);
        let asking = Asking(self, nonce);
        if !self.tell(client_id, command(asking.1.clone())) {
            return None;
        }
        tokio::time::timeout(timeout, answer).await.ok()?.ok()
    }

    /// A client answers a command.
    pub fn answered(&self, nonce: &str, told: Told) {
        if let Some(waiting) = self.asked.lock().remove(nonce) {
            // Whoever asked may have given up in this very moment.
            let _ = waiting.send(told);
        }
    }

    /// The topics some producer here publishes to.
    pub fn topics_published(&self) -> std::collections::BTreeSet<String> {
        let table = self.table.lock();
        let settings = table.clients.values().filter_map(|client| client.settings.as_deref());
        settings.flat_map(published).map(str::to_owned).collect()
    }

    /// A copy of everybody, for those who report.
    pub fn all(&self) -> Vec<(String, Client)> {
        let table = self.table.lock();
        table.clients.iter().map(|(id, client)| (id.clone(), client.clone())).collect()
    }

    /// Ends all streams, after one last command.
    pub fn close(&self, last: &TelemetryCommand) {
        for client in self.table.lock().clients.values_mut() {
            if let Some((_, commands)) = client.stream.take() {
                // Whoever does not read its stream learns of the end from its connection.
                let _ = commands.try_send(Ok(last.clone()));
            }
        }
    }
}

fn group_of(settings: &Settings) -> Option<&str> {
    use protocol::grpc::settings::PubSub;
    match &settings.pub_sub {
        Some(PubSub::Subscription(subscription)) => {
            subscription.group.as_ref().map(|group| group.name.as_str())
        }
        _ => None,
    }
}

fn published(settings: &Settings) -> impl Iterator<Item = &str> {
    use protocol::grpc::settings::PubSub;
    let topics = match &settings.pub_sub {
        Some(PubSub::Publishing(publishing)) => publishing.topics.as_slice(),
        _ => &[],
    };
    topics.iter().map(|topic| topic.name.as_str())
}

fn publishes(settings: &Settings, topic: &str) -> bool {
    published(settings).any(|published| published == topic)
}
