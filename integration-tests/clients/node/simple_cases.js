// Simple consumers: what was received stays hidden for its time, and an acknowledgement is final.
'use strict';

const { FilterExpression } = require('rocketmq-client-nodejs');
const { FilterType } = require('rocketmq-client-nodejs/proto/apache/rocketmq/v2/definition_pb');
const { INVISIBLE, equal, nothingMore, receive, refused, sleep, take, text, texts, that } = require('./stage');

// Nothing comes for longer than what was received would have stayed hidden.
async function nothingAgain(consumer) {
  const end = Date.now() + INVISIBLE + 3000;
  while (Date.now() < end) {
    await nothingMore(consumer);
  }
}

async function ack(stage) {
  const sent = await stage.send(await stage.producer(), 'm', 20);
  const consumer = await stage.simple();
  equal([...sent].sort(), texts(await take(consumer, 20)).sort(), 'received');
  await nothingAgain(consumer);
}

async function atOnce(stage) {
  await stage.send(await stage.producer(), 'm', 1);
  equal(['m0'], texts(await take(await stage.simple(), 1)), 'received');
}

async function wakes(stage) {
  const producer = await stage.producer();
  const consumer = await stage.simple();
  await nothingMore(consumer);
  for (let i = 0; i < 3; i++) {
    const waiting = consumer.receive(1, INVISIBLE);
    equal('waits', await Promise.race([waiting, sleep(1000, 'waits')]), 'a receive of nothing');
    await producer.send(stage.message('now'));
    const sent = Date.now();
    const got = await waiting;
    const took = Date.now() - sent;
    equal(['now'], texts(got), 'received');
    that(took < 1500, `woken after ${took} ms`);
    await consumer.ack(got[0]);
  }
}

async function empty(stage) {
  const consumer = await stage.simple();
  for (let i = 0; i < 2; i++) {
    const started = Date.now();
    await nothingMore(consumer);
    const took = Date.now() - started;
    that(took > 3000 && took < 9000, `an empty receive of 5 s took ${took} ms`);
  }
}

async function redelivery(stage) {
  await stage.send(await stage.producer(), 'm', 4);
  const consumer = await stage.simple();
  const started = Date.now();
  const first = await receive(consumer, 4);
  await consumer.ack(first[0]);
  await consumer.ack(first[1]);
  for (const attempt of [2, 3]) {
    const again = await receive(consumer, 2);
    const took = Date.now() - started;
    equal(texts(first.slice(2)).sort(), texts(again).sort(), 'again');
    equal([attempt, attempt], again.map(message => message.deliveryAttempt), 'attempt');
    that(took > (attempt - 1) * INVISIBLE - 500, `attempt ${attempt} came after ${took} ms`);
    if (attempt === 3) {
      await consumer.ack(again[0]);
      await consumer.ack(again[1]);
    }
  }
}

async function changeInvisible(stage) {
  await stage.send(await stage.producer(), 'm', 1);
  const consumer = await stage.simple();
  const [first] = await receive(consumer, 1, 60_000);
  await consumer.changeInvisibleDuration(first, 4000);
  const changed = Date.now();
  const [second] = await receive(consumer, 1);
  const took = Date.now() - changed;
  that(took > 3000 && took < 15_000, `after 4 s it came again within ${took} ms`);
  equal(2, second.deliveryAttempt, 'attempt');
  // Made longer: what was received stays hidden beyond its first time.
  await consumer.changeInvisibleDuration(second, 30_000);
  await nothingAgain(consumer);
}

async function lateAck(stage) {
  await stage.send(await stage.producer(), 'm', 1);
  const consumer = await stage.simple();
  const [first] = await receive(consumer, 1);
  await sleep(INVISIBLE + 2000);
  const thrown = await refused('a late ack', () => consumer.ack(first));
  that(`${thrown.code} ${thrown.message}`.includes('40013'), `INVALID_RECEIPT_HANDLE: ${thrown}`);
  equal(['m0'], texts(await take(consumer, 1)), 'again');
}

async function fifo(stage) {
  await stage.sendInGroup(await stage.producer(), 'a', 4);
  const consumer = await stage.simple();
  const [first] = await receive(consumer, 1, 60_000);
  equal('a0', text(first), 'the first');
  equal([], texts(await consumer.receive(8, INVISIBLE)), 'while the first is out');
  await consumer.ack(first);
  equal(['a1', 'a2', 'a3'], texts(await take(consumer, 3)), 'once it was acknowledged');
}

async function tagFilter(stage) {
  const producer = await stage.producer();
  for (let i = 0; i < 30; i++) {
    await producer.send(stage.message(`m${i}`, { tag: ['red', 'green', 'blue'][i % 3] }));
  }
  await producer.send(stage.message('untagged'));
  const consumer = await stage.simple({ filter: new FilterExpression('red || blue') });
  that((await take(consumer, 20)).every(message => message.tag && message.tag !== 'green'), 'no green ones');
  await nothingMore(consumer);
}

async function sqlFilter(stage) {
  const producer = await stage.producer();
  for (let i = 0; i < 10; i++) {
    await producer.send(stage.message(`m${i}`, { tag: `t${i % 2}`, properties: new Map([['size', `${i}`]]) }));
  }
  const consumer = await stage.simple({ filter: new FilterExpression("size > 4 AND TAGS = 't1'", FilterType.SQL) });
  equal(['m5', 'm7', 'm9'], texts(await take(consumer, 3)).sort(), 'received');
  await nothingMore(consumer);
}

async function share(stage) {
  const sent = await stage.send(await stage.producer(), 'm', 200);
  const consumers = await Promise.all(Array.from({ length: 4 }, () => stage.simple()));
  const shares = await Promise.all(consumers.map(async consumer => {
    const mine = [];
    for (;;) {
      const some = await consumer.receive(8, 60_000);
      if (!some.length) {
        return mine;
      }
      await Promise.all(some.map(message => consumer.ack(message)));
      mine.push(...some);
      await sleep(50);
    }
  }));
  shares.forEach(mine => that(mine.length >= 10, `a share of ${mine.length} among four of 200`));
  equal([...sent].sort(), texts(shares.flat()).sort(), 'received by all');
}

async function twoGroups(stage) {
  const sent = await stage.send(await stage.producer(), 'm', 10);
  for (const group of [stage.group, `${stage.group}-2`]) {
    const consumer = await stage.simple({ group });
    equal([...sent].sort(), texts(await take(consumer, 10)).sort(), `${group} received`);
  }
}

module.exports = {
  'simple-late-ack': lateAck, 'simple-redelivery': redelivery, 'simple-change-invisible': changeInvisible,
  'simple-at-once': atOnce, 'simple-ack': ack, 'simple-wakes': wakes, 'simple-empty': empty, 'fifo-simple': fifo, 'tag-filter': tagFilter,
  'sql-filter': sqlFilter, 'share-simple': share, 'two-groups': twoGroups,
};
