/** A message that counts only once its sender says so, or says so when it is asked. */
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.function.Function;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.client.producer.TransactionSendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.sysflag.MessageSysFlag;

final class TransactionCases {
    /** The stock broker asks every 30 s about what is older than 6 s, and takes its time. */
    private static final int CHECK_SECONDS = 120;

    private TransactionCases() {}

    static void addTo(Suite suite) {
        suite.add("transaction-unknown-then-check", TransactionCases::unknownThenCheck);
        suite.add("transaction-immunity", TransactionCases::immunity);
        suite.add("transaction-commit", TransactionCases::commit);
        suite.add("transaction-rollback", TransactionCases::rollback);
        suite.addWhenNamed("transaction-check-max", TransactionCases::checkMax);
    }

    /** A check that a producer was asked for. */
    private record Asked(MessageExt message, long at) {}

    /** Answers what the tables say by body: first when the message was sent, then whenever it is asked. */
    private static final class Listener implements TransactionListener {
        final Map<String, Message> sent = new ConcurrentHashMap<>();
        final Queue<Asked> asked = new ConcurrentLinkedQueue<>();
        private final Function<String, LocalTransactionState> atOnce;
        private final Function<String, LocalTransactionState> whenAsked;

        Listener(Function<String, LocalTransactionState> atOnce, Function<String, LocalTransactionState> whenAsked) {
            this.atOnce = atOnce;
            this.whenAsked = whenAsked;
        }

        @Override
        public LocalTransactionState executeLocalTransaction(Message message, Object argument) {
            sent.put(Stage.text(message), message);
            return atOnce.apply(Stage.text(message));
        }

        @Override
        public LocalTransactionState checkLocalTransaction(MessageExt message) {
            asked.add(new Asked(message, System.currentTimeMillis()));
            return whenAsked.apply(Stage.text(message));
        }

        List<Asked> askedOf(String body) {
            return asked.stream().filter(each -> Stage.text(each.message).equals(body)).toList();
        }
    }

    private static LocalTransactionState byName(String body) {
        return body.startsWith("commit") ? LocalTransactionState.COMMIT_MESSAGE
            : body.startsWith("rollback") ? LocalTransactionState.ROLLBACK_MESSAGE : LocalTransactionState.UNKNOW;
    }

    private static TransactionSendResult send(TransactionMQProducer producer, Message message) throws Exception {
        TransactionSendResult result = producer.sendMessageInTransaction(message, "argument");
        Check.equal(SendStatus.SEND_OK, result.getSendStatus(), "status of the half message");
        return result;
    }

    private static void commit(Stage stage) throws Exception {
        String topic = stage.topic(2);
        Listener listener = new Listener(TransactionCases::byName, TransactionCases::byName);
        TransactionMQProducer producer = stage.transactions(listener);
        Message message = new Message(topic, "tag", "key1 key2", Stage.bytes("commit-1"));
        message.putUserProperty("colour", "red");
        message.setFlag(7);
        TransactionSendResult result = send(producer, message);
        Check.equal(LocalTransactionState.COMMIT_MESSAGE, result.getLocalTransactionState(), "local state");
        Check.equal(result.getMsgId(), result.getTransactionId(), "transaction id of the result");
        Check.equal(result.getMsgId(), listener.sent.get("commit-1").getTransactionId(), "transaction id of the listener");
        for (int i = 2; i <= 20; i++) {
            send(producer, Stage.message(topic, "commit-" + i));
        }
        Check.eventually(10, "what was committed", () -> stage.stored(topic).size() == 20);
        List<MessageExt> stored = stage.stored(topic);
        Check.equal(20, new TreeSet<>(Stage.texts(stored)).size(), "different messages");
        MessageExt first = stored.stream().filter(each -> Stage.text(each).equals("commit-1")).findFirst().orElseThrow();
        long half = first.getPreparedTransactionOffset();
        Check.equal(topic, first.getTopic(), "topic");
        Check.equal(result.getMessageQueue().getQueueId(), first.getQueueId(), "queue");
        Check.equal("tag", first.getTags(), "tags");
        Check.equal("key1 key2", first.getKeys(), "keys");
        Check.equal(7, first.getFlag(), "flag");
        Check.equal(result.getMsgId(), first.getMsgId(), "unique id");
        Check.that(half >= 0 && first.getCommitLogOffset() > half, "it is behind its half, which is at %d", half);
        Check.equal(MessageSysFlag.TRANSACTION_COMMIT_TYPE, MessageSysFlag.getTransactionValue(first.getSysFlag()), "kind");
        Map<String, String> expected = new HashMap<>(Map.of("TAGS", "tag", "KEYS", "key1 key2", "colour", "red",
            "TRAN_MSG", "true", "PGROUP", producer.getProducerGroup(), "UNIQ_KEY", result.getMsgId(),
            "__transactionId__", result.getMsgId(), "CLUSTER", stage.cluster));
        expected.putAll(Map.of("MSG_REGION", "DefaultRegion", "TRACE_ON", "true", "WAIT", "true"));
        Map<String, String> actual = new HashMap<>(first.getProperties());
        // What the broker adds on the way to a consumer.
        actual.keySet().removeAll(Set.of("MIN_OFFSET", "MAX_OFFSET", "INSTANCE_ID"));
        Check.equal(new TreeMap<>(expected), new TreeMap<>(actual), "properties");
        Check.equal(0, listener.asked.size(), "questions");
    }

    private static void rollback(Stage stage) throws Exception {
        String topic = stage.topic(1);
        Listener listener = new Listener(TransactionCases::byName, TransactionCases::byName);
        TransactionMQProducer producer = stage.transactions(listener);
        for (int i = 0; i < 5; i++) {
            TransactionSendResult result = send(producer, Stage.message(topic, "rollback-" + i));
            Check.equal(LocalTransactionState.ROLLBACK_MESSAGE, result.getLocalTransactionState(), "local state");
        }
        // Ends are one-way, but one connection is read in order.
        send(producer, Stage.message(topic, "commit"));
        Check.eventually(10, "what was committed", () -> !stage.stored(topic).isEmpty());
        Check.equal(List.of("commit"), Stage.texts(stage.stored(topic)), "what was committed");
    }

    private static void unknownThenCheck(Stage stage) throws Exception {
        String topic = stage.topic(1);
        Listener listener = new Listener(body -> {
            if (body.equals("commit-thrown")) {
                throw new IllegalStateException("a local transaction that fails");
            }
            return LocalTransactionState.UNKNOW;
        }, TransactionCases::byName);
        TransactionMQProducer producer = stage.transactions(listener);
        Queue<MessageExt> received = stage.collect(stage.push(stage.group()), topic, "*");
        Message message = new Message(topic, "tag", "key", Stage.bytes("commit-late"));
        message.putUserProperty("colour", "red");
        TransactionSendResult late = send(producer, message);
        send(producer, Stage.message(topic, "commit-thrown"));
        send(producer, Stage.message(topic, "rollback"));
        Check.eventually(CHECK_SECONDS, "the questions", () -> listener.asked.size() >= 3);
        Check.eventually(Stage.PATIENCE_SECONDS, "what was committed", () -> received.size() >= 2);
        Check.equal(Set.of("commit-late", "commit-thrown"), Set.copyOf(Stage.texts(received)), "what was committed");
        Check.equal(3, listener.asked.size(), "questions");
        MessageExt asked = listener.askedOf("commit-late").get(0).message;
        Check.equal(topic, asked.getTopic(), "topic of the question");
        Check.equal("tag", asked.getTags(), "tags of the question");
        Check.equal("key", asked.getKeys(), "keys of the question");
        Check.equal("red", asked.getUserProperty("colour"), "property of the question");
        Check.equal("1", asked.getUserProperty("TRANSACTION_CHECK_TIMES"), "how often it was asked");
        Check.equal(late.getMsgId(), asked.getTransactionId(), "transaction id of the question");
        Check.equal(late.getMsgId(), asked.getProperty("UNIQ_KEY"), "unique id of the question");
        MessageExt one = received.stream().filter(each -> Stage.text(each).equals("commit-late")).findFirst().orElseThrow();
        Check.equal(late.getMsgId(), one.getMsgId(), "unique id");
        Check.equal("1", one.getUserProperty("TRANSACTION_CHECK_TIMES"), "checks of the message");
        Check.equal("red", one.getUserProperty("colour"), "property");
        Thread.sleep(1000);
        Check.equal(2, received.size(), "each once");
    }

    /** A message may say how long nobody is to be asked about it. */
    private static void immunity(Stage stage) throws Exception {
        String topic = stage.topic(1);
        Listener listener = new Listener(body -> LocalTransactionState.UNKNOW, TransactionCases::byName);
        TransactionMQProducer producer = stage.transactions(listener);
        Message message = Stage.message(topic, "commit-immune");
        message.putUserProperty("CHECK_IMMUNITY_TIME_IN_SECONDS", "20");
        send(producer, message);
        long sent = System.currentTimeMillis();
        Check.eventually(CHECK_SECONDS, "the question", () -> !listener.asked.isEmpty());
        long after = listener.asked.peek().at - sent;
        Check.that(after >= 19_500, "nobody is asked within the 20 s, but after %d ms", after);
        Check.eventually(10, "what was committed", () -> stage.stored(topic).size() == 1);
    }

    /** Wants a broker with transactionCheckInterval=1000, transactionTimeOut=1000 and transactionCheckMax=3. */
    private static void checkMax(Stage stage) throws Exception {
        String topic = stage.topic(1);
        Listener listener = new Listener(body -> LocalTransactionState.UNKNOW, body -> LocalTransactionState.UNKNOW);
        TransactionMQProducer producer = stage.transactions(listener);
        TransactionSendResult result = send(producer, Stage.message(topic, "never known"));
        String last = "TRANS_CHECK_MAX_TIME_TOPIC";
        Check.eventually(60, "the message that was asked about too often", () -> stage.stored(last).stream()
            .anyMatch(each -> result.getMsgId().equals(each.getProperty("UNIQ_KEY"))));
        List<String> times = listener.asked.stream()
            .map(each -> each.message.getUserProperty("TRANSACTION_CHECK_TIMES")).toList();
        Check.equal(List.of("1", "2", "3"), times, "checks");
        MessageExt dead = stage.stored(last).stream()
            .filter(each -> result.getMsgId().equals(each.getProperty("UNIQ_KEY"))).findFirst().orElseThrow();
        Check.equal(topic, dead.getProperty("REAL_TOPIC"), "where it was sent to");
        Check.equal("never known", Stage.text(dead), "body");
        Check.equal(0, stage.stored(topic).size(), "committed messages");
    }
}
