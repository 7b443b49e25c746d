/** What one case stands on: its topic and group, and clients that are closed when the case ends. */
import java.io.Closeable;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Deque;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.function.Predicate;
import java.util.stream.IntStream;
import org.apache.rocketmq.client.apis.ClientConfiguration;
import org.apache.rocketmq.client.apis.ClientException;
import org.apache.rocketmq.client.apis.ClientServiceProvider;
import org.apache.rocketmq.client.apis.consumer.ConsumeResult;
import org.apache.rocketmq.client.apis.consumer.FilterExpression;
import org.apache.rocketmq.client.apis.consumer.PushConsumer;
import org.apache.rocketmq.client.apis.consumer.SimpleConsumer;
import org.apache.rocketmq.client.apis.message.Message;
import org.apache.rocketmq.client.apis.message.MessageBuilder;
import org.apache.rocketmq.client.apis.message.MessageView;
import org.apache.rocketmq.client.apis.producer.Producer;
import org.apache.rocketmq.client.apis.producer.TransactionChecker;

final class Stage implements AutoCloseable {
    /** A first assignment or heartbeat that is missed comes many seconds later. */
    static final int PATIENCE_SECONDS = 60;
    /** The shortest a server allows; the longest a test wants to wait. */
    static final Duration INVISIBLE = Duration.ofSeconds(10);

    /** How long the clients of a case may take to close. */
    private static final long CLOSE_MILLIS = 10_000;

    private static final ClientServiceProvider CLIENT = ClientServiceProvider.loadService();

    final String topic;
    final String group;
    final ClientConfiguration where;
    private final Deque<Closeable> closing = new ArrayDeque<>();

    Stage(String name, Flags flags) {
        String run = flags.need("run");
        topic = "T-" + run + "-" + name;
        group = "G-" + run + "-" + name;
        where = ClientConfiguration.newBuilder().setEndpoints(flags.need("endpoints")).enableSsl(flags.has("tls"))
            .setRequestTimeout(Duration.ofSeconds(10)).build();
    }

    private synchronized <C extends Closeable> C closedAtEnd(C client) {
        closing.push(client);
        return client;
    }

    /** Closes a client before the end. */
    void close(Closeable client) throws IOException {
        synchronized (this) {
            closing.remove(client);
        }
        client.close();
    }

    Producer producer() throws ClientException {
        return closedAtEnd(
            CLIENT.newProducerBuilder().setClientConfiguration(where).setTopics(topic).build());
    }

    Producer producer(TransactionChecker checker) throws ClientException {
        return closedAtEnd(CLIENT.newProducerBuilder().setClientConfiguration(where).setTopics(topic)
            .setTransactionChecker(checker).build());
    }

    MessageBuilder message(String body) {
        return message(body.getBytes(StandardCharsets.UTF_8));
    }

    MessageBuilder message(byte[] body) {
        return CLIENT.newMessageBuilder().setTopic(topic).setBody(body);
    }

    /** Sends prefix0, prefix1, …; what was sent. */
    List<String> send(Producer producer, String prefix, int count) throws ClientException {
        List<String> bodies = IntStream.range(0, count).mapToObj(i -> prefix + i).toList();
        for (String body : bodies) {
            producer.send(message(body).build());
        }
        return bodies;
    }

    List<String> send(String prefix, int count) throws ClientException {
        return send(producer(), prefix, count);
    }

    void sendInGroup(Producer producer, String messageGroup, int count) throws ClientException {
        for (int i = 0; i < count; i++) {
            producer.send(message(messageGroup + i).setMessageGroup(messageGroup).build());
        }
    }

    SimpleConsumer simple() throws ClientException {
        return simple(group, topic, FilterExpression.SUB_ALL);
    }

    SimpleConsumer simple(String group, String topic, FilterExpression filter) throws ClientException {
        return closedAtEnd(CLIENT.newSimpleConsumerBuilder().setClientConfiguration(where).setConsumerGroup(group)
            .setAwaitDuration(Duration.ofSeconds(5)).setSubscriptionExpressions(Map.of(topic, filter)).build());
    }

    interface Then {
        void with(MessageView message) throws ClientException;
    }

    /** Receives until there are this many, acknowledging each. */
    static List<MessageView> take(SimpleConsumer consumer, int count) throws ClientException {
        return receive(consumer, count, INVISIBLE, consumer::ack);
    }

    /** Receives until there are this many. */
    static List<MessageView> receive(SimpleConsumer consumer, int count, Duration invisible) throws ClientException {
        return receive(consumer, count, invisible, message -> {});
    }

    private static List<MessageView> receive(SimpleConsumer consumer, int count, Duration invisible, Then then)
        throws ClientException {
        List<MessageView> received = new ArrayList<>();
        long deadline = System.nanoTime() + Duration.ofSeconds(PATIENCE_SECONDS).toNanos();
        while (received.size() < count && System.nanoTime() < deadline) {
            List<MessageView> some = consumer.receive(Math.min(32, count - received.size()), invisible);
            for (MessageView message : some) {
                then.with(message);
            }
            received.addAll(some);
        }
        Check.that(received.size() >= count, "%d of %d messages came", received.size(), count);
        return received;
    }

    /** Demands that the group gets nothing more now. */
    static void nothingMore(SimpleConsumer consumer) throws ClientException {
        Check.equal(List.of(), texts(consumer.receive(32, INVISIBLE)), "received when all is done");
    }

    /** A listener that takes what the predicate takes and fails what it does not; all that it was given. */
    Queue<MessageView> push(String group, FilterExpression filter, Predicate<MessageView> listener)
        throws ClientException {
        return pushConsumer(group, filter, listener).received;
    }

    Queue<MessageView> push() throws ClientException {
        return push(group, FilterExpression.SUB_ALL, message -> true);
    }

    record Listening(PushConsumer consumer, Queue<MessageView> received) {}

    Listening pushConsumer(String group, FilterExpression filter, Predicate<MessageView> listener)
        throws ClientException {
        Queue<MessageView> received = new ConcurrentLinkedQueue<>();
        PushConsumer consumer = CLIENT.newPushConsumerBuilder().setClientConfiguration(where).setConsumerGroup(group)
            .setSubscriptionExpressions(Map.of(topic, filter)).setConsumptionThreadCount(4)
            .setMessageListener(message -> {
                received.add(message);
                return listener.test(message) ? ConsumeResult.SUCCESS : ConsumeResult.FAILURE;
            }).build();
        return new Listening(closedAtEnd(consumer), received);
    }

    static byte[] bytes(MessageView message) {
        ByteBuffer body = message.getBody().duplicate();
        byte[] bytes = new byte[body.remaining()];
        body.get(bytes);
        return bytes;
    }

    static String text(MessageView message) {
        return new String(bytes(message), StandardCharsets.UTF_8);
    }

    static List<String> texts(Iterable<MessageView> messages) {
        List<String> texts = new ArrayList<>();
        messages.forEach(message -> texts.add(text(message)));
        return texts;
    }

    static List<String> sorted(List<String> texts) {
        return texts.stream().sorted().toList();
    }

    /** Waits until all of these have come, and demands that none came twice. */
    static void onceEach(List<String> expected, Queue<MessageView> received) throws Exception {
        Check.eventually(PATIENCE_SECONDS, "all " + expected.size() + " arrive",
            () -> received.size() >= expected.size());
        Check.equal(sorted(expected), sorted(texts(received)), "received");
    }

    /** The texts of each message group, in the order in which they came. */
    static Map<String, List<String>> byMessageGroup(Iterable<MessageView> messages) {
        Map<String, List<String>> groups = new HashMap<>();
        messages.forEach(message -> groups
            .computeIfAbsent(message.getMessageGroup().orElse("none"), name -> new ArrayList<>()).add(text(message)));
        return groups;
    }

    /** prefix0 … */
    static List<String> numbered(String prefix, int count) {
        return Arrays.asList(IntStream.range(0, count).mapToObj(i -> prefix + i).toArray(String[]::new));
    }

    /** A push consumer waits for its receives, which are long, so all are closed side by side and not awaited for ever. */
    @Override
    public void close() {
        List<Thread> threads = new ArrayList<>();
        for (Closeable client : closing) {
            Thread thread = new Thread(() -> {
                try {
                    client.close();
                } catch (Exception ended) {
                    System.out.println("closing a client: " + ended);
                }
            });
            thread.setDaemon(true);
            thread.start();
            threads.add(thread);
        }
        long deadline = System.currentTimeMillis() + CLOSE_MILLIS;
        try {
            for (Thread thread : threads) {
                thread.join(Math.max(1, deadline - System.currentTimeMillis()));
            }
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
    }
}
