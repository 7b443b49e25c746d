// Fills a stock store with one scene of few, small messages of many kinds.
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.impl.MQClientAPIImpl;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

public final class Store {
    static DefaultMQProducer producer;

    public static void main(String[] arguments) throws Exception {
        Wish.haltAtTheEnd();
        producer = new DefaultMQProducer("Writers");
        producer.setNamesrvAddr(Wish.NAMESERVER);
        producer.setDefaultTopicQueueNums(2);
        producer.setCompressMsgBodyOverHowmuch(200);
        producer.start();
        switch (System.getProperty("scene")) {
            case "plain": plain(); break;
            case "rolled": rolled(); break;
            case "delayed": delayed(); break;
            case "longtopic": longtopic(); break;
            case "transaction": transaction(); break;
            default: throw new IllegalArgumentException(System.getProperty("scene"));
        }
    }

    static Message letter(String tags, String keys, String body) {
        return new Message("Letters", tags, keys, body.getBytes(StandardCharsets.UTF_8));
    }

    static MessageQueue queue(int id) {
        return new MessageQueue("Letters", "broker-a", id);
    }

    static void plain() throws Exception {
        producer.send(letter("TagA", "key-1", "hello"));
        producer.send(letter("TagB", "key-2 key-3", "two keys"), queue(1));
        producer.send(new Message("Letters", "no tags, no keys".getBytes(StandardCharsets.UTF_8)), queue(0));
        Message rich = letter("grüße", "schlüssel key-1", "grüße, 世界 🚀");
        rich.putUserProperty("colour", "bleu \"ciel\" 世界 🚀");
        rich.setFlag(-7);
        rich.setWaitStoreMsgOK(false);
        producer.send(rich, queue(1));
        producer.send(letter("TagC", "key-4", String.join("", Collections.nCopies(40, "compress "))), queue(0));
        List<Message> batch = new ArrayList<>();
        for (int i = 0; i < 3; i++) batch.add(letter("TagD", "key-5", "part " + i));
        producer.send(batch, queue(0));
        producer.sendOneway(letter("a tag that is long and hashes below zero", "key-6", "one way"), queue(1));
        Message raw = new Message("Other", "TagA", "key-1", new byte[] {0, 1, (byte) 0xff});
        producer.send(raw);
        // Two strings of one Java hash: a collision in the index.
        producer.send(letter("Aa", "Aa", "collides"), queue(0));
        producer.send(letter("BB", "BB", "collides"), queue(0));
    }

    static void rolled() throws Exception {
        for (int i = 0; i < 25; i++) producer.send(letter("TagA", "key-" + i, "message " + i), queue(0));
    }

    static void delayed() throws Exception {
        MQClientAPIImpl api = producer.getDefaultMQProducerImpl().getmQClientFactory().getMQClientAPIImpl();
        Message later = letter("TagA", "key-1", "later");
        later.setDelayTimeLevel(1);
        producer.send(later, queue(0));
        Thread.sleep(3000);
        SendResult sent = producer.send(letter("TagB", "key-2", "again"), queue(0));
        MessageExt message = producer.viewMessage("Letters", sent.getOffsetMsgId());
        api.consumerSendMessageBack(Wish.BROKER, "broker-a", message, "Readers", 1, 5000, 16);
        Thread.sleep(3000);
        api.consumerSendMessageBack(Wish.BROKER, "broker-a", message, "Readers", -1, 5000, 16);
        DefaultMQPullConsumer consumer = new DefaultMQPullConsumer("Readers");
        consumer.setNamesrvAddr(Wish.NAMESERVER);
        consumer.start();
        consumer.updateConsumeOffset(queue(0), 1);
        consumer.updateConsumeOffset(queue(1), 0);
        consumer.getDefaultMQPullConsumerImpl().getOffsetStore().persist(queue(0));
        consumer.getDefaultMQPullConsumerImpl().getOffsetStore().persist(queue(1));
        DefaultMQAdminExt admin = new DefaultMQAdminExt();
        admin.setNamesrvAddr(Wish.NAMESERVER);
        admin.start();
        admin.createAndUpdateKvConfig("NAMESPACE", "key", "value");
        admin.createOrUpdateOrderConf("Letters", "broker-a:2", true);
        admin.updateAndGetGroupReadForbidden(Wish.BROKER, "Readers", "Letters", false);
        Thread.sleep(1000);
    }

    /** The broker knows a group of 121 characters already: its retry topic takes 128 bytes, and so the second record layout. */
    static void longtopic() throws Exception {
        MQClientAPIImpl api = producer.getDefaultMQProducerImpl().getmQClientFactory().getMQClientAPIImpl();
        SendResult sent = producer.send(letter("TagA", "key-1", "a long way"), queue(0));
        MessageExt message = producer.viewMessage("Letters", sent.getOffsetMsgId());
        String group = String.join("", Collections.nCopies(121, "g"));
        api.consumerSendMessageBack(Wish.BROKER, "broker-a", message, group, 1, 5000, 16);
        Thread.sleep(3000);
    }

    static void transaction() throws Exception {
        TransactionMQProducer teller = new TransactionMQProducer("Tellers");
        teller.setNamesrvAddr(Wish.NAMESERVER);
        teller.setInstanceName("teller");
        teller.setDefaultTopicQueueNums(1);
        teller.setTransactionListener(new TransactionListener() {
            public LocalTransactionState executeLocalTransaction(Message message, Object state) {
                return (LocalTransactionState) state;
            }
            public LocalTransactionState checkLocalTransaction(MessageExt message) {
                return LocalTransactionState.UNKNOW;
            }
        });
        teller.start();
        teller.sendMessageInTransaction(letter("TagA", "key-1", "commit"), LocalTransactionState.COMMIT_MESSAGE);
        Thread.sleep(4000);
        teller.sendMessageInTransaction(letter("TagB", "key-2", "roll back"), LocalTransactionState.ROLLBACK_MESSAGE);
        Thread.sleep(4000);
        teller.sendMessageInTransaction(letter("TagC", "key-3", "open"), LocalTransactionState.UNKNOW);
        Thread.sleep(1000);
    }
}
