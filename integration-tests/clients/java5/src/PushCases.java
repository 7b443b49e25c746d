/** Push consumers: balance, retries, dead letters, order. */
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import org.apache.rocketmq.client.apis.consumer.FilterExpression;
import org.apache.rocketmq.client.apis.consumer.SimpleConsumer;
import org.apache.rocketmq.client.apis.message.MessageView;
import org.apache.rocketmq.client.apis.producer.Producer;

final class PushCases {
    private PushCases() {}

    static void addTo(Map<String, Suite.Body> cases) {
        cases.put("fifo-order", PushCases::fifoOrder);
        cases.put("fifo-dead-letter", PushCases::fifoDeadLetter);
        cases.put("push-dead-letter", PushCases::deadLetter);
        cases.put("push-retry", PushCases::retry);
        cases.put("push", PushCases::push);
        cases.put("share-push", PushCases::share);
        cases.put("many-clients", PushCases::manyClients);
        cases.put("restart", PushCases::restart);
    }

    private static void push(Stage stage) throws Exception {
        Queue<MessageView> received = stage.push();
        List<String> sent = stage.send("m", 50);
        Stage.onceEach(sent, received);
    }

    private static void retry(Stage stage) throws Exception {
        Queue<MessageView> received = stage.push(stage.group, FilterExpression.SUB_ALL,
            message -> !Stage.text(message).equals("m3") || message.getDeliveryAttempt() == 3);
        stage.send("m", 6);
        Check.eventually(Stage.PATIENCE_SECONDS, "five once and one three times", () -> received.size() >= 8);
        List<Integer> attempts = received.stream().filter(message -> Stage.text(message).equals("m3"))
            .map(MessageView::getDeliveryAttempt).toList();
        Check.equal(List.of(1, 2, 3), attempts, "attempts of the one that failed twice");
        Check.equal(8, received.size(), "deliveries");
    }

    private static void deadLetter(Stage stage) throws Exception {
        Queue<MessageView> received = stage.push(stage.group, FilterExpression.SUB_ALL,
            message -> !Stage.text(message).equals("m1"));
        stage.send("m", 3);
        SimpleConsumer dead = deadLetters(stage);
        List<MessageView> letters = Stage.take(dead, 1);
        Check.equal(List.of("m1"), Stage.texts(letters), "dead letters");
        Check.equal(List.of("m0", "m1", "m1", "m2"), Stage.sorted(Stage.texts(received)), "deliveries");
    }

    /** The topic of the dead letters exists once there is one. */
    private static SimpleConsumer deadLetters(Stage stage) throws Exception {
        List<SimpleConsumer> consumer = new ArrayList<>();
        Check.eventually(Stage.PATIENCE_SECONDS, "a topic of dead letters", () -> consumer
            .add(stage.simple(stage.group + "-dead", "%DLQ%" + stage.group, FilterExpression.SUB_ALL)));
        return consumer.get(0);
    }

    private static void fifoOrder(Stage stage) throws Exception {
        Queue<MessageView> received = stage.push(stage.group, FilterExpression.SUB_ALL,
            message -> !Stage.text(message).equals("a3") || message.getDeliveryAttempt() == 3);
        Producer producer = stage.producer();
        for (String messageGroup : List.of("a", "b", "c")) {
            stage.sendInGroup(producer, messageGroup, 8);
        }
        Check.eventually(Stage.PATIENCE_SECONDS, "all, one three times", () -> received.size() >= 26);
        Map<String, List<String>> groups = Stage.byMessageGroup(received);
        Check.equal(List.of("a0", "a1", "a2", "a3", "a3", "a3", "a4", "a5", "a6", "a7"), groups.get("a"), "group a");
        Check.equal(Stage.numbered("b", 8), groups.get("b"), "group b");
        Check.equal(Stage.numbered("c", 8), groups.get("c"), "group c");
    }

    private static void fifoDeadLetter(Stage stage) throws Exception {
        Queue<MessageView> received = stage.push(stage.group, FilterExpression.SUB_ALL,
            message -> !Stage.text(message).equals("a1"));
        stage.sendInGroup(stage.producer(), "a", 4);
        Check.eventually(Stage.PATIENCE_SECONDS, "the rest of the group", () -> received.size() >= 5);
        Check.equal(List.of("a0", "a1", "a1", "a2", "a3"), Stage.texts(received), "deliveries");
        Check.equal(List.of("a1"), Stage.texts(Stage.take(deadLetters(stage), 1)), "dead letters");
    }

    private static void share(Stage stage) throws Exception {
        List<Queue<MessageView>> shares = new ArrayList<>();
        for (int i = 0; i < 4; i++) {
            shares.add(stage.push(stage.group, FilterExpression.SUB_ALL, message -> {
                pause(20);
                return true;
            }));
        }
        Producer producer = stage.producer();
        List<String> sent = new ArrayList<>();
        // Until everyone takes part: a consumer that starts may wait for its first assignment.
        Check.eventually(Stage.PATIENCE_SECONDS, "everyone takes part", () -> {
            sent.addAll(stage.send(producer, "warm-" + sent.size() + "-", 10));
            return shares.stream().noneMatch(Queue::isEmpty);
        });
        List<Integer> before = shares.stream().map(Queue::size).toList();
        int count = 400;
        sent.addAll(stage.send(producer, "m", count));
        Check.eventually(Stage.PATIENCE_SECONDS, "all arrive",
            () -> shares.stream().mapToInt(Queue::size).sum() >= sent.size());
        List<String> all = new ArrayList<>();
        for (int i = 0; i < shares.size(); i++) {
            int mine = shares.get(i).size() - before.get(i);
            Check.that(mine >= count / 20, "a share of %d among four of %d", mine, count);
            all.addAll(Stage.texts(shares.get(i)));
        }
        Check.equal(Stage.sorted(sent), Stage.sorted(all), "received by all");
    }

    private static void manyClients(Stage stage) throws Exception {
        List<Queue<MessageView>> received = new ArrayList<>();
        for (int i = 0; i < 20; i++) {
            received.add(stage.push());
        }
        List<String> sent = new ArrayList<>();
        for (int i = 0; i < 10; i++) {
            sent.addAll(stage.send("p" + i + "-", 20));
        }
        Check.eventually(Stage.PATIENCE_SECONDS, "all arrive",
            () -> received.stream().mapToInt(Queue::size).sum() >= sent.size());
        List<String> all = received.stream().flatMap(queue -> Stage.texts(queue).stream()).toList();
        Check.equal(Stage.sorted(sent), Stage.sorted(all), "received by all");
    }

    private static void restart(Stage stage) throws Exception {
        Producer producer = stage.producer();
        for (int round = 0; round < 2; round++) {
            List<String> sent = stage.send(producer, "round" + round + "-", 20);
            Stage.Listening listening = stage.pushConsumer(stage.group, FilterExpression.SUB_ALL, message -> true);
            Stage.onceEach(sent, listening.received());
            // The last acknowledgements are on their way.
            pause(1000);
            stage.close(listening.consumer());
        }
        Stage.nothingMore(stage.simple());
    }

    static void pause(long millis) {
        try {
            Thread.sleep(millis);
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
    }
}
