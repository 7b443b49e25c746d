/** What one case stands on: names nobody else uses, a producer, and consumers that are shut down when the case ends. */
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.Set;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;
import org.apache.rocketmq.client.ClientConfig;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

final class Stage implements AutoCloseable {
    /** A consumer that meets its own first timer starts up to 20 s later, and its route may be 30 s old. */
    static final int PATIENCE_SECONDS = 60;

    private static final String RUN = Long.toString(System.currentTimeMillis(), 36);
    private static final AtomicInteger NEXT = new AtomicInteger();

    final String namesrv;
    final String cluster;
    final DefaultMQProducer producer;
    private final String name;
    private final Deque<Runnable> closing = new ArrayDeque<>();

    Stage(String name, String namesrv, String cluster, DefaultMQProducer producer) {
        this.name = name;
        this.namesrv = namesrv;
        this.cluster = cluster;
        this.producer = producer;
    }

    static DefaultMQProducer startProducer(String namesrv) throws MQClientException {
        DefaultMQProducer producer = new DefaultMQProducer("P-" + RUN + "-" + NEXT.incrementAndGet());
        configure(producer, namesrv);
        producer.setSendMsgTimeout(10_000);
        producer.start();
        return producer;
    }

    private static void configure(ClientConfig client, String namesrv) {
        client.setNamesrvAddr(namesrv);
        client.setInstanceName("suite-" + RUN + "-" + NEXT.incrementAndGet());
    }

    DefaultMQProducer ownProducer() throws MQClientException {
        DefaultMQProducer own = startProducer(namesrv);
        closing.push(own::shutdown);
        return own;
    }

    TransactionMQProducer transactions(TransactionListener listener) throws MQClientException {
        TransactionMQProducer own = new TransactionMQProducer(fresh("P"));
        configure(own, namesrv);
        own.setSendMsgTimeout(10_000);
        own.setTransactionListener(listener);
        own.start();
        closing.push(own::shutdown);
        return own;
    }

    String fresh(String kind) {
        return kind + "-" + name + "-" + RUN + "-" + NEXT.incrementAndGet();
    }

    String group() {
        return fresh("G");
    }

    /** A topic that exists, with this many queues, made as an official client makes it. */
    String topic(int queues) throws Exception {
        return topic(fresh("T"), queues);
    }

    String topic(String topic, int queues) throws Exception {
        createTopic(cluster, topic, queues);
        Check.eventually(10, "the route of " + topic,
            () -> producer.fetchPublishMessageQueues(topic).size() == queues);
        return topic;
    }

    /** 5.x added a map of attributes as the last argument of createTopic. */
    void createTopic(String key, String topic, int queues) throws Exception {
        for (Method method : DefaultMQProducer.class.getMethods()) {
            if (method.getName().equals("createTopic") && method.getParameterCount() <= 4) {
                Class<?>[] types = method.getParameterTypes();
                if (types.length == 3) {
                    method.invoke(producer, key, topic, queues);
                    return;
                }
                if (types[3] == Map.class) {
                    method.invoke(producer, key, topic, queues, Map.of());
                    return;
                }
            }
        }
        throw new IllegalStateException("this client has no createTopic");
    }

    List<MessageQueue> queues(String topic) throws MQClientException {
        List<MessageQueue> queues = new ArrayList<>(producer.fetchPublishMessageQueues(topic));
        queues.sort(null);
        return queues;
    }

    static Message message(String topic, String body) {
        return new Message(topic, bytes(body));
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static String text(Message message) {
        return new String(message.getBody(), StandardCharsets.UTF_8);
    }

    static List<String> texts(Iterable<? extends Message> messages) {
        List<String> texts = new ArrayList<>();
        messages.forEach(message -> texts.add(text(message)));
        return texts;
    }

    /** A push consumer that reads from the first offset, configured and not yet started. */
    DefaultMQPushConsumer push(String group) {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group);
        configure(consumer, namesrv);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        closing.push(consumer::shutdown);
        return consumer;
    }

    /** Starts a push consumer that acknowledges all it gets and keeps it in the returned queue. */
    Queue<MessageExt> collect(DefaultMQPushConsumer consumer, String topic, String tags) throws MQClientException {
        Queue<MessageExt> received = new ConcurrentLinkedQueue<>();
        consumer.subscribe(topic, tags);
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            received.addAll(messages);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        return received;
    }

    /** The queues of a topic which a push consumer owns now. */
    static Set<MessageQueue> owned(DefaultMQPushConsumer consumer, String topic) {
        return consumer.getDefaultMQPushConsumerImpl().getRebalanceImpl().getProcessQueueTable().keySet().stream()
            .filter(queue -> queue.getTopic().equals(topic))
            .collect(Collectors.toSet());
    }

    /** MessageModel lives in another package since 5.x. */
    static void broadcasting(DefaultMQPushConsumer consumer) throws Exception {
        for (Method method : DefaultMQPushConsumer.class.getMethods()) {
            if (method.getName().equals("setMessageModel")) {
                Class<?> model = method.getParameterTypes()[0];
                method.invoke(consumer, model.getField("BROADCASTING").get(null));
                return;
            }
        }
        throw new IllegalStateException("this client has no setMessageModel");
    }

    DefaultMQPullConsumer pull(String group) throws MQClientException {
        DefaultMQPullConsumer consumer = new DefaultMQPullConsumer(group);
        configure(consumer, namesrv);
        consumer.start();
        closing.push(consumer::shutdown);
        return consumer;
    }

    /** A lite pull consumer, configured and not yet started. */
    DefaultLitePullConsumer lite(String group) {
        DefaultLitePullConsumer consumer = new DefaultLitePullConsumer(group);
        configure(consumer, namesrv);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        closing.push(consumer::shutdown);
        return consumer;
    }

    /** All messages a topic holds now, queue by queue in offset order, read by pulling. */
    List<MessageExt> stored(String topic) throws Exception {
        DefaultMQPullConsumer consumer = pull(group());
        List<MessageExt> messages = new ArrayList<>();
        List<MessageQueue> queues = new ArrayList<>(consumer.fetchSubscribeMessageQueues(topic));
        queues.sort(null);
        for (MessageQueue queue : queues) {
            long offset = 0;
            PullResult result;
            while ((result = consumer.pull(queue, "*", offset, 32)).getPullStatus() == PullStatus.FOUND) {
                messages.addAll(result.getMsgFoundList());
                Check.that(result.getNextBeginOffset() > offset, "a pull of %s at %d goes on", queue, offset);
                offset = result.getNextBeginOffset();
            }
        }
        return messages;
    }

    @Override
    public void close() {
        while (!closing.isEmpty()) {
            closing.pop().run();
        }
    }
}
