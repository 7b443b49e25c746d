/** Every way to send, and what the answer says about it. */
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.Set;
import java.util.concurrent.ConcurrentLinkedQueue;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageConst;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

final class SendCases {
    private SendCases() {}

    static void addTo(Suite suite) {
        suite.add("send-sync", SendCases::sync);
        suite.add("send-async", SendCases::async);
        suite.add("send-one-way", SendCases::oneWay);
        suite.add("send-batch", SendCases::batch);
        suite.add("send-to-each-queue", SendCases::toEachQueue);
        suite.add("send-creates-topic", SendCases::createsTopic);
        suite.add("send-create-topic-call", SendCases::createTopicCall);
        suite.add("send-topic-name-characters", SendCases::topicNameCharacters);
        suite.add("send-properties", SendCases::properties);
        suite.add("send-refused-topics", SendCases::refusedTopics);
        suite.add("send-refused-properties", SendCases::refusedProperties);
    }

    private static void sync(Stage stage) throws Exception {
        String topic = stage.topic(4);
        List<Message> sent = new ArrayList<>();
        List<SendResult> results = new ArrayList<>();
        for (int i = 0; i < 40; i++) {
            Message message = Stage.message(topic, "sync-" + i);
            results.add(stage.producer.send(message));
            sent.add(message);
        }
        confirm(stage, topic, sent, results);
    }

    private static void async(Stage stage) throws Exception {
        String topic = stage.topic(4);
        List<Message> sent = new ArrayList<>();
        Map<Integer, SendResult> results = new java.util.concurrent.ConcurrentHashMap<>();
        Queue<Throwable> failures = new ConcurrentLinkedQueue<>();
        for (int i = 0; i < 100; i++) {
            Message message = Stage.message(topic, "async-" + i);
            sent.add(message);
            int number = i;
            stage.producer.send(message, new SendCallback() {
                @Override
                public void onSuccess(SendResult result) {
                    results.put(number, result);
                }

                @Override
                public void onException(Throwable failure) {
                    failures.add(failure);
                }
            });
        }
        Check.eventually(20, "all callbacks", () -> results.size() + failures.size() == 100);
        Check.that(failures.isEmpty(), "no callback fails, got %s", failures);
        List<SendResult> ordered = new ArrayList<>();
        for (int i = 0; i < 100; i++) {
            ordered.add(results.get(i));
        }
        confirm(stage, topic, sent, ordered);
    }

    /** Each answer names the place where a reader then finds exactly this message. */
    private static void confirm(Stage stage, String topic, List<Message> sent, List<SendResult> results)
        throws Exception {
        Map<String, MessageExt> stored = new HashMap<>();
        for (MessageExt message : stage.stored(topic)) {
            MessageExt twin = stored.put(message.getQueueId() + "/" + message.getQueueOffset(), message);
            Check.that(twin == null, "two messages at one offset: %s", message);
        }
        Check.equal(sent.size(), stored.size(), "stored messages");
        Set<MessageQueue> queues = new HashSet<>(stage.queues(topic));
        for (int i = 0; i < sent.size(); i++) {
            SendResult result = results.get(i);
            Check.equal(SendStatus.SEND_OK, result.getSendStatus(), "status");
            Check.equal(sent.get(i).getProperty(MessageConst.PROPERTY_UNIQ_CLIENT_MESSAGE_ID_KEYIDX),
                result.getMsgId(), "unique id");
            Check.that(queues.contains(result.getMessageQueue()), "a queue of the topic, got %s", result.getMessageQueue());
            MessageExt found = stored.get(result.getMessageQueue().getQueueId() + "/" + result.getQueueOffset());
            Check.that(found != null, "%s is stored where the answer says", result);
            Check.equal(Stage.text(sent.get(i)), Stage.text(found), "body at the answered offset");
            Check.equal(result.getMsgId(), found.getMsgId(), "id of the stored message");
            Check.equal(topic, found.getTopic(), "topic");
            Check.that(Math.abs(found.getStoreTimestamp() - found.getBornTimestamp()) < 60_000, "times are near");
        }
    }

    private static void oneWay(Stage stage) throws Exception {
        String topic = stage.topic(2);
        Set<String> sent = new HashSet<>();
        for (int i = 0; i < 20; i++) {
            stage.producer.sendOneway(Stage.message(topic, "one-way-" + i));
            sent.add("one-way-" + i);
        }
        Check.eventually(15, "all one-way messages are stored",
            () -> new HashSet<>(Stage.texts(stage.stored(topic))).equals(sent));
    }

    private static void batch(Stage stage) throws Exception {
        String topic = stage.topic(4);
        MessageQueue queue = stage.queues(topic).get(2);
        stage.producer.send(Stage.message(topic, "before"), queue);
        List<Message> batch = new ArrayList<>();
        List<String> bodies = new ArrayList<>(List.of("before"));
        for (int i = 0; i < 10; i++) {
            Message message = new Message(topic, "tag" + i, "key-" + i, Stage.bytes("batch-" + i));
            message.putUserProperty("number", String.valueOf(i));
            batch.add(message);
            bodies.add("batch-" + i);
        }
        SendResult result = stage.producer.send(batch, queue);
        Check.equal(SendStatus.SEND_OK, result.getSendStatus(), "status");
        Check.equal(queue, result.getMessageQueue(), "queue");
        Check.equal(1L, result.getQueueOffset(), "the offset is that of the first message");
        List<String> ids = List.of(result.getMsgId().split(","));
        List<String> offsetIds = List.of(result.getOffsetMsgId().split(","));
        Check.equal(10, ids.size(), "unique ids");
        Check.equal(10, new HashSet<>(offsetIds).size(), "offset ids");
        List<MessageExt> stored = stage.stored(topic);
        Check.equal(bodies, Stage.texts(stored), "stored in the order of the batch");
        for (int i = 0; i < 10; i++) {
            MessageExt message = stored.get(i + 1);
            Check.equal((long) i + 1, message.getQueueOffset(), "offset");
            Check.equal(ids.get(i), message.getMsgId(), "id");
            Check.equal("tag" + i, message.getTags(), "tag");
            Check.equal("key-" + i, message.getKeys(), "keys");
            Check.equal(String.valueOf(i), message.getUserProperty("number"), "property");
            Check.equal("batch-" + i, Stage.text(stage.producer.viewMessage(topic, offsetIds.get(i))), "by offset id");
        }
    }

    private static void toEachQueue(Stage stage) throws Exception {
        String topic = stage.topic(8);
        for (MessageQueue queue : stage.queues(topic)) {
            String body = "to-" + queue.getQueueId();
            SendResult chosen = stage.producer.send(Stage.message(topic, body),
                (queues, message, id) -> queues.stream().filter(each -> each.getQueueId() == (int) id).findFirst().get(),
                queue.getQueueId());
            SendResult named = stage.producer.send(Stage.message(topic, body), queue);
            Check.equal(queue, chosen.getMessageQueue(), "queue of the selector");
            Check.equal(queue, named.getMessageQueue(), "queue that was named");
            Check.equal(List.of(0L, 1L), List.of(chosen.getQueueOffset(), named.getQueueOffset()), "offsets");
        }
        for (MessageExt message : stage.stored(topic)) {
            Check.equal("to-" + message.getQueueId(), Stage.text(message), "each body in its queue");
        }
    }

    private static void createsTopic(Stage stage) throws Exception {
        String topic = stage.fresh("T");
        DefaultMQProducer own = stage.ownProducer();
        SendResult result = own.send(Stage.message(topic, "first"));
        Check.equal(SendStatus.SEND_OK, result.getSendStatus(), "status");
        Check.eventually(15, "the new topic's route", () -> own.fetchPublishMessageQueues(topic).size() == 4);
        Check.equal(List.of("first"), Stage.texts(stage.stored(topic)), "stored");
    }

    /** The client first asks for the route of a topic named after the cluster, then creates on each of its brokers. */
    private static void createTopicCall(Stage stage) throws Exception {
        String topic = stage.fresh("T");
        stage.createTopic(stage.cluster, topic, 6);
        Check.eventually(10, "the new topic's route", () -> stage.queues(topic).size() == 6);
        String broker = stage.queues(topic).get(0).getBrokerName();
        String onBroker = stage.fresh("T");
        stage.createTopic(broker, onBroker, 3);
        Check.eventually(10, "a topic made on one broker", () -> stage.queues(onBroker).size() == 3);
    }

    private static void topicNameCharacters(Stage stage) throws Exception {
        String base = stage.fresh("T");
        String longest = base + "x".repeat(127 - base.length());
        for (String topic : List.of("a%B|c_D-" + base, longest)) {
            stage.topic(topic, 1);
            stage.producer.send(Stage.message(topic, "named"));
            Check.equal(List.of("named"), Stage.texts(stage.stored(topic)), "stored in " + topic);
        }
    }

    private static void properties(Stage stage) throws Exception {
        String topic = stage.topic(1);
        Message message = new Message(topic, "标签", "key-1 key-2", "тело 正文 🦀 \u0000 end".getBytes(StandardCharsets.UTF_8));
        message.setFlag(0x1234_5678);
        Map<String, String> user = new HashMap<>();
        user.put("plain", "value");
        user.put("ключ", "значение");
        user.put("鍵", "値 with spaces, \"quotes\", {braces}: and \n lines");
        user.put("🦀", "🦀🦀");
        user.put("long", "x".repeat(8000));
        user.forEach(message::putUserProperty);
        message.setBuyerId("buyer");
        message.setWaitStoreMsgOK(true);
        SendResult result = stage.producer.send(message);
        MessageExt stored = stage.stored(topic).get(0);
        user.forEach((key, value) -> Check.equal(value, stored.getUserProperty(key), "property " + key));
        Check.equal("标签", stored.getTags(), "tag");
        Check.equal("key-1 key-2", stored.getKeys(), "keys");
        Check.equal(Arrays.toString(message.getBody()), Arrays.toString(stored.getBody()), "body bytes");
        Check.equal(0x1234_5678, stored.getFlag(), "flag");
        Check.equal("buyer", stored.getBuyerId(), "buyer id");
        Check.equal(result.getMsgId(), stored.getMsgId(), "id");
        Check.equal(0, stored.getReconsumeTimes(), "reconsume times");
        Check.that(stored.getBornHostString() != null, "a born host");
        Check.equal(result.getOffsetMsgId(), ((org.apache.rocketmq.common.message.MessageClientExt) stored).getOffsetMsgId(),
            "offset id");
    }

    private static void refusedTopics(Stage stage) {
        for (String topic : List.of("", "with blank", "with/slash", "with.dot", "x".repeat(128), "SCHEDULE_TOPIC_XXXX")) {
            Check.refused(MQClientException.class, "topic '" + topic + "'",
                () -> stage.producer.send(Stage.message(topic, "never")));
        }
    }

    /** The stored form counts property bytes in 16 signed bits. */
    private static void refusedProperties(Stage stage) throws Exception {
        String topic = stage.topic(1);
        Message message = Stage.message(topic, "never");
        message.putUserProperty("long", "x".repeat(33_000));
        MQBrokerException refusal = Check.refused(MQBrokerException.class, "33,000 bytes of properties",
            () -> stage.producer.send(message));
        Check.equal(13, refusal.getResponseCode(), "response code");
        stage.producer.send(Stage.message(topic, "after"));
        Check.equal(List.of("after"), Stage.texts(stage.stored(topic)), "stored");
    }
}
