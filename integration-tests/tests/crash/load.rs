//! Workers that keep a server busy until it is gone, and remember what it promised.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::mpsc::Sender;

use anyhow::{Result, ensure};
use integration_tests::ask::{self, Consumed};
use integration_tests::wire::Wire;
use protocol::frame::{Command, Encoding};
use protocol::header::group::DeleteSubscriptionGroup;
use protocol::header::send::{Send, SendMessageReply};
use protocol::header::topic::DeleteTopic;
use protocol::id;
use protocol::message::BatchEntry;
use protocol::record::Record;
use protocol::reply::ReplyCode;
use protocol::request::RequestCode;
use rand::{Rng, rngs::StdRng};
use remoting::clock;

use crate::history::{
    Commit, Content, DELAYED, Life, QUEUES, Queue, Seen, TOPICS, first_number, number_of,
};

/// What every worker is given.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) broker: SocketAddr,
    pub(crate) round: usize,
    pub(crate) number: usize,
    /// Told of every answer, so that the kill can be timed by work done.
    pub(crate) progress: Sender<usize>,
}

impl Task {
    fn connect(&self, random: &mut StdRng) -> Result<Wire> {
        let mut wire = Wire::connect(self.broker)?;
        wire.encoding = if random.random() { Encoding::Json } else { Encoding::Binary };
        Ok(wire)
    }

    pub(crate) fn answered(&self, seen: &mut Seen, count: usize) {
        seen.answers += count;
        // Nobody counts any more once the server is being killed.
        let _ = self.progress.send(count);
    }
}

/// Sends until the connection breaks: singly, in batches, delayed; many in flight.
pub(crate) fn send(task: &Task, random: &mut StdRng, seen: &mut Seen) -> Result<()> {
    let mut wire = task.connect(random)?;
    let window = [1, 4, 32, 128][random.random_range(0..4)];
    let long_names = random.random();
    let mut waiting: HashMap<i32, Sent> = HashMap::new();
    let mut next = first_number(task.round, task.number);
    loop {
        while waiting.len() < window {
            let sent = Sent::draw(random, next);
            next += sent.messages;
            let opaque = wire.push(sent.request(long_names));
            waiting.insert(opaque, sent);
        }
        wire.flush()?;
        let mut answers = 0;
        while answers == 0 || wire.has_received() {
            let reply = wire.receive()?;
            if let Some(sent) = waiting.remove(&reply.opaque) {
                sent.answered(&reply, seen)?;
                answers += 1;
            }
        }
        task.answered(seen, answers);
    }
}

/// A send whose answer is awaited.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    first: u64,
    messages: u64,
    topic: &'static str,
    queue_id: i32,
    at_ms: i64,
}

impl Sent {
    fn draw(random: &mut StdRng, first: u64) -> Self {
        let kind = random.random_range(0..20);
        let topic = if kind == 0 { DELAYED } else { TOPICS[random.random_range(0..TOPICS.len())] };
        let messages = if kind == 1 { random.random_range(2..20) } else { 1 };
        let queue_id = random.random_range(0..QUEUES);
        Self { first, messages, topic, queue_id, at_ms: clock::now_ms() }
    }

    pub(crate) fn one(first: u64, topic: &'static str, queue_id: i32) -> Self {
        Self { first, messages: 1, topic, queue_id, at_ms: clock::now_ms() }
    }

    pub(crate) fn request(&self, long_names: bool) -> Command<'static> {
        let contents = self.first..self.first + self.messages;
        let mut contents = contents.map(|number| Content::of(number, self.topic, self.queue_id));
        let batch = self.messages > 1;
        let (body, mut properties) = if batch {
            let mut body = Vec::new();
            for content in contents {
                let properties = content.properties.as_bytes();
                let entry = BatchEntry { flag: 0, body: &content.body, properties };
                entry.encode_into(&mut body).expect("these are small");
            }
            (body, String::new())
        } else {
            let content = contents.next().expect("there is one");
            (content.body, content.properties)
        };
        if self.topic == DELAYED {
            properties.push_str("DELAY\u{1}1\u{2}");
        }
        let send = Send {
            producer_group: "crash",
            topic: self.topic,
            default_topic: "TBW102",
            default_topic_queue_nums: 4,
            queue_id: self.queue_id,
            sys_flag: 0,
            born_timestamp: self.at_ms,
            flag: 0,
            properties: Some(&properties),
            reconsume_times: Some(0),
            unit_mode: false,
            max_reconsume_times: None,
            batch,
            broker_name: None,
        };
        let code = match (batch, long_names) {
            (true, _) => RequestCode::SendBatchMessage,
            (false, true) => RequestCode::SendMessage,
            (false, false) => RequestCode::SendMessageV2,
        };
        ask::send(code, &send, body)
    }

    pub(crate) fn answered(&self, reply: &Command<'_>, seen: &mut Seen) -> Result<()> {
        if reply.code != ReplyCode::Success.to_wire() {
            *seen.refused.entry(reply.code).or_default() += 1;
            return Ok(());
        }
        let answer: SendMessageReply = reply.fields.read()?;
        ensure!(answer.queue_id == self.queue_id, "{self:?} was put elsewhere: {answer:?}");
        if self.topic == DELAYED {
            seen.delayed.push((self.first, self.at_ms));
            return Ok(());
        }
        for (number, offset) in (self.first..self.first + self.messages).zip(answer.queue_offset..)
        {
            seen.stored.push(((self.topic.to_owned(), self.queue_id), offset, number));
        }
        for (number, place) in (self.first..).zip(answer.msg_id.split(',')) {
            seen.placed.push((number, id::decode_offset_id(place)?.1));
        }
        Ok(())
    }
}

/// Commits offsets of a group of its own until the connection breaks: by themselves, along with pulls,
/// and asked back; several in flight. What is asked back is a promise.
pub(crate) fn commit(
    task: &Task,
    random: &mut StdRng,
    seen: &mut Seen,
    known: &HashMap<Consumed, Commit>,
) -> Result<()> {
    enum Asked {
        Update(Consumed, i64),
        Query(Consumed, i64),
        Pull,
    }
    let mut wire = task.connect(random)?;
    let window = [1, 8, 64][random.random_range(0..3)];
    let group = format!("crash-group-{}", task.number);
    let mut commits: HashMap<Consumed, Commit> = HashMap::new();
    let mut waiting: VecDeque<(i32, Asked)> = VecDeque::new();
    let outcome = loop {
        while waiting.len() < window {
            let queue = (TOPICS[random.random_range(0..2)], random.random_range(0..2));
            let consumed = (group.clone(), queue.0.to_owned(), queue.1);
            let before = known.get(&consumed).copied().unwrap_or_default();
            let commit = commits.entry(consumed.clone()).or_insert(before);
            let (request, asked) = match random.random_range(0..4) {
                0 => (
                    ask::request(&ask::query_offset(&consumed)),
                    Asked::Query(consumed, commit.asked),
                ),
                1 => {
                    commit.asked += random.random_range(1..100);
                    (pull_with_commit(&consumed, commit.asked), Asked::Pull)
                }
                _ => {
                    commit.asked += random.random_range(1..100);
                    (
                        ask::request(&ask::update_offset(&consumed, commit.asked)),
                        Asked::Update(consumed, commit.asked),
                    )
                }
            };
            // Nothing is known of a queue that nobody committed.
            if let Asked::Query(_, 0) = asked {
                continue;
            }
            waiting.push_back((wire.push(request), asked));
        }
        if let Err(error) = wire.flush() {
            break error;
        }
        let reply = match wire.receive() {
            Ok(reply) => reply,
            Err(error) => break error,
        };
        let at = waiting.iter().position(|(opaque, _)| *opaque == reply.opaque);
        let Some((_, asked)) = at.and_then(|at| waiting.remove(at)) else { continue };
        task.answered(seen, 1);
        let done = reply.code == ReplyCode::Success.to_wire();
        match asked {
            Asked::Update(consumed, offset) if done => {
                let commit = commits.get_mut(&consumed).expect("it was asked for");
                commit.answered = commit.answered.max(offset);
            }
            // The process is on its way out, and says nothing else.
            Asked::Query(..) if reply.code == ReplyCode::GoAway.to_wire() => {
                *seen.refused.entry(reply.code).or_default() += 1;
            }
            Asked::Query(consumed, offset) => {
                let told = reply.fields.get("offset").and_then(|text| text.parse().ok());
                assert_eq!(told, Some(offset), "{consumed:?} asked back: {reply:?}");
                let commit = commits.get_mut(&consumed).expect("it was asked for");
                commit.answered = commit.answered.max(offset);
            }
            Asked::Update(..) => *seen.refused.entry(reply.code).or_default() += 1,
            Asked::Pull => {}
        }
    };
    seen.committed.extend(commits);
    Err(outcome)
}

/// Reads queues until the connection breaks; what a consumer was given has to stay.
pub(crate) fn read(task: &Task, random: &mut StdRng, seen: &mut Seen) -> Result<()> {
    let mut wire = task.connect(random)?;
    let mut next: HashMap<Queue, i64> = HashMap::new();
    loop {
        let topic = TOPICS[random.random_range(0..TOPICS.len())];
        let queue: Queue = (topic.to_owned(), random.random_range(0..QUEUES));
        let from = next.get(&queue).copied().unwrap_or(0);
        let consumed = ("crash-readers".to_owned(), queue.0.clone(), queue.1);
        let reply = wire.call(ask::request(&ask::pull(&consumed, from)))?;
        let told: i64 = reply.fields.get("nextBeginOffset").unwrap_or("0").parse()?;
        // From the end, or from anywhere before it.
        let back = if random.random_ratio(1, 4) { random.random_range(0..1000) } else { 0 };
        next.insert(queue.clone(), (told - back).max(0));
        let mut rest = reply.body.as_ref();
        while !rest.is_empty() {
            let (record, size) = Record::decode(rest)?;
            rest = &rest[size..];
            let number = number_of(record.body).expect("it was sent by us");
            let content = Content::of(number, &queue.0, queue.1);
            assert!(
                content.is(record.body, record.properties),
                "{queue:?} {}",
                record.queue_offset
            );
            seen.stored.push((queue.clone(), record.queue_offset, number));
        }
        task.answered(seen, 1);
    }
}

/// Makes and removes topics and groups until the connection breaks.
pub(crate) fn make(task: &Task, random: &mut StdRng, seen: &mut Seen) -> Result<()> {
    let mut wire = task.connect(random)?;
    let mut mine = HashSet::new();
    for count in 0.. {
        let name = format!("made-{}-{count}", task.round);
        seen.topics.push((name.clone(), Life::Unknown));
        wire.ask(&ask::topic(&name, 3))?;
        seen.topics.push((name.clone(), Life::Exists));
        seen.groups.push((name.clone(), Life::Unknown));
        ask::make_group(&mut wire, &name)?;
        seen.groups.push((name.clone(), Life::Exists));
        mine.insert(name.clone());
        task.answered(seen, 2);
        if random.random_ratio(1, 3) {
            let gone = mine.iter().next().expect("one was just made").clone();
            mine.remove(&gone);
            seen.topics.push((gone.clone(), Life::Unknown));
            wire.ask(&DeleteTopic { topic: gone.clone() })?;
            seen.topics.push((gone.clone(), Life::Gone));
            seen.groups.push((gone.clone(), Life::Unknown));
            wire.ask(&DeleteSubscriptionGroup { group_name: gone.clone(), clean_offset: true })?;
            seen.groups.push((gone, Life::Gone));
            task.answered(seen, 2);
        }
        // Enough of them: the rest of the round belongs to the others, with a question now and then.
        if count == 8 {
            while wire.ask_plain(RequestCode::GetAllTopicConfig, Vec::new()).is_ok() {}
            break;
        }
    }
    Ok(())
}

/// A pull that commits along the way.
fn pull_with_commit(consumed: &Consumed, offset: i64) -> Command<'static> {
    let mut pull = ask::pull(consumed, 0);
    pull.sys_flag |= ask::pull_flag::COMMIT;
    pull.commit_offset = offset;
    ask::request(&pull)
}
