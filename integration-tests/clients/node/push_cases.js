// Push consumers: balance, retries, dead letters, order.
'use strict';

const {
  beginning, equal, eventually, nothingMore, numbered, onceAmong, sleep, take, text, texts, that,
} = require('./stage');

// Takes all but this one, which it fails so many times.
const failing = (body, times) => message => text(message) !== body || times-- <= 0;

async function push(stage) {
  const { received } = await stage.push();
  await onceAmong(await stage.send(await stage.producer(), 'm', 50), [received]);
}

async function retry(stage) {
  const attempts = [];
  const { received } = await stage.push(message => {
    if (text(message) === 'm3') {
      attempts.push(message.deliveryAttempt);
      return attempts.length === 3;
    }
    return true;
  });
  await stage.send(await stage.producer(), 'm', 6);
  await eventually('five once and one three times', () => received.length >= 8);
  equal([1, 2, 3], attempts, 'attempts of the one that failed twice');
  equal(8, received.length, 'deliveries');
}

// A consumer of the group's dead letters; their topic exists once there is one.
async function deadLetters(stage) {
  let consumer;
  await eventually('a topic of dead letters', async () => {
    consumer = await stage.simple({ group: `${stage.group}-dead`, topic: `%DLQ%${stage.group}` }).catch(() => sleep(500));
    return consumer;
  });
  return consumer;
}

async function deadLetter(stage) {
  const { received } = await stage.push(failing('m1', 99));
  await stage.send(await stage.producer(), 'm', 3);
  equal(['m1'], texts(await take(await deadLetters(stage), 1)), 'dead letters');
  equal(['m0', 'm1', 'm1', 'm2'], texts(received).sort(), 'deliveries');
}

async function fifoOrder(stage) {
  const { received } = await stage.push(failing('a3', 2));
  const producer = await stage.producer();
  for (const messageGroup of ['a', 'b', 'c']) {
    await stage.sendInGroup(producer, messageGroup, 8);
  }
  await eventually('all, one three times', () => received.length >= 26);
  const bodies = texts(received);
  equal(['a0', 'a1', 'a2', 'a3', 'a3', 'a3', 'a4', 'a5', 'a6', 'a7'], beginning('a', bodies), 'group a');
  equal(numbered('b', 8), beginning('b', bodies), 'group b');
  equal(numbered('c', 8), beginning('c', bodies), 'group c');
}

async function fifoDeadLetter(stage) {
  const { received } = await stage.push(failing('a1', 99));
  await stage.sendInGroup(await stage.producer(), 'a', 4);
  await eventually('the rest of the group', () => received.length >= 5);
  equal(['a0', 'a1', 'a1', 'a2', 'a3'], texts(received), 'deliveries');
  equal(['a1'], texts(await take(await deadLetters(stage), 1)), 'dead letters');
}

async function share(stage) {
  const shares = [];
  for (let i = 0; i < 4; i++) {
    shares.push((await stage.push(() => sleep(20, true))).received);
  }
  const producer = await stage.producer();
  const sent = [];
  // Until everyone takes part: a consumer that starts may wait for its first assignment.
  await eventually('everyone takes part', async () => {
    sent.push(...await stage.send(producer, `warm-${sent.length}-`, 10));
    return shares.every(share => share.length);
  });
  const before = shares.map(share => share.length);
  const count = 400;
  sent.push(...await stage.send(producer, 'm', count));
  await onceAmong(sent, shares);
  shares.forEach((share, i) => {
    const mine = share.length - before[i];
    that(mine >= count / 20, `a share of ${mine} among four of ${count}`);
  });
}

async function manyClients(stage) {
  const shares = (await Promise.all(Array.from({ length: 20 }, () => stage.push()))).map(({ received }) => received);
  const sent = (await Promise.all(Array.from({ length: 10 }, async (_, i) =>
    stage.send(await stage.producer(), `p${i}-`, 20)))).flat();
  await onceAmong(sent, shares);
}

async function restart(stage) {
  const producer = await stage.producer();
  for (let round = 0; round < 2; round++) {
    const sent = await stage.send(producer, `round${round}-`, 20);
    const { consumer, received } = await stage.push();
    await onceAmong(sent, [received]);
    // The last acknowledgements are on their way.
    await sleep(1000);
    await stage.stop(consumer);
  }
  await nothingMore(await stage.simple());
}

module.exports = {
  'fifo-order': fifoOrder, 'fifo-dead-letter': fifoDeadLetter, 'push-dead-letter': deadLetter, 'push-retry': retry,
  push, 'share-push': share, 'many-clients': manyClients, restart,
};
