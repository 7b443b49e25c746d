// Simple consumers: what was received stays hidden for its time, and an acknowledgement is final.
package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	rmq "github.com/apache/rocketmq-clients/golang/v5"
)

var simpleCases = []testCase{
	{"simple-late-ack", simpleLateAck},
	{"simple-redelivery", simpleRedelivery},
	{"simple-change-invisible", simpleChangeInvisible},
	{"simple-at-once", simpleAtOnce},
	{"simple-ack", simpleAck},
	{"simple-wakes", simpleWakes},
	{"simple-empty", simpleEmpty},
	{"fifo-simple", fifoSimple},
	{"tag-filter", tagFilter},
	{"sql-filter", sqlFilter},
	{"share-simple", shareSimple},
	{"two-groups", twoGroups},
}

// Demands for longer than what was received would have stayed hidden that nothing comes.
func nothingAgain(consumer rmq.SimpleConsumer) {
	end := time.Now().Add(invisible + 3*time.Second)
	for time.Now().Before(end) {
		nothingMore(consumer)
	}
}

func simpleAck(s *stage) {
	sent := s.send(s.producer(), "m", 20)
	consumer := s.simple()
	equal(sorted(sent), sorted(texts(take(consumer, 20))), "received")
	nothingAgain(consumer)
}

func simpleAtOnce(s *stage) {
	s.send(s.producer(), "m", 1)
	equal([]string{"m0"}, texts(take(s.simple(), 1)), "received")
}

func simpleWakes(s *stage) {
	producer := s.producer()
	consumer := s.simple()
	nothingMore(consumer)
	for range 3 {
		got := make(chan []*rmq.MessageView)
		go func() {
			messages, _ := consumer.Receive(context.Background(), 1, invisible)
			got <- messages
		}()
		select {
		case <-got:
			that(false, "a receive of nothing waits")
		case <-time.After(time.Second):
		}
		send(producer, s.message("now"))
		sent := time.Now()
		messages := <-got
		equal([]string{"now"}, texts(messages), "received")
		that(time.Since(sent) < 1500*time.Millisecond, "woken after %v", time.Since(sent))
		ack(consumer, messages[0])
	}
}

func simpleEmpty(s *stage) {
	consumer := s.simple()
	for range 2 {
		started := time.Now()
		nothingMore(consumer)
		took := time.Since(started)
		that(took > 3*time.Second && took < 9*time.Second, "an empty receive of 5 s took %v", took)
	}
}

func simpleRedelivery(s *stage) {
	s.send(s.producer(), "m", 4)
	consumer := s.simple()
	started := time.Now()
	first := receive(consumer, 4, invisible)
	ack(consumer, first[0])
	ack(consumer, first[1])
	for attempt := 2; attempt <= 3; attempt++ {
		again := receive(consumer, 2, invisible)
		took := time.Since(started)
		equal(sorted(texts(first[2:])), sorted(texts(again)), "again")
		for _, message := range again {
			equal(int32(attempt), message.GetDeliveryAttempt(), "attempt")
		}
		least := time.Duration(attempt-1)*invisible - 500*time.Millisecond
		that(took > least, "attempt %d came after %v", attempt, took)
		if attempt == 3 {
			ack(consumer, again[0])
			ack(consumer, again[1])
		}
	}
}

func simpleChangeInvisible(s *stage) {
	s.send(s.producer(), "m", 1)
	consumer := s.simple()
	first := receive(consumer, 1, time.Minute)[0]
	must(consumer.ChangeInvisibleDuration(first, 4*time.Second), "a shorter time")
	changed := time.Now()
	second := receive(consumer, 1, invisible)[0]
	took := time.Since(changed)
	that(took > 3*time.Second && took < 15*time.Second, "after 4 s it came again within %v", took)
	equal(int32(2), second.GetDeliveryAttempt(), "attempt")
	must(consumer.ChangeInvisibleDuration(second, 30*time.Second), "a longer time")
	nothingAgain(consumer)
	ack(consumer, second)
}

func simpleLateAck(s *stage) {
	s.send(s.producer(), "m", 1)
	consumer := s.simple()
	first := receive(consumer, 1, invisible)[0]
	time.Sleep(invisible + 2*time.Second)
	err := consumer.Ack(context.Background(), first)
	status, ok := rmq.AsErrRpcStatus(err)
	that(ok && status.GetCode() == 40013, "INVALID_RECEIPT_HANDLE: %v", err)
	equal([]string{"m0"}, texts(take(consumer, 1)), "again")
}

func fifoSimple(s *stage) {
	s.sendInGroup(s.producer(), "a", 4)
	consumer := s.simple()
	first := receive(consumer, 1, time.Minute)[0]
	equal("a0", string(first.GetBody()), "the first")
	equal([]string{}, texts(poll(consumer, 8, invisible)), "while the first is out")
	ack(consumer, first)
	equal([]string{"a1", "a2", "a3"}, texts(take(consumer, 3)), "once it was acknowledged")
}

func tagFilter(s *stage) {
	producer := s.producer()
	for i := range 30 {
		message := s.message(fmt.Sprint("m", i))
		message.SetTag([]string{"red", "green", "blue"}[i%3])
		send(producer, message)
	}
	send(producer, s.message("untagged"))
	consumer := s.simpleOf(s.group, s.topic, rmq.NewFilterExpression("red || blue"))
	for _, message := range take(consumer, 20) {
		that(message.GetTag() != nil && *message.GetTag() != "green", "no green ones")
	}
	nothingMore(consumer)
}

func sqlFilter(s *stage) {
	producer := s.producer()
	for i := range 10 {
		message := s.message(fmt.Sprint("m", i))
		message.SetTag(fmt.Sprint("t", i%2))
		message.AddProperty("size", fmt.Sprint(i))
		send(producer, message)
	}
	filter := rmq.NewFilterExpressionWithType("size > 4 AND TAGS = 't1'", rmq.SQL92)
	consumer := s.simpleOf(s.group, s.topic, filter)
	equal([]string{"m5", "m7", "m9"}, sorted(texts(take(consumer, 3))), "received")
	nothingMore(consumer)
}

func shareSimple(s *stage) {
	sent := s.send(s.producer(), "m", 200)
	var consumers []rmq.SimpleConsumer
	for range 4 {
		consumers = append(consumers, s.simple())
	}
	var wait sync.WaitGroup
	shares := make([]received, len(consumers))
	for i, consumer := range consumers {
		wait.Go(func() {
			for {
				some, err := consumer.Receive(context.Background(), 8, time.Minute)
				if err != nil || len(some) == 0 {
					return
				}
				for _, message := range some {
					if consumer.Ack(context.Background(), message) == nil {
						shares[i].add(message)
					}
				}
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
	wait.Wait()
	var all []string
	for i := range shares {
		that(shares[i].count() >= 10, "a share of %d among four of 200", shares[i].count())
		all = append(all, texts(shares[i].all())...)
	}
	equal(sorted(sent), sorted(all), "received by all")
}

func twoGroups(s *stage) {
	sent := s.send(s.producer(), "m", 10)
	for _, group := range []string{s.group, s.group + "-2"} {
		consumer := s.simpleOf(group, s.topic, rmq.SUB_ALL)
		equal(sorted(sent), sorted(texts(take(consumer, 10))), group+" received")
	}
}
