// What administrators send: mqadmin itself where a command exists, the class behind it elsewhere. Needs rocketmq-tools 5.5.0.
import java.io.OutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.Properties;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.impl.MQClientAPIImpl;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.UtilAll;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.CommandCustomHeader;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;
import org.apache.rocketmq.remoting.protocol.body.RegisterBrokerBody;
import org.apache.rocketmq.remoting.protocol.body.TopicConfigAndMappingSerializeWrapper;
import org.apache.rocketmq.remoting.protocol.body.TopicConfigSerializeWrapper;
import org.apache.rocketmq.remoting.protocol.header.CreateTopicRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.PullMessageRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.QueryConsumerOffsetRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.SendMessageRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.SendMessageRequestHeaderV2;
import org.apache.rocketmq.remoting.protocol.header.UpdateConsumerOffsetRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.namesrv.RegisterBrokerRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.namesrv.UnRegisterBrokerRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.namesrv.RegisterTopicRequestHeader;
import org.apache.rocketmq.remoting.protocol.route.BrokerData;
import org.apache.rocketmq.remoting.protocol.route.QueueData;
import org.apache.rocketmq.remoting.protocol.route.TopicRouteData;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;
import org.apache.rocketmq.tools.command.MQAdminStartup;

public final class Admin {
    static final String NS = Wish.NAMESERVER;
    static final String BROKER = Wish.BROKER;
    static final String TOPIC = "Ledger";
    static final String GROUP = "Keepers";
    static final String MQADMIN = "by=mqadmin (rocketmq-tools 5.5.0)";
    static DefaultMQAdminExt admin;
    static MQClientAPIImpl api;

    public static void main(String[] arguments) throws Exception {
        Wish.haltAtTheEnd();
        admin = new DefaultMQAdminExt();
        admin.setInstanceName("admin");
        admin.setNamesrvAddr(NS);
        admin.start();
        api = admin.getDefaultMQAdminExtImpl().getMqClientInstance().getMQClientAPIImpl();
        nameserver();
        topicsAndGroups();
        settings();
        withClients();
        refusals();
        housekeeping();
    }

    /** One mqadmin command, in this process, exactly as its main would run it. */
    static void mqadmin(String name, int code, String variant, String words, String... options) throws Exception {
        String[] all = Arrays.copyOf(options, options.length + 1);
        all[options.length] = MQADMIN;
        Wish.record(name, code, variant, "mqadmin " + words, () -> {
            PrintStream out = System.out;
            PrintStream errors = System.err;
            System.setOut(new PrintStream(OutputStream.nullOutputStream()));
            System.setErr(new PrintStream(OutputStream.nullOutputStream()));
            try {
                MQAdminStartup.main0(words.split(" "), null);
            } finally {
                System.setOut(out);
                System.setErr(errors);
            }
        }, all);
    }

    static void call(String name, int code, String variant, String call, Wish.Action action, String... options) throws Exception {
        Wish.record(name, code, variant, call, action, options);
    }

    static RemotingCommand raw(String address, int code, CommandCustomHeader header, byte[] body) throws Exception {
        RemotingCommand request = RemotingCommand.createRequestCommand(code, header);
        request.setBody(body);
        return api.getRemotingClient().invokeSync(address, request, 5000);
    }

    static void nameserver() throws Exception {
        mqadmin("put_kv_config", 100, "", "updateKvConfig -n " + NS + " -s NAMESPACE -k key -v value");
        mqadmin("put_kv_config", 100, "order_topic", "updateOrderConf -n " + NS + " -t " + TOPIC + " -m put -v broker-a:1");
        call("get_kv_config", 101, "", "DefaultMQAdminExt.getKVConfig", () -> admin.getKVConfig("NAMESPACE", "key"));
        call("get_kv_config", 101, "not_found", "DefaultMQAdminExt.getKVConfig", () -> admin.getKVConfig("NAMESPACE", "none"));
        call("get_kvlist_by_namespace", 219, "", "DefaultMQAdminExt.getKVListByNamespace", () -> admin.getKVListByNamespace("NAMESPACE"));
        call("get_kvlist_by_namespace", 219, "not_found", "DefaultMQAdminExt.getKVListByNamespace", () -> admin.getKVListByNamespace("NONE"));
        mqadmin("delete_kv_config", 102, "", "deleteKvConfig -n " + NS + " -s NAMESPACE -k key");
        mqadmin("get_broker_cluster_info", 106, "", "clusterList -n " + NS);
        mqadmin("get_broker_runtime_info", 28, "", "brokerStatus -n " + NS + " -b " + BROKER);
        mqadmin("update_namesrv_config", 318, "", "updateNamesrvConfig -n " + NS + " -k orderMessageEnable -v true");
        mqadmin("update_namesrv_config", 318, "refused", "updateNamesrvConfig -n " + NS + " -k kvConfigPath -v elsewhere");
        mqadmin("get_namesrv_config", 319, "", "getNamesrvConfig -n " + NS);
        mqadmin("wipe_write_perm_of_broker", 205, "", "wipeWritePerm -n " + NS + " -b broker-a");
        mqadmin("add_write_perm_of_broker", 327, "", "addWritePerm -n " + NS + " -b broker-a");
        mqadmin("wipe_write_perm_of_broker", 205, "unknown_broker", "wipeWritePerm -n " + NS + " -b nobody");
        mqadmin("get_all_topic_list_from_nameserver", 206, "", "topicList -n " + NS);
        call("get_topics_by_cluster", 224, "", "DefaultMQAdminExt.fetchTopicsByCLuster", () -> admin.fetchTopicsByCLuster("DefaultCluster"));
        call("get_system_topic_list_from_ns", 304, "", "MQClientAPIImpl.getSystemTopicList", () -> api.getSystemTopicList(5000));
        call("get_unit_topic_list", 311, "", "MQClientAPIImpl.getUnitTopicList", () -> api.getUnitTopicList(true, 5000));
        call("get_has_unit_sub_topic_list", 312, "", "MQClientAPIImpl.getHasUnitSubTopicList", () -> api.getHasUnitSubTopicList(true, 5000));
        call("get_has_unit_sub_ununit_topic_list", 313, "", "MQClientAPIImpl.getHasUnitSubUnUnitTopicList", () -> api.getHasUnitSubUnUnitTopicList(true, 5000));
        call("get_routeinfo_by_topic", 105, "cluster_name", "MQClientAPIImpl.getTopicRouteInfoFromNameServer", () -> api.getTopicRouteInfoFromNameServer("DefaultCluster", 5000));
        TopicRouteData route = new TopicRouteData();
        QueueData queue = new QueueData();
        queue.setBrokerName("broker-a");
        queue.setReadQueueNums(2);
        queue.setWriteQueueNums(2);
        queue.setPerm(6);
        route.setQueueDatas(Collections.singletonList(queue));
        HashMap<Long, String> addresses = new HashMap<>();
        addresses.put(0L, BROKER);
        route.setBrokerDatas(Collections.singletonList(new BrokerData("DefaultCluster", "broker-a", addresses)));
        RegisterTopicRequestHeader announced = new RegisterTopicRequestHeader();
        announced.setTopic("Announced");
        call("register_topic_in_namesrv", 217, "", "RemotingClient.invokeSync", () -> raw(NS, 217, announced, route.encode()));
        mqadmin("delete_topic_in_namesrv", 216, "announced", "deleteTopic -n " + NS + " -c DefaultCluster -t Announced");
        RegisterBrokerRequestHeader registering = new RegisterBrokerRequestHeader();
        registering.setClusterName("DefaultCluster");
        registering.setBrokerName("broker-c");
        registering.setBrokerAddr("127.0.0.1:13911");
        registering.setBrokerId(0L);
        registering.setHaServerAddr("127.0.0.1:13912");
        registering.setEnableActingMaster(false);
        registering.setCompressed(true);
        TopicConfigSerializeWrapper topics = new TopicConfigSerializeWrapper();
        topics.getTopicConfigTable().put("Squeezed", new TopicConfig("Squeezed", 1, 1, 6));
        topics.getTopicConfigTable().put("Pressed", new TopicConfig("Pressed", 2, 2, 4, 1));
        topics.getTopicConfigTable().get("Pressed").setAttributes(Collections.singletonMap("message.type", "FIFO"));
        RegisterBrokerBody body = new RegisterBrokerBody();
        body.setTopicConfigSerializeWrapper(TopicConfigAndMappingSerializeWrapper.from(topics));
        body.getFilterServerList().add("127.0.0.1:1");
        byte[] bytes = body.encode(true);
        registering.setBodyCrc32(UtilAll.crc32(bytes));
        call("register_broker", 103, "compressed", "RegisterBrokerBody.encode(true), RemotingClient.invokeSync", () -> raw(NS, 103, registering, bytes), "has=broker-c");
        registering.setBodyCrc32(1);
        call("register_broker", 103, "bad_crc", "RegisterBrokerBody.encode(true), RemotingClient.invokeSync", () -> raw(NS, 103, registering, bytes), "has=broker-c");
        UnRegisterBrokerRequestHeader leaving = new UnRegisterBrokerRequestHeader();
        leaving.setClusterName("DefaultCluster");
        leaving.setBrokerName("broker-c");
        leaving.setBrokerAddr("127.0.0.1:13911");
        leaving.setBrokerId(0L);
        raw(NS, 104, leaving, null);
        call("get_broker_member_group", 901, "admin", "RemotingClient.invokeSync", () -> {
            org.apache.rocketmq.remoting.protocol.header.GetBrokerMemberGroupRequestHeader header = new org.apache.rocketmq.remoting.protocol.header.GetBrokerMemberGroupRequestHeader();
            header.setClusterName("DefaultCluster");
            header.setBrokerName("broker-a");
            raw(NS, 901, header, null);
        });
    }

    static void topicsAndGroups() throws Exception {
        Wish.take("register_broker", 103, "order_topic", "a topic is created, and the nameserver has an ordered one", "link=namesrv", "by=rocketmq-broker 5.5.0");
        mqadmin("update_and_create_topic", 17, "", "updateTopic -n " + NS + " -b " + BROKER + " -t " + TOPIC + " -r 1 -w 1 -a +message.type=NORMAL");
        mqadmin("update_and_create_topic", 17, "bad_attribute", "updateTopic -n " + NS + " -b " + BROKER + " -t " + TOPIC + "2 -a +message.type=WRONG");
        mqadmin("update_and_create_topic", 17, "perm", "updateTopicPerm -n " + NS + " -b " + BROKER + " -t " + TOPIC + " -p 4");
        admin.createAndUpdateTopicConfig(BROKER, new TopicConfig(TOPIC, 1, 1, 6));
        Path topics = Path.of("topics.json");
        Files.writeString(topics, "[{\"topicName\":\"ListedOne\",\"readQueueNums\":1,\"writeQueueNums\":1,\"perm\":6},{\"topicName\":\"ListedTwo\",\"readQueueNums\":2,\"writeQueueNums\":2,\"perm\":6,\"order\":true}]");
        mqadmin("update_and_create_topic_list", 18, "", "updateTopicList -n " + NS + " -b " + BROKER + " -f topics.json");
        call("get_topic_config", 351, "", "DefaultMQAdminExt.examineTopicConfig", () -> admin.examineTopicConfig(BROKER, TOPIC));
        call("get_topic_config", 351, "not_found", "DefaultMQAdminExt.examineTopicConfig", () -> admin.examineTopicConfig(BROKER, "NoSuchTopic"));
        call("get_all_topic_config", 21, "", "DefaultMQAdminExt.getAllTopicConfig", () -> admin.getAllTopicConfig(BROKER, 5000));
        mqadmin("update_and_create_subscriptiongroup", 200, "", "updateSubGroup -n " + NS + " -b " + BROKER + " -g " + GROUP + " -r 3 -q 1");
        Path groups = Path.of("groups.json");
        Files.writeString(groups, "[{\"groupName\":\"ListedGroup\",\"retryMaxTimes\":5},{\"groupName\":\"ListedGroupTwo\",\"consumeMessageOrderly\":true}]");
        mqadmin("update_and_create_subscriptiongroup_list", 225, "", "updateSubGroupList -n " + NS + " -b " + BROKER + " -f groups.json");
        call("get_subscriptiongroup_config", 352, "", "MQClientAPIImpl.getSubscriptionGroupConfig", () -> api.getSubscriptionGroupConfig(BROKER, GROUP, 5000));
        call("get_subscriptiongroup_config", 352, "created", "MQClientAPIImpl.getSubscriptionGroupConfig", () -> api.getSubscriptionGroupConfig(BROKER, "AskedForFirst", 5000));
        call("update_and_get_group_forbidden", 353, "", "DefaultMQAdminExt.updateAndGetGroupReadForbidden", () -> admin.updateAndGetGroupReadForbidden(BROKER, GROUP, TOPIC, false));
        call("update_and_get_group_forbidden", 353, "get", "DefaultMQAdminExt.updateAndGetGroupReadForbidden", () -> admin.updateAndGetGroupReadForbidden(BROKER, GROUP, TOPIC, null));
        call("get_all_subscriptiongroup_config", 201, "", "DefaultMQAdminExt.getAllSubscriptionGroup", () -> admin.getAllSubscriptionGroup(BROKER, 5000));
        call("get_system_topic_list_from_broker", 305, "", "MQClientAPIImpl.getSystemTopicListFromBroker", () -> api.getSystemTopicListFromBroker(BROKER, 5000));
    }

    static void settings() throws Exception {
        mqadmin("update_broker_config", 25, "", "updateBrokerConfig -n " + NS + " -b " + BROKER + " -k useServerSideResetOffset -v true");
        mqadmin("update_broker_config", 25, "refused", "updateBrokerConfig -n " + NS + " -b " + BROKER + " -k brokerConfigPath -v elsewhere");
        mqadmin("get_broker_config", 26, "", "getBrokerConfig -n " + NS + " -b " + BROKER);
    }

    static void withClients() throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer("Writers");
        producer.setNamesrvAddr(NS);
        producer.setInstanceName("writer");
        producer.start();
        SendResult sent = null;
        for (int i = 0; i < 3; i++) sent = producer.send(new Message(TOPIC, "TagA", "key-" + i, ("entry " + i).getBytes(StandardCharsets.UTF_8)));
        SendResult last = sent;
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(GROUP);
        consumer.setNamesrvAddr(NS);
        consumer.setInstanceName("keeper");
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setPersistConsumerOffsetInterval(1000);
        consumer.subscribe(TOPIC, "TagA || TagB");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> ConsumeConcurrentlyStatus.CONSUME_SUCCESS);
        Wish.take("update_consumer_offset", 15, "keeper", "DefaultMQPushConsumer", "has=" + GROUP, "has=" + TOPIC, "by=rocketmq-client 5.5.0");
        consumer.start();
        Wish.await(60);
        // The last look before the statistics must see the offset that was just persisted.
        Thread.sleep(3000);
        String client = consumer.getDefaultMQPushConsumerImpl().getmQClientFactory().getClientId();
        mqadmin("get_topic_stats_info", 202, "", "topicStatus -n " + NS + " -t " + TOPIC);
        mqadmin("get_consumer_connection_list", 203, "", "consumerConnection -n " + NS + " -g " + GROUP);
        mqadmin("get_producer_connection_list", 204, "", "producerConnection -n " + NS + " -g Writers -t " + TOPIC);
        mqadmin("get_all_producer_info", 328, "", "producer -n " + NS + " -b " + BROKER);
        mqadmin("get_consume_stats", 208, "", "consumerProgress -n " + NS + " -g " + GROUP);
        mqadmin("query_topic_consume_by_who", 300, "", "statsAll -n " + NS + " -t " + TOPIC);
        mqadmin("view_broker_stats_data", 315, "", "statsAll -n " + NS + " -t " + TOPIC);
        call("query_consume_time_span", 303, "", "DefaultMQAdminExt.queryConsumeTimeSpan", () -> admin.queryConsumeTimeSpan(TOPIC, GROUP));
        call("query_topics_by_consumer", 343, "", "DefaultMQAdminExt.queryTopicsByConsumer", () -> admin.queryTopicsByConsumer(GROUP), "link=broker-a");
        call("query_subscription_by_consumer", 345, "", "DefaultMQAdminExt.querySubscription", () -> admin.querySubscription(GROUP, TOPIC));
        call("query_correction_offset", 308, "", "MQClientAPIImpl.queryCorrectionOffset", () -> api.queryCorrectionOffset(BROKER, TOPIC, GROUP, Collections.emptySet(), 5000));
        mqadmin("get_broker_consume_stats", 317, "", "brokerConsumeStats -n " + NS + " -b " + BROKER);
        mqadmin("query_consume_queue", 321, "", "queryCq -n " + NS + " -t " + TOPIC + " -q 0 -i 0 -c 2 -b " + BROKER + " -g " + GROUP);
        Wish.take("get_consumer_running_info", 307, "pushed", "mqadmin consumerStatus, passed on", "from=server", "by=rocketmq-client 5.5.0");
        mqadmin("get_consumer_running_info", 307, "", "consumerStatus -n " + NS + " -g " + GROUP + " -i " + client);
        Wish.take("consume_message_directly", 309, "pushed", "mqadmin consumeMessageDirectly, passed on", "from=server", "by=rocketmq-client 5.5.0");
        call("consume_message_directly", 309, "", "DefaultMQAdminExt.consumeMessageDirectly", () -> admin.consumeMessageDirectly(GROUP, client, TOPIC, last.getOffsetMsgId()));
        Wish.take("get_consumer_status_from_client", 221, "", "DefaultMQAdminExt.getConsumeStatus, passed on", "from=server", "by=rocketmq-client 5.5.0");
        call("invoke_broker_to_get_consumer_status", 223, "", "DefaultMQAdminExt.getConsumeStatus", () -> admin.getConsumeStatus(TOPIC, GROUP, client));
        call("clone_group_offset", 314, "", "DefaultMQAdminExt.cloneGroupOffset", () -> admin.cloneGroupOffset(GROUP, "ListedGroupTwo", TOPIC, true));
        mqadmin("invoke_broker_to_reset_offset", 222, "server_side", "resetOffsetByTime -n " + NS + " -g " + GROUP + " -t " + TOPIC + " -s now", "answer=0");
        Thread.sleep(2000);
        Properties clientSide = new Properties();
        clientSide.setProperty("useServerSideResetOffset", "false");
        admin.updateBrokerConfig(BROKER, clientSide);
        Wish.take("reset_consumer_client_offset", 220, "", "mqadmin resetOffsetByTime, passed on", "from=server", "by=rocketmq-client 5.5.0");
        mqadmin("invoke_broker_to_reset_offset", 222, "", "resetOffsetByTime -n " + NS + " -g " + GROUP + " -t " + TOPIC + " -s -1", "answer=0");
        Wish.await(5);
        Thread.sleep(2000);
        consumer.shutdown();
        producer.shutdown();
    }

    static SendMessageRequestHeader sending(String topic) {
        SendMessageRequestHeader header = new SendMessageRequestHeader();
        header.setProducerGroup("Refused");
        header.setTopic(topic);
        header.setDefaultTopic("TBW102");
        header.setDefaultTopicQueueNums(1);
        header.setQueueId(0);
        header.setSysFlag(0);
        header.setBornTimestamp(System.currentTimeMillis());
        header.setFlag(0);
        header.setProperties("KEYS\u0001key\u0002");
        header.setReconsumeTimes(0);
        header.setUnitMode(false);
        header.setBatch(false);
        return header;
    }

    static void refuseSend(String variant, SendMessageRequestHeader header) throws Exception {
        call("send_message_v2", 310, variant, "RemotingClient.invokeSync", () ->
            raw(BROKER, 310, SendMessageRequestHeaderV2.createSendMessageRequestHeaderV2(header), "no".getBytes(StandardCharsets.UTF_8)));
    }

    static void refusals() throws Exception {
        SendMessageRequestHeader unknown = sending("NoSuchTopic");
        unknown.setDefaultTopic("NoSuchDefault");
        refuseSend("unknown_topic", unknown);
        SendMessageRequestHeader outside = sending(TOPIC);
        outside.setQueueId(99);
        refuseSend("bad_queue", outside);
        refuseSend("bad_name", sending("bad topic!"));
        refuseSend("long_name", sending("T".repeat(130)));
        refuseSend("system_topic", sending("SCHEDULE_TOPIC_XXXX"));
        SendMessageRequestHeader batch = sending("%RETRY%" + GROUP);
        batch.setBatch(true);
        call("send_batch_message", 320, "to_retry_topic", "RemotingClient.invokeSync", () ->
            raw(BROKER, 320, SendMessageRequestHeaderV2.createSendMessageRequestHeaderV2(batch), "no".getBytes(StandardCharsets.UTF_8)));
        SendMessageRequestHeader delayed = sending(TOPIC);
        delayed.setBatch(true);
        delayed.setProperties("DELAY\u00011\u0002");
        call("send_batch_message", 320, "delayed", "RemotingClient.invokeSync", () ->
            raw(BROKER, 320, SendMessageRequestHeaderV2.createSendMessageRequestHeaderV2(delayed), "no".getBytes(StandardCharsets.UTF_8)));
        SendMessageRequestHeader timer = sending(TOPIC);
        timer.setProperties("TIMER_DELAY_SEC\u00019999999\u0002");
        refuseSend("timer_too_far", timer);
        call("unknown_request", 9999, "", "RemotingClient.invokeSync", () -> raw(BROKER, 9999, null, null));
        call("unknown_request", 9998, "nameserver", "RemotingClient.invokeSync", () -> raw(NS, 9998, null, null));
        CreateTopicRequestHeader bad = new CreateTopicRequestHeader();
        bad.setTopic("bad topic!");
        bad.setDefaultTopic("TBW102");
        bad.setReadQueueNums(1);
        bad.setWriteQueueNums(1);
        bad.setPerm(6);
        bad.setTopicFilterType("SINGLE_TAG");
        bad.setTopicSysFlag(0);
        bad.setOrder(false);
        call("update_and_create_topic", 17, "bad_name", "RemotingClient.invokeSync", () -> raw(BROKER, 17, bad, null));
        bad.setTopic("TBW102");
        call("update_and_create_topic", 17, "system_topic", "RemotingClient.invokeSync", () -> raw(BROKER, 17, bad, null));
        QueryConsumerOffsetRequestHeader offset = new QueryConsumerOffsetRequestHeader();
        offset.setConsumerGroup("Nobody");
        offset.setTopic(TOPIC);
        offset.setQueueId(0);
        offset.setSetZeroIfNotFound(false);
        call("query_consumer_offset", 14, "not_found", "RemotingClient.invokeSync", () -> raw(BROKER, 14, offset, null));
        UpdateConsumerOffsetRequestHeader update = new UpdateConsumerOffsetRequestHeader();
        update.setConsumerGroup("Nobody");
        update.setTopic("NoSuchTopic");
        update.setQueueId(0);
        update.setCommitOffset(1L);
        call("update_consumer_offset", 15, "unknown_topic", "RemotingClient.invokeSync", () -> raw(BROKER, 15, update, null));
        PullMessageRequestHeader pull = new PullMessageRequestHeader();
        pull.setConsumerGroup(GROUP);
        pull.setTopic(TOPIC);
        pull.setQueueId(0);
        pull.setQueueOffset(0L);
        pull.setMaxMsgNums(32);
        pull.setSysFlag(0);
        pull.setCommitOffset(0L);
        pull.setSuspendTimeoutMillis(0L);
        pull.setSubVersion(0L);
        call("pull_message", 11, "no_subscription", "RemotingClient.invokeSync", () -> raw(BROKER, 11, pull, null));
        pull.setTopic("NoSuchTopic");
        call("pull_message", 11, "unknown_topic", "RemotingClient.invokeSync", () -> raw(BROKER, 11, pull, null));
        pull.setTopic(TOPIC);
        pull.setQueueId(99);
        call("pull_message", 11, "bad_queue", "RemotingClient.invokeSync", () -> raw(BROKER, 11, pull, null));
        call("get_consumer_connection_list", 203, "offline", "DefaultMQAdminExt.examineConsumerConnectionInfo", () -> admin.examineConsumerConnectionInfo("NobodyHere", BROKER));
        mqadmin("get_producer_connection_list", 204, "offline", "producerConnection -n " + NS + " -g NobodyHere -t " + TOPIC);
        call("get_consumer_list_by_group", 38, "offline", "MQClientAPIImpl.getConsumerIdListByGroup", () -> api.getConsumerIdListByGroup(BROKER, "NobodyHere", 5000));
        call("get_consumer_running_info", 307, "offline", "MQClientAPIImpl.getConsumerRunningInfo", () -> api.getConsumerRunningInfo(BROKER, GROUP, "nobody", false, 5000));
        call("consume_message_directly", 309, "offline", "MQClientAPIImpl.consumeMessageDirectly", () -> api.consumeMessageDirectly(BROKER, GROUP, "nobody", TOPIC, "7F00000100002A9F0000000000000000", 5000));
        call("invoke_broker_to_get_consumer_status", 223, "offline", "MQClientAPIImpl.invokeBrokerToGetConsumerStatus", () -> api.invokeBrokerToGetConsumerStatus(BROKER, TOPIC, "NobodyHere", "", 5000));
        call("view_message_by_id", 33, "not_found", "MQClientAPIImpl.viewMessage", () -> api.viewMessage(BROKER, TOPIC, 99_999_999L, 5000));
        call("query_subscription_by_consumer", 345, "offline", "MQClientAPIImpl.querySubscriptionByConsumer", () -> api.querySubscriptionByConsumer(BROKER, "NobodyHere", TOPIC, 5000));
        call("view_broker_stats_data", 315, "not_found", "DefaultMQAdminExt.viewBrokerStatsData", () -> admin.viewBrokerStatsData(BROKER, "NO_SUCH_STATS", TOPIC));
        call("get_topic_stats_info", 202, "not_found", "DefaultMQAdminExt.examineTopicStats", () -> admin.examineTopicStats(BROKER, "NoSuchTopic"));
        call("query_consume_queue", 321, "not_found", "DefaultMQAdminExt.queryConsumeQueue", () -> admin.queryConsumeQueue(BROKER, TOPIC, 99, 0, 1, null));
        call("get_routeinfo_by_topic", 105, "admin_unknown_topic", "MQClientAPIImpl.getTopicRouteInfoFromNameServer", () -> api.getTopicRouteInfoFromNameServer("NoSuchTopic", 5000));
    }

    static void housekeeping() throws Exception {
        call("get_all_consumer_offset", 43, "", "RemotingClient.invokeSync", () -> raw(BROKER, 43, null, null));
        call("get_all_delay_offset", 45, "", "RemotingClient.invokeSync", () -> raw(BROKER, 45, null, null));
        mqadmin("clean_expired_consumequeue", 306, "", "cleanExpiredCQ -n " + NS + " -b " + BROKER);
        mqadmin("clean_unused_topic", 316, "", "cleanUnusedTopic -n " + NS + " -b " + BROKER);
        mqadmin("delete_expired_commitlog", 329, "", "deleteExpiredCommitLog -n " + NS + " -b " + BROKER);
        mqadmin("delete_subscriptiongroup", 207, "", "deleteSubGroup -n " + NS + " -b " + BROKER + " -g ListedGroup -r true");
        Wish.take("delete_topic_in_namesrv", 216, "", "mqadmin deleteTopic -n " + NS + " -c DefaultCluster -t ListedOne", MQADMIN);
        mqadmin("delete_topic_in_broker", 215, "", "deleteTopic -n " + NS + " -c DefaultCluster -t ListedOne");
    }
}
