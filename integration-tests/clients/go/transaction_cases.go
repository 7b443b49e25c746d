// A message that counts only once its sender says so, or says so when it is asked.
package main

import (
	"fmt"
	"strings"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

// The stock broker asks every 30 s about what is older than 6 s, and takes its time.
const checkSeconds = 120

var transactionCases = []testCase{
	{"transaction-unknown-then-check", transactionUnknownThenCheck},
	{"transaction-commit-and-rollback", transactionCommitAndRollback},
}

// Answers by body: first when the message was sent, unless it is to know nothing then, and whenever it is asked.
type byBody struct {
	unknown bool
	asked   inbox
}

func (b *byBody) state(body string) primitive.LocalTransactionState {
	if strings.HasPrefix(body, "commit") {
		return primitive.CommitMessageState
	}
	return primitive.RollbackMessageState
}

func (b *byBody) ExecuteLocalTransaction(m *primitive.Message) primitive.LocalTransactionState {
	if b.unknown {
		return primitive.UnknowState
	}
	return b.state(string(m.Body))
}

func (b *byBody) CheckLocalTransaction(m *primitive.MessageExt) primitive.LocalTransactionState {
	b.asked.put([]*primitive.MessageExt{m})
	return b.state(string(m.Body))
}

func (s *stage) transactions(listener primitive.TransactionListener) rocketmq.TransactionProducer {
	p, err := rocketmq.NewTransactionProducer(listener,
		producer.WithNameServer(primitive.NamesrvAddr{s.namesrv}),
		producer.WithGroupName(s.fresh("P")),
		producer.WithInstanceName(s.fresh("suite")))
	must(err, "a transaction producer")
	must(p.Start(), "a transaction producer starts")
	s.closing = append(s.closing, func() { _ = p.Shutdown() })
	return p
}

func transactionCommitAndRollback(s *stage) {
	topic := s.topic(1)
	p := s.transactions(&byBody{})
	expected := []string{}
	for i := range 10 {
		for _, end := range []string{"commit", "rollback"} {
			body := fmt.Sprintf("%s-%d", end, i)
			result, err := p.SendMessageInTransaction(ctx, message(topic, body).WithTag("tag"))
			must(err, "a send in a transaction")
			equal(primitive.SendOK, result.Status, "status")
			equal(result.MsgID, result.TransactionID, "transaction id")
		}
		expected = append(expected, fmt.Sprintf("commit-%d", i))
	}
	eventually(10, "what was committed", func() bool { return len(s.stored(topic)) == 10 })
	stored := s.stored(topic)
	equal(sorted(expected), sorted(bodies(stored)), "what was committed")
	for _, each := range stored {
		equal("tag", each.GetTags(), "tag")
		equal(each.GetProperty("UNIQ_KEY"), each.GetProperty("__transactionId__"), "transaction id")
		equal(int32(primitive.TransactionCommitType), each.SysFlag&int32(primitive.TransactionRollbackType), "kind")
	}
}

func transactionUnknownThenCheck(s *stage) {
	topic := s.topic(1)
	listener := &byBody{unknown: true}
	p := s.transactions(listener)
	for _, body := range []string{"commit-late", "rollback-late"} {
		result, err := p.SendMessageInTransaction(ctx, message(topic, body).WithKeys([]string{"key"}))
		must(err, "a send in a transaction")
		equal(primitive.UnknowState, result.State, "local state")
	}
	eventually(checkSeconds, "the questions", func() bool { return listener.asked.len() >= 2 })
	eventually(10, "what was committed", func() bool { return len(s.stored(topic)) > 0 })
	time.Sleep(time.Second)
	equal([]string{"commit-late"}, bodies(s.stored(topic)), "what was committed")
	equal([]string{"commit-late", "rollback-late"}, sorted(bodies(listener.asked.all())), "questions")
	for _, each := range listener.asked.all() {
		equal(topic, each.Topic, "topic of the question")
		equal("key", each.GetKeys(), "keys of the question")
		equal("1", each.GetProperty("TRANSACTION_CHECK_TIMES"), "how often it was asked")
	}
}
