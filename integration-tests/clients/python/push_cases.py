"""Push consumers: balance, retries, dead letters, order."""

import time

from stage import (
    INVISIBLE,
    beginning,
    equal,
    eventually,
    nothing_more,
    numbered,
    once_each,
    receive,
    text,
    texts,
    that,
)


def failing(body, times):
    """Takes all but this one, which it fails so many times."""
    failures = []

    def takes(message):
        if text(message) == body and len(failures) < times:
            failures.append(body)
            return False
        return True

    return takes


def push(stage):
    _, received = stage.push()
    once_each(stage.send(stage.producer(), "m", 50), received)


def retry(stage):
    _, received = stage.push(failing("m3", 2))
    stage.send(stage.producer(), "m", 6)
    eventually("five once and one three times", lambda: received.count() >= 8)
    attempts = [each.delivery_attempt for each in received.all() if text(each) == "m3"]
    equal([1, 2, 3], attempts, "attempts of the one that failed twice")
    equal(8, received.count(), "deliveries")


def dead_letters(stage, count):
    """The group's dead letters; their topic exists once there is one."""
    letters = []

    def exist():
        consumer = stage.simple(f"{stage.group}-dead", f"%DLQ%{stage.group}")
        try:
            letters.extend(consumer.receive(32, INVISIBLE))
        except Exception:
            stage.stop(consumer)
            return False
        if len(letters) < count:
            letters.extend(receive(consumer, count - len(letters)))
        return True

    eventually("a topic of dead letters", exist)
    return texts(letters)


def dead_letter(stage):
    _, received = stage.push(failing("m1", 99))
    stage.send(stage.producer(), "m", 3)
    equal(["m1"], dead_letters(stage, 1), "dead letters")
    equal(["m0", "m1", "m1", "m2"], sorted(texts(received.all())), "deliveries")


def fifo_order(stage):
    _, received = stage.push(failing("a3", 2))
    producer = stage.producer()
    for message_group in "abc":
        stage.send_in_group(producer, message_group, 8)
    eventually("all, one three times", lambda: received.count() >= 26)
    bodies = texts(received.all())
    expected = ["a0", "a1", "a2", "a3", "a3", "a3", "a4", "a5", "a6", "a7"]
    equal(expected, beginning("a", bodies), "group a")
    equal(numbered("b", 8), beginning("b", bodies), "group b")
    equal(numbered("c", 8), beginning("c", bodies), "group c")


def fifo_dead_letter(stage):
    _, received = stage.push(failing("a1", 99))
    stage.send_in_group(stage.producer(), "a", 4)
    eventually("the rest of the group", lambda: received.count() >= 5)
    equal(["a0", "a1", "a1", "a2", "a3"], texts(received.all()), "deliveries")
    equal(["a1"], dead_letters(stage, 1), "dead letters")


def once_among(sent, shares):
    """Demands that these are what all listeners got, once they have."""

    def total():
        return [body for share in shares for body in texts(share.all())]

    eventually("all arrive", lambda: len(total()) >= len(sent))
    equal(sorted(sent), sorted(total()), "received by all")


def share(stage):
    def slowly(_message):
        time.sleep(0.02)
        return True

    shares = [stage.push(slowly)[1] for _ in range(4)]
    producer = stage.producer()
    sent = []

    # Until everyone takes part: a consumer that starts may wait for its first assignment.
    def everyone_takes_part():
        sent.extend(stage.send(producer, f"warm-{len(sent)}-", 10))
        return all(share.count() for share in shares)

    eventually("everyone takes part", everyone_takes_part)
    before = [share.count() for share in shares]
    count = 400
    sent += stage.send(producer, "m", count)
    once_among(sent, shares)
    for share, had in zip(shares, before):
        mine = share.count() - had
        that(mine >= count / 20, f"a share of {mine} among four of {count}")


def many_clients(stage):
    shares = [stage.push()[1] for _ in range(20)]
    sent = []
    for i in range(10):
        sent += stage.send(stage.producer(), f"p{i}-", 20)
    once_among(sent, shares)


def restart(stage):
    producer = stage.producer()
    for i in range(2):
        sent = stage.send(producer, f"round{i}-", 20)
        consumer, received = stage.push()
        once_each(sent, received)
        # The last acknowledgements are on their way.
        time.sleep(1)
        stage.stop(consumer)
    nothing_more(stage.simple())


CASES = {
    "fifo-order": fifo_order,
    "fifo-dead-letter": fifo_dead_letter,
    "push-dead-letter": dead_letter,
    "push-retry": retry,
    "push": push,
    "share-push": share,
    "many-clients": many_clients,
    "restart": restart,
}
