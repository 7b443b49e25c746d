"""Messages that are not there yet, and perhaps never will be: delays and transactions."""

import time

from rocketmq.grpc_protocol import TransactionResolution
from rocketmq.v5.producer import TransactionChecker
from stage import equal, eventually, nothing_more, take, text, texts, that

# The server asks about open transactions every half minute, those that are some seconds old.
CHECKED = 90


def delay(stage):
    _, received = stage.push()
    producer = stage.producer()
    due = int(time.time()) + 6
    producer.send(stage.message("late", delivery_timestamp=due))
    producer.send(stage.message("past", delivery_timestamp=due - 60))
    eventually("one whose time has passed", lambda: received.count() == 1)
    equal(["past"], texts(received.all()), "received before")
    eventually("the late one", lambda: received.count() == 2)
    after = time.time() - due
    # The stock server counts in whole seconds.
    that(-1 < after < 5, f"it came {after} s after its time")


def recall(stage):
    producer = stage.producer()
    due = int(time.time()) + 8
    receipt = producer.send(stage.message("recalled", delivery_timestamp=due))
    producer.send(stage.message("kept", delivery_timestamp=due))
    producer.recall_message(stage.topic, receipt.recall_handle)
    consumer = stage.simple()
    equal(["kept"], texts(take(consumer, 1)), "received")
    nothing_more(consumer)


class Checker(TransactionChecker):
    """Commits "yes" and rolls others back; which it was asked about."""

    def __init__(self):
        self.asked = set()

    def check(self, message):
        self.asked.add(text(message))
        return (
            TransactionResolution.COMMIT if text(message) == "yes" else TransactionResolution.ROLLBACK
        )


def send_in(stage, producer, body):
    transaction = producer.begin_transaction()
    producer.send(stage.message(body), transaction)
    return transaction


def commit(stage):
    producer = stage.producer(Checker())
    consumer = stage.simple()
    transaction = send_in(stage, producer, "m0")
    nothing_more(consumer)
    transaction.commit()
    equal(["m0"], texts(take(consumer, 1)), "received")


def rollback(stage):
    producer = stage.producer(Checker())
    consumer = stage.simple()
    send_in(stage, producer, "never").rollback()
    send_in(stage, producer, "committed").commit()
    equal(["committed"], texts(take(consumer, 1)), "received")
    nothing_more(consumer)


def check(stage):
    checker = Checker()
    producer = stage.producer(checker)
    send_in(stage, producer, "yes")
    send_in(stage, producer, "no")
    eventually("the producer is asked about both", lambda: checker.asked == {"yes", "no"}, CHECKED)
    consumer = stage.simple()
    equal(["yes"], texts(take(consumer, 1)), "received")
    nothing_more(consumer)


CASES = {
    "transaction-check": check,
    "delay": delay,
    "recall": recall,
    "transaction-commit": commit,
    "transaction-rollback": rollback,
}
