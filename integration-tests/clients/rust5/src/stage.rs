//! What one case stands on: its topic and group, and clients.

use std::time::{Duration, Instant};

use rocketmq::conf::{ClientOption, ProducerOption, SimpleConsumerOption};
use rocketmq::model::common::{FilterExpression, FilterType};
use rocketmq::model::message::{Message, MessageBuilder, MessageView};
use rocketmq::model::transaction::TransactionResolution;
use rocketmq::{Producer, SimpleConsumer};

pub const PATIENCE: Duration = Duration::from_secs(60);
/// The shortest a server allows; the longest a test wants to wait.
pub const INVISIBLE: Duration = Duration::from_secs(10);
/// The stock server wants some time left before the deadline, which this client sets to the same.
const AWAIT: Duration = Duration::from_secs(8);

pub struct Stage {
    pub topic: String,
    pub group: String,
    endpoints: String,
}

impl Stage {
    pub fn new(name: &str, endpoints: &str, run: &str) -> Self {
        let (topic, group) = (format!("T-{run}-{name}"), format!("G-{run}-{name}"));
        Self { topic, group, endpoints: endpoints.to_owned() }
    }

    pub fn client(&self) -> ClientOption {
        let mut option = ClientOption::default();
        option.set_access_url(&self.endpoints);
        option.set_long_polling_timeout(AWAIT);
        option.set_timeout(Duration::from_secs(10));
        option
    }

    fn producing(&self) -> ProducerOption {
        let mut option = ProducerOption::default();
        option.set_topics(vec![&self.topic]);
        option
    }

    pub async fn producer(&self) -> Producer {
        let mut producer = Producer::new(self.producing(), self.client()).unwrap();
        producer.start().await.unwrap();
        producer
    }

    pub async fn transactional(
        &self,
        check: impl Fn(&MessageView) -> TransactionResolution + Send + Sync + 'static,
    ) -> Producer {
        let checker = Box::new(move |_: String, message: MessageView| check(&message));
        let mut producer =
            Producer::new_transaction_producer(self.producing(), self.client(), checker).unwrap();
        producer.start().await.unwrap();
        producer
    }

    pub fn message(&self, body: impl Into<Vec<u8>>) -> MessageBuilder {
        MessageBuilder::builder().set_topic(&self.topic).set_body(body.into())
    }

    /// Sends prefix0, prefix1, …; what was sent.
    pub async fn send(&self, producer: &Producer, prefix: &str, count: usize) -> Vec<String> {
        let bodies = numbered(prefix, count);
        for body in &bodies {
            producer.send(self.message(body.as_bytes()).build().unwrap()).await.unwrap();
        }
        bodies
    }

    pub fn in_group(&self, body: &str, group: &str) -> impl Message + use<> {
        MessageBuilder::fifo_message_builder(&self.topic, body.into(), group).build().unwrap()
    }

    pub async fn send_in_group(&self, producer: &Producer, group: &str, count: usize) {
        for body in numbered(group, count) {
            producer.send(self.in_group(&body, group)).await.unwrap();
        }
    }

    pub async fn simple(&self) -> Consumer {
        self.simple_of(&self.group, FilterExpression::new(FilterType::Tag, "*")).await
    }

    pub async fn simple_of(&self, group: &str, filter: FilterExpression) -> Consumer {
        let mut option = SimpleConsumerOption::default();
        option.set_consumer_group(group);
        option.set_topics(vec![&self.topic]);
        let mut consumer = SimpleConsumer::new(option, self.client()).unwrap();
        consumer.start().await.unwrap();
        Consumer { consumer, topic: self.topic.clone(), filter }
    }
}

/// A simple consumer and what it is subscribed to, which this client wants to hear at each receive.
pub struct Consumer {
    pub consumer: SimpleConsumer,
    topic: String,
    filter: FilterExpression,
}

impl Consumer {
    pub async fn poll(&self, most: usize, invisible: Duration) -> Vec<MessageView> {
        let received =
            self.consumer.receive_with(&self.topic, &self.filter, most as i32, invisible);
        received.await.unwrap_or_else(|error| panic!("a receive: {error}"))
    }

    /// Receives until there are this many.
    pub async fn receive(&self, count: usize, invisible: Duration) -> Vec<MessageView> {
        self.receive_each(count, invisible, false).await
    }

    /// Receives until there are this many, acknowledging each.
    pub async fn take(&self, count: usize) -> Vec<MessageView> {
        self.receive_each(count, INVISIBLE, true).await
    }

    async fn receive_each(&self, count: usize, invisible: Duration, ack: bool) -> Vec<MessageView> {
        let started = Instant::now();
        let mut received = Vec::new();
        while received.len() < count && started.elapsed() < PATIENCE {
            let some = self.poll((count - received.len()).min(32), invisible).await;
            if ack {
                for message in &some {
                    self.ack(message).await;
                }
            }
            received.extend(some);
        }
        assert!(received.len() >= count, "{} of {count} messages came", received.len());
        received
    }

    pub async fn ack(&self, message: &MessageView) {
        self.consumer.ack(message).await.unwrap_or_else(|error| panic!("an ack: {error}"));
    }

    /// Demands that the group gets nothing more now.
    pub async fn nothing_more(&self) {
        assert_eq!(texts(&self.poll(32, INVISIBLE).await), [""; 0], "received when all is done");
    }

    /// Nothing comes for longer than what was received would have stayed hidden.
    pub async fn nothing_again(&self) {
        let started = Instant::now();
        while started.elapsed() < INVISIBLE + Duration::from_secs(3) {
            self.nothing_more().await;
        }
    }
}

pub fn text(message: &MessageView) -> String {
    String::from_utf8_lossy(message.body()).into_owned()
}

pub fn texts(messages: &[MessageView]) -> Vec<String> {
    messages.iter().map(text).collect()
}

pub fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort();
    texts
}

pub fn numbered(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}{number}")).collect()
}

pub fn beginning(prefix: &str, texts: &[String]) -> Vec<String> {
    texts.iter().filter(|text| text.starts_with(prefix)).cloned().collect()
}
