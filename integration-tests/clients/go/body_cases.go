// Bodies from one byte to the limit, plain and compressed.
package main

import (
	"bytes"
	"math/rand"
	"strings"

	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

const bodyLimit = 4 * 1024 * 1024

var bodyCases = []testCase{
	{"body-sizes", bodySizes},
	{"body-too-large", bodyTooLarge},
	{"body-compressed", bodyCompressed},
}

func random(size int) []byte {
	body := make([]byte, size)
	rand.New(rand.NewSource(int64(size))).Read(body)
	return body
}

// A producer that lets through what it is given, so that the broker is the one to judge.
func uncompressed() []producer.Option {
	return []producer.Option{producer.WithCompressMsgBodyOverHowmuch(1 << 30), producer.WithRetry(0)}
}

func bodySizes(s *stage) {
	topic := s.topic(1)
	own := s.ownProducer(uncompressed()...)
	sizes := []int{1, 2, 4095, 4096, 4097, 65_535, 65_536, 1_000_000, bodyLimit - 1, bodyLimit}
	for _, size := range sizes {
		_, err := own.SendSync(ctx, primitive.NewMessage(topic, random(size)))
		must(err, "a send")
	}
	stored := s.stored(topic)
	equal(len(sizes), len(stored), "messages")
	for i, size := range sizes {
		that(bytes.Equal(random(size), stored[i].Body), "equal bytes at size %d", size)
	}
}

func bodyTooLarge(s *stage) {
	topic := s.topic(1)
	own := s.ownProducer(uncompressed()...)
	_, err := own.SendSync(ctx, primitive.NewMessage(topic, random(bodyLimit+1)))
	that(err != nil && strings.Contains(err.Error(), "CODE: 13"), "refused with code 13, got %v", err)
	_, err = own.SendSync(ctx, message(topic, "after"))
	must(err, "a send after the refusal")
	equal([]string{"after"}, bodies(s.stored(topic)), "stored")
}

func bodyCompressed(s *stage) {
	topic := s.topic(1)
	body := strings.Repeat("a body that repeats itself · ", 4000)
	s.send(message(topic, body))
	stored := s.stored(topic)[0]
	equal(body, string(stored.Body), "body")
	that(int(stored.StoreSize) < len(body)/10, "it is stored compressed, in %d bytes", stored.StoreSize)
}
