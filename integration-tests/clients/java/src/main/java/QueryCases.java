/** Finding messages and offsets without consuming. */
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.apache.rocketmq.client.QueryResult;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

final class QueryCases {
    private QueryCases() {}

    static void addTo(Suite suite) {
        suite.add("query-queue-offsets", QueryCases::queueOffsets);
        suite.add("query-by-offset-id", QueryCases::byOffsetId);
        suite.add("query-by-unique-id", QueryCases::byUniqueId);
        suite.add("query-by-key", QueryCases::byKey);
    }

    private static void queueOffsets(Stage stage) throws Exception {
        String topic = stage.topic(2);
        List<MessageQueue> queues = stage.queues(topic);
        MessageQueue full = queues.get(0);
        MessageQueue empty = queues.get(1);
        long before = System.currentTimeMillis() - 1000;
        for (int i = 0; i < 5; i++) {
            stage.producer.send(Stage.message(topic, "old-" + i), full);
        }
        Thread.sleep(50);
        long between = System.currentTimeMillis();
        Thread.sleep(50);
        for (int i = 0; i < 5; i++) {
            stage.producer.send(Stage.message(topic, "new-" + i), full);
        }
        long after = System.currentTimeMillis() + 10_000;
        Check.eventually(10, "ten offsets", () -> stage.producer.maxOffset(full) == 10);
        Check.equal(0L, stage.producer.minOffset(full), "smallest offset");
        Check.equal(0L, stage.producer.maxOffset(empty), "largest offset of an empty queue");
        Check.equal(0L, stage.producer.minOffset(empty), "smallest offset of an empty queue");
        Check.equal(0L, stage.producer.searchOffset(full, before), "offset before all");
        Check.equal(5L, stage.producer.searchOffset(full, between), "offset between");
        // A time after the last message gives the last message or the place behind it.
        Check.that(stage.producer.searchOffset(full, after) >= 9, "offset after all");
        Check.equal(0L, stage.producer.searchOffset(empty, between), "offset in an empty queue");
        long earliest = stage.producer.earliestMsgStoreTime(full);
        Check.that(earliest >= before && earliest <= between, "the earliest store time %d is that of the first", earliest);
    }

    private static void byOffsetId(Stage stage) throws Exception {
        String topic = stage.topic(2);
        for (int i = 0; i < 6; i++) {
            SendResult result = stage.producer.send(new Message(topic, "tag", "key" + i, Stage.bytes("body-" + i)));
            MessageExt found = stage.producer.viewMessage(topic, result.getOffsetMsgId());
            Check.equal("body-" + i, Stage.text(found), "body");
            Check.equal(result.getMsgId(), found.getMsgId(), "id");
            Check.equal(result.getQueueOffset(), found.getQueueOffset(), "offset");
            Check.equal("key" + i, found.getKeys(), "keys");
        }
    }

    private static void byUniqueId(Stage stage) throws Exception {
        String topic = stage.topic(2);
        for (int i = 0; i < 6; i++) {
            SendResult result = stage.producer.send(Stage.message(topic, "body-" + i));
            String body = "body-" + i;
            Check.eventually(15, "the message is found by its unique id", () -> {
                MessageExt found = stage.producer.viewMessage(topic, result.getMsgId());
                return found != null && Stage.text(found).equals(body) && found.getMsgId().equals(result.getMsgId());
            });
        }
    }

    private static void byKey(Stage stage) throws Exception {
        String topic = stage.topic(4);
        String other = stage.topic(1);
        long begin = System.currentTimeMillis() - 60_000;
        Set<String> bodies = new HashSet<>();
        for (int i = 0; i < 5; i++) {
            stage.producer.send(new Message(topic, "tag", "shared own-" + i, Stage.bytes("body-" + i)));
            stage.producer.send(new Message(other, "tag", "shared", Stage.bytes("other-" + i)));
            bodies.add("body-" + i);
        }
        long end = System.currentTimeMillis() + 60_000;
        Check.eventually(15, "five messages by one key",
            () -> new HashSet<>(keyed(stage, topic, "shared", 32, begin, end)).equals(bodies));
        Check.equal(List.of("body-3"), keyed(stage, topic, "own-3", 32, begin, end), "by a key of its own");
        Check.equal(2, keyed(stage, topic, "shared", 2, begin, end).size(), "no more than asked for");
        Check.refused(MQClientException.class, "a key nobody has", () -> keyed(stage, topic, "nobody", 32, begin, end));
        Check.refused(MQClientException.class, "a time before them",
            () -> keyed(stage, topic, "shared", 32, begin - 60_000, begin));
    }

    private static List<String> keyed(Stage stage, String topic, String key, int most, long begin, long end)
        throws Exception {
        QueryResult result = stage.producer.queryMessage(topic, key, most, begin, end);
        return new ArrayList<>(Stage.texts(result.getMessageList()));
    }
}
