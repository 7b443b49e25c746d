/** What fails comes back later, and in the end becomes a dead letter. */
import java.util.List;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageConst;
import org.apache.rocketmq.common.message.MessageExt;

final class RetryCases {
    private RetryCases() {}

    static void addTo(Suite suite) {
        suite.add("retry-then-dead-letter", RetryCases::thenDeadLetter);
        suite.add("retry-default-delay", RetryCases::defaultDelay);
        suite.add("retry-order-dead-letter", RetryCases::orderDeadLetter);
    }

    private record Attempt(String body, int reconsumeTimes, String topic, String id, long at) {}

    private static DefaultMQPushConsumer consumer(Stage stage, String group) {
        DefaultMQPushConsumer consumer = stage.push(group);
        // The retry topic appears with the group, and a client learns of it at its next look at the routes.
        consumer.setPollNameServerInterval(1000);
        return consumer;
    }

    private static void thenDeadLetter(Stage stage) throws Exception {
        String topic = stage.topic(2);
        String group = stage.group();
        Queue<Attempt> attempts = new ConcurrentLinkedQueue<>();
        DefaultMQPushConsumer consumer = consumer(stage, group);
        consumer.setMaxReconsumeTimes(3);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            for (MessageExt message : messages) {
                attempts.add(new Attempt(Stage.text(message), message.getReconsumeTimes(), message.getTopic(),
                    message.getMsgId(), System.currentTimeMillis()));
            }
            context.setDelayLevelWhenNextConsume(1);
            return Stage.text(messages.get(0)).equals("bad")
                ? ConsumeConcurrentlyStatus.RECONSUME_LATER
                : ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        Message bad = new Message(topic, "tag", "key", Stage.bytes("bad"));
        bad.putUserProperty("colour", "red");
        SendResult result = stage.producer.send(bad);
        for (int i = 0; i < 5; i++) {
            stage.producer.send(Stage.message(topic, "good"));
        }
        Check.eventually(90, "the first delivery and three more", () -> failed(attempts).size() >= 4);
        String deadLetters = "%DLQ%" + group;
        Check.eventually(30, "the dead letter", () -> stage.stored(deadLetters).size() == 1);
        List<Attempt> failed = failed(attempts);
        Check.equal(List.of(0, 1, 2, 3), failed.stream().map(Attempt::reconsumeTimes).toList(), "reconsume times");
        for (int i = 0; i < 4; i++) {
            Check.equal(topic, failed.get(i).topic, "the listener sees the topic it subscribed to");
            Check.equal(result.getMsgId(), failed.get(i).id, "the unique id stays");
            Check.that(i == 0 || failed.get(i).at - failed.get(i - 1).at >= 950, "a retry is not early");
        }
        Check.equal(5L, attempts.stream().filter(each -> each.body.equals("good")).count(), "deliveries of the others");
        MessageExt dead = stage.stored(deadLetters).get(0);
        Check.equal("bad", Stage.text(dead), "body of the dead letter");
        Check.equal("red", dead.getUserProperty("colour"), "property of the dead letter");
        Check.equal("tag", dead.getTags(), "tag of the dead letter");
        Check.equal("key", dead.getKeys(), "keys of the dead letter");
        Check.equal(deadLetters, dead.getTopic(), "topic of the dead letter");
        Check.equal(topic, dead.getProperty(MessageConst.PROPERTY_RETRY_TOPIC), "where the dead letter was sent to");
        Check.equal(result.getOffsetMsgId(), dead.getProperty(MessageConst.PROPERTY_ORIGIN_MESSAGE_ID), "origin id");
        Check.equal(4, dead.getReconsumeTimes(), "reconsume times of the dead letter");
    }

    private static List<Attempt> failed(Queue<Attempt> attempts) {
        return attempts.stream().filter(each -> each.body.equals("bad")).toList();
    }

    /** Without a wish of the listener the first retry takes delay level 3, ten seconds. */
    private static void defaultDelay(Stage stage) throws Exception {
        String topic = stage.topic(2);
        String group = stage.group();
        Queue<Attempt> attempts = new ConcurrentLinkedQueue<>();
        DefaultMQPushConsumer consumer = consumer(stage, group);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            MessageExt message = messages.get(0);
            attempts.add(new Attempt(Stage.text(message), message.getReconsumeTimes(), message.getTopic(),
                message.getMsgId(), System.currentTimeMillis()));
            return message.getReconsumeTimes() == 0 ? null : ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        // The queue of a new retry topic is taken at the next rebalance only, up to 20 s later.
        Check.eventually(Stage.PATIENCE_SECONDS, "the consumer owns its retry queue",
            () -> !Stage.owned(consumer, topic).isEmpty() && !Stage.owned(consumer, "%RETRY%" + group).isEmpty());
        stage.producer.send(Stage.message(topic, "once more"));
        Check.eventually(90, "the message comes back", () -> attempts.size() >= 2);
        List<Attempt> seen = List.copyOf(attempts);
        Check.equal(1, seen.get(1).reconsumeTimes, "reconsume times");
        long after = seen.get(1).at - seen.get(0).at;
        Check.that(after >= 9_950 && after <= 13_000, "it comes after ten seconds, not %d ms", after);
    }

    /** An orderly consumer retries in place, and sends what fails too often to its retry topic, as a dead letter. */
    private static void orderDeadLetter(Stage stage) throws Exception {
        String topic = stage.topic(1);
        String group = stage.group();
        Queue<String> attempts = new ConcurrentLinkedQueue<>();
        DefaultMQPushConsumer consumer = consumer(stage, group);
        consumer.setMaxReconsumeTimes(2);
        consumer.setSuspendCurrentQueueTimeMillis(100);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
            MessageExt message = messages.get(0);
            attempts.add(Stage.text(message) + message.getReconsumeTimes());
            return Stage.text(message).equals("bad")
                ? ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT
                : ConsumeOrderlyStatus.SUCCESS;
        });
        for (String body : List.of("first", "bad", "last")) {
            stage.producer.send(Stage.message(topic, body));
        }
        consumer.start();
        Check.eventually(Stage.PATIENCE_SECONDS, "the last message", () -> attempts.contains("last0"));
        Check.equal(List.of("first0", "bad0", "bad1", "bad2", "last0"), List.copyOf(attempts), "attempts");
        Check.eventually(30, "the dead letter",
            () -> Stage.texts(stage.stored("%DLQ%" + group)).equals(List.of("bad")));
    }
}
