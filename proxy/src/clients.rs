//! Who is connected: what each client said of itself, and the stream on which it can be told something.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use protocol::grpc::{ClientType, Settings, TelemetryCommand};
use tokio::sync::{Notify, mpsc, oneshot};
use tonic::Status;

use crate::grpc::context::{Connection, Context};

/// Clients one proxy keeps in mind.
pub const CLIENTS_MAX: usize = 100_000;
/// A client whose connection is gone is forgotten when it has said nothing for so long: most clients beat
/// every ten seconds, the slowest every thirty, and whoever still lives has come back by then.
pub const ABSENT_MAX: Duration = Duration::from_secs(35);
/// Commands that wait for one client.
pub const COMMANDS_MAX: usize = 64;

/// What a client is told on its stream; in boxes, as a channel keeps room for dozens, and most clients
/// are never told anything.
pub type Commands = mpsc::Sender<Result<Box<TelemetryCommand>, Status>>;

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
    /// The connection on which it was heard last.
    connection: Weak<Connection>,
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
                remote: String::new(),
                seen: now,
                connection: Weak::new(),
                stream: None,
            };
            self.clients.insert(context.client_id.clone(), client);
        }
        let client = self.clients.get_mut(&context.client_id)?;
        client.seen = now;
        if !std::ptr::eq(client.connection.as_ptr(), Arc::as_ptr(&context.connection)) {
            client.connection = Arc::downgrade(&context.connection);
            client.remote = context.connection.remote.to_string();
        }
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

    /// The stream has ended. Its client may be there all the same: clients end streams to open new ones.
    pub fn detach(&self, client_id: &str, stream: u64, now: Instant) {
        let mut table = self.table.lock();
        let Some(client) = table.clients.get_mut(client_id) else { return };
        if client.stream.as_ref().is_some_and(|(own, _)| *own == stream) {
            client.stream = None;
            client.seen = now;
        }
    }

    /// The client has left.
    pub fn remove(&self, client_id: &str) -> Option<Client> {
        self.table.lock().clients.remove(client_id)
    }

    pub fn settings(&self, client_id: &str) -> Option<Arc<Settings>> {
        self.table.lock().clients.get(client_id)?.settings.clone()
    }

    /// What kind of client this is, as far as it has said so.
    pub fn kind(&self, client_id: &str) -> ClientType {
        let table = self.table.lock();
        table.clients.get(client_id).map_or(ClientType::Unspecified, |client| client.kind)
    }

    /// Whether a client is there, as far as we know.
    pub fn knows(&self, client_id: &str) -> bool {
        self.table.lock().clients.contains_key(client_id)
    }

    /// Forgets those that have been silent, on no stream, for `silent_max`, or away for too long, and gives
    /// their ids.
    pub fn expire(&self, silent_max: Duration, now: Instant) -> Vec<String> {
        let mut gone = Vec::new();
        self.table.lock().clients.retain(|id, client| {
            let connected = client.connection.strong_count() > 0;
            let patience = if connected { silent_max } else { silent_max.min(ABSENT_MAX) };
            let stays = client.stream.is_some() || now.duration_since(client.seen) < patience;
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
        stream.is_some_and(|(_, commands)| commands.try_send(Ok(Box::new(command))).is_ok())
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
            producers[(turn + step) % producers.len()]
                .try_send(Ok(Box::new(command.clone())))
                .is_ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    const SILENT_MAX: Duration = Duration::from_secs(120);

    fn context() -> Context {
        let nobody = ([127, 0, 0, 1], 1).into();
        let connection = Connection { remote: nobody, local: nobody, advertise: None };
        Context {
            client_id: "c".to_owned(),
            language: String::new(),
            version: String::new(),
            namespace: String::new(),
            timeout: None,
            connection: Arc::new(connection),
        }
    }

    /// A client that has spoken, at `now`.
    fn heard(context: &Context, now: Instant) -> Clients {
        let clients = Clients::default();
        assert!(clients.beat(context, ClientType::PushConsumer, Some("g"), now));
        clients
    }

    #[test]
    fn a_silent_client_is_forgotten_sooner_when_its_connection_is_gone() {
        let now = remoting::clock::instant();
        let context = context();
        let clients = heard(&context, now);
        assert!(clients.expire(SILENT_MAX, now + ABSENT_MAX).is_empty() && clients.knows("c"));
        assert_eq!(clients.expire(SILENT_MAX, now + SILENT_MAX), ["c"]);
        let clients = heard(&context, now);
        drop(context);
        assert!(clients.expire(SILENT_MAX, now + ABSENT_MAX - Duration::from_millis(1)).is_empty());
        assert_eq!(clients.expire(SILENT_MAX, now + ABSENT_MAX), ["c"]);
        assert!(!clients.knows("c"));
    }

    #[test]
    fn who_ends_a_stream_and_goes_on_with_heartbeats_stays() {
        let (mut now, first) = (remoting::clock::instant(), context());
        let clients = heard(&first, now);
        let stream = clients.attach(&first, mpsc::channel(1).0, now).unwrap();
        now += 2 * SILENT_MAX;
        assert!(clients.expire(SILENT_MAX, now).is_empty(), "its stream says that it is there");
        clients.detach("c", stream, now);
        // It comes back on another connection.
        let second = context();
        drop(first);
        for _ in 0..10 {
            now += ABSENT_MAX - Duration::from_secs(1);
            assert!(clients.expire(SILENT_MAX, now).is_empty());
            assert!(clients.beat(&second, ClientType::Unspecified, None, now));
        }
    }

    #[test]
    fn the_end_of_a_stream_says_nothing_of_the_one_that_replaced_it() {
        let (now, context) = (remoting::clock::instant(), context());
        let clients = heard(&context, now);
        let first = clients.attach(&context, mpsc::channel(1).0, now).unwrap();
        let (commands, mut told) = mpsc::channel(1);
        clients.attach(&context, commands, now).unwrap();
        clients.detach("c", first, now);
        assert!(clients.tell("c", TelemetryCommand::default()) && told.try_recv().is_ok());
    }
}
