/** Request and reply: the answer comes back through the broker to the very client that asked. */
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.exception.RequestTimeoutException;
import org.apache.rocketmq.client.producer.RequestCallback;
import org.apache.rocketmq.client.utils.MessageUtil;
import org.apache.rocketmq.common.message.Message;

final class RequestCases {
    private static final long PATIENCE_MILLIS = 60_000;

    private RequestCases() {}

    static void addTo(Suite suite) {
        suite.add("request-reply", RequestCases::reply);
        suite.add("request-without-reply", RequestCases::withoutReply);
    }

    private static void reply(Stage stage) throws Exception {
        String topic = stage.topic(2);
        DefaultMQPushConsumer consumer = stage.push(stage.group());
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            try {
                for (Message message : messages) {
                    Message answer = MessageUtil.createReplyMessage(message, Stage.bytes("re: " + Stage.text(message)));
                    answer.putUserProperty("mood", "добрый");
                    stage.producer.send(answer, 5000);
                }
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            } catch (Exception failure) {
                return ConsumeConcurrentlyStatus.RECONSUME_LATER;
            }
        });
        consumer.start();
        for (int i = 0; i < 5; i++) {
            Message answer = stage.producer.request(Stage.message(topic, "ask-" + i), PATIENCE_MILLIS);
            Check.equal("re: ask-" + i, Stage.text(answer), "answer");
            Check.equal("добрый", answer.getUserProperty("mood"), "property of the answer");
        }
        Map<Integer, String> answers = new ConcurrentHashMap<>();
        for (int i = 0; i < 5; i++) {
            int number = i;
            stage.producer.request(Stage.message(topic, "later-" + i), new RequestCallback() {
                @Override
                public void onSuccess(Message answer) {
                    answers.put(number, Stage.text(answer));
                }

                @Override
                public void onException(Throwable failure) {
                    answers.put(number, failure.toString());
                }
            }, PATIENCE_MILLIS);
        }
        Check.eventually(60, "all callbacks", () -> answers.size() == 5);
        for (int i = 0; i < 5; i++) {
            Check.equal("re: later-" + i, answers.get(i), "answer to a callback");
        }
    }

    private static void withoutReply(Stage stage) throws Exception {
        String topic = stage.topic(1);
        Check.refused(RequestTimeoutException.class, "a request nobody answers",
            () -> stage.producer.request(Stage.message(topic, "anyone?"), 1500));
        Check.equal(1, stage.stored(topic).size(), "the request is stored");
    }
}
