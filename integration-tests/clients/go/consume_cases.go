// Push consumption: everything arrives, once, at whoever owns the queue.
package main

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/rocketmq-client-go/v2/consumer"
)

var consumeCases = []testCase{
	{"consume-rebalance", consumeRebalance},
	{"consume-many", consumeMany},
	{"consume-at-once", consumeAtOnce},
	{"consume-broadcast", consumeBroadcast},
	{"consume-tags", consumeTags},
	{"delay-levels", delayLevels},
	{"offset-over-restart", offsetOverRestart},
}

// Both consumers get messages, from queues of their own which together are all, in the given span.
func shared(one, two *inbox, queues int, span time.Duration) bool {
	since := time.Now().Add(-span)
	first, second := one.queuesSince(since), two.queuesSince(since)
	return len(first) == queues/2 && len(second) == queues/2 && len(slices.Compact(slices.Sorted(slices.Values(append(first, second...))))) == queues
}

func consumeRebalance(s *stage) {
	topic := s.topic(4)
	group := s.group()
	var going atomic.Bool
	going.Store(true)
	var sent []string
	var sending sync.WaitGroup
	sending.Add(1)
	go func() {
		defer sending.Done()
		for i := 0; going.Load(); i++ {
			body := fmt.Sprintf("stream-%d", i)
			if _, err := s.trySend(message(topic, body)); err == nil {
				sent = append(sent, body)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	stop := func() {
		going.Store(false)
		sending.Wait()
	}
	defer stop()
	first, _ := s.collect(group, topic, "*")
	eventually(patience, "one consumer gets all queues", func() bool {
		return len(first.queuesSince(time.Now().Add(-time.Second))) == 4
	})
	second, two := s.collect(group, topic, "*")
	eventually(patience, "every queue is owned once", func() bool { return shared(first, second, 4, time.Second) })
	must(two.Shutdown(), "shut down")
	// The client balances by itself only every 20 s; sooner means that the broker told it of the change (40).
	eventually(12, "the first consumer gets all queues again", func() bool {
		return len(first.queuesSince(time.Now().Add(-time.Second))) == 4
	})
	stop()
	eventually(patience, "every acknowledged message arrives", func() bool {
		received := append(bodies(first.all()), bodies(second.all())...)
		return slices.Equal(slices.Compact(sorted(received)), sorted(sent))
	})
}

func consumeMany(s *stage) {
	topic := s.topic(4)
	received, _ := s.collect(s.group(), topic, "*")
	var lock sync.Mutex
	acknowledged := map[string]string{}
	var failures []error
	var wait sync.WaitGroup
	for thread := range 4 {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for i := range 2500 {
				body := fmt.Sprintf("%d:%d", thread, i)
				result, err := s.trySend(message(topic, body))
				lock.Lock()
				if err != nil {
					failures = append(failures, err)
				} else {
					acknowledged[fmt.Sprintf("%d/%d", result.MessageQueue.QueueId, result.QueueOffset)] = body
				}
				lock.Unlock()
			}
		}()
	}
	wait.Wait()
	equal(0, len(failures), "failed sends")
	equal(10_000, len(acknowledged), "distinct places")
	eventually(patience, "all is received", func() bool { return received.len() >= 10_000 })
	time.Sleep(500 * time.Millisecond)
	equal(10_000, received.len(), "messages received, without a second delivery")
	for _, each := range received.all() {
		equal(acknowledged[fmt.Sprintf("%d/%d", each.Queue.QueueId, each.QueueOffset)], string(each.Body),
			"body as it was acknowledged")
	}
}

// A waiting pull is answered when a message comes, not when its time is over.
func consumeAtOnce(s *stage) {
	topic := s.topic(1)
	received, _ := s.collect(s.group(), topic, "*")
	s.send(message(topic, "warm"))
	eventually(patience, "the consumer is running", func() bool { return received.len() == 1 })
	time.Sleep(1500 * time.Millisecond)
	for i := 2; i <= 6; i++ {
		s.send(message(topic, fmt.Sprintf("now-%d", i)))
		eventually(2, "a message reaches a waiting consumer", func() bool { return received.len() == i })
	}
}

func consumeBroadcast(s *stage) {
	topic := s.topic(4)
	group := s.group()
	first, _ := s.collect(group, topic, "*", consumer.WithConsumerModel(consumer.BroadCasting))
	second, _ := s.collect(group, topic, "*", consumer.WithConsumerModel(consumer.BroadCasting))
	sent := []string{}
	for i := range 40 {
		sent = append(sent, fmt.Sprintf("all-%d", i))
		s.send(message(topic, sent[i]))
	}
	eventually(patience, "both get all", func() bool { return first.len() >= 40 && second.len() >= 40 })
	equal(sorted(sent), sorted(bodies(first.all())), "what the first got")
	equal(sorted(sent), sorted(bodies(second.all())), "what the second got")
}

func consumeTags(s *stage) {
	topic := s.topic(2)
	tags := []string{"A", "B", "C"}
	for i := range 10 {
		for _, tag := range tags {
			s.send(message(topic, fmt.Sprintf("%s%d", tag, i)).WithTag(tag))
		}
		s.send(message(topic, fmt.Sprintf("none%d", i)))
	}
	wanted := map[string][]string{"*": {"A", "B", "C", "none"}, "A || B": {"A", "B"}, "C": {"C"}}
	received := map[string]*inbox{}
	for expression := range wanted {
		received[expression], _ = s.collect(s.group(), topic, expression)
	}
	for expression, prefixes := range wanted {
		eventually(patience, "all of "+expression, func() bool { return received[expression].len() >= len(prefixes)*10 })
	}
	time.Sleep(500 * time.Millisecond)
	for expression, prefixes := range wanted {
		expected := []string{}
		for _, prefix := range prefixes {
			for i := range 10 {
				expected = append(expected, fmt.Sprintf("%s%d", prefix, i))
			}
		}
		equal(sorted(expected), sorted(bodies(received[expression].all())), expression)
	}
}

func delayLevels(s *stage) {
	topic := s.topic(2)
	received, _ := s.collect(s.group(), topic, "*")
	s.send(message(topic, "now"))
	eventually(patience, "the consumer is running", func() bool { return received.len() == 1 })
	due := map[string]time.Time{}
	for i := range 6 {
		level := i%2 + 1
		body := fmt.Sprintf("delayed-%d", i)
		due[body] = time.Now().Add([]time.Duration{0, time.Second, 5 * time.Second}[level])
		s.send(message(topic, body).WithDelayTimeLevel(level))
	}
	eventually(15, "all are delivered", func() bool { return received.len() == 7 })
	for n, each := range received.all()[1:] {
		late := received.at[n+1].Sub(due[string(each.Body)])
		that(late >= -20*time.Millisecond, "%s is %v early", each.Body, -late)
		that(late <= 2*time.Second, "%s is %v late", each.Body, late)
		equal(topic, each.Topic, "topic")
	}
}

func offsetOverRestart(s *stage) {
	topic := s.topic(4)
	group := s.group()
	for round := range 2 {
		sent := []string{}
		for i := range 40 {
			sent = append(sent, fmt.Sprintf("round-%d-%d", round, i))
			s.send(message(topic, sent[i]))
		}
		received, c := s.collect(group, topic, "*")
		eventually(patience, "this round's messages", func() bool { return received.len() >= 40 })
		// The offsets sent at shutdown are sometimes lost with the connection this client closes at once; those of its
		// clock, first after 10 s and then every 5 s, are not.
		if round == 0 {
			time.Sleep(11 * time.Second)
		}
		must(c.Shutdown(), "shut down")
		equal(sorted(sent), sorted(bodies(received.all())), fmt.Sprintf("round %d", round))
	}
}
