/** Simple consumers: what was received stays hidden for its time, and an acknowledgement is final. */
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.apis.consumer.FilterExpression;
import org.apache.rocketmq.client.apis.consumer.FilterExpressionType;
import org.apache.rocketmq.client.apis.consumer.SimpleConsumer;
import org.apache.rocketmq.client.apis.message.MessageView;
import org.apache.rocketmq.client.apis.producer.Producer;

final class SimpleCases {
    private SimpleCases() {}

    static void addTo(Map<String, Suite.Body> cases) {
        cases.put("simple-late-ack", SimpleCases::lateAck);
        cases.put("simple-together", SimpleCases::together);
        cases.put("simple-redelivery", SimpleCases::redelivery);
        cases.put("simple-change-invisible", SimpleCases::changeInvisible);
        cases.put("simple-at-once", SimpleCases::atOnce);
        cases.put("simple-ack", SimpleCases::ack);
        cases.put("simple-wakes", SimpleCases::wakes);
        cases.put("simple-empty", SimpleCases::empty);
        cases.put("fifo-simple", SimpleCases::fifo);
        cases.put("tag-filter", SimpleCases::tagFilter);
        cases.put("sql-filter", SimpleCases::sqlFilter);
        cases.put("share-simple", SimpleCases::share);
        cases.put("two-groups", SimpleCases::twoGroups);
    }

    private static void ack(Stage stage) throws Exception {
        List<String> sent = stage.send("m", 20);
        SimpleConsumer consumer = stage.simple();
        Check.equal(Stage.sorted(sent), Stage.sorted(Stage.texts(Stage.take(consumer, 20))), "received");
        // Longer than what was received would have stayed hidden.
        long end = System.nanoTime() + Stage.INVISIBLE.plusSeconds(3).toNanos();
        while (System.nanoTime() < end) {
            Stage.nothingMore(consumer);
        }
    }

    private static void atOnce(Stage stage) throws Exception {
        stage.send("m", 1);
        Check.equal(List.of("m0"), Stage.texts(Stage.take(stage.simple(), 1)), "received");
    }

    private static void wakes(Stage stage) throws Exception {
        Producer producer = stage.producer();
        SimpleConsumer consumer = stage.simple();
        Stage.nothingMore(consumer);
        for (int i = 0; i < 3; i++) {
            CompletableFuture<List<MessageView>> waiting = consumer.receiveAsync(1, Stage.INVISIBLE);
            Thread.sleep(1000);
            Check.that(!waiting.isDone(), "a receive of nothing waits");
            producer.send(stage.message("now").build());
            long sent = System.nanoTime();
            List<MessageView> got = waiting.get(10, TimeUnit.SECONDS);
            long millis = (System.nanoTime() - sent) / 1_000_000;
            Check.equal(List.of("now"), Stage.texts(got), "received");
            Check.that(millis < 1500, "woken after %d ms", millis);
            consumer.ack(got.get(0));
        }
    }

    private static void empty(Stage stage) throws Exception {
        SimpleConsumer consumer = stage.simple();
        for (int i = 0; i < 2; i++) {
            long started = System.nanoTime();
            Stage.nothingMore(consumer);
            long millis = (System.nanoTime() - started) / 1_000_000;
            Check.that(millis > 3000 && millis < 9000, "an empty receive of 5 s took %d ms", millis);
        }
    }

    private static void redelivery(Stage stage) throws Exception {
        stage.send("m", 4);
        SimpleConsumer consumer = stage.simple();
        long started = System.nanoTime();
        List<MessageView> first = Stage.receive(consumer, 4, Stage.INVISIBLE);
        Check.equal(4, first.size(), "messages");
        consumer.ack(first.get(0));
        consumer.ack(first.get(1));
        for (int attempt = 2; attempt <= 3; attempt++) {
            List<MessageView> again = Stage.receive(consumer, 2, Stage.INVISIBLE);
            long millis = (System.nanoTime() - started) / 1_000_000;
            Check.equal(Stage.sorted(Stage.texts(first.subList(2, 4))), Stage.sorted(Stage.texts(again)), "again");
            for (MessageView message : again) {
                Check.equal(attempt, message.getDeliveryAttempt(), "attempt");
            }
            long least = (attempt - 1) * Stage.INVISIBLE.toMillis() - 500;
            Check.that(millis > least, "attempt %d came after %d ms", attempt, millis);
            if (attempt == 3) {
                consumer.ack(again.get(0));
                consumer.ack(again.get(1));
            }
        }
    }

    private static void together(Stage stage) throws Exception {
        int count = 16;
        List<String> sent = stage.send("m", count);
        SimpleConsumer consumer = stage.simple();
        for (int i = 0; i < count; i++) {
            Stage.receive(consumer, 1, Stage.INVISIBLE);
        }
        Thread.sleep(Stage.INVISIBLE.toMillis());
        List<MessageView> again = Stage.take(consumer, count);
        Check.equal(Stage.sorted(sent), Stage.sorted(Stage.texts(again)), "again");
        Check.that(again.stream().allMatch(message -> message.getDeliveryAttempt() == 2), "all as attempt 2");
        long end = System.nanoTime() + Stage.INVISIBLE.plusSeconds(3).toNanos();
        while (System.nanoTime() < end) {
            Stage.nothingMore(consumer);
        }
    }

    private static void changeInvisible(Stage stage) throws Exception {
        stage.send("m", 1);
        SimpleConsumer consumer = stage.simple();
        MessageView first = Stage.receive(consumer, 1, Duration.ofSeconds(60)).get(0);
        consumer.changeInvisibleDuration(first, Duration.ofSeconds(4));
        long changed = System.nanoTime();
        MessageView second = Stage.receive(consumer, 1, Stage.INVISIBLE).get(0);
        long millis = (System.nanoTime() - changed) / 1_000_000;
        Check.that(millis > 3000 && millis < 15_000, "after 4 s it came again within %d ms", millis);
        Check.equal(2, second.getDeliveryAttempt(), "attempt");
        // Made longer: what was received stays hidden beyond its first time.
        consumer.changeInvisibleDuration(second, Duration.ofSeconds(30));
        long end = System.nanoTime() + Stage.INVISIBLE.plusSeconds(3).toNanos();
        while (System.nanoTime() < end) {
            Stage.nothingMore(consumer);
        }
        consumer.ack(second);
    }

    private static void lateAck(Stage stage) throws Exception {
        stage.send("m", 1);
        SimpleConsumer consumer = stage.simple();
        MessageView first = Stage.receive(consumer, 1, Stage.INVISIBLE).get(0);
        Thread.sleep(Stage.INVISIBLE.plusSeconds(2).toMillis());
        Exception refused = Check.refused(Exception.class, "a late ack", () -> consumer.ack(first));
        Check.that(refused.toString().contains("40013"), "INVALID_RECEIPT_HANDLE: %s", refused);
        Check.equal(List.of("m0"), Stage.texts(Stage.take(consumer, 1)), "again");
    }

    private static void fifo(Stage stage) throws Exception {
        stage.sendInGroup(stage.producer(), "a", 4);
        SimpleConsumer consumer = stage.simple();
        MessageView first = Stage.receive(consumer, 1, Duration.ofSeconds(60)).get(0);
        Check.equal("a0", Stage.text(first), "the first");
        Check.equal(List.of(), Stage.texts(consumer.receive(8, Stage.INVISIBLE)), "while the first is out");
        consumer.ack(first);
        List<MessageView> rest = Stage.receive(consumer, 3, Stage.INVISIBLE);
        Check.equal(List.of("a1", "a2", "a3"), Stage.texts(rest), "once it was acknowledged");
        for (MessageView message : rest) {
            consumer.ack(message);
        }
    }

    private static void tagFilter(Stage stage) throws Exception {
        Producer producer = stage.producer();
        for (int i = 0; i < 30; i++) {
            producer.send(stage.message("m" + i).setTag(List.of("red", "green", "blue").get(i % 3)).build());
        }
        producer.send(stage.message("untagged").build());
        SimpleConsumer consumer = stage.simple(stage.group, stage.topic,
            new FilterExpression("red || blue", FilterExpressionType.TAG));
        List<MessageView> got = Stage.take(consumer, 20);
        Check.equal(20, got.size(), "messages");
        Check.that(got.stream().noneMatch(message -> message.getTag().orElse("").equals("green")), "no green ones");
        Stage.nothingMore(consumer);
    }

    private static void sqlFilter(Stage stage) throws Exception {
        Producer producer = stage.producer();
        for (int i = 0; i < 10; i++) {
            producer.send(stage.message("m" + i).setTag("t" + i % 2).addProperty("size", "" + i).build());
        }
        SimpleConsumer consumer = stage.simple(stage.group, stage.topic,
            new FilterExpression("size > 4 AND TAGS = 't1'", FilterExpressionType.SQL92));
        Check.equal(List.of("m5", "m7", "m9"), Stage.sorted(Stage.texts(Stage.take(consumer, 3))), "received");
        Stage.nothingMore(consumer);
    }

    private static void share(Stage stage) throws Exception {
        List<String> sent = stage.send("m", 200);
        List<SimpleConsumer> consumers = new ArrayList<>();
        for (int i = 0; i < 4; i++) {
            consumers.add(stage.simple());
        }
        List<CompletableFuture<List<MessageView>>> shares = new ArrayList<>();
        for (SimpleConsumer consumer : consumers) {
            shares.add(CompletableFuture.supplyAsync(() -> {
                try {
                    List<MessageView> mine = new ArrayList<>();
                    List<MessageView> some;
                    while (!(some = consumer.receive(8, Duration.ofSeconds(60))).isEmpty()) {
                        for (MessageView message : some) {
                            consumer.ack(message);
                        }
                        mine.addAll(some);
                        Thread.sleep(50);
                    }
                    return mine;
                } catch (Exception failed) {
                    throw new IllegalStateException(failed);
                }
            }));
        }
        List<String> all = new ArrayList<>();
        for (CompletableFuture<List<MessageView>> share : shares) {
            List<MessageView> mine = share.get(60, TimeUnit.SECONDS);
            Check.that(mine.size() >= 10, "a share of %d among four of 200", mine.size());
            all.addAll(Stage.texts(mine));
        }
        Check.equal(Stage.sorted(sent), Stage.sorted(all), "received by all");
    }

    private static void twoGroups(Stage stage) throws Exception {
        List<String> sent = stage.send("m", 10);
        for (String group : List.of(stage.group, stage.group + "-2")) {
            SimpleConsumer consumer = stage.simple(group, stage.topic, FilterExpression.SUB_ALL);
            Check.equal(Stage.sorted(sent), Stage.sorted(Stage.texts(Stage.take(consumer, 10))), group + " received");
        }
    }
}
