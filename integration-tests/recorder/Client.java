// What producers and consumers send. Compiles against rocketmq-client 4.9.8 and 5.5.0.
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.MessageSelector;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.client.utils.MessageUtil;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

public final class Client {
    static final String TOPIC = System.getProperty("topic", "Letters");
    static final String HAS = "has=" + TOPIC;
    static DefaultMQProducer producer;

    public static void main(String[] arguments) throws Exception {
        Wish.haltAtTheEnd();
        for (String part : System.getProperty("parts", "send,query,pull,push,orderly,lite,reply,sql,transaction,bye").split(",")) {
            switch (part) {
                case "send": send(); break;
                case "old": old(); break;
                case "query": query(); break;
                case "pull": pull(); break;
                case "push": push(); break;
                case "orderly": orderly(); break;
                case "lite": lite(); break;
                case "reply": reply(); break;
                case "sql": sql(); break;
                case "transaction": transaction(); break;
                case "bye": bye(); break;
                default: throw new IllegalArgumentException(part);
            }
        }
    }

    static Message letter(String tags, String keys, String body) {
        return new Message(TOPIC, tags, keys, body.getBytes(StandardCharsets.UTF_8));
    }

    static DefaultMQProducer producer() throws Exception {
        if (producer == null) {
            producer = new DefaultMQProducer("Writers");
            producer.setNamesrvAddr(Wish.NAMESERVER);
            producer.setDefaultTopicQueueNums(1);
            producer.setCompressMsgBodyOverHowmuch(200);
            producer.start();
        }
        return producer;
    }

    static void send() throws Exception {
        DefaultMQProducer producer = producer();
        Wish.take("get_routeinfo_by_topic", 105, "unknown_topic", "first DefaultMQProducer.send", HAS, "answer=17");
        Wish.take("get_routeinfo_by_topic", 105, "default_topic", "first DefaultMQProducer.send", "has=topic=TBW102", "answer=0");
        Wish.take("heart_beat", 34, "producer", "heartbeat of a DefaultMQProducer", "has=Writers");
        Wish.record("send_message_v2", 310, "", "DefaultMQProducer.send", () -> producer.send(letter("TagA", "key-1", "hello")), "has=TagA");
        Wish.record("get_routeinfo_by_topic", 105, "", "MQAdmin.fetchPublishMessageQueues", () -> {
            producer.getDefaultMQProducerImpl().getmQClientFactory().updateTopicRouteInfoFromNameServer(TOPIC);
        }, HAS, "answer=0");
        Message rich = letter("TagB", "key-2 key-3", "grüße, 世界 🚀");
        rich.putUserProperty("colour", "bleu \"ciel\" \\ </a> \u0301é 世界 🚀\t\u007f\u2028");
        rich.setFlag(-7);
        rich.setWaitStoreMsgOK(false);
        Wish.record("send_message_v2", 310, "unicode", "DefaultMQProducer.send", () -> producer.send(rich), "has=colour");
        Message bare = new Message(TOPIC, "no tags".getBytes(StandardCharsets.UTF_8));
        Wish.record("send_message_v2", 310, "bare", "DefaultMQProducer.send", () -> producer.send(bare));
        Wish.record("send_message_v2", 310, "oneway", "DefaultMQProducer.sendOneway", () -> producer.sendOneway(letter("TagC", "key-4", "one way")), "has=TagC");
        Message later = letter("TagD", "key-5", "later");
        later.setDelayTimeLevel(1);
        Wish.record("send_message_v2", 310, "delayed", "DefaultMQProducer.send with delay level 1", () -> producer.send(later), "has=DELAY");
        Message squeezed = letter("TagE", "key-6", String.join("", Collections.nCopies(40, "compress ")));
        Wish.record("send_message_v2", 310, "compressed", "DefaultMQProducer.send of a compressed body", () -> producer.send(squeezed), "has=TagE");
        List<Message> batch = new ArrayList<>();
        for (int i = 0; i < 3; i++) batch.add(letter("TagF", "key-7" + i, "part " + i));
        Wish.record("send_batch_message", 320, "", "DefaultMQProducer.send of a list", () -> producer.send(batch));
        Wish.record("send_message_v2", 310, "async", "DefaultMQProducer.send with a callback", () -> {
            CountDownLatch sent = new CountDownLatch(1);
            producer.send(letter("TagG", "key-8", "async"), new org.apache.rocketmq.client.producer.SendCallback() {
                public void onSuccess(SendResult result) { sent.countDown(); }
                public void onException(Throwable error) { sent.countDown(); }
            });
            sent.await(5, TimeUnit.SECONDS);
        }, "has=TagG");
        Wish.await(35);
    }

    /** With -Dorg.apache.rocketmq.client.sendSmartMsg=false. */
    static void old() throws Exception {
        DefaultMQProducer producer = producer();
        Wish.record("send_message", 10, "", "DefaultMQProducer.send with sendSmartMsg=false", () -> producer.send(letter("TagA", "key-1", "long names")));
        Wish.record("send_message", 10, "oneway", "DefaultMQProducer.sendOneway with sendSmartMsg=false", () -> producer.sendOneway(letter("TagA", "key-1", "long names")));
    }

    static void query() throws Exception {
        DefaultMQProducer producer = producer();
        SendResult sent = producer.send(letter("TagQ", "key-query", "ask for me"));
        MessageQueue queue = sent.getMessageQueue();
        Thread.sleep(1500);
        Wish.record("search_offset_by_timestamp", 29, "", "MQAdmin.searchOffset", () -> producer.searchOffset(queue, System.currentTimeMillis() - 60_000));
        Wish.record("get_max_offset", 30, "", "MQAdmin.maxOffset", () -> producer.maxOffset(queue));
        Wish.record("get_min_offset", 31, "", "MQAdmin.minOffset", () -> producer.minOffset(queue));
        Wish.record("get_earliest_msg_storetime", 32, "", "MQAdmin.earliestMsgStoreTime", () -> producer.earliestMsgStoreTime(queue));
        Wish.record("view_message_by_id", 33, "", "MQAdmin.viewMessage", () -> producer.viewMessage(TOPIC, sent.getOffsetMsgId()));
        Wish.record("query_message", 12, "key", "MQAdmin.queryMessage", () -> producer.queryMessage(TOPIC, "key-query", 8, 0, Long.MAX_VALUE), "answer=0");
        Wish.record("query_message", 12, "unique_key", "MQAdmin.viewMessage of a unique id", () -> producer.viewMessage(TOPIC, sent.getMsgId()), "answer=0");
        Wish.record("query_message", 12, "not_found", "MQAdmin.queryMessage", () -> producer.queryMessage(TOPIC, "no-such-key", 8, 0, Long.MAX_VALUE), "answer=22");
    }

    static void pull() throws Exception {
        DefaultMQPullConsumer consumer = new DefaultMQPullConsumer("Pullers");
        consumer.setNamesrvAddr(Wish.NAMESERVER);
        consumer.start();
        MessageQueue queue = producer().fetchPublishMessageQueues(TOPIC).get(0);
        long end = consumer.maxOffset(queue);
        Thread.sleep(1500);
        Wish.record("pull_message", 11, "no_matching_tag", "DefaultMQPullConsumer.pull", () -> consumer.pull(queue, "NoSuchTag", 0, 32), "answer=20", HAS);
        Wish.record("pull_message", 11, "at_end", "DefaultMQPullConsumer.pull", () -> consumer.pull(queue, "*", end, 32), "answer=19", HAS);
        Wish.record("pull_message", 11, "moved", "DefaultMQPullConsumer.pull", () -> consumer.pull(queue, "*", end + 1000, 32), "answer=21", HAS);
        Wish.record("pull_message", 11, "tags", "DefaultMQPullConsumer.pull", () -> consumer.pull(queue, "TagA || TagB", 0, 2), "answer=0", HAS);
        Wish.record("update_consumer_offset", 15, "pull", "DefaultMQPullConsumer.updateConsumeOffset and persist", () -> {
            consumer.updateConsumeOffset(queue, 1);
            consumer.getDefaultMQPullConsumerImpl().getOffsetStore().persist(queue);
        }, HAS, "has=Pullers");
        Wish.record("query_consumer_offset", 14, "pull", "DefaultMQPullConsumer.fetchConsumeOffset", () -> consumer.fetchConsumeOffset(queue, true), "has=Pullers", "answer=0");
        consumer.shutdown();
    }

    static DefaultMQPushConsumer consumer(String group, String instance) {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group);
        consumer.setNamesrvAddr(Wish.NAMESERVER);
        consumer.setInstanceName(instance);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setPersistConsumerOffsetInterval(2000);
        return consumer;
    }

    static void push() throws Exception {
        producer().send(letter("TagP", "key-push", "push"));
        AtomicInteger refused = new AtomicInteger();
        DefaultMQPushConsumer reader = consumer("Readers", "first" + Wish.MARK);
        reader.subscribe(TOPIC, "TagA || TagP");
        reader.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            context.setDelayLevelWhenNextConsume(3);
            return messages.get(0).getReconsumeTimes() == 0 && refused.getAndIncrement() == 0
                ? ConsumeConcurrentlyStatus.RECONSUME_LATER : ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        Wish.take("get_routeinfo_by_topic", 105, "retry_topic", "DefaultMQPushConsumer.start", "has=%RETRY%Readers");
        Wish.take("heart_beat", 34, "consumer", "DefaultMQPushConsumer.start", "has=TagP", "answer=0");
        Wish.take("get_consumer_list_by_group", 38, "", "rebalance of a DefaultMQPushConsumer", "has=Readers", "answer=0");
        Wish.take("query_consumer_offset", 14, "", "rebalance of a DefaultMQPushConsumer", "has=Readers");
        Wish.take("pull_message", 11, "", "DefaultMQPushConsumer", "has=consumerGroup=Readers", HAS, "answer=0");
        Wish.take("consumer_send_msg_back", 36, "", "DefaultMQPushConsumer whose listener answers RECONSUME_LATER", "has=Readers");
        Wish.take("update_consumer_offset", 15, "", "DefaultMQPushConsumer, every persistConsumerOffsetInterval", "has=Readers", HAS);
        reader.start();
        Wish.await(60);
        Wish.take("pull_message", 11, "long_poll", "DefaultMQPushConsumer, suspended until its time is over", "has=consumerGroup=Readers", "answer=19");
        Wish.await(40);
        DefaultMQPushConsumer second = consumer("Readers", "second" + Wish.MARK);
        second.subscribe(TOPIC, "TagA || TagP");
        second.registerMessageListener((MessageListenerConcurrently) (messages, context) -> ConsumeConcurrentlyStatus.CONSUME_SUCCESS);
        Wish.take("notify_consumer_ids_changed", 40, "", "another consumer of the group starts", "from=server");
        second.start();
        Wish.await(30);
        Wish.record("unregister_client", 35, "consumer", "DefaultMQPushConsumer.shutdown", second::shutdown, "has=Readers");
        reader.shutdown();
    }

    static void orderly() throws Exception {
        DefaultMQPushConsumer reader = consumer("OrderlyReaders", "orderly" + Wish.MARK);
        reader.subscribe(TOPIC, "*");
        reader.registerMessageListener((MessageListenerOrderly) (messages, context) -> ConsumeOrderlyStatus.SUCCESS);
        Wish.take("lock_batch_mq", 41, "", "rebalance of an orderly DefaultMQPushConsumer", "has=OrderlyReaders");
        Wish.take("heart_beat", 34, "orderly_consumer", "DefaultMQPushConsumer.start", "has=OrderlyReaders");
        reader.start();
        Wish.await(60);
        // The answer is seen before the client has entered the queue that it now may read.
        Thread.sleep(2000);
        Wish.take("unlock_batch_mq", 42, "", "DefaultMQPushConsumer.shutdown of an orderly consumer", "has=OrderlyReaders");
        reader.shutdown();
        Wish.await(10);
    }

    static void lite() throws Exception {
        DefaultLitePullConsumer reader = new DefaultLitePullConsumer("LiteReaders");
        reader.setNamesrvAddr(Wish.NAMESERVER);
        reader.setInstanceName("lite" + Wish.MARK);
        reader.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        reader.setPullBatchSize(2);
        reader.subscribe(TOPIC, "TagA");
        // 4.9.8 pulls with 11 here.
        if (Wish.MARK.startsWith("v4")) {
            Wish.take("pull_message", 11, "lite", "DefaultLitePullConsumer.poll", "has=LiteReaders", HAS, "answer=0");
        } else {
            Wish.take("lite_pull_message", 361, "", "DefaultLitePullConsumer.poll", "has=LiteReaders", HAS, "answer=0");
            Wish.take("lite_pull_message", 361, "at_end", "DefaultLitePullConsumer.poll", "has=LiteReaders", HAS, "answer=19");
        }
        reader.start();
        for (int i = 0; i < 10; i++) reader.poll(1000);
        Wish.await(60);
        reader.shutdown();
    }

    static void reply() throws Exception {
        DefaultMQProducer answering = new DefaultMQProducer("Repliers");
        answering.setNamesrvAddr(Wish.NAMESERVER);
        answering.setInstanceName("replier" + Wish.MARK);
        answering.start();
        String topic = TOPIC + "Asked";
        DefaultMQProducer asking = producer();
        asking.setInstanceName("asker" + Wish.MARK);
        asking.send(new Message(topic, "Tag", "warm up".getBytes(StandardCharsets.UTF_8)));
        DefaultMQPushConsumer reader = consumer("Answerers", "answerer" + Wish.MARK);
        reader.subscribe(topic, "Ask");
        reader.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            for (MessageExt message : messages) {
                Wish.attempt("reply", () -> answering.send(MessageUtil.createReplyMessage(message, "the answer".getBytes(StandardCharsets.UTF_8))));
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        reader.start();
        boolean smart = !"false".equals(System.getProperty("org.apache.rocketmq.client.sendSmartMsg"));
        if (smart) {
            Wish.take("send_message_v2", 310, "asking", "DefaultMQProducer.request", "has=REPLY_TO_CLIENT");
            Wish.take("send_reply_message_v2", 325, "", "DefaultMQProducer.send of a reply");
        } else {
            Wish.take("send_reply_message", 324, "", "DefaultMQProducer.send of a reply with sendSmartMsg=false");
        }
        Wish.take("push_reply_message_to_client", 326, "", "another client sends the reply", "from=server");
        Wish.attempt("request", () -> asking.request(new Message(topic, "Ask", "question".getBytes(StandardCharsets.UTF_8)), 50_000));
        Wish.await(60);
        reader.shutdown();
        answering.shutdown();
    }

    static void sql() throws Exception {
        DefaultMQPushConsumer good = consumer("SqlReaders", "sql" + Wish.MARK);
        good.subscribe(TOPIC, MessageSelector.bySql("colour IS NOT NULL AND weight > 3"));
        good.registerMessageListener((MessageListenerConcurrently) (messages, context) -> ConsumeConcurrentlyStatus.CONSUME_SUCCESS);
        Wish.take("heart_beat", 34, "sql_consumer", "DefaultMQPushConsumer.start", "has=SqlReaders");
        Wish.record("check_client_config", 46, "", "DefaultMQPushConsumer.start with a SQL92 subscription", good::start);
        DefaultMQPushConsumer bad = consumer("BadSqlReaders", "bad" + Wish.MARK);
        bad.subscribe(TOPIC, MessageSelector.bySql("colour IS"));
        bad.registerMessageListener((MessageListenerConcurrently) (messages, context) -> ConsumeConcurrentlyStatus.CONSUME_SUCCESS);
        Wish.record("check_client_config", 46, "bad_sql", "DefaultMQPushConsumer.start with a broken SQL92 subscription", bad::start);
        good.shutdown();
    }

    static void transaction() throws Exception {
        TransactionMQProducer teller = new TransactionMQProducer("Tellers");
        teller.setNamesrvAddr(Wish.NAMESERVER);
        teller.setInstanceName("teller" + Wish.MARK);
        teller.setTransactionListener(new TransactionListener() {
            public LocalTransactionState executeLocalTransaction(Message message, Object state) {
                return (LocalTransactionState) state;
            }
            public LocalTransactionState checkLocalTransaction(MessageExt message) {
                return LocalTransactionState.ROLLBACK_MESSAGE;
            }
        });
        teller.start();
        Wish.take("send_message_v2", 310, "half", "TransactionMQProducer.sendMessageInTransaction", "has=TRAN_MSG");
        Wish.record("end_transaction", 37, "commit", "TransactionMQProducer, committed", () -> teller.sendMessageInTransaction(letter("TagT", "key-t1", "half"), LocalTransactionState.COMMIT_MESSAGE));
        if (Wish.MARK.isEmpty()) {
            Wish.take("check_transaction_state", 39, "", "the broker asks for an open transaction", "from=server");
            Wish.take("end_transaction", 37, "checked", "TransactionMQProducer, rolled back when asked", "has=fromTransactionCheck=true");
            teller.sendMessageInTransaction(letter("TagT", "key-t2", "half"), LocalTransactionState.UNKNOW);
            Wish.await(60);
        }
        teller.shutdown();
    }

    static void bye() throws Exception {
        Wish.record("unregister_client", 35, "producer", "DefaultMQProducer.shutdown", producer()::shutdown, "has=Writers");
        producer = null;
    }
}
