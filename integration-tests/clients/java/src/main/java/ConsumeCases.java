/** Push consumption: everything arrives, once, at whoever owns the queue. */
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.MessageSelector;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

final class ConsumeCases {
    /** The client balances by itself only every 20 s; sooner means that the broker told it of the change (40). */
    private static final int NOTICE_SECONDS = 12;

    private ConsumeCases() {}

    static void addTo(Suite suite) {
        suite.add("consume-rebalance", ConsumeCases::rebalance);
        suite.add("consume-many", ConsumeCases::many);
        suite.add("consume-when-one-dies", ConsumeCases::whenOneDies);
        suite.add("consume-at-once", ConsumeCases::atOnce);
        suite.add("consume-broadcast", ConsumeCases::broadcast);
        suite.add("consume-tags", ConsumeCases::tags);
        suite.add("consume-two-topics", ConsumeCases::twoTopics);
        suite.addWhenNamed("consume-sql", ConsumeCases::sql);
    }

    /** Sends one message after another until it is stopped, and knows what was acknowledged. */
    private static final class Stream implements AutoCloseable {
        final Set<String> sent = ConcurrentHashMap.newKeySet();
        private final AtomicBoolean going = new AtomicBoolean(true);
        private final ExecutorService thread = Executors.newSingleThreadExecutor();
        private final Future<Void> work;

        Stream(Stage stage, String topic) {
            work = thread.submit(() -> {
                for (int i = 0; going.get(); i++) {
                    stage.producer.send(Stage.message(topic, "stream-" + i));
                    sent.add("stream-" + i);
                    Thread.sleep(5);
                }
                return null;
            });
        }

        @Override
        public void close() throws Exception {
            going.set(false);
            work.get();
            thread.shutdown();
        }
    }

    private static void share(DefaultMQPushConsumer one, DefaultMQPushConsumer two, String topic, int queues)
        throws InterruptedException {
        Check.eventually(NOTICE_SECONDS, "the first consumer gives queues up",
            () -> Stage.owned(one, topic).size() == queues / 2);
        Check.eventually(Stage.PATIENCE_SECONDS, "every queue is owned once", () -> {
            Set<MessageQueue> both = new HashSet<>(Stage.owned(one, topic));
            both.addAll(Stage.owned(two, topic));
            return both.size() == queues
                && Stage.owned(one, topic).size() == queues / 2
                && Stage.owned(two, topic).size() == queues / 2;
        });
    }

    private static void arrive(Set<String> sent, List<Queue<MessageExt>> consumers) throws InterruptedException {
        Check.eventually(Stage.PATIENCE_SECONDS, "every acknowledged message arrives", () -> {
            Set<String> received = new HashSet<>();
            consumers.forEach(each -> received.addAll(Stage.texts(each)));
            return received.equals(sent);
        });
    }

    private static void rebalance(Stage stage) throws Exception {
        String topic = stage.topic(8);
        String group = stage.group();
        DefaultMQPushConsumer one = stage.push(group);
        Queue<MessageExt> first = stage.collect(one, topic, "*");
        Check.eventually(Stage.PATIENCE_SECONDS, "one consumer owns all", () -> Stage.owned(one, topic).size() == 8);
        Stream stream = new Stream(stage, topic);
        Queue<MessageExt> second;
        try (stream) {
            DefaultMQPushConsumer two = stage.push(group);
            second = stage.collect(two, topic, "*");
            share(one, two, topic, 8);
            int before = second.size();
            Check.eventually(10, "the second consumer gets messages", () -> second.size() > before);
            two.shutdown();
            Check.eventually(NOTICE_SECONDS, "the first consumer owns all again",
                () -> Stage.owned(one, topic).size() == 8);
        }
        arrive(stream.sent, List.of(first, second));
    }

    /** A consumer whose connections break without a word: the broker notices, and the other one takes over. */
    private static void whenOneDies(Stage stage) throws Exception {
        String topic = stage.topic(4);
        String group = stage.group();
        DefaultMQPushConsumer one = stage.push(group);
        DefaultMQPushConsumer two = stage.push(group);
        Queue<MessageExt> first = stage.collect(one, topic, "*");
        Check.eventually(Stage.PATIENCE_SECONDS, "one consumer owns all", () -> Stage.owned(one, topic).size() == 4);
        Stream stream = new Stream(stage, topic);
        Queue<MessageExt> second;
        try (stream) {
            second = stage.collect(two, topic, "*");
            share(one, two, topic, 4);
            two.getDefaultMQPushConsumerImpl().getmQClientFactory().getMQClientAPIImpl().getRemotingClient().shutdown();
            Check.eventually(NOTICE_SECONDS, "the survivor owns all", () -> Stage.owned(one, topic).size() == 4);
        }
        arrive(stream.sent, List.of(first, second));
    }

    private static void many(Stage stage) throws Exception {
        int threads = 4;
        int each = 2500;
        String topic = stage.topic(4);
        DefaultMQPushConsumer consumer = stage.push(stage.group());
        // One thread keeps the order in which the queues were read.
        consumer.setConsumeThreadMin(1);
        consumer.setConsumeThreadMax(1);
        Queue<MessageExt> received = stage.collect(consumer, topic, "*");
        Map<String, String> acknowledged = new ConcurrentHashMap<>();
        ExecutorService pool = Executors.newFixedThreadPool(threads);
        Queue<Throwable> failures = new ConcurrentLinkedQueue<>();
        for (int t = 0; t < threads; t++) {
            int thread = t;
            pool.execute(() -> {
                try {
                    Map<Integer, Long> last = new HashMap<>();
                    for (int i = 0; i < each; i++) {
                        String body = thread + ":" + i;
                        SendResult result = stage.producer.send(Stage.message(topic, body));
                        int queue = result.getMessageQueue().getQueueId();
                        Long previous = last.put(queue, result.getQueueOffset());
                        Check.that(previous == null || previous < result.getQueueOffset(),
                            "what one thread sends to a queue is stored in this order");
                        acknowledged.put(queue + "/" + result.getQueueOffset(), body);
                    }
                } catch (Throwable failure) {
                    failures.add(failure);
                }
            });
        }
        pool.shutdown();
        Check.eventually(120, "all is sent", pool::isTerminated);
        Check.that(failures.isEmpty(), "no send fails: %s", failures);
        Check.equal(threads * each, acknowledged.size(), "distinct places");
        Check.eventually(Stage.PATIENCE_SECONDS, "all is received", () -> received.size() >= threads * each);
        Thread.sleep(500);
        Check.equal(threads * each, received.size(), "messages received, without a second delivery");
        Map<Integer, Long> next = new HashMap<>();
        for (MessageExt message : received) {
            long expected = next.getOrDefault(message.getQueueId(), 0L);
            Check.equal(expected, message.getQueueOffset(), "next offset of queue " + message.getQueueId());
            next.put(message.getQueueId(), expected + 1);
            Check.equal(acknowledged.get(message.getQueueId() + "/" + message.getQueueOffset()), Stage.text(message),
                "body as it was acknowledged");
        }
    }

    /** A waiting pull is answered when a message comes, not when its time is over. */
    private static void atOnce(Stage stage) throws Exception {
        String topic = stage.topic(1);
        DefaultMQPushConsumer consumer = stage.push(stage.group());
        Queue<MessageExt> received = stage.collect(consumer, topic, "*");
        stage.producer.send(Stage.message(topic, "warm"));
        Check.eventually(Stage.PATIENCE_SECONDS, "the consumer is running", () -> received.size() == 1);
        Thread.sleep(1500);
        for (int i = 2; i <= 6; i++) {
            int count = i;
            stage.producer.send(Stage.message(topic, "now-" + i));
            Check.eventually(2, "a message reaches a waiting consumer", () -> received.size() == count);
        }
    }

    private static void broadcast(Stage stage) throws Exception {
        String topic = stage.topic(4);
        String group = stage.group();
        DefaultMQPushConsumer one = stage.push(group);
        DefaultMQPushConsumer two = stage.push(group);
        Stage.broadcasting(one);
        Stage.broadcasting(two);
        Queue<MessageExt> first = stage.collect(one, topic, "*");
        Queue<MessageExt> second = stage.collect(two, topic, "*");
        Set<String> sent = new TreeSet<>();
        for (int i = 0; i < 40; i++) {
            stage.producer.send(Stage.message(topic, "all-" + i));
            sent.add("all-" + i);
        }
        Check.eventually(Stage.PATIENCE_SECONDS, "both get all", () -> first.size() >= 40 && second.size() >= 40);
        Check.equal(sent, new TreeSet<>(Stage.texts(first)), "what the first got");
        Check.equal(sent, new TreeSet<>(Stage.texts(second)), "what the second got");
        Check.equal(80, first.size() + second.size(), "each once");
    }

    private static void tags(Stage stage) throws Exception {
        String topic = stage.topic(2);
        // "Aa" and "BB" have the same Java hash, which is all that a consume queue knows of a tag.
        List<String> tags = List.of("A", "B", "C", "Aa", "BB", "标签", "🦀");
        for (int i = 0; i < 10; i++) {
            for (String tag : tags) {
                stage.producer.send(new Message(topic, tag, Stage.bytes(tag + i)));
            }
            stage.producer.send(Stage.message(topic, "none" + i));
        }
        Map<String, Set<String>> wanted = new HashMap<>();
        wanted.put("*", Set.of("A", "B", "C", "Aa", "BB", "标签", "🦀", "none"));
        wanted.put("A || B", Set.of("A", "B"));
        wanted.put("C", Set.of("C"));
        wanted.put("Aa||标签", Set.of("Aa", "标签"));
        wanted.put("BB || 🦀 || absent", Set.of("BB", "🦀"));
        Map<String, Queue<MessageExt>> received = new HashMap<>();
        for (String expression : wanted.keySet()) {
            received.put(expression, stage.collect(stage.push(stage.group()), topic, expression));
        }
        for (String expression : wanted.keySet()) {
            int count = wanted.get(expression).size() * 10;
            Check.eventually(Stage.PATIENCE_SECONDS, "all of " + expression,
                () -> received.get(expression).size() >= count);
        }
        Thread.sleep(500);
        for (String expression : wanted.keySet()) {
            Set<String> expected = new TreeSet<>();
            wanted.get(expression).forEach(tag -> {
                for (int i = 0; i < 10; i++) {
                    expected.add(tag + i);
                }
            });
            Check.equal(expected, new TreeSet<>(Stage.texts(received.get(expression))), expression);
            Check.equal(expected.size(), received.get(expression).size(), expression + " without doubles");
        }
    }

    private static void twoTopics(Stage stage) throws Exception {
        String one = stage.topic(2);
        String two = stage.topic(3);
        DefaultMQPushConsumer consumer = stage.push(stage.group());
        consumer.subscribe(one, "*");
        Queue<MessageExt> received = stage.collect(consumer, two, "yes");
        Set<String> expected = new TreeSet<>();
        for (int i = 0; i < 10; i++) {
            stage.producer.send(Stage.message(one, "one-" + i));
            stage.producer.send(new Message(two, "yes", Stage.bytes("two-" + i)));
            stage.producer.send(new Message(two, "no", Stage.bytes("no-" + i)));
            expected.add("one-" + i);
            expected.add("two-" + i);
        }
        Check.eventually(Stage.PATIENCE_SECONDS, "both topics arrive", () -> received.size() >= 20);
        Check.equal(expected, new TreeSet<>(Stage.texts(received)), "received");
    }

    /** Wants a broker with enablePropertyFilter=true. */
    private static void sql(Stage stage) throws Exception {
        String topic = stage.topic(2);
        Queue<MessageExt> received = new ConcurrentLinkedQueue<>();
        DefaultMQPushConsumer consumer = stage.push(stage.group());
        consumer.subscribe(topic, MessageSelector.bySql("(n BETWEEN 3 AND 6 OR colour IN ('red', 'blue')) AND TAGS IS NOT NULL"));
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            received.addAll(messages);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        for (int i = 0; i < 10; i++) {
            Message message = new Message(topic, "tag", Stage.bytes("n" + i));
            message.putUserProperty("n", String.valueOf(i));
            if (i == 9) {
                message.putUserProperty("colour", "red");
            }
            stage.producer.send(message);
        }
        stage.producer.send(Stage.message(topic, "without a tag"));
        Check.eventually(Stage.PATIENCE_SECONDS, "what was subscribed to", () -> received.size() >= 5);
        Thread.sleep(500);
        Check.equal(Set.of("n3", "n4", "n5", "n6", "n9"), Set.copyOf(Stage.texts(received)), "what was subscribed to");
        Check.equal(5, received.size(), "each once");
        DefaultMQPushConsumer wrong = stage.push(stage.group());
        wrong.subscribe(topic, MessageSelector.bySql("n >"));
        wrong.registerMessageListener((MessageListenerConcurrently) (messages, context) -> null);
        Check.refused(MQClientException.class, "an expression that cannot be read", wrong::start);
    }
}
