// What producers send arrives as it was, and what must be refused is refused.
package main

import (
	"bytes"
	"context"
	"math/rand"
	"strings"
	"time"

	rmq "github.com/apache/rocketmq-clients/golang/v5"
)

var sendCases = []testCase{
	{"send", sendOne},
	{"send-sizes", sendSizes},
	{"send-concurrent", sendConcurrent},
	{"send-fifo", sendFifo},
	{"send-wrong-type", sendWrongType},
	{"unknown-topic", unknownTopic},
}

func sendOne(s *stage) {
	before := time.Now()
	message := s.message("grüße, 世界 🦀")
	message.SetTag("Tag-ä")
	message.SetKeys("k1", "schlüssel")
	message.AddProperty("color", "blau")
	message.AddProperty("ключ", "значение = \"x\"")
	receipt := send(s.producer(), message)
	got := take(s.simple(), 1)[0]
	equal("grüße, 世界 🦀", string(got.GetBody()), "body")
	equal(receipt.MessageID, got.GetMessageId(), "message id")
	equal("Tag-ä", *got.GetTag(), "tag")
	equal([]string{"k1", "schlüssel"}, sorted(got.GetKeys()), "keys")
	equal(map[string]string{"color": "blau", "ключ": "значение = \"x\""}, got.GetProperties(), "properties")
	equal(s.topic, got.GetTopic(), "topic")
	equal(int32(1), got.GetDeliveryAttempt(), "attempt")
	age := got.GetBornTimestamp().Sub(before)
	that(age > -time.Second && age < time.Minute, "born %v after it was sent", age)
	that(got.GetBornHost() != nil && *got.GetBornHost() != "", "a born host")
}

func sendSizes(s *stage) {
	most := 4 * 1024 * 1024
	large := make([]byte, most)
	rand.New(rand.NewSource(1)).Read(large)
	producer := s.producer()
	send(producer, &rmq.Message{Topic: s.topic, Body: []byte{0}})
	send(producer, &rmq.Message{Topic: s.topic, Body: large})
	_, err := producer.Send(context.Background(), &rmq.Message{Topic: s.topic, Body: make([]byte, most+1)})
	that(err != nil, "one byte too many was accepted")
	for _, message := range take(s.simple(), 2) {
		body := message.GetBody()
		that(bytes.Equal(body, []byte{0}) || bytes.Equal(body, large), "other %d bytes", len(body))
	}
}

func sendConcurrent(s *stage) {
	producer := s.producer()
	bodies := numbered("m", 300)
	type outcome struct {
		id  string
		err error
	}
	outcomes := make(chan outcome, len(bodies))
	for _, body := range bodies {
		producer.SendAsync(context.Background(), s.message(body), func(_ context.Context, receipts []*rmq.SendReceipt, err error) {
			if err != nil {
				outcomes <- outcome{err: err}
				return
			}
			outcomes <- outcome{id: receipts[0].MessageID}
		})
	}
	ids := map[string]bool{}
	for range bodies {
		one := <-outcomes
		must(one.err, "a send beside others")
		ids[one.id] = true
	}
	equal(len(bodies), len(ids), "different message ids")
	consumer := s.simple()
	equal(sorted(bodies), sorted(texts(take(consumer, len(bodies)))), "received")
	nothingMore(consumer)
}

func sendFifo(s *stage) {
	producer := s.producer()
	s.sendInGroup(producer, "a", 10)
	s.sendInGroup(producer, "b", 10)
	got := take(s.simple(), 20)
	equal(numbered("a", 10), beginning("a", texts(got)), "group a")
	equal(numbered("b", 10), beginning("b", texts(got)), "group b")
	for _, message := range got {
		equal(string(message.GetBody()[:1]), *message.GetMessageGroup(), "message group")
	}
}

func sendWrongType(s *stage) {
	producer := s.producer()
	_, err := producer.Send(context.Background(), s.message("normal"))
	that(err != nil, "a normal message was accepted by a FIFO topic")
	delayed := s.message("late")
	delayed.SetDelayTimestamp(time.Now().Add(10 * time.Second))
	_, err = producer.Send(context.Background(), delayed)
	that(err != nil, "a delayed message was accepted by a FIFO topic")
	s.sendInGroup(producer, "g", 1)
}

func unknownTopic(s *stage) {
	_, err := s.tryProducer()
	notFound(err, "a producer for a topic that does not exist")
	_, err = s.trySimple(s.group, s.topic, rmq.SUB_ALL)
	notFound(err, "a consumer of a topic that does not exist")
}

func notFound(err error, what string) {
	that(err != nil && strings.Contains(err.Error(), "TOPIC_NOT_FOUND"), "%s: %v", what, err)
}
