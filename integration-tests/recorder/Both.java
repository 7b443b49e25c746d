// A few requests to a broker that answers in the binary header.
import java.nio.charset.StandardCharsets;
import java.util.Collections;
import java.util.Properties;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

public final class Both {
    public static void main(String[] arguments) throws Exception {
        Wish.haltAtTheEnd();
        DefaultMQAdminExt admin = new DefaultMQAdminExt();
        admin.setNamesrvAddr(Wish.NAMESERVER);
        admin.start();
        String broker = "127.0.0.1:12911";
        admin.createTopic("broker-b", "Binary", 1, Collections.emptyMap());
        DefaultMQProducer producer = new DefaultMQProducer("Writers");
        producer.setNamesrvAddr(Wish.NAMESERVER);
        producer.start();
        MessageQueue queue = new MessageQueue("Binary", "broker-b", 0);
        Message message = new Message("Binary", "TagA", "key-1", "hello".getBytes(StandardCharsets.UTF_8));
        Wish.record("heart_beat", 34, "binary_answer", "heartbeat of a DefaultMQProducer", () -> producer.send(message, queue), "link=broker-b");
        SendResult[] sent = new SendResult[1];
        Wish.record("send_message_v2", 310, "binary_answer", "DefaultMQProducer.send", () -> sent[0] = producer.send(message, queue), "link=broker-b");
        Wish.record("get_max_offset", 30, "binary_answer", "MQAdmin.maxOffset", () -> producer.maxOffset(queue), "link=broker-b");
        Wish.record("view_message_by_id", 33, "binary_answer", "MQAdmin.viewMessage", () -> producer.viewMessage("Binary", sent[0].getOffsetMsgId()), "link=broker-b");
        Wish.record("get_topic_config", 351, "binary_answer", "DefaultMQAdminExt.examineTopicConfig", () -> admin.examineTopicConfig(broker, "Binary"), "link=broker-b");
        Wish.record("get_consumer_connection_list", 203, "binary_answer-offline", "DefaultMQAdminExt.examineConsumerConnectionInfo", () -> admin.examineConsumerConnectionInfo("Nobody", broker), "link=broker-b");
        // Stock never marks the compressed body that this setting makes, and its nameserver cannot read it.
        Properties settings = new Properties();
        settings.setProperty("compressedRegister", "true");
        settings.setProperty("forceRegister", "true");
        admin.updateBrokerConfig(broker, settings);
        Wish.take("register_broker", 103, "compressed_unmarked-binary", "compressedRegister=true", "link=namesrv", "has=broker-b", "by=rocketmq-broker 5.5.0");
        Wish.await(40);
    }
}
