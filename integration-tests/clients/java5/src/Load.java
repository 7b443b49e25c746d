/** Produces and consumes for some seconds, consumes until nothing comes any more, and says what happened: for tests that kill servers meanwhile. */
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.rocketmq.client.apis.ClientConfiguration;
import org.apache.rocketmq.client.apis.ClientServiceProvider;
import org.apache.rocketmq.client.apis.consumer.FilterExpression;
import org.apache.rocketmq.client.apis.consumer.SimpleConsumer;
import org.apache.rocketmq.client.apis.message.MessageView;
import org.apache.rocketmq.client.apis.producer.Producer;

public final class Load {
    private static final ClientServiceProvider CLIENT = ClientServiceProvider.loadService();
    /** What was received is acknowledged at once, or it is not acknowledged at all. */
    private static final Duration INVISIBLE = Duration.ofSeconds(10);
    /** How long nothing may come before everything has come. */
    private static final long IDLE_MILLIS = 14_000;

    private static final AtomicBoolean SENDING = new AtomicBoolean(true);
    private static final AtomicLong LAST_RECEIVED = new AtomicLong(System.currentTimeMillis());

    private Load() {}

    public static void main(String[] args) throws Exception {
        Flags flags = Flags.parse(args);
        ClientConfiguration where = ClientConfiguration.newBuilder().setEndpoints(flags.need("endpoints"))
            .enableSsl(flags.has("tls")).setRequestTimeout(Duration.ofSeconds(3)).build();
        String topic = flags.need("topic");
        int count = Integer.parseInt(flags.get("threads", "2"));
        Producer producer = CLIENT.newProducerBuilder().setClientConfiguration(where).setTopics(topic).build();
        SimpleConsumer consumer = CLIENT.newSimpleConsumerBuilder().setClientConfiguration(where)
            .setConsumerGroup(flags.need("group")).setAwaitDuration(Duration.ofSeconds(5))
            .setSubscriptionExpressions(Map.of(topic, FilterExpression.SUB_ALL)).build();
        ExecutorService pool = Executors.newCachedThreadPool();
        for (int i = 0; i < count; i++) {
            String prefix = "p" + i + "-";
            pool.execute(() -> produce(producer, topic, prefix));
            pool.execute(() -> consume(consumer));
        }
        Thread.sleep(1000 * Long.parseLong(flags.need("seconds")));
        SENDING.set(false);
        LAST_RECEIVED.set(System.currentTimeMillis());
        pool.shutdown();
        pool.awaitTermination(3, TimeUnit.MINUTES);
        say("done");
        System.exit(0);
    }

    private static void produce(Producer producer, String topic, String prefix) {
        for (long i = 0; SENDING.get(); i++) {
            byte[] body = (prefix + i).getBytes(StandardCharsets.UTF_8);
            try {
                producer.send(CLIENT.newMessageBuilder().setTopic(topic).setBody(body).build());
                say("sent " + prefix + i);
                Thread.sleep(2);
            } catch (InterruptedException interrupted) {
                return;
            } catch (Exception failed) {
                failed("send-failed " + prefix + i, failed);
            }
        }
    }

    private static void consume(SimpleConsumer consumer) {
        while (SENDING.get() || System.currentTimeMillis() - LAST_RECEIVED.get() < IDLE_MILLIS) {
            try {
                List<MessageView> messages = consumer.receive(16, INVISIBLE);
                for (MessageView message : messages) {
                    LAST_RECEIVED.set(System.currentTimeMillis());
                    String text = Stage.text(message);
                    say("got " + text + " " + message.getDeliveryAttempt());
                    ack(consumer, message, text);
                }
            } catch (Exception failed) {
                failed("receive-failed", failed);
            }
        }
    }

    private static void ack(SimpleConsumer consumer, MessageView message, String text) {
        try {
            consumer.ack(message);
            say("acked " + text);
        } catch (Exception failed) {
            failed("ack-failed " + text, failed);
        }
    }

    /** Whatever a client throws while servers die, it goes on. */
    private static void failed(String what, Exception failed) {
        say(what + " " + failed.toString().replace('\n', ' '));
    }

    private static void say(String line) {
        System.out.println(System.currentTimeMillis() + " " + line);
    }
}
