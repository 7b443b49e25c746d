/** What producers send arrives as it was, and what must be refused is refused. */
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.apis.ClientServiceProvider;
import org.apache.rocketmq.client.apis.consumer.FilterExpression;
import org.apache.rocketmq.client.apis.consumer.SimpleConsumer;
import org.apache.rocketmq.client.apis.message.MessageView;
import org.apache.rocketmq.client.apis.producer.Producer;
import org.apache.rocketmq.client.apis.producer.SendReceipt;

final class SendCases {
    private SendCases() {}

    static void addTo(Map<String, Suite.Body> cases) {
        cases.put("send", SendCases::send);
        cases.put("send-sizes", SendCases::sizes);
        cases.put("send-concurrent", SendCases::concurrent);
        cases.put("send-fifo", SendCases::fifo);
        cases.put("send-wrong-type", SendCases::wrongType);
        cases.put("unknown-topic", SendCases::unknownTopic);
    }

    private static void send(Stage stage) throws Exception {
        long before = System.currentTimeMillis();
        SendReceipt receipt = stage.producer().send(stage.message("grüße, 世界 🦀").setTag("Tag-ä").setKeys("k1", "schlüssel")
            .addProperty("color", "blau").addProperty("ключ", "значение = \"x\"").build());
        MessageView got = Stage.take(stage.simple(), 1).get(0);
        Check.equal("grüße, 世界 🦀", Stage.text(got), "body");
        Check.equal(receipt.getMessageId().toString(), got.getMessageId().toString(), "message id");
        Check.equal("Tag-ä", got.getTag().orElse(null), "tag");
        Check.equal(Set.of("k1", "schlüssel"), new HashSet<>(got.getKeys()), "keys");
        Check.equal(Map.of("color", "blau", "ключ", "значение = \"x\""), got.getProperties(), "properties");
        Check.equal(stage.topic, got.getTopic(), "topic");
        Check.equal(1, got.getDeliveryAttempt(), "attempt");
        long age = got.getBornTimestamp() - before;
        Check.that(age >= -1000 && age < 60_000, "born %d ms after it was sent", age);
        Check.that(!got.getBornHost().isEmpty(), "a born host");
        Check.that(got.getMessageGroup().isEmpty() && got.getDeliveryTimestamp().isEmpty(), "a plain message");
    }

    private static void sizes(Stage stage) throws Exception {
        int most = 4 * 1024 * 1024;
        byte[] large = new byte[most];
        new Random(1).nextBytes(large);
        Producer producer = stage.producer();
        producer.send(stage.message(new byte[] {0}).build());
        producer.send(stage.message(large).build());
        Check.refused(Exception.class, "one byte too many",
            () -> producer.send(stage.message(new byte[most + 1]).build()));
        List<MessageView> got = Stage.take(stage.simple(), 2);
        Check.equal(2, got.size(), "messages");
        for (MessageView message : got) {
            byte[] body = Stage.bytes(message);
            Check.that(Arrays.equals(body, body.length == 1 ? new byte[] {0} : large), "the same %d bytes", body.length);
        }
    }

    private static void concurrent(Stage stage) throws Exception {
        Producer producer = stage.producer();
        List<CompletableFuture<SendReceipt>> sends = new ArrayList<>();
        List<String> bodies = Stage.numbered("m", 300);
        for (String body : bodies) {
            sends.add(producer.sendAsync(stage.message(body).build()));
        }
        Set<String> ids = new HashSet<>();
        for (CompletableFuture<SendReceipt> send : sends) {
            ids.add(send.get(30, TimeUnit.SECONDS).getMessageId().toString());
        }
        Check.equal(bodies.size(), ids.size(), "different message ids");
        SimpleConsumer consumer = stage.simple();
        Check.equal(Stage.sorted(bodies), Stage.sorted(Stage.texts(Stage.take(consumer, bodies.size()))), "received");
        Stage.nothingMore(consumer);
    }

    private static void fifo(Stage stage) throws Exception {
        Producer producer = stage.producer();
        stage.sendInGroup(producer, "a", 10);
        stage.sendInGroup(producer, "b", 10);
        Map<String, List<String>> groups = Stage.byMessageGroup(Stage.take(stage.simple(), 20));
        Check.equal(Map.of("a", Stage.numbered("a", 10), "b", Stage.numbered("b", 10)), groups, "received");
    }

    private static void wrongType(Stage stage) throws Exception {
        Producer producer = stage.producer();
        Check.refused(Exception.class, "a normal message to a FIFO topic",
            () -> producer.send(stage.message("normal").build()));
        Check.refused(Exception.class, "a delayed message to a FIFO topic", () -> producer
            .send(stage.message("late").setDeliveryTimestamp(System.currentTimeMillis() + 10_000).build()));
        producer.send(stage.message("fifo").setMessageGroup("g").build());
    }

    private static void unknownTopic(Stage stage) throws Exception {
        Check.refused(Exception.class, "a producer for a topic that does not exist", stage::producer);
        Producer producer = ClientServiceProvider.loadService().newProducerBuilder()
            .setClientConfiguration(stage.where).build();
        try (producer) {
            Exception refused = Check.refused(Exception.class, "a send to a topic that does not exist",
                () -> producer.send(stage.message("lost").build()));
            Check.that(refused.toString().contains("40402"), "TOPIC_NOT_FOUND: %s", refused);
        }
        Check.refused(Exception.class, "a consumer of a topic that does not exist",
            () -> stage.simple(stage.group, stage.topic, FilterExpression.SUB_ALL));
    }
}
