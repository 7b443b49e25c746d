"""What producers send arrives as it was, and what must be refused is refused."""

import random
import time

from rocketmq.v5.producer import Producer
from stage import beginning, equal, nothing_more, numbered, refused, take, text, texts, that


def send(stage):
    before = time.time()
    message = stage.message("grüße, 世界 🦀", tag="Tag-ä")
    message.keys = "k1"
    message.keys = "schlüssel"
    message.add_property("color", "blau")
    message.add_property("ключ", 'значение = "x"')
    receipt = stage.producer().send(message)
    got = take(stage.simple(), 1)[0]
    equal("grüße, 世界 🦀", text(got), "body")
    equal(receipt.message_id, got.message_id, "message id")
    equal("Tag-ä", got.tag, "tag")
    equal({"k1", "schlüssel"}, set(got.keys), "keys")
    equal({"color": "blau", "ключ": 'значение = "x"'}, dict(got.properties), "properties")
    equal(stage.topic, got.topic, "topic")
    equal(1, got.delivery_attempt, "attempt")
    that(not got.corrupted, "a body that has its digest")
    age = got.born_timestamp / 1000 - before
    that(-1 < age < 60, f"born {age} s after it was sent")
    that(got.born_host, "a born host")


def sizes(stage):
    most = 4 * 1024 * 1024
    large = random.Random(1).randbytes(most)
    producer = stage.producer()
    producer.send(stage.message(b"\0"))
    producer.send(stage.message(large))
    refused("one byte too many", lambda: producer.send(stage.message(bytes(most + 1))))
    for message in take(stage.simple(), 2):
        that(message.body in (b"\0", large), f"other {len(message.body)} bytes")


def concurrent(stage):
    producer = stage.producer()
    bodies = numbered("m", 300)
    sends = [producer.send_async(stage.message(body)) for body in bodies]
    ids = {send.result(30).message_id for send in sends}
    equal(len(bodies), len(ids), "different message ids")
    consumer = stage.simple()
    equal(sorted(bodies), sorted(texts(take(consumer, len(bodies)))), "received")
    nothing_more(consumer)


def fifo(stage):
    producer = stage.producer()
    stage.send_in_group(producer, "a", 10)
    stage.send_in_group(producer, "b", 10)
    got = take(stage.simple(), 20)
    equal(numbered("a", 10), beginning("a", texts(got)), "group a")
    equal(numbered("b", 10), beginning("b", texts(got)), "group b")
    for message in got:
        equal(text(message)[:1], message.message_group, "message group")


def wrong_type(stage):
    producer = stage.producer()
    refused("a normal message to a FIFO topic", lambda: producer.send(stage.message("normal")))
    late = stage.message("late", delivery_timestamp=int(time.time()) + 10)
    refused("a delayed message to a FIFO topic", lambda: producer.send(late))
    stage.send_in_group(producer, "g", 1)


def unknown_topic(stage):
    producer = stage.start(Producer(stage.config(), tls_enable=stage.tls))
    thrown = refused(
        "a send to a topic that does not exist", lambda: producer.send(stage.message("lost"))
    )
    # This client does not hand on the code.
    that("route" in str(thrown), f"a route that does not exist: {thrown}")
    consumer = stage.simple()
    refused("a receive from a topic that does not exist", lambda: consumer.receive(1, 10))


CASES = {
    "send": send,
    "send-sizes": sizes,
    "send-concurrent": concurrent,
    "send-fifo": fifo,
    "send-wrong-type": wrong_type,
    "unknown-topic": unknown_topic,
}
