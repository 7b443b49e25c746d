// Push consumers: balance, retries, dead letters, order.
package main

import (
	"fmt"
	"sync/atomic"
	"time"

	rmq "github.com/apache/rocketmq-clients/golang/v5"
)

var pushCases = []testCase{
	{"fifo-order", fifoOrder},
	{"fifo-dead-letter", fifoDeadLetter},
	{"push-dead-letter", pushDeadLetter},
	{"push-retry", pushRetry},
	{"push", push},
	{"share-push", sharePush},
	{"many-clients", manyClients},
	{"restart", restart},
}

func push(s *stage) {
	got, _ := s.push(rmq.SUB_ALL, success)
	onceEach(s.send(s.producer(), "m", 50), got)
}

// Takes all but this one, which it fails so many times.
func failing(text string, times int32) func(*rmq.MessageView) bool {
	var failed atomic.Int32
	return func(message *rmq.MessageView) bool {
		return string(message.GetBody()) != text || failed.Add(1) > times
	}
}

func pushRetry(s *stage) {
	got, _ := s.push(rmq.SUB_ALL, failing("m3", 2))
	s.send(s.producer(), "m", 6)
	eventually(patienceSeconds, "five once and one three times", func() bool { return got.count() >= 8 })
	var attempts []int32
	for _, message := range got.all() {
		if string(message.GetBody()) == "m3" {
			attempts = append(attempts, message.GetDeliveryAttempt())
		}
	}
	equal([]int32{1, 2, 3}, attempts, "attempts of the one that failed twice")
	equal(8, got.count(), "deliveries")
}

// The dead letters of the group; their topic exists once there is one.
func (s *stage) deadLetters() (dead rmq.SimpleConsumer) {
	eventually(patienceSeconds, "a topic of dead letters", func() bool {
		consumer, err := s.trySimple(s.group+"-dead", "%DLQ%"+s.group, rmq.SUB_ALL)
		dead = consumer
		return err == nil
	})
	return dead
}

func pushDeadLetter(s *stage) {
	got, _ := s.push(rmq.SUB_ALL, failing("m1", 99))
	s.send(s.producer(), "m", 3)
	equal([]string{"m1"}, texts(take(s.deadLetters(), 1)), "dead letters")
	equal([]string{"m0", "m1", "m1", "m2"}, sorted(texts(got.all())), "deliveries")
}

func fifoOrder(s *stage) {
	got, _ := s.push(rmq.SUB_ALL, failing("a3", 2))
	producer := s.producer()
	for _, messageGroup := range []string{"a", "b", "c"} {
		s.sendInGroup(producer, messageGroup, 8)
	}
	eventually(patienceSeconds, "all, one three times", func() bool { return got.count() >= 26 })
	all := texts(got.all())
	equal([]string{"a0", "a1", "a2", "a3", "a3", "a3", "a4", "a5", "a6", "a7"}, beginning("a", all), "group a")
	equal(numbered("b", 8), beginning("b", all), "group b")
	equal(numbered("c", 8), beginning("c", all), "group c")
}

func fifoDeadLetter(s *stage) {
	got, _ := s.push(rmq.SUB_ALL, failing("a1", 99))
	s.sendInGroup(s.producer(), "a", 4)
	eventually(patienceSeconds, "the rest of the group", func() bool { return got.count() >= 5 })
	equal([]string{"a0", "a1", "a1", "a2", "a3"}, texts(got.all()), "deliveries")
	equal([]string{"a1"}, texts(take(s.deadLetters(), 1)), "dead letters")
}

// Demands that these are what all listeners got, once they have.
func onceAmong(sent []string, shares []*received) {
	total := func() (all []string) {
		for _, share := range shares {
			all = append(all, texts(share.all())...)
		}
		return all
	}
	eventually(patienceSeconds, "all arrive", func() bool { return len(total()) >= len(sent) })
	equal(sorted(sent), sorted(total()), "received by all")
}

func sharePush(s *stage) {
	var shares []*received
	for range 4 {
		share, _ := s.push(rmq.SUB_ALL, func(*rmq.MessageView) bool {
			time.Sleep(20 * time.Millisecond)
			return true
		})
		shares = append(shares, share)
	}
	producer := s.producer()
	var sent []string
	// Until everyone takes part: a consumer that starts may wait for its first assignment.
	eventually(patienceSeconds, "everyone takes part", func() bool {
		sent = append(sent, s.send(producer, fmt.Sprint("warm-", len(sent), "-"), 10)...)
		for _, share := range shares {
			if share.count() == 0 {
				return false
			}
		}
		return true
	})
	var before []int
	for _, share := range shares {
		before = append(before, share.count())
	}
	count := 400
	sent = append(sent, s.send(producer, "m", count)...)
	onceAmong(sent, shares)
	for i, share := range shares {
		mine := share.count() - before[i]
		that(mine >= count/20, "a share of %d among four of %d", mine, count)
	}
}

func manyClients(s *stage) {
	var got []*received
	for range 20 {
		share, _ := s.push(rmq.SUB_ALL, success)
		got = append(got, share)
	}
	var sent []string
	for i := range 10 {
		sent = append(sent, s.send(s.producer(), fmt.Sprint("p", i, "-"), 20)...)
	}
	onceAmong(sent, got)
}

func restart(s *stage) {
	producer := s.producer()
	for round := range 2 {
		sent := s.send(producer, fmt.Sprint("round", round, "-"), 20)
		got, stop := s.push(rmq.SUB_ALL, success)
		onceEach(sent, got)
		// The last acknowledgements are on their way.
		time.Sleep(time.Second)
		stop()
	}
	nothingMore(s.simple())
}
