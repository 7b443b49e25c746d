/** Sends numbered messages for process tests, and prints each one that was acknowledged: id, queue, offset, body. */
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;

public final class Produce {
    private Produce() {}

    public static void main(String[] args) throws Exception {
        Flags flags = Flags.parse(args);
        DefaultMQProducer producer = Stage.startProducer(flags.need("namesrv"));
        int count = Integer.parseInt(flags.need("count"));
        for (int i = 0; i < count; i++) {
            String body = flags.get("prefix", "") + i;
            try {
                SendResult result = producer.send(Stage.message(flags.need("topic"), body));
                System.out.println(result.getMsgId() + " " + result.getMessageQueue().getQueueId() + " "
                    + result.getQueueOffset() + " " + body);
            } catch (Exception failure) {
                System.err.println(body + ": " + failure);
            }
        }
        System.exit(0);
    }
}
