// Every way to send, and what the answer says about it.
package main

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/apache/rocketmq-client-go/v2/primitive"
)

var sendCases = []testCase{
	{"send-sync", sendSync},
	{"send-async", sendAsync},
	{"send-one-way", sendOneWay},
	{"send-batch", sendBatch},
	{"send-to-each-queue", sendToEachQueue},
	{"send-creates-topic", sendCreatesTopic},
	{"send-properties", sendProperties},
	{"send-refused-properties", sendRefusedProperties},
}

// Each answer names the place where a reader then finds exactly this message.
func confirm(s *stage, topic string, sent map[string]*primitive.SendResult) {
	stored := s.stored(topic)
	equal(len(sent), len(stored), "stored messages")
	for _, each := range stored {
		result := sent[string(each.Body)]
		that(result != nil, "the body '%s' was sent", each.Body)
		equal(primitive.SendOK, result.Status, "status")
		equal(result.MsgID, each.MsgId, "unique id")
		equal(result.OffsetMsgID, each.OffsetMsgId, "offset id")
		equal(result.QueueOffset, each.QueueOffset, "offset")
		equal(result.MessageQueue.QueueId, each.Queue.QueueId, "queue")
		equal(topic, each.Topic, "topic")
	}
}

func sendSync(s *stage) {
	topic := s.topic(4)
	sent := map[string]*primitive.SendResult{}
	for i := range 40 {
		body := fmt.Sprintf("sync-%d", i)
		sent[body] = s.send(message(topic, body))
	}
	confirm(s, topic, sent)
}

func sendAsync(s *stage) {
	topic := s.topic(4)
	var lock sync.Mutex
	sent := map[string]*primitive.SendResult{}
	var failures []error
	for i := range 100 {
		body := fmt.Sprintf("async-%d", i)
		must(s.producer.SendAsync(ctx, func(_ context.Context, result *primitive.SendResult, err error) {
			lock.Lock()
			defer lock.Unlock()
			if err != nil {
				failures = append(failures, err)
			} else {
				sent[body] = result
			}
		}, message(topic, body)), "an asynchronous send")
	}
	eventually(20, "all callbacks", func() bool {
		lock.Lock()
		defer lock.Unlock()
		return len(sent)+len(failures) == 100
	})
	equal(0, len(failures), "failed callbacks")
	confirm(s, topic, sent)
}

func sendOneWay(s *stage) {
	topic := s.topic(2)
	sent := []string{}
	for i := range 20 {
		sent = append(sent, fmt.Sprintf("one-way-%d", i))
		must(s.producer.SendOneWay(ctx, message(topic, sent[i])), "a one-way send")
	}
	eventually(15, "all one-way messages are stored", func() bool { return len(s.stored(topic)) == 20 })
	equal(sorted(sent), sorted(bodies(s.stored(topic))), "stored")
}

func sendBatch(s *stage) {
	topic := s.topic(4)
	queue := s.queues(topic)[2]
	batch := []*primitive.Message{}
	expected := []string{}
	for i := range 10 {
		m := message(topic, fmt.Sprintf("batch-%d", i))
		m.WithTag(fmt.Sprintf("tag%d", i)).WithKeys([]string{fmt.Sprintf("key-%d", i)})
		m.WithProperty("number", fmt.Sprint(i))
		m.Queue = queue
		batch = append(batch, m)
		expected = append(expected, string(m.Body))
	}
	result, err := s.trySend(batch...)
	must(err, "a batch")
	equal(primitive.SendOK, result.Status, "status")
	equal(queue.QueueId, result.MessageQueue.QueueId, "queue")
	equal(int64(0), result.QueueOffset, "the offset is that of the first message")
	ids := strings.Split(result.OffsetMsgID, ",")
	equal(10, len(ids), "offset ids")
	stored := s.stored(topic)
	equal(expected, bodies(stored), "stored in the order of the batch")
	for i, each := range stored {
		equal(int64(i), each.QueueOffset, "offset")
		equal(ids[i], each.OffsetMsgId, "offset id")
		equal(fmt.Sprintf("tag%d", i), each.GetTags(), "tag")
		equal(fmt.Sprintf("key-%d", i), each.GetKeys(), "keys")
		equal(fmt.Sprint(i), each.GetProperty("number"), "property")
	}
}

func sendToEachQueue(s *stage) {
	topic := s.topic(8)
	for _, queue := range s.queues(topic) {
		for offset := range int64(2) {
			m := message(topic, fmt.Sprintf("to-%d", queue.QueueId))
			m.Queue = queue
			result := s.send(m)
			equal(queue.QueueId, result.MessageQueue.QueueId, "queue")
			equal(offset, result.QueueOffset, "offset")
		}
	}
	for _, each := range s.stored(topic) {
		equal(fmt.Sprintf("to-%d", each.Queue.QueueId), string(each.Body), "each body in its queue")
	}
}

func sendCreatesTopic(s *stage) {
	topic := s.fresh("T")
	s.send(message(topic, "first"))
	eventually(15, "the new topic's route", func() bool { return len(s.queues(topic)) == 4 })
	equal([]string{"first"}, bodies(s.stored(topic)), "stored")
}

func sendProperties(s *stage) {
	topic := s.topic(1)
	m := message(topic, "тело 正文 🦀 \x00 end")
	m.WithTag("标签").WithKeys([]string{"key-1", "key-2"}).WithShardingKey("分片")
	m.Flag = 0x12345678
	user := map[string]string{
		"plain": "value",
		"ключ":  "значение",
		"鍵":     "値 with spaces, \"quotes\", {braces}: and \n lines",
		"🦀":     "🦀🦀",
		"long":  strings.Repeat("x", 8000),
	}
	for key, value := range user {
		m.WithProperty(key, value)
	}
	result := s.send(m)
	stored := s.stored(topic)[0]
	for key, value := range user {
		equal(value, stored.GetProperty(key), "property "+key)
	}
	equal("标签", stored.GetTags(), "tag")
	equal("key-1 key-2", stored.GetKeys(), "keys")
	equal("分片", stored.GetShardingKey(), "sharding key")
	equal(m.Body, stored.Body, "body")
	equal(m.Flag, stored.Flag, "flag")
	equal(result.MsgID, stored.MsgId, "id")
}

// The stored form counts property bytes in 16 signed bits.
func sendRefusedProperties(s *stage) {
	topic := s.topic(1)
	m := message(topic, "never")
	m.WithProperty("long", strings.Repeat("x", 33_000))
	_, err := s.producer.SendSync(ctx, m)
	that(err != nil && strings.Contains(err.Error(), "CODE: 13"), "refused with code 13, got %v", err)
	s.send(message(topic, "after"))
	equal([]string{"after"}, bodies(s.stored(topic)), "stored")
}
