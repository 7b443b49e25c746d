/** Bodies from one byte to the limit, plain and compressed. */
import java.util.Arrays;
import java.util.Random;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

final class BodyCases {
    private static final int LIMIT = 4 * 1024 * 1024;

    private BodyCases() {}

    static void addTo(Suite suite) {
        suite.add("body-sizes", BodyCases::sizes);
        suite.add("body-too-large", BodyCases::tooLarge);
        suite.add("body-empty", BodyCases::empty);
        suite.add("body-compressed", BodyCases::compressed);
    }

    private static byte[] random(int size) {
        byte[] body = new byte[size];
        new Random(size).nextBytes(body);
        return body;
    }

    /** A producer that lets through what it is given, so that the broker is the one to judge. */
    private static DefaultMQProducer plainProducer(Stage stage) throws MQClientException {
        DefaultMQProducer own = stage.ownProducer();
        own.setCompressMsgBodyOverHowmuch(Integer.MAX_VALUE);
        own.setMaxMessageSize(2 * LIMIT);
        own.setRetryTimesWhenSendFailed(0);
        return own;
    }

    private static void sizes(Stage stage) throws Exception {
        String topic = stage.topic(1);
        DefaultMQProducer own = plainProducer(stage);
        int[] sizes = {1, 2, 4095, 4096, 4097, 65_535, 65_536, 1_000_000, LIMIT - 1, LIMIT};
        for (int size : sizes) {
            own.send(new Message(topic, random(size)));
        }
        int next = 0;
        for (MessageExt message : stage.stored(topic)) {
            Check.equal(sizes[next], message.getBody().length, "body length");
            Check.that(Arrays.equals(random(sizes[next]), message.getBody()), "equal bytes at size %d", sizes[next]);
            next++;
        }
        Check.equal(sizes.length, next, "messages");
    }

    private static void tooLarge(Stage stage) throws Exception {
        String topic = stage.topic(1);
        MQClientException byClient = Check.refused(MQClientException.class, "one byte over the client's limit",
            () -> stage.producer.send(new Message(topic, random(LIMIT + 1))));
        Check.equal(13, byClient.getResponseCode(), "response code of the client");
        DefaultMQProducer own = plainProducer(stage);
        MQBrokerException byBroker = Check.refused(MQBrokerException.class, "one byte over the broker's limit",
            () -> own.send(new Message(topic, random(LIMIT + 1))));
        Check.equal(13, byBroker.getResponseCode(), "response code of the broker");
        own.send(Stage.message(topic, "after"));
        Check.equal(1, stage.stored(topic).size(), "stored messages");
    }

    private static void empty(Stage stage) throws Exception {
        String topic = stage.topic(1);
        MQClientException refusal = Check.refused(MQClientException.class, "an empty body",
            () -> stage.producer.send(new Message(topic, new byte[0])));
        Check.equal(13, refusal.getResponseCode(), "response code");
    }

    private static void compressed(Stage stage) throws Exception {
        String topic = stage.topic(1);
        String body = "a body that repeats itself · ".repeat(4000);
        SendResult result = stage.producer.send(Stage.message(topic, body));
        MessageExt pulled = stage.stored(topic).get(0);
        Check.equal(body, Stage.text(pulled), "pulled body");
        Check.that(pulled.getStoreSize() < body.length() / 10, "it is stored compressed, in %d bytes", pulled.getStoreSize());
        Check.equal(body, Stage.text(stage.producer.viewMessage(topic, result.getOffsetMsgId())), "viewed body");
    }
}
