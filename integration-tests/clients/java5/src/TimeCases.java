/** Messages that are not there yet, and perhaps never will be: delays and transactions; receipts that are kept alive. */
import java.lang.reflect.Method;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import org.apache.rocketmq.client.apis.consumer.FilterExpression;
import org.apache.rocketmq.client.apis.consumer.SimpleConsumer;
import org.apache.rocketmq.client.apis.message.MessageView;
import org.apache.rocketmq.client.apis.producer.Producer;
import org.apache.rocketmq.client.apis.producer.SendReceipt;
import org.apache.rocketmq.client.apis.producer.Transaction;
import org.apache.rocketmq.client.apis.producer.TransactionResolution;

final class TimeCases {
    /** The server asks about open transactions every half minute, those that are some seconds old. */
    private static final int CHECKED_SECONDS = 90;

    private TimeCases() {}

    static void addTo(Map<String, Suite.Body> cases) {
        cases.put("push-slow", TimeCases::pushSlow);
        cases.put("transaction-check", TimeCases::check);
        cases.put("delay", TimeCases::delay);
        if (recallMessage() != null) {
            cases.put("recall", TimeCases::recall);
        }
        cases.put("transaction-commit", TimeCases::commit);
        cases.put("transaction-rollback", TimeCases::rollback);
    }

    private static void pushSlow(Stage stage) throws Exception {
        Queue<String> done = new ConcurrentLinkedQueue<>();
        Queue<MessageView> received = stage.push(stage.group, FilterExpression.SUB_ALL, message -> {
            PushCases.pause(65_000);
            done.add(Stage.text(message));
            return true;
        });
        stage.send("m", 1);
        Check.eventually(65 + Stage.PATIENCE_SECONDS, "it is done", () -> !done.isEmpty());
        PushCases.pause(3000);
        Check.equal(List.of("m0"), Stage.texts(received), "deliveries");
    }

    private static void delay(Stage stage) throws Exception {
        Queue<MessageView> received = stage.push();
        Producer producer = stage.producer();
        long due = System.currentTimeMillis() + 6000;
        producer.send(stage.message("late").setDeliveryTimestamp(due).build());
        producer.send(stage.message("past").setDeliveryTimestamp(due - 60_000).build());
        Check.eventually(Stage.PATIENCE_SECONDS, "one whose time has passed", () -> received.size() == 1);
        Check.equal(List.of("past"), Stage.texts(received), "received before");
        Check.eventually(Stage.PATIENCE_SECONDS, "the late one", () -> received.size() == 2);
        long millis = System.currentTimeMillis() - due;
        // The stock server counts in whole seconds.
        Check.that(millis > -1000 && millis < 5000, "it came %d ms after its time", millis);
    }

    /** Not all versions of this client have it. */
    private static Method recallMessage() {
        try {
            return Producer.class.getMethod("recallMessage", String.class, String.class);
        } catch (NoSuchMethodException absent) {
            return null;
        }
    }

    private static void recall(Stage stage) throws Exception {
        Producer producer = stage.producer();
        long due = System.currentTimeMillis() + 8000;
        SendReceipt receipt = producer.send(stage.message("recalled").setDeliveryTimestamp(due).build());
        producer.send(stage.message("kept").setDeliveryTimestamp(due).build());
        Object handle = SendReceipt.class.getMethod("getRecallHandle").invoke(receipt);
        recallMessage().invoke(producer, stage.topic, handle);
        SimpleConsumer consumer = stage.simple();
        Check.equal(List.of("kept"), Stage.texts(Stage.take(consumer, 1)), "received");
        Stage.nothingMore(consumer);
    }

    private static void commit(Stage stage) throws Exception {
        Producer producer = stage.producer(message -> TransactionResolution.UNKNOWN);
        SimpleConsumer consumer = stage.simple();
        Transaction transaction = producer.beginTransaction();
        producer.send(stage.message("m0").build(), transaction);
        Stage.nothingMore(consumer);
        transaction.commit();
        Check.equal(List.of("m0"), Stage.texts(Stage.take(consumer, 1)), "received");
    }

    private static void rollback(Stage stage) throws Exception {
        Producer producer = stage.producer(message -> TransactionResolution.UNKNOWN);
        SimpleConsumer consumer = stage.simple();
        Transaction transaction = producer.beginTransaction();
        producer.send(stage.message("never").build(), transaction);
        transaction.rollback();
        Transaction other = producer.beginTransaction();
        producer.send(stage.message("committed").build(), other);
        other.commit();
        Check.equal(List.of("committed"), Stage.texts(Stage.take(consumer, 1)), "received");
        Stage.nothingMore(consumer);
    }

    private static void check(Stage stage) throws Exception {
        Queue<String> asked = new ConcurrentLinkedQueue<>();
        Producer producer = stage.producer(message -> {
            asked.add(Stage.text(message));
            return Stage.text(message).equals("yes") ? TransactionResolution.COMMIT : TransactionResolution.ROLLBACK;
        });
        for (String body : List.of("yes", "no")) {
            producer.send(stage.message(body).build(), producer.beginTransaction());
        }
        Check.eventually(CHECKED_SECONDS, "the producer is asked about both",
            () -> asked.contains("yes") && asked.contains("no"));
        SimpleConsumer consumer = stage.simple();
        Check.equal(List.of("yes"), Stage.texts(Stage.take(consumer, 1)), "received");
        Stage.nothingMore(consumer);
    }
}
