/** Delay levels: never early, hardly late. */
import java.util.ArrayList;
import java.util.List;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

final class DelayCases {
    private static final long LATENESS_MAX_MILLIS = 2000;

    private DelayCases() {}

    static void addTo(Suite suite) {
        suite.add("delay-levels", DelayCases::levels);
    }

    private record Arrival(String body, long at, MessageExt message) {}

    private static void levels(Stage stage) throws Exception {
        String topic = stage.topic(4);
        Queue<Arrival> arrivals = new ConcurrentLinkedQueue<>();
        DefaultMQPushConsumer consumer = stage.push(stage.group());
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            messages.forEach(each -> arrivals.add(new Arrival(Stage.text(each), System.currentTimeMillis(), each)));
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        stage.producer.send(Stage.message(topic, "now"));
        Check.eventually(Stage.PATIENCE_SECONDS, "the consumer is running", () -> arrivals.size() == 1);
        List<Long> due = new ArrayList<>();
        for (int i = 0; i < 10; i++) {
            int level = i % 2 + 1;
            Message message = new Message(topic, "tag", "key-" + i, Stage.bytes("delayed-" + i));
            message.setDelayTimeLevel(level);
            due.add(System.currentTimeMillis() + (level == 1 ? 1000 : 5000));
            SendResult result = stage.producer.send(message);
            Check.equal(topic, result.getMessageQueue().getTopic(), "topic of the answer");
        }
        Check.eventually(15, "all are delivered", () -> arrivals.size() >= 11);
        for (Arrival arrival : arrivals) {
            if (arrival.body.equals("now")) {
                continue;
            }
            int number = Integer.parseInt(arrival.body.substring("delayed-".length()));
            long late = arrival.at - due.get(number);
            // The broker counts from its own clock's reading of the arrival.
            Check.that(late >= -20, "%s is %d ms early", arrival.body, -late);
            Check.that(late <= LATENESS_MAX_MILLIS, "%s is %d ms late", arrival.body, late);
            Check.equal(topic, arrival.message.getTopic(), "topic");
            Check.equal("tag", arrival.message.getTags(), "tag");
            Check.equal("key-" + number, arrival.message.getKeys(), "keys");
        }
        Check.equal(11, arrivals.size(), "deliveries");
    }
}
