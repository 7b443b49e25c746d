"""What one case stands on: its topic and group, and clients that are shut down when the case ends."""

import threading
import time

from rocketmq.v5.client import ClientConfiguration, Credentials
from rocketmq.v5.consumer import ConsumeResult, MessageListener, PushConsumer, SimpleConsumer
from rocketmq.v5.model import FilterExpression, Message
from rocketmq.v5.producer import Producer

# A first assignment or heartbeat that is missed comes many seconds later.
PATIENCE = 60
# The shortest a server allows; the longest a test wants to wait.
INVISIBLE = 10


def that(holds, sentence):
    if not holds:
        raise AssertionError(sentence)


def equal(expected, actual, what):
    that(expected == actual, f"{what}: expected {str(expected)[:300]}, got {str(actual)[:300]}")


def eventually(what, condition, patience=PATIENCE):
    """Waits until the condition holds."""
    end = time.monotonic() + patience
    while not condition():
        that(time.monotonic() < end, f"not within {patience} s: {what}")
        time.sleep(0.02)


def refused(what, action):
    """What was thrown; it must throw."""
    try:
        action()
    except Exception as thrown:
        return thrown
    raise AssertionError(f"{what}: was accepted")


class Received:
    """What a listener was given, in order."""

    def __init__(self):
        self.lock = threading.Lock()
        self.messages = []

    def add(self, message):
        with self.lock:
            self.messages.append(message)

    def all(self):
        with self.lock:
            return list(self.messages)

    def count(self):
        return len(self.all())


class Listener(MessageListener):
    """Takes what the function takes and fails what it does not."""

    def __init__(self, received, takes):
        self.received = received
        self.takes = takes

    def consume(self, message):
        self.received.add(message)
        return ConsumeResult.SUCCESS if self.takes(message) else ConsumeResult.FAILURE


def everything(_message):
    return True


class Stage:
    def __init__(self, name, flags):
        self.topic = f"T-{flags.run}-{name}"
        self.group = f"G-{flags.run}-{name}"
        self.tls = flags.tls
        self.endpoints = flags.endpoints
        self.clients = []

    def config(self):
        return ClientConfiguration(self.endpoints, Credentials(), request_timeout=10)

    def start(self, client):
        client.startup()
        self.clients.append(client)
        return client

    def stop(self, client):
        self.clients.remove(client)
        client.shutdown()

    def close(self):
        for client in reversed(self.clients):
            try:
                client.shutdown()
            except Exception as thrown:
                print(f"shutting a client down: {thrown}")

    def producer(self, checker=None):
        return self.start(Producer(self.config(), (self.topic,), checker, tls_enable=self.tls))

    def message(self, body, **fields):
        message = Message()
        message.topic = self.topic
        message.body = body if isinstance(body, bytes) else body.encode()
        for name, value in fields.items():
            setattr(message, name, value)
        return message

    def send(self, producer, prefix, count):
        """Sends prefix0, prefix1, …; what was sent."""
        bodies = numbered(prefix, count)
        for body in bodies:
            producer.send(self.message(body))
        return bodies

    def send_in_group(self, producer, message_group, count):
        for body in numbered(message_group, count):
            producer.send(self.message(body, message_group=message_group))

    def simple(self, group=None, topic=None, filter=None):
        consumer = self.simple_at_once(group, topic, filter)
        # The client tells the server about itself after a second, and the stock server wants to know.
        time.sleep(1.5)
        return consumer

    def simple_at_once(self, group=None, topic=None, filter=None):
        subscription = {topic or self.topic: filter or FilterExpression()}
        return self.start(
            SimpleConsumer(
                self.config(), group or self.group, subscription, await_duration=5, tls_enable=self.tls
            )
        )

    def push(self, takes=everything, filter=None):
        """A listener, and what it was given."""
        received = Received()
        consumer = PushConsumer(
            self.config(),
            self.group,
            Listener(received, takes),
            {self.topic: filter or FilterExpression()},
            consumption_thread_count=4,
            tls_enable=self.tls,
        )
        return self.start(consumer), received


def receive(consumer, count, invisible=INVISIBLE, then=lambda message: None):
    """Receives until there are this many, and does this with each."""
    received = []
    end = time.monotonic() + PATIENCE
    while len(received) < count and time.monotonic() < end:
        some = consumer.receive(min(32, count - len(received)), invisible)
        for message in some:
            then(message)
        received += some
    that(len(received) >= count, f"{len(received)} of {count} messages came")
    return received


def take(consumer, count):
    """Receives until there are this many, acknowledging each."""
    return receive(consumer, count, then=consumer.ack)


def nothing_more(consumer):
    """Demands that the group gets nothing more now."""
    equal([], texts(consumer.receive(32, INVISIBLE)), "received when all is done")


def once_each(expected, received):
    """Waits until all of these have come, and demands that none came twice."""
    eventually(f"all {len(expected)} arrive", lambda: received.count() >= len(expected))
    equal(sorted(expected), sorted(texts(received.all())), "received")


def text(message):
    return message.body.decode()


def texts(messages):
    return [text(message) for message in messages]


def numbered(prefix, count):
    return [f"{prefix}{i}" for i in range(count)]


def beginning(prefix, bodies):
    return [body for body in bodies if body.startswith(prefix)]
