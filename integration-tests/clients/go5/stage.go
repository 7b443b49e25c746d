// What one case stands on: its topic and group, and clients that are stopped when the case ends.
package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	rmq "github.com/apache/rocketmq-clients/golang/v5"
	"github.com/apache/rocketmq-clients/golang/v5/credentials"
)

const (
	// A first assignment or heartbeat that is missed comes many seconds later.
	patienceSeconds = 60
	// The shortest a server allows; the longest a test wants to wait.
	invisible = 10 * time.Second
	// How long a client may take to stop.
	stopSeconds = 10
	// What the server says when a receive ends with nothing.
	messageNotFound = 40401
)

type stage struct {
	topic     string
	group     string
	endpoints string
	lock      sync.Mutex
	stopping  []func() error
}

func newStage(name, endpoints, run string) *stage {
	return &stage{topic: "T-" + run + "-" + name, group: "G-" + run + "-" + name, endpoints: endpoints}
}

// Stops all clients, which takes seconds for each; now and then one of many does not come to its end.
func (s *stage) close() {
	s.lock.Lock()
	defer s.lock.Unlock()
	stopped := make(chan error, len(s.stopping))
	for _, stop := range s.stopping {
		go func() { stopped <- stop() }()
	}
	patience := time.After(stopSeconds * time.Second)
	for range s.stopping {
		select {
		case <-stopped:
		case <-patience:
			return
		}
	}
}

func (s *stage) stopAtEnd(stop func() error) func() {
	once := sync.OnceValue(stop)
	s.lock.Lock()
	defer s.lock.Unlock()
	s.stopping = append(s.stopping, once)
	return func() { once() }
}

func (s *stage) config(group string) *rmq.Config {
	return &rmq.Config{Endpoint: s.endpoints, ConsumerGroup: group, Credentials: &credentials.SessionCredentials{}}
}

func (s *stage) producer(options ...rmq.ProducerOption) rmq.Producer {
	producer, err := s.tryProducer(options...)
	must(err, "a producer")
	return producer
}

func (s *stage) tryProducer(options ...rmq.ProducerOption) (rmq.Producer, error) {
	producer, err := rmq.NewProducer(s.config(""), append(options, rmq.WithTopics(s.topic))...)
	if err != nil {
		return nil, err
	}
	if err := producer.Start(); err != nil {
		return nil, err
	}
	s.stopAtEnd(producer.GracefulStop)
	return producer, nil
}

func (s *stage) message(body string) *rmq.Message {
	return &rmq.Message{Topic: s.topic, Body: []byte(body)}
}

func send(producer rmq.Producer, message *rmq.Message) *rmq.SendReceipt {
	receipts, err := producer.Send(context.Background(), message)
	must(err, "a send")
	equal(1, len(receipts), "receipts")
	return receipts[0]
}

// Sends prefix0, prefix1, …; what was sent.
func (s *stage) send(producer rmq.Producer, prefix string, count int) []string {
	bodies := numbered(prefix, count)
	for _, body := range bodies {
		send(producer, s.message(body))
	}
	return bodies
}

func (s *stage) sendInGroup(producer rmq.Producer, messageGroup string, count int) {
	for _, body := range numbered(messageGroup, count) {
		message := s.message(body)
		message.SetMessageGroup(messageGroup)
		send(producer, message)
	}
}

func (s *stage) simple() rmq.SimpleConsumer {
	return s.simpleOf(s.group, s.topic, rmq.SUB_ALL)
}

func (s *stage) simpleOf(group, topic string, filter *rmq.FilterExpression) rmq.SimpleConsumer {
	consumer, err := s.trySimple(group, topic, filter)
	must(err, "a simple consumer")
	return consumer
}

func (s *stage) trySimple(group, topic string, filter *rmq.FilterExpression) (rmq.SimpleConsumer, error) {
	consumer, err := rmq.NewSimpleConsumer(s.config(group), rmq.WithSimpleAwaitDuration(5*time.Second),
		rmq.WithSimpleSubscriptionExpressions(map[string]*rmq.FilterExpression{topic: filter}))
	if err != nil {
		return nil, err
	}
	if err := consumer.Start(); err != nil {
		return nil, err
	}
	s.stopAtEnd(consumer.GracefulStop)
	return consumer, nil
}

// One receive; an empty one is not an error.
func poll(consumer rmq.SimpleConsumer, most int, invisible time.Duration) []*rmq.MessageView {
	got, err := consumer.Receive(context.Background(), int32(most), invisible)
	if status, ok := rmq.AsErrRpcStatus(err); ok && status.GetCode() == messageNotFound {
		return nil
	}
	must(err, "a receive")
	return got
}

// Receives until there are this many, or until patience ends.
func receive(consumer rmq.SimpleConsumer, count int, invisible time.Duration) []*rmq.MessageView {
	return receiveEach(consumer, count, invisible, func(*rmq.MessageView) {})
}

func receiveEach(consumer rmq.SimpleConsumer, count int, invisible time.Duration, then func(*rmq.MessageView)) []*rmq.MessageView {
	var received []*rmq.MessageView
	deadline := time.Now().Add(patienceSeconds * time.Second)
	for len(received) < count && time.Now().Before(deadline) {
		some := poll(consumer, min(32, count-len(received)), invisible)
		for _, message := range some {
			then(message)
		}
		received = append(received, some...)
	}
	that(len(received) >= count, "%d of %d messages came", len(received), count)
	return received
}

// Receives until there are this many, acknowledging each.
func take(consumer rmq.SimpleConsumer, count int) []*rmq.MessageView {
	return receiveEach(consumer, count, invisible, func(message *rmq.MessageView) { ack(consumer, message) })
}

func ack(consumer rmq.SimpleConsumer, message *rmq.MessageView) {
	must(consumer.Ack(context.Background(), message), "an ack")
}

// Demands that the group gets nothing more now.
func nothingMore(consumer rmq.SimpleConsumer) {
	equal([]string{}, texts(poll(consumer, 32, invisible)), "received when all is done")
}

// What a listener was given, in order.
type received struct {
	lock     sync.Mutex
	messages []*rmq.MessageView
}

func (r *received) add(message *rmq.MessageView) {
	r.lock.Lock()
	defer r.lock.Unlock()
	r.messages = append(r.messages, message)
}

func (r *received) all() []*rmq.MessageView {
	r.lock.Lock()
	defer r.lock.Unlock()
	return slices.Clone(r.messages)
}

func (r *received) count() int {
	return len(r.all())
}

// Takes everything.
func success(*rmq.MessageView) bool { return true }

// A listener that takes what the function takes and fails what it does not; all that it was given, and its end.
func (s *stage) push(filter *rmq.FilterExpression, listener func(*rmq.MessageView) bool) (*received, func()) {
	got := &received{}
	consumer, err := rmq.NewPushConsumer(s.config(s.group), rmq.WithPushAwaitDuration(5*time.Second),
		rmq.WithPushConsumptionThreadCount(4),
		rmq.WithPushSubscriptionExpressions(map[string]*rmq.FilterExpression{s.topic: filter}),
		rmq.WithPushMessageListener(&rmq.FuncMessageListener{Consume: func(message *rmq.MessageView) rmq.ConsumerResult {
			got.add(message)
			if listener(message) {
				return rmq.SUCCESS
			}
			return rmq.FAILURE
		}}))
	must(err, "a push consumer")
	must(consumer.Start(), "a push consumer's start")
	return got, s.stopAtEnd(consumer.GracefulStop)
}

// Waits until all of these have come, and demands that none came twice.
func onceEach(expected []string, got *received) {
	eventually(patienceSeconds, fmt.Sprintf("all %d arrive", len(expected)),
		func() bool { return got.count() >= len(expected) })
	equal(sorted(expected), sorted(texts(got.all())), "received")
}

func texts(messages []*rmq.MessageView) []string {
	texts := []string{}
	for _, message := range messages {
		texts = append(texts, string(message.GetBody()))
	}
	return texts
}

func sorted(texts []string) []string {
	return slices.Sorted(slices.Values(texts))
}

// prefix0 …
func numbered(prefix string, count int) []string {
	bodies := make([]string, count)
	for i := range bodies {
		bodies[i] = fmt.Sprint(prefix, i)
	}
	return bodies
}

// The texts that begin with this.
func beginning(prefix string, texts []string) []string {
	return slices.DeleteFunc(slices.Clone(texts), func(text string) bool { return !strings.HasPrefix(text, prefix) })
}
