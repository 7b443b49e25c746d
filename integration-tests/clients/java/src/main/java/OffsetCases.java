/** Where a group begins, and where it goes on. */
import java.util.ArrayList;
import java.util.List;
import java.util.Queue;
import java.util.Set;
import java.util.TreeSet;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.common.UtilAll;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;

final class OffsetCases {
    private OffsetCases() {}

    static void addTo(Suite suite) {
        suite.add("offset-over-restart", OffsetCases::overRestart);
        suite.add("offset-first-last-timestamp", OffsetCases::firstLastTimestamp);
    }

    private static Set<String> send(Stage stage, String topic, String prefix, int count) throws Exception {
        Set<String> bodies = new TreeSet<>();
        for (int i = 0; i < count; i++) {
            stage.producer.send(Stage.message(topic, prefix + i));
            bodies.add(prefix + i);
        }
        return bodies;
    }

    private static void overRestart(Stage stage) throws Exception {
        String topic = stage.topic(4);
        String group = stage.group();
        for (int round = 0; round < 3; round++) {
            Set<String> sent = send(stage, topic, "round-" + round + "-", 40);
            DefaultMQPushConsumer consumer = stage.push(group);
            // Only the very first consumer of the group may look at this.
            consumer.setConsumeFromWhere(round == 0
                ? ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET
                : ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET);
            Queue<MessageExt> received = stage.collect(consumer, topic, "*");
            Check.eventually(Stage.PATIENCE_SECONDS, "this round's messages", () -> received.size() >= sent.size());
            Thread.sleep(300);
            consumer.shutdown();
            Check.equal(sent, new TreeSet<>(Stage.texts(received)), "round " + round);
            Check.equal(sent.size(), received.size(), "deliveries in round " + round);
        }
    }

    /**
     * A new group on a topic whose first messages are still at hand gets all of them, whatever it asks for: the server
     * answers offset 0 instead of "not found". Users rely on losing nothing to a consumer that starts a little late.
     */
    private static void firstLastTimestamp(Stage stage) throws Exception {
        String topic = stage.topic(2);
        Set<String> expected = send(stage, topic, "old-", 10);
        List<Queue<MessageExt>> received = new ArrayList<>();
        for (ConsumeFromWhere where : List.of(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
            ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET, ConsumeFromWhere.CONSUME_FROM_TIMESTAMP)) {
            DefaultMQPushConsumer consumer = stage.push(stage.group());
            consumer.setConsumeFromWhere(where);
            consumer.setConsumeTimestamp(UtilAll.timeMillisToHumanString3(System.currentTimeMillis() - 60_000));
            received.add(stage.collect(consumer, topic, "*"));
        }
        for (Queue<MessageExt> each : received) {
            Check.eventually(Stage.PATIENCE_SECONDS, "the old messages", () -> each.size() >= 10);
        }
        expected.addAll(send(stage, topic, "new-", 10));
        for (Queue<MessageExt> each : received) {
            Check.eventually(10, "the new messages", () -> each.size() >= 20);
            Check.equal(expected, new TreeSet<>(Stage.texts(each)), "received");
            Check.equal(20, each.size(), "each once");
        }
    }
}
