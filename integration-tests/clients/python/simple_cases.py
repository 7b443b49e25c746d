"""Simple consumers: what was received stays hidden for its time, and an acknowledgement is final."""

import threading
import time

from rocketmq.v5.model import FilterExpression
from rocketmq.grpc_protocol import FilterType
from stage import INVISIBLE, equal, nothing_more, receive, refused, take, text, texts, that


def nothing_again(consumer):
    """Nothing comes for longer than what was received would have stayed hidden."""
    end = time.monotonic() + INVISIBLE + 3
    while time.monotonic() < end:
        nothing_more(consumer)


def ack(stage):
    sent = stage.send(stage.producer(), "m", 20)
    consumer = stage.simple()
    equal(sorted(sent), sorted(texts(take(consumer, 20))), "received")
    nothing_again(consumer)


def at_once(stage):
    stage.send(stage.producer(), "m", 1)
    equal(["m0"], texts(take(stage.simple_at_once(), 1)), "received")


def wakes(stage):
    producer = stage.producer()
    consumer = stage.simple()
    nothing_more(consumer)
    for _ in range(3):
        waiting = consumer.receive_async(1, INVISIBLE)
        time.sleep(1)
        that(not waiting.done(), "a receive of nothing waits")
        producer.send(stage.message("now"))
        sent = time.monotonic()
        got = waiting.result(10)
        took = time.monotonic() - sent
        equal(["now"], texts(got), "received")
        that(took < 1.5, f"woken after {took} s")
        consumer.ack(got[0])


def empty(stage):
    consumer = stage.simple()
    for _ in range(2):
        started = time.monotonic()
        nothing_more(consumer)
        took = time.monotonic() - started
        that(3 < took < 9, f"an empty receive of 5 s took {took} s")


def redelivery(stage):
    stage.send(stage.producer(), "m", 4)
    consumer = stage.simple()
    started = time.monotonic()
    first = receive(consumer, 4)
    consumer.ack(first[0])
    consumer.ack(first[1])
    for attempt in (2, 3):
        again = receive(consumer, 2)
        took = time.monotonic() - started
        equal(sorted(texts(first[2:])), sorted(texts(again)), "again")
        equal([attempt, attempt], [message.delivery_attempt for message in again], "attempt")
        that(took > (attempt - 1) * INVISIBLE - 0.5, f"attempt {attempt} came after {took} s")
    for message in again:
        consumer.ack(message)


def together(stage):
    count = 16
    sent = stage.send(stage.producer(), "m", count)
    consumer = stage.simple()
    for _ in range(count):
        receive(consumer, 1)
    time.sleep(INVISIBLE)
    again = take(consumer, count)
    equal(sorted(sent), sorted(texts(again)), "again")
    equal({2}, {message.delivery_attempt for message in again}, "attempt")
    nothing_again(consumer)


def change_invisible(stage):
    stage.send(stage.producer(), "m", 1)
    consumer = stage.simple()
    first = receive(consumer, 1, 60)[0]
    consumer.change_invisible_duration(first, 4)
    changed = time.monotonic()
    second = receive(consumer, 1)[0]
    took = time.monotonic() - changed
    that(3 < took < 15, f"after 4 s it came again within {took} s")
    equal(2, second.delivery_attempt, "attempt")
    # Made longer: what was received stays hidden beyond its first time.
    consumer.change_invisible_duration(second, 30)
    nothing_again(consumer)
    consumer.ack(second)


def late_ack(stage):
    stage.send(stage.producer(), "m", 1)
    consumer = stage.simple()
    first = receive(consumer, 1)[0]
    time.sleep(INVISIBLE + 2)
    thrown = refused("a late ack", lambda: consumer.ack(first))
    that("40013" in str(thrown), f"INVALID_RECEIPT_HANDLE: {thrown}")
    equal(["m0"], texts(take(consumer, 1)), "again")


def fifo(stage):
    stage.send_in_group(stage.producer(), "a", 4)
    consumer = stage.simple()
    first = receive(consumer, 1, 60)[0]
    equal("a0", text(first), "the first")
    equal([], texts(consumer.receive(8, INVISIBLE)), "while the first is out")
    consumer.ack(first)
    equal(["a1", "a2", "a3"], texts(take(consumer, 3)), "once it was acknowledged")


def tag_filter(stage):
    producer = stage.producer()
    for i in range(30):
        producer.send(stage.message(f"m{i}", tag=("red", "green", "blue")[i % 3]))
    producer.send(stage.message("untagged"))
    consumer = stage.simple(filter=FilterExpression("red || blue"))
    that(all(message.tag in ("red", "blue") for message in take(consumer, 20)), "no green ones")
    nothing_more(consumer)


def sql_filter(stage):
    producer = stage.producer()
    for i in range(10):
        message = stage.message(f"m{i}", tag=f"t{i % 2}")
        message.add_property("size", str(i))
        producer.send(message)
    consumer = stage.simple(filter=FilterExpression("size > 4 AND TAGS = 't1'", FilterType.SQL))
    equal(["m5", "m7", "m9"], sorted(texts(take(consumer, 3))), "received")
    nothing_more(consumer)


def share(stage):
    sent = stage.send(stage.producer(), "m", 200)
    consumers = [stage.simple() for _ in range(4)]
    shares = [[] for _ in consumers]

    def work(consumer, share):
        while some := consumer.receive(8, 60):
            for message in some:
                consumer.ack(message)
            share += some
            time.sleep(0.05)

    workers = [threading.Thread(target=work, args=pair) for pair in zip(consumers, shares)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for each in shares:
        that(len(each) >= 10, f"a share of {len(each)} among four of 200")
    equal(sorted(sent), sorted(text for each in shares for text in texts(each)), "received by all")


def two_groups(stage):
    sent = stage.send(stage.producer(), "m", 10)
    for group in (stage.group, stage.group + "-2"):
        consumer = stage.simple(group=group)
        equal(sorted(sent), sorted(texts(take(consumer, 10))), f"{group} received")


CASES = {
    "simple-late-ack": late_ack,
    "simple-together": together,
    "simple-redelivery": redelivery,
    "simple-change-invisible": change_invisible,
    "simple-at-once": at_once,
    "simple-ack": ack,
    "simple-wakes": wakes,
    "simple-empty": empty,
    "fifo-simple": fifo,
    "tag-filter": tag_filter,
    "sql-filter": sql_filter,
    "share-simple": share,
    "two-groups": two_groups,
}
