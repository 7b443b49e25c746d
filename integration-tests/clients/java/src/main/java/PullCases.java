/** Consumers that ask for themselves: the plain pull consumer and the lite pull consumer. */
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

final class PullCases {
    private PullCases() {}

    static void addTo(Suite suite) {
        suite.add("lite-subscribe", PullCases::liteSubscribe);
        suite.add("lite-assign-seek", PullCases::liteAssignSeek);
        suite.add("lite-commit", PullCases::liteCommit);
        suite.add("pull-statuses", PullCases::statuses);
        suite.add("pull-waits", PullCases::waits);
        suite.add("pull-offsets", PullCases::offsets);
    }

    private static void statuses(Stage stage) throws Exception {
        String topic = stage.topic(2);
        MessageQueue full = stage.queues(topic).get(0);
        MessageQueue empty = stage.queues(topic).get(1);
        for (int i = 0; i < 20; i++) {
            stage.producer.send(new Message(topic, i % 2 == 0 ? "even" : "odd", Stage.bytes("pull-" + i)), full);
        }
        DefaultMQPullConsumer consumer = stage.pull(stage.group());
        Check.equal(Set.of(full, empty), consumer.fetchSubscribeMessageQueues(topic), "queues to read");

        PullResult some = consumer.pull(full, "*", 3, 5);
        Check.equal(PullStatus.FOUND, some.getPullStatus(), "status of found");
        Check.equal(List.of("pull-3", "pull-4", "pull-5", "pull-6", "pull-7"), Stage.texts(some.getMsgFoundList()), "found");
        Check.equal(8L, some.getNextBeginOffset(), "next offset");
        Check.equal(0L, some.getMinOffset(), "smallest offset");
        Check.equal(20L, some.getMaxOffset(), "largest offset");

        PullResult odd = consumer.pull(full, "odd", 0, 32);
        Check.equal(10, odd.getMsgFoundList().size(), "messages with the tag");
        Check.equal(20L, odd.getNextBeginOffset(), "next offset behind what was filtered");

        PullResult none = consumer.pull(full, "absent", 0, 32);
        Check.equal(PullStatus.NO_MATCHED_MSG, none.getPullStatus(), "status when nothing matches");
        Check.equal(20L, none.getNextBeginOffset(), "next offset when nothing matches");

        PullResult atEnd = consumer.pull(full, "*", 20, 32);
        Check.equal(PullStatus.NO_NEW_MSG, atEnd.getPullStatus(), "status at the end");
        Check.equal(20L, atEnd.getNextBeginOffset(), "next offset at the end");

        PullResult beyond = consumer.pull(full, "*", 1000, 32);
        Check.equal(PullStatus.OFFSET_ILLEGAL, beyond.getPullStatus(), "status beyond the end");
        Check.equal(20L, beyond.getNextBeginOffset(), "next offset beyond the end");

        PullResult nothing = consumer.pull(empty, "*", 0, 32);
        Check.equal(PullStatus.NO_NEW_MSG, nothing.getPullStatus(), "status of an empty queue");
        Check.equal(0L, nothing.getNextBeginOffset(), "next offset of an empty queue");
    }

    private static void waits(Stage stage) throws Exception {
        String topic = stage.topic(1);
        MessageQueue queue = stage.queues(topic).get(0);
        DefaultMQPullConsumer consumer = stage.pull(stage.group());
        CompletableFuture<PullResult> waiting = CompletableFuture.supplyAsync(() -> {
            try {
                PullResult result = consumer.pullBlockIfNotFound(queue, "yes", 0, 32);
                // A server that looks after its waiting pulls now and then may say that nothing matched so far.
                while (result.getPullStatus() == PullStatus.NO_MATCHED_MSG) {
                    result = consumer.pullBlockIfNotFound(queue, "yes", result.getNextBeginOffset(), 32);
                }
                return result;
            } catch (Exception failure) {
                throw new IllegalStateException(failure);
            }
        });
        Thread.sleep(500);
        Check.that(!waiting.isDone(), "a pull waits while there is nothing");
        stage.producer.send(new Message(topic, "no", Stage.bytes("other")));
        Thread.sleep(500);
        Check.that(!waiting.isDone(), "a pull brings nothing that does not match");
        stage.producer.send(new Message(topic, "yes", Stage.bytes("wanted")));
        PullResult result = waiting.get(3, TimeUnit.SECONDS);
        Check.equal(PullStatus.FOUND, result.getPullStatus(), "status");
        Check.equal(List.of("wanted"), Stage.texts(result.getMsgFoundList()), "found");
    }

    private static void offsets(Stage stage) throws Exception {
        String topic = stage.topic(2);
        String group = stage.group();
        MessageQueue queue = stage.queues(topic).get(1);
        for (int i = 0; i < 10; i++) {
            stage.producer.send(Stage.message(topic, "kept-" + i), queue);
        }
        DefaultMQPullConsumer consumer = stage.pull(group);
        Check.equal(0L, consumer.minOffset(queue), "smallest offset");
        Check.equal(10L, consumer.maxOffset(queue), "largest offset");
        // The first pull makes the group; offsets of a group which the server has never met may be dropped.
        Check.equal(7L, consumer.pull(queue, "*", 0, 7).getNextBeginOffset(), "next offset");
        consumer.updateConsumeOffset(queue, 7);
        consumer.getOffsetStore().persist(queue);
        consumer.shutdown();
        DefaultMQPullConsumer again = stage.pull(group);
        Check.eventually(10, "the offset is kept", () -> again.fetchConsumeOffset(queue, true) == 7);
    }

    private static void liteSubscribe(Stage stage) throws Exception {
        String topic = stage.topic(4);
        Set<String> expected = new TreeSet<>();
        for (int i = 0; i < 50; i++) {
            stage.producer.send(new Message(topic, i % 5 == 0 ? "no" : "yes", Stage.bytes("lite-" + i)));
            if (i % 5 != 0) {
                expected.add("lite-" + i);
            }
        }
        DefaultLitePullConsumer consumer = stage.lite(stage.group());
        consumer.subscribe(topic, "yes");
        consumer.start();
        List<String> received = new ArrayList<>();
        Check.eventually(Stage.PATIENCE_SECONDS, "all with the tag", () -> {
            received.addAll(Stage.texts(consumer.poll(200)));
            return received.size() >= expected.size();
        });
        Check.equal(expected, new TreeSet<>(received), "received");
        Check.equal(expected.size(), received.size(), "each once");
        Check.equal(4, consumer.assignment().size(), "assigned queues");
    }

    private static void liteAssignSeek(Stage stage) throws Exception {
        String topic = stage.topic(2);
        MessageQueue queue = stage.queues(topic).get(0);
        MessageQueue other = stage.queues(topic).get(1);
        for (int i = 0; i < 20; i++) {
            stage.producer.send(Stage.message(topic, "seek-" + i), queue);
            stage.producer.send(Stage.message(topic, "never-" + i), other);
        }
        DefaultLitePullConsumer consumer = stage.lite(stage.group());
        consumer.setAutoCommit(false);
        consumer.start();
        Check.equal(2, consumer.fetchMessageQueues(topic).size(), "queues to read");
        consumer.assign(List.of(queue));
        // To the end, as a pull in flight may still bring what it found after a seek: clients check only before they keep it.
        read(consumer, 0, 20);
        for (int from : new int[] {12, 0, 19}) {
            consumer.seek(queue, from);
            Check.equal(from, read(consumer, from, 20).get(0), "first number after a seek");
        }
        consumer.seekToBegin(queue);
        Check.equal(0, read(consumer, 0, 20).get(0), "first number after a seek to the begin");
        consumer.seekToEnd(queue);
        Thread.sleep(300);
        stage.producer.send(Stage.message(topic, "seek-20"), queue);
        Check.equal(List.of(20), read(consumer, 20, 21), "numbers after a seek to the end");
        Check.equal(0L, consumer.offsetForTimestamp(queue, System.currentTimeMillis() - 3_600_000), "offset of an hour ago");
        // A pull that already waits at the broker may still bring one message after the pause.
        consumer.pause(List.of(queue));
        stage.producer.send(Stage.message(topic, "seek-21"), queue);
        List<String> received = new ArrayList<>(Stage.texts(consumer.poll(500)));
        stage.producer.send(Stage.message(topic, "seek-22"), queue);
        Check.equal(0, consumer.poll(700).size(), "messages while paused");
        consumer.resume(List.of(queue));
        Check.eventually(20, "what was sent during the pause", () -> {
            received.addAll(Stage.texts(consumer.poll(200)));
            return received.equals(List.of("seek-21", "seek-22"));
        });
    }

    /** The numbers read, which must follow each other from the given one up to the end. */
    private static List<Integer> read(DefaultLitePullConsumer consumer, int from, int end) throws InterruptedException {
        List<Integer> numbers = new ArrayList<>();
        Check.eventually(20, "the numbers from " + from, () -> {
            for (String body : Stage.texts(consumer.poll(200))) {
                numbers.add(Integer.parseInt(body.substring("seek-".length())));
            }
            return numbers.size() >= end - from;
        });
        for (int i = 0; i < numbers.size(); i++) {
            Check.equal(from + i, numbers.get(i), "number");
        }
        return numbers;
    }

    private static void liteCommit(Stage stage) throws Exception {
        String topic = stage.topic(2);
        String group = stage.group();
        List<MessageQueue> queues = stage.queues(topic);
        for (int i = 0; i < 30; i++) {
            stage.producer.send(Stage.message(topic, "commit-" + i), queues.get(i % 2));
        }
        DefaultLitePullConsumer first = stage.lite(group);
        first.setAutoCommit(false);
        first.setPullBatchSize(4);
        first.assign(queues);
        first.start();
        Map<MessageQueue, Long> next = new HashMap<>();
        Check.eventually(20, "some messages of both queues", () -> {
            for (MessageExt message : first.poll(200)) {
                MessageQueue queue = new MessageQueue(topic, message.getBrokerName(), message.getQueueId());
                next.merge(queue, message.getQueueOffset() + 1, Math::max);
            }
            return next.size() == 2;
        });
        first.commitSync();
        for (MessageQueue queue : queues) {
            Check.eventually(10, "the commit is kept", () -> next.get(queue).equals(first.committed(queue)));
        }
        first.shutdown();
        DefaultLitePullConsumer second = stage.lite(group);
        second.assign(queues);
        second.start();
        Map<MessageQueue, Long> begin = new HashMap<>();
        long rest = 30 - next.values().stream().mapToLong(Long::longValue).sum();
        List<MessageExt> received = new ArrayList<>();
        Check.eventually(Stage.PATIENCE_SECONDS, "the rest", () -> {
            received.addAll(second.poll(200));
            return received.size() >= rest;
        });
        for (MessageExt message : received) {
            MessageQueue queue = new MessageQueue(topic, message.getBrokerName(), message.getQueueId());
            begin.merge(queue, message.getQueueOffset(), Math::min);
        }
        Check.equal(rest, (long) received.size(), "messages after the restart");
        begin.forEach((queue, offset) -> Check.equal(next.get(queue), offset, "where it goes on"));
    }
}
