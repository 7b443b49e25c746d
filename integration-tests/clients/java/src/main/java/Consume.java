/** Consumes for process tests until nothing has come for a while, and prints each message: id, queue, offset, retries, body. */
import java.util.concurrent.atomic.AtomicLong;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;

public final class Consume {
    private Consume() {}

    public static void main(String[] args) throws Exception {
        Flags flags = Flags.parse(args);
        AtomicLong last = new AtomicLong(System.currentTimeMillis());
        try (Stage stage = new Stage("consume", flags.need("namesrv"), "", null)) {
            DefaultMQPushConsumer consumer = stage.push(flags.need("group"));
            // One thread prints the messages of a queue in their order.
            consumer.setConsumeThreadMin(1);
            consumer.setConsumeThreadMax(1);
            consumer.subscribe(flags.need("topic"), flags.get("tags", "*"));
            consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
                messages.forEach(each -> System.out.println(each.getMsgId() + " " + each.getQueueId() + " "
                    + each.getQueueOffset() + " " + each.getReconsumeTimes() + " " + Stage.text(each)));
                last.set(System.currentTimeMillis());
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            });
            consumer.start();
            long idle = Long.parseLong(flags.get("idle-ms", "10000"));
            while (System.currentTimeMillis() - last.get() < idle) {
                Thread.sleep(50);
            }
        }
        System.exit(0);
    }
}
