import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.protocol.body.ClusterInfo;
import org.apache.rocketmq.remoting.protocol.route.BrokerData;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

/** One of the two clusters: where it is, and what happened in it before the commands run. */
final class Cluster {
    static final String TOPIC = "CompareOrders";
    static final String READERS = "CompareReaders";
    static final String ONLINE = "CompareOnline";
    static final int MESSAGES = 20;

    final String side;
    final String namesrv;
    final String brokerName;
    final String broker;
    /** What stands for each thing that a command line or an output names. */
    final Map<String, String> names = new LinkedHashMap<>();

    /** How often the consumer got each message. */
    private final Map<String, Integer> seen = new ConcurrentHashMap<>();
    private DefaultMQProducer producer;
    private DefaultMQPushConsumer consumer;

    Cluster(String side, String namesrv) throws Exception {
        this.side = side;
        this.namesrv = namesrv;
        DefaultMQAdminExt admin = admin();
        ClusterInfo info = admin.examineBrokerClusterInfo();
        admin.shutdown();
        if (info.getBrokerAddrTable().size() != 1) {
            throw new IllegalStateException(side + " must have one broker, it has " + info.getBrokerAddrTable().keySet());
        }
        BrokerData data = info.getBrokerAddrTable().values().iterator().next();
        brokerName = data.getBrokerName();
        broker = data.getBrokerAddrs().get(0L);
        names.put("ns", namesrv);
        names.put("broker", broker);
        names.put("name", brokerName);
        names.put("client", "10.0.0.1@compare-" + side);
    }

    private DefaultMQAdminExt admin() throws Exception {
        DefaultMQAdminExt admin = new DefaultMQAdminExt();
        admin.setNamesrvAddr(namesrv);
        admin.setInstanceName("compare-admin-" + side);
        admin.start();
        return admin;
    }

    /** The same messages, the same reading, the same clients that stay. */
    void history() throws Exception {
        producer = new DefaultMQProducer("CompareProducers");
        producer.setNamesrvAddr(namesrv);
        producer.setClientIP("10.0.0.1");
        producer.setInstanceName("compare-" + side);
        producer.start();
        for (int i = 0; i < MESSAGES; i++) {
            byte[] body = ("body " + i).getBytes(StandardCharsets.UTF_8);
            Message message = new Message(TOPIC, i % 2 == 0 ? "A" : "B", "key-" + i, body);
            SendResult sent = producer.send(message, new MessageQueue(TOPIC, brokerName, i % 4));
            names.put("id:" + i, sent.getOffsetMsgId());
            names.put("uid:" + i, sent.getMsgId());
        }
        DefaultMQAdminExt admin = admin();
        for (int queue = 0; queue < 4; queue++) {
            admin.updateConsumeOffset(broker, READERS, new MessageQueue(TOPIC, brokerName, queue), queue + 1);
        }
        admin.shutdown();
        consumer = new DefaultMQPushConsumer(ONLINE);
        consumer.setNamesrvAddr(namesrv);
        consumer.setClientIP("10.0.0.1");
        consumer.setInstanceName("compare-" + side);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe(TOPIC, "A || B");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            messages.forEach(message -> seen.merge(message.getMsgId(), 1, Integer::sum));
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        consumed(1);
        settle();
    }

    /** Waits until the consumer got every message so many times. */
    void consumed(int times) throws Exception {
        long end = System.currentTimeMillis() + 60_000;
        while (seen.size() < MESSAGES || seen.values().stream().anyMatch(count -> count < times)) {
            if (System.currentTimeMillis() > end) {
                throw new IllegalStateException(side + ": the consumer got " + seen.values() + ", wanted each " + times + " times");
            }
            Thread.sleep(50);
        }
    }

    /** What the consumer has consumed is known to the broker. */
    void settle() throws Exception {
        Thread.sleep(300);
        consumer.getDefaultMQPushConsumerImpl().persistConsumerOffset();
        Thread.sleep(300);
    }

    void leave() {
        if (consumer != null) {
            consumer.shutdown();
        }
        if (producer != null) {
            producer.shutdown();
        }
        consumer = null;
        producer = null;
    }

    /** A command line with its `{names}` replaced. */
    String[] command(String line) {
        List<String> words = new ArrayList<>();
        for (String word : line.split(" ")) {
            for (Map.Entry<String, String> name : names.entrySet()) {
                word = word.replace("{" + name.getKey() + "}", name.getValue());
            }
            words.add(word.replace("\\s", " "));
        }
        return words.toArray(new String[0]);
    }

    /** An output without what has to differ. */
    List<String> normal(String output) {
        String text = output;
        for (Map.Entry<String, String> name : names.entrySet()) {
            if (name.getKey().startsWith("uid:") || name.getKey().startsWith("id:")) {
                text = text.replace(name.getValue(), "<" + name.getKey() + ">");
            }
        }
        text = text.replace(namesrv, "<ns>").replace(broker, "<broker>").replace("compare-" + side, "compare");
        List<String> lines = new ArrayList<>();
        for (String line : text.split("\r?\n")) {
            String plain = Normal.line(line);
            if (!plain.isEmpty()) {
                lines.add(plain);
            }
        }
        Collections.sort(lines);
        return lines;
    }
}
