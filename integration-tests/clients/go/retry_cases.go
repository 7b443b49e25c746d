// What fails comes back later, and in the end becomes a dead letter.
package main

import (
	"context"

	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

var retryCases = []testCase{
	{"retry-then-dead-letter", retryThenDeadLetter},
}

func retryThenDeadLetter(s *stage) {
	topic := s.topic(2)
	group := s.group()
	// The retry topic appears with the group. A consumer that starts afterwards knows it at once, the first one would
	// learn of it after 30 s and take its queue 20 s later.
	_, first := s.collect(group, topic, "*")
	must(first.Shutdown(), "shut down")
	attempts := &inbox{}
	good := &inbox{}
	s.push(group, topic, "*", func(ctx context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		if string(messages[0].Body) == "good" {
			good.put(messages)
			return consumer.ConsumeSuccess, nil
		}
		attempts.put(messages)
		if concurrently, ok := primitive.GetConcurrentlyCtx(ctx); ok {
			concurrently.DelayLevelWhenNextConsume = 1
		}
		return consumer.ConsumeRetryLater, nil
	}, consumer.WithMaxReconsumeTimes(3))
	bad := message(topic, "bad").WithTag("tag").WithKeys([]string{"key"})
	bad.WithProperty("colour", "red")
	result := s.send(bad)
	s.send(message(topic, "good"))
	eventually(patience, "the first delivery and three more", func() bool { return attempts.len() >= 4 })
	deadLetters := "%DLQ%" + group
	eventually(30, "the dead letter's topic", func() bool { return len(s.queues(deadLetters)) > 0 })
	eventually(30, "the dead letter", func() bool { return len(s.stored(deadLetters)) == 1 })
	for i, each := range attempts.all() {
		equal(int32(i), each.ReconsumeTimes, "reconsume times")
		equal(result.MsgID, each.MsgId, "unique id")
	}
	equal(4, attempts.len(), "attempts")
	equal(1, good.len(), "deliveries of the other")
	dead := s.stored(deadLetters)[0]
	equal("bad", string(dead.Body), "body of the dead letter")
	equal("red", dead.GetProperty("colour"), "property of the dead letter")
	equal("tag", dead.GetTags(), "tag of the dead letter")
	equal(topic, dead.GetProperty(primitive.PropertyRetryTopic), "where the dead letter was sent to")
	equal(int32(4), dead.ReconsumeTimes, "reconsume times of the dead letter")
}
