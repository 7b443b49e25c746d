// Consumers that ask for themselves.
package main

import (
	"fmt"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

var pullCases = []testCase{
	{"pull-poll", pullPoll},
	{"pull-from", pullFrom},
	{"pull-offsets", pullOffsets},
}

func pullFrom(s *stage) {
	topic := s.topic(2)
	full, empty := s.queues(topic)[0], s.queues(topic)[1]
	for i := range 20 {
		m := message(topic, fmt.Sprintf("pull-%d", i)).WithTag([]string{"even", "odd"}[i%2])
		m.Queue = full
		s.send(m)
	}
	c := s.pull(s.group(), topic, all)
	ask := func(c rocketmq.PullConsumer, queue *primitive.MessageQueue, offset int64, numbers int) *primitive.PullResult {
		result, err := c.PullFrom(ctx, queue, offset, numbers)
		must(err, "a pull")
		return result
	}
	some := ask(c, full, 3, 5)
	equal(primitive.PullFound, some.Status, "status of found")
	equal([]string{"pull-3", "pull-4", "pull-5", "pull-6", "pull-7"}, bodies(some.GetMessageExts()), "found")
	equal(int64(8), some.NextBeginOffset, "next offset")
	equal(int64(0), some.MinOffset, "smallest offset")
	equal(int64(20), some.MaxOffset, "largest offset")

	equal(int64(20), end(c, full), "end of the queue")
	equal(int64(0), end(c, empty), "end of an empty queue")

	odd := s.pull(s.group(), topic, consumer.MessageSelector{Type: consumer.TAG, Expression: "odd"})
	some = ask(odd, full, 0, 32)
	equal(10, len(some.GetMessageExts()), "messages with the tag")
	equal(int64(20), some.NextBeginOffset, "next offset behind what was filtered")
}

func pullOffsets(s *stage) {
	topic := s.topic(1)
	group := s.group()
	queue := s.queues(topic)[0]
	for i := range 10 {
		s.send(message(topic, fmt.Sprintf("kept-%d", i)))
	}
	c := s.pull(group, topic, all)
	result, err := c.PullFrom(ctx, queue, 0, 7)
	must(err, "a pull")
	equal(int64(7), result.NextBeginOffset, "next offset")
	// Only offsets of queues that a rebalance has given to it are sent.
	eventually(patience, "the consumer owns the queue", func() bool {
		_, err := c.Poll(ctx, 500*time.Millisecond)
		return err == nil
	})
	must(c.UpdateOffset(queue, 7), "update the offset")
	must(c.PersistOffset(ctx, topic), "persist the offset")
	must(c.Shutdown(), "shut down")
	again := s.pull(group, topic, all)
	eventually(10, "the next pull begins at the kept offset", func() bool {
		rest, err := again.Pull(ctx, 32)
		return err == nil && rest.Status == primitive.PullFound && string(rest.GetMessageExts()[0].Body) == "kept-7"
	})
}

// Poll hands out what a background pull has brought.
func pullPoll(s *stage) {
	topic := s.topic(2)
	sent := []string{}
	for i := range 40 {
		sent = append(sent, fmt.Sprintf("poll-%d", i))
		s.send(message(topic, sent[i]))
	}
	c := s.pull(s.group(), topic, all)
	received := []string{}
	eventually(patience, "all is polled", func() bool {
		request, err := c.Poll(ctx, 500*time.Millisecond)
		if err == nil {
			received = append(received, bodies(request.GetMsgList())...)
			c.ACK(ctx, request, consumer.ConsumeSuccess)
		}
		return len(received) >= 40
	})
	equal(sorted(sent), sorted(received), "polled")
}
