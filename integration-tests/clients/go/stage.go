// What one case stands on: names nobody else uses, a producer, and consumers that are shut down when the case ends.
package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/admin"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

// This client looks at routes every 30 s and balances every 20 s.
const patience = 75

var (
	ctx  = context.Background()
	all  = consumer.MessageSelector{Type: consumer.TAG, Expression: "*"}
	runs = strconv.FormatInt(time.Now().UnixMilli(), 36)
	next atomic.Int64
)

// What all cases share.
type ground struct {
	namesrv  string
	cluster  string
	broker   string
	producer rocketmq.Producer
	admin    admin.Admin
}

type stage struct {
	*ground
	name    string
	closing []func()
}

// Starts the shared clients, and learns the broker's address from the offset id of a first message: the admin client
// of this version wants it, and has no call that tells it.
func prepare(namesrv, cluster string) (*ground, error) {
	g := &ground{namesrv: namesrv, cluster: cluster}
	var err error
	if g.producer, err = g.newProducer(producer.WithQueueSelector(newNamedQueue())); err != nil {
		return nil, err
	}
	first, err := g.producer.SendSync(ctx, message("T-start-"+runs, "first"))
	if err != nil {
		return nil, err
	}
	id, err := primitive.UnmarshalMsgID([]byte(first.OffsetMsgID))
	if err != nil {
		return nil, err
	}
	g.broker = fmt.Sprintf("%s:%d", id.Addr, id.Port)
	g.admin, err = admin.NewAdmin(admin.WithResolver(primitive.NewPassthroughResolver([]string{namesrv})))
	return g, err
}

func (g *ground) newProducer(options ...producer.Option) (rocketmq.Producer, error) {
	p, err := rocketmq.NewProducer(append([]producer.Option{
		producer.WithNameServer(primitive.NamesrvAddr{g.namesrv}),
		producer.WithGroupName(fmt.Sprintf("P-%s-%d", runs, next.Add(1))),
		producer.WithInstanceName(fmt.Sprintf("suite-%s-%d", runs, next.Add(1))),
	}, options...)...)
	if err != nil {
		return nil, err
	}
	return p, p.Start()
}

func (s *stage) ownProducer(options ...producer.Option) rocketmq.Producer {
	p, err := s.newProducer(options...)
	must(err, "a producer starts")
	s.closing = append(s.closing, func() { _ = p.Shutdown() })
	return p
}

func (s *stage) close() {
	for _, each := range slices.Backward(s.closing) {
		each()
	}
}

func (s *stage) fresh(kind string) string {
	return fmt.Sprintf("%s-%s-%s-%d", kind, s.name, runs, next.Add(1))
}

func (s *stage) group() string {
	return s.fresh("G")
}

// A topic that exists, with this many queues.
func (s *stage) topic(queues int) string {
	topic := s.fresh("T")
	s.createTopic(topic, queues)
	return topic
}

func (s *stage) createTopic(topic string, queues int) {
	must(s.admin.CreateTopic(ctx, admin.WithTopicCreate(topic), admin.WithBrokerAddrCreate(s.broker),
		admin.WithReadQueueNums(queues), admin.WithWriteQueueNums(queues)), "create "+topic)
	eventually(10, "the route of "+topic, func() bool { return len(s.queues(topic)) == queues })
}

func (s *stage) queues(topic string) []*primitive.MessageQueue {
	queues, err := s.admin.FetchPublishMessageQueues(ctx, topic)
	if err != nil {
		return nil
	}
	slices.SortFunc(queues, func(a, b *primitive.MessageQueue) int { return a.QueueId - b.QueueId })
	return queues
}

func message(topic, body string) *primitive.Message {
	return primitive.NewMessage(topic, []byte(body))
}

func (s *stage) send(m *primitive.Message) *primitive.SendResult {
	result, err := s.trySend(m)
	must(err, "a send")
	equal(primitive.SendOK, result.Status, "status")
	return result
}

// Sends, again when the broker was too busy to take it: unlike the Java client this one leaves that to its user.
func (s *stage) trySend(messages ...*primitive.Message) (*primitive.SendResult, error) {
	for attempt := 1; ; attempt++ {
		result, err := s.producer.SendSync(ctx, messages...)
		if err == nil || attempt == 10 || !strings.Contains(err.Error(), "CODE: 2,") {
			return result, err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func bodies(messages []*primitive.MessageExt) []string {
	texts := []string{}
	for _, each := range messages {
		texts = append(texts, string(each.Body))
	}
	return texts
}

func sorted(texts []string) []string {
	return slices.Sorted(slices.Values(texts))
}

// What a consumer received, and when.
type inbox struct {
	lock     sync.Mutex
	messages []*primitive.MessageExt
	at       []time.Time
}

func (i *inbox) put(messages []*primitive.MessageExt) {
	i.lock.Lock()
	defer i.lock.Unlock()
	for _, each := range messages {
		i.messages = append(i.messages, each)
		i.at = append(i.at, time.Now())
	}
}

func (i *inbox) all() []*primitive.MessageExt {
	i.lock.Lock()
	defer i.lock.Unlock()
	return slices.Clone(i.messages)
}

func (i *inbox) len() int {
	return len(i.all())
}

// The queues from which something has come since then.
func (i *inbox) queuesSince(since time.Time) []int {
	i.lock.Lock()
	defer i.lock.Unlock()
	queues := []int{}
	for n, each := range i.messages {
		if i.at[n].After(since) && !slices.Contains(queues, each.Queue.QueueId) {
			queues = append(queues, each.Queue.QueueId)
		}
	}
	slices.Sort(queues)
	return queues
}

func (s *stage) consumerOptions(group string, options []consumer.Option) []consumer.Option {
	return append([]consumer.Option{
		consumer.WithNameServer(primitive.NamesrvAddr{s.namesrv}),
		consumer.WithGroupName(group),
		consumer.WithInstance(fmt.Sprintf("suite-%s-%d", runs, next.Add(1))),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset),
	}, options...)
}

type listener = func(context.Context, ...*primitive.MessageExt) (consumer.ConsumeResult, error)

// Starts a push consumer.
func (s *stage) push(group, topic, tags string, listen listener, options ...consumer.Option) rocketmq.PushConsumer {
	c, err := rocketmq.NewPushConsumer(s.consumerOptions(group, options)...)
	must(err, "a push consumer")
	must(c.Subscribe(topic, consumer.MessageSelector{Type: consumer.TAG, Expression: tags}, listen), "subscribe")
	must(c.Start(), "a push consumer starts")
	s.closing = append(s.closing, func() { _ = c.Shutdown() })
	return c
}

// Starts a push consumer that acknowledges all it gets and keeps it in the returned inbox.
func (s *stage) collect(group, topic, tags string, options ...consumer.Option) (*inbox, rocketmq.PushConsumer) {
	received := &inbox{}
	c := s.push(group, topic, tags, func(_ context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		received.put(messages)
		return consumer.ConsumeSuccess, nil
	}, options...)
	return received, c
}

// Starts a pull consumer.
func (s *stage) pull(group, topic string, selector consumer.MessageSelector) rocketmq.PullConsumer {
	c, err := rocketmq.NewPullConsumer(s.consumerOptions(group, nil)...)
	must(err, "a pull consumer")
	must(c.Subscribe(topic, selector), "subscribe")
	must(c.Start(), "a pull consumer starts")
	s.closing = append(s.closing, func() { _ = c.Shutdown() })
	return c
}

// Where a queue ends. A pull at the very end waits for 20 s, one far behind it is told the end at once.
func end(c rocketmq.PullConsumer, queue *primitive.MessageQueue) int64 {
	result, err := c.PullFrom(ctx, queue, 1<<40, 1)
	must(err, "a pull far behind the end")
	equal(primitive.PullOffsetIllegal, result.Status, "status far behind the end")
	return result.NextBeginOffset
}

// All messages a topic holds now, queue by queue in offset order, read by pulling.
func (s *stage) stored(topic string) []*primitive.MessageExt {
	c := s.pull(s.group(), topic, all)
	messages := []*primitive.MessageExt{}
	for _, queue := range s.queues(topic) {
		for offset := int64(0); offset < end(c, queue); {
			result, err := c.PullFrom(ctx, queue, offset, 32)
			must(err, "a pull")
			equal(primitive.PullFound, result.Status, "status before the end")
			that(result.NextBeginOffset > offset, "a pull of %s at %d goes on", queue, offset)
			messages = append(messages, result.GetMessageExts()...)
			offset = result.NextBeginOffset
		}
	}
	return messages
}
