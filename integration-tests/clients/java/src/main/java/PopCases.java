/** Push consumers whose group pops: the broker shares messages out one by one. Only clients since 5.0 know how. */
import java.lang.reflect.Method;
import java.util.ArrayList;
import java.util.List;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.stream.IntStream;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

final class PopCases {
    private PopCases() {}

    static void addTo(Suite suite) {
        if (method(DefaultMQPushConsumer.class, "setClientRebalance", 1) == null) {
            return;
        }
        suite.add("pop-retry", PopCases::retry);
        suite.add("pop-then-push", PopCases::thenPush);
        suite.add("pop-shares", PopCases::shares);
    }

    private static Method method(Class<?> type, String name, int arguments) {
        for (Method method : type.getMethods()) {
            if (method.getName().equalsIgnoreCase(name) && method.getParameterCount() == arguments) {
                return method;
            }
        }
        return null;
    }

    private static Object call(Object on, String name, Object... arguments) throws Exception {
        return method(on.getClass(), name, arguments.length).invoke(on, arguments);
    }

    /** Tells every broker of the topic how the group consumes it; the group must have been heard of. */
    @SuppressWarnings({"unchecked", "rawtypes"})
    private static void mode(Stage stage, String topic, String group, String mode) throws Exception {
        Object factory = call(stage.producer.getDefaultMQProducerImpl(), "getMqClientFactory");
        Object api = call(factory, "getMQClientAPIImpl");
        call(factory, "updateTopicRouteInfoFromNameServer", topic);
        Class<Enum> modes = (Class<Enum>) Class.forName("org.apache.rocketmq.common.message.MessageRequestMode");
        for (String broker : stage.queues(topic).stream().map(MessageQueue::getBrokerName).distinct().toList()) {
            Object address = call(factory, "findBrokerAddressInPublish", broker);
            call(api, "setMessageRequestMode", address, topic, group, Enum.valueOf(modes, mode), 0, 5000L);
        }
    }

    /** Members join one after another; the group is made when the first of all is heard of. */
    private static void makeGroup(Stage stage, String topic, String group) throws Exception {
        DefaultMQPushConsumer first = stage.push(group);
        stage.collect(first, topic, "*");
        Check.eventually(Stage.PATIENCE_SECONDS, "the group", () -> {
            try {
                mode(stage, topic, group, "POP");
                return true;
            } catch (Exception notYet) {
                return false;
            }
        });
        first.shutdown();
    }

    private static DefaultMQPushConsumer popper(Stage stage, String group) throws Exception {
        DefaultMQPushConsumer consumer = stage.push(group);
        call(consumer, "setClientRebalance", false);
        return consumer;
    }

    private static List<String> sorted(Iterable<? extends Iterable<MessageExt>> shares) {
        List<String> all = new ArrayList<>();
        shares.forEach(share -> all.addAll(Stage.texts(share)));
        all.sort(null);
        return all;
    }

    private static void shares(Stage stage) throws Exception {
        String topic = stage.topic(3);
        String group = stage.group();
        makeGroup(stage, topic, group);
        List<Queue<MessageExt>> shares = new ArrayList<>();
        for (int i = 0; i < 2; i++) {
            shares.add(stage.collect(popper(stage, group), topic, "*"));
        }
        List<String> bodies = IntStream.range(100, 160).mapToObj(Integer::toString).toList();
        for (String body : bodies) {
            stage.producer.send(Stage.message(topic, body));
        }
        Check.eventually(Stage.PATIENCE_SECONDS, "all of them", () -> sorted(shares).size() >= bodies.size());
        Check.equal(bodies, sorted(shares), "each of them once");
        MessageExt any = shares.stream().flatMap(Queue::stream).findAny().orElseThrow();
        Check.that(any.getProperty("POP_CK") != null, "they were popped");
        Check.equal(0, any.getReconsumeTimes(), "reconsume times");
    }

    private record Attempt(String body, int reconsumeTimes, String topic, long at) {}

    /** A listener that fails hides the message by the client's own table, ten seconds at first. */
    private static void retry(Stage stage) throws Exception {
        String topic = stage.topic(1);
        String group = stage.group();
        makeGroup(stage, topic, group);
        Queue<Attempt> attempts = new ConcurrentLinkedQueue<>();
        DefaultMQPushConsumer consumer = popper(stage, group);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            for (MessageExt message : messages) {
                attempts.add(new Attempt(Stage.text(message), message.getReconsumeTimes(), message.getTopic(),
                    System.currentTimeMillis()));
            }
            return Stage.text(messages.get(0)).equals("bad") && attempts.stream().filter(PopCases::bad).count() < 2
                ? ConsumeConcurrentlyStatus.RECONSUME_LATER
                : ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        stage.producer.send(Stage.message(topic, "bad"));
        stage.producer.send(Stage.message(topic, "good"));
        Check.eventually(90, "two deliveries of one, one of the other", () -> attempts.size() >= 3);
        List<Attempt> failed = attempts.stream().filter(PopCases::bad).toList();
        Check.equal(List.of(0, 1), failed.stream().map(Attempt::reconsumeTimes).toList(), "reconsume times");
        Check.equal(List.of(topic, topic), failed.stream().map(Attempt::topic).toList(), "topics");
        Check.that(failed.get(1).at - failed.get(0).at >= 9_000, "a retry is not early");
    }

    private static boolean bad(Attempt attempt) {
        return attempt.body.equals("bad");
    }

    private static void thenPush(Stage stage) throws Exception {
        String topic = stage.topic(2);
        String group = stage.group();
        makeGroup(stage, topic, group);
        DefaultMQPushConsumer popper = popper(stage, group);
        Queue<MessageExt> popped = stage.collect(popper, topic, "*");
        for (int i = 10; i < 20; i++) {
            stage.producer.send(Stage.message(topic, "popped " + i));
        }
        Check.eventually(Stage.PATIENCE_SECONDS, "what is popped", () -> popped.size() >= 10);
        // What is on its way to be acknowledged is acknowledged before the client ends.
        popper.shutdown();
        mode(stage, topic, group, "PULL");
        Queue<MessageExt> pulled = stage.collect(stage.push(group), topic, "*");
        stage.producer.send(Stage.message(topic, "pulled"));
        Check.eventually(Stage.PATIENCE_SECONDS, "what is pulled",
            () -> Stage.texts(pulled).contains("pulled"));
        Check.equal(List.of("pulled"), Stage.texts(pulled), "the group goes on where it was");
    }
}
