// Sends to the queue a message names, else to the one of its sharding key, else to all queues in turn.
package main

import (
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

type namedQueue struct {
	otherwise producer.QueueSelector
}

func newNamedQueue() producer.QueueSelector {
	return namedQueue{otherwise: producer.NewRoundRobinQueueSelector()}
}

func (n namedQueue) Select(m *primitive.Message, queues []*primitive.MessageQueue, last string) *primitive.MessageQueue {
	if m.Queue != nil {
		return m.Queue
	}
	if m.GetShardingKey() != "" {
		return producer.NewHashQueueSelector().Select(m, queues, last)
	}
	return n.otherwise.Select(m, queues, last)
}
