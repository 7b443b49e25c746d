// Ordered sends and orderly consumption.
package main

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

var orderCases = []testCase{
	{"order-by-key", orderByKey},
	{"order-retry-in-place", orderRetryInPlace},
}

func sendOrdered(s *stage, topic string, keys, each int) {
	queues := map[int]int{}
	for i := range each {
		for key := range keys {
			m := message(topic, fmt.Sprintf("%d:%d", key, i)).WithShardingKey(fmt.Sprintf("key-%d", key))
			queue := s.send(m).MessageQueue.QueueId
			if before, known := queues[key]; known {
				equal(before, queue, "queue of one key")
			}
			queues[key] = queue
		}
	}
}

func checkOrder(received []string, keys, each int) {
	for key := range keys {
		count := 0
		for _, body := range received {
			if strings.HasPrefix(body, fmt.Sprintf("%d:", key)) {
				equal(fmt.Sprintf("%d:%d", key, count), body, "next of its key")
				count++
			}
		}
		equal(each, count, "messages of a key")
	}
}

func orderByKey(s *stage) {
	topic := s.topic(4)
	received, _ := s.collect(s.group(), topic, "*", consumer.WithConsumerOrder(true))
	sendOrdered(s, topic, 8, 30)
	eventually(patience, "all is received", func() bool { return received.len() >= 240 })
	checkOrder(bodies(received.all()), 8, 30)
}

// A message that fails holds its queue until it succeeds.
func orderRetryInPlace(s *stage) {
	topic := s.topic(2)
	sendOrdered(s, topic, 4, 20)
	received := &inbox{}
	var failures atomic.Int32
	s.push(s.group(), topic, "*", func(ctx context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		for _, each := range messages {
			if string(each.Body) == "1:7" && failures.Add(1) <= 3 {
				return consumer.SuspendCurrentQueueAMoment, nil
			}
		}
		received.put(messages)
		return consumer.ConsumeSuccess, nil
	}, consumer.WithConsumerOrder(true), consumer.WithMaxReconsumeTimes(16),
		consumer.WithSuspendCurrentQueueTimeMillis(100*time.Millisecond))
	eventually(patience, "all is received", func() bool { return received.len() >= 80 })
	checkOrder(bodies(received.all()), 4, 20)
	equal(int32(4), failures.Load(), "attempts")
}
