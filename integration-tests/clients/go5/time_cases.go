// Messages that are not there yet, and perhaps never will be: delays and transactions.
package main

import (
	"context"
	"sync"
	"time"

	rmq "github.com/apache/rocketmq-clients/golang/v5"
)

var timeCases = []testCase{
	{"transaction-check", transactionCheck},
	{"delay", delay},
	{"recall", recall},
	{"transaction-commit", transactionCommit},
	{"transaction-rollback", transactionRollback},
}

// The server asks about open transactions every half minute, those that are some seconds old.
const checkedSeconds = 90

func delay(s *stage) {
	got, _ := s.push(rmq.SUB_ALL, success)
	producer := s.producer()
	due := time.Now().Add(6 * time.Second)
	late := s.message("late")
	late.SetDelayTimestamp(due)
	send(producer, late)
	past := s.message("past")
	past.SetDelayTimestamp(due.Add(-time.Minute))
	send(producer, past)
	eventually(patienceSeconds, "one whose time has passed", func() bool { return got.count() == 1 })
	equal([]string{"past"}, texts(got.all()), "received before")
	eventually(patienceSeconds, "the late one", func() bool { return got.count() == 2 })
	after := time.Since(due)
	// The stock server counts in whole seconds.
	that(after > -time.Second && after < 5*time.Second, "it came %v after its time", after)
}

func recall(s *stage) {
	producer := s.producer()
	due := time.Now().Add(8 * time.Second)
	recalled := s.message("recalled")
	recalled.SetDelayTimestamp(due)
	receipt := send(producer, recalled)
	kept := s.message("kept")
	kept.SetDelayTimestamp(due)
	send(producer, kept)
	_, err := producer.Recall(context.Background(), s.topic, receipt.RecallHandle)
	must(err, "a recall")
	consumer := s.simple()
	equal([]string{"kept"}, texts(take(consumer, 1)), "received")
	nothingMore(consumer)
}

func (s *stage) transactional(check func(string) rmq.TransactionResolution) rmq.Producer {
	return s.producer(rmq.WithTransactionChecker(&rmq.TransactionChecker{
		Check: func(message *rmq.MessageView) rmq.TransactionResolution { return check(string(message.GetBody())) },
	}))
}

func unknown(string) rmq.TransactionResolution { return rmq.UNKNOWN }

func (s *stage) sendIn(producer rmq.Producer, body string) rmq.Transaction {
	transaction := producer.BeginTransaction()
	_, err := producer.SendWithTransaction(context.Background(), s.message(body), transaction)
	must(err, "a send in a transaction")
	return transaction
}

func transactionCommit(s *stage) {
	producer := s.transactional(unknown)
	consumer := s.simple()
	transaction := s.sendIn(producer, "m0")
	nothingMore(consumer)
	must(transaction.Commit(), "a commit")
	equal([]string{"m0"}, texts(take(consumer, 1)), "received")
}

func transactionRollback(s *stage) {
	producer := s.transactional(unknown)
	consumer := s.simple()
	must(s.sendIn(producer, "never").RollBack(), "a rollback")
	must(s.sendIn(producer, "committed").Commit(), "a commit")
	equal([]string{"committed"}, texts(take(consumer, 1)), "received")
	nothingMore(consumer)
}

func transactionCheck(s *stage) {
	var asked sync.Map
	producer := s.transactional(func(body string) rmq.TransactionResolution {
		asked.Store(body, true)
		if body == "yes" {
			return rmq.COMMIT
		}
		return rmq.ROLLBACK
	})
	s.sendIn(producer, "yes")
	s.sendIn(producer, "no")
	eventually(checkedSeconds, "the producer is asked about both", func() bool {
		_, yes := asked.Load("yes")
		_, no := asked.Load("no")
		return yes && no
	})
	consumer := s.simple()
	equal([]string{"yes"}, texts(take(consumer, 1)), "received")
	nothingMore(consumer)
}
