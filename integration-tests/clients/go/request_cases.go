// Request and reply: the answer comes back through the broker to the very client that asked.
package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

var requestCases = []testCase{
	{"request-reply", requestReply},
	{"request-without-reply", requestWithoutReply},
}

func requestReply(s *stage) {
	topic := s.topic(2)
	s.push(s.group(), topic, "*", func(_ context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		for _, each := range messages {
			answer, err := consumer.CreateReplyMessage(each, nil)
			if err != nil {
				return consumer.ConsumeRetryLater, err
			}
			// This version takes the body for properties, so it is set afterwards.
			answer.Body = []byte("re: " + string(each.Body))
			answer.WithProperty("mood", "добрый")
			if _, err := s.producer.SendSync(ctx, answer); err != nil {
				return consumer.ConsumeRetryLater, err
			}
		}
		return consumer.ConsumeSuccess, nil
	})
	for i := range 5 {
		answer, err := s.producer.Request(ctx, patience*time.Second, message(topic, fmt.Sprintf("ask-%d", i)))
		must(err, "a request")
		equal(fmt.Sprintf("re: ask-%d", i), string(answer.Body), "answer")
		equal("добрый", answer.GetProperty("mood"), "property of the answer")
	}
	var lock sync.Mutex
	answers := map[int]string{}
	for i := range 5 {
		must(s.producer.RequestAsync(ctx, 30*time.Second, func(_ context.Context, answer *primitive.Message, err error) {
			lock.Lock()
			defer lock.Unlock()
			answers[i] = fmt.Sprint(err)
			if err == nil {
				answers[i] = string(answer.Body)
			}
		}, message(topic, fmt.Sprintf("later-%d", i))), "an asynchronous request")
	}
	eventually(30, "all callbacks", func() bool {
		lock.Lock()
		defer lock.Unlock()
		return len(answers) == 5
	})
	for i := range 5 {
		equal(fmt.Sprintf("re: later-%d", i), answers[i], "answer to a callback")
	}
}

func requestWithoutReply(s *stage) {
	topic := s.topic(1)
	_, err := s.producer.Request(ctx, 1500*time.Millisecond, message(topic, "anyone?"))
	that(err != nil, "a request nobody answers fails")
	equal(1, len(s.stored(topic)), "stored requests")
}
