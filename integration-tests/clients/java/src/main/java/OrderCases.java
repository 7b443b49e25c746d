/** Ordered sends and orderly consumption. */
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.producer.MessageQueueSelector;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.selector.SelectMessageQueueByHash;
import org.apache.rocketmq.common.message.MessageExt;

final class OrderCases {
    private static final MessageQueueSelector BY_KEY = new SelectMessageQueueByHash();

    private OrderCases() {}

    static void addTo(Suite suite) {
        suite.add("order-handed-over", OrderCases::handedOver);
        suite.add("order-by-key", OrderCases::byKey);
        suite.add("order-retry-in-place", OrderCases::retryInPlace);
    }

    private static Map<Integer, Integer> send(Stage stage, String topic, int keys, int from, int to) throws Exception {
        Map<Integer, Integer> queues = new HashMap<>();
        for (int i = from; i < to; i++) {
            for (int key = 0; key < keys; key++) {
                SendResult result = stage.producer.send(Stage.message(topic, key + ":" + i), BY_KEY, "key-" + key);
                Integer before = queues.put(key, result.getMessageQueue().getQueueId());
                Check.that(before == null || before == result.getMessageQueue().getQueueId(), "a key stays in its queue");
            }
        }
        return queues;
    }

    /** The numbers of one key as they were received, each at its first appearance. */
    private static List<Integer> numbers(Queue<String> received, int key) {
        Set<Integer> seen = new HashSet<>();
        List<Integer> numbers = new ArrayList<>();
        for (String body : received) {
            String[] parts = body.split(":");
            if (Integer.parseInt(parts[0]) == key && seen.add(Integer.parseInt(parts[1]))) {
                numbers.add(Integer.parseInt(parts[1]));
            }
        }
        return numbers;
    }

    private static List<Integer> upTo(int end) {
        List<Integer> numbers = new ArrayList<>();
        for (int i = 0; i < end; i++) {
            numbers.add(i);
        }
        return numbers;
    }

    private static DefaultMQPushConsumer orderly(Stage stage, String group, String topic, MessageListenerOrderly listener)
        throws Exception {
        DefaultMQPushConsumer consumer = stage.push(group);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener(listener);
        consumer.start();
        return consumer;
    }

    private static void byKey(Stage stage) throws Exception {
        String topic = stage.topic(4);
        Queue<String> received = new ConcurrentLinkedQueue<>();
        orderly(stage, stage.group(), topic, (messages, context) -> {
            received.addAll(Stage.texts(messages));
            return ConsumeOrderlyStatus.SUCCESS;
        });
        send(stage, topic, 8, 0, 50);
        Check.eventually(Stage.PATIENCE_SECONDS, "all is received", () -> received.size() >= 400);
        for (int key = 0; key < 8; key++) {
            Check.equal(upTo(50), numbers(received, key), "order of key " + key);
        }
        Check.equal(400, received.size(), "each once");
    }

    /** A message that fails holds its queue until it succeeds, with a growing count of attempts. */
    private static void retryInPlace(Stage stage) throws Exception {
        String topic = stage.topic(2);
        Queue<String> received = new ConcurrentLinkedQueue<>();
        Queue<Integer> attempts = new ConcurrentLinkedQueue<>();
        AtomicInteger failures = new AtomicInteger();
        send(stage, topic, 4, 0, 20);
        orderly(stage, stage.group(), topic, (messages, context) -> {
            for (MessageExt message : messages) {
                if (Stage.text(message).equals("1:7")) {
                    attempts.add(message.getReconsumeTimes());
                    if (failures.getAndIncrement() < 3) {
                        context.setSuspendCurrentQueueTimeMillis(100);
                        return ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT;
                    }
                }
                received.add(Stage.text(message));
            }
            return ConsumeOrderlyStatus.SUCCESS;
        });
        Check.eventually(Stage.PATIENCE_SECONDS, "all is received", () -> received.size() >= 80);
        for (int key = 0; key < 4; key++) {
            Check.equal(upTo(20), numbers(received, key), "order of key " + key);
        }
        Check.equal(List.of(0, 1, 2, 3), List.copyOf(attempts), "reconsume times of the failing message");
    }

    /** While a second consumer joins and leaves, one consumer at a time works on a queue, and order is kept. */
    private static void handedOver(Stage stage) throws Exception {
        String topic = stage.topic(4);
        String group = stage.group();
        Queue<String> received = new ConcurrentLinkedQueue<>();
        Set<String> consumersOfMessages = ConcurrentHashMap.newKeySet();
        Map<Integer, String> working = new ConcurrentHashMap<>();
        Queue<String> overlaps = new ConcurrentLinkedQueue<>();
        DefaultMQPushConsumer one = orderly(stage, group, topic,
            witness("one", received, consumersOfMessages, working, overlaps));
        Check.eventually(Stage.PATIENCE_SECONDS, "one consumer owns all", () -> Stage.owned(one, topic).size() == 4);
        send(stage, topic, 8, 0, 20);
        DefaultMQPushConsumer two = orderly(stage, group, topic,
            witness("two", received, consumersOfMessages, working, overlaps));
        Check.eventually(Stage.PATIENCE_SECONDS, "both own two queues",
            () -> Stage.owned(one, topic).size() == 2 && Stage.owned(two, topic).size() == 2);
        send(stage, topic, 8, 20, 40);
        Check.eventually(Stage.PATIENCE_SECONDS, "both work", () -> consumersOfMessages.size() == 2);
        two.shutdown();
        send(stage, topic, 8, 40, 60);
        Check.eventually(Stage.PATIENCE_SECONDS, "all is received", () -> new HashSet<>(received).size() == 480);
        for (int key = 0; key < 8; key++) {
            Check.equal(upTo(60), numbers(received, key), "order of key " + key);
        }
        Check.that(overlaps.isEmpty(), "two consumers worked on one queue: %s", overlaps);
    }

    private static MessageListenerOrderly witness(String name, Queue<String> received, Set<String> consumers,
        Map<Integer, String> working, Queue<String> overlaps) {
        return (messages, context) -> {
            int queue = context.getMessageQueue().getQueueId();
            String other = working.put(queue, name);
            if (other != null) {
                overlaps.add(name + " and " + other + " on " + queue);
            }
            received.addAll(Stage.texts(messages));
            consumers.add(name);
            working.remove(queue);
            return ConsumeOrderlyStatus.SUCCESS;
        };
    }
}
