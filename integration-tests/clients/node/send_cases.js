// What producers send arrives as it was, and what must be refused is refused.
'use strict';

const { randomBytes } = require('node:crypto');
const { FilterExpression } = require('rocketmq-client-nodejs');
const { beginning, equal, nothingMore, numbered, refused, take, text, texts, that } = require('./stage');

async function send(stage) {
  const before = Date.now();
  const properties = new Map([['color', 'blau'], ['ключ', 'значение = "x"']]);
  const producer = await stage.producer();
  const receipt = await producer.send(stage.message('grüße, 世界 🦀', { tag: 'Tag-ä', keys: ['k1', 'schlüssel'], properties }));
  const [got] = await take(await stage.simple(), 1);
  equal('grüße, 世界 🦀', text(got), 'body');
  equal(receipt.messageId, got.messageId, 'message id');
  equal('Tag-ä', got.tag, 'tag');
  equal(['k1', 'schlüssel'], [...got.keys].sort(), 'keys');
  equal(properties, got.properties, 'properties');
  equal(stage.topic, got.topic, 'topic');
  equal(1, got.deliveryAttempt, 'attempt');
  that(!got.corrupted, 'a body that has its digest');
  const age = got.bornTimestamp - before;
  that(age > -1000 && age < 60_000, `born ${age} ms after it was sent`);
  that(got.bornHost, 'a born host');
}

async function sizes(stage) {
  const most = 4 * 1024 * 1024;
  // More than 4 MiB with all that is around them is sent, but not received by this client.
  const large = randomBytes(most - 4096);
  const small = Buffer.from([0]);
  const producer = await stage.producer();
  await producer.send(stage.message(small, { tag: 'received' }));
  await producer.send(stage.message(large, { tag: 'received' }));
  await producer.send(stage.message(Buffer.alloc(most), { tag: 'whole' }));
  await refused('one byte too many', () => producer.send(stage.message(Buffer.alloc(most + 1))));
  for (const { body } of await take(await stage.simple({ filter: new FilterExpression('received') }), 2)) {
    that(small.equals(body) || large.equals(body), `other ${body.length} bytes`);
  }
}

async function concurrent(stage) {
  const producer = await stage.producer();
  const bodies = numbered('m', 300);
  const receipts = await Promise.all(bodies.map(body => producer.send(stage.message(body))));
  equal(bodies.length, new Set(receipts.map(receipt => receipt.messageId)).size, 'different message ids');
  const consumer = await stage.simple();
  equal([...bodies].sort(), texts(await take(consumer, bodies.length)).sort(), 'received');
  await nothingMore(consumer);
}

async function fifo(stage) {
  const producer = await stage.producer();
  await stage.sendInGroup(producer, 'a', 10);
  await stage.sendInGroup(producer, 'b', 10);
  const got = await take(await stage.simple(), 20);
  equal(numbered('a', 10), beginning('a', texts(got)), 'group a');
  equal(numbered('b', 10), beginning('b', texts(got)), 'group b');
  got.forEach(message => equal(text(message)[0], message.messageGroup, 'message group'));
}

async function wrongType(stage) {
  const producer = await stage.producer();
  await refused('a normal message to a FIFO topic', () => producer.send(stage.message('normal')));
  const deliveryTimestamp = new Date(Date.now() + 10_000);
  await refused('a delayed message to a FIFO topic', () => producer.send(stage.message('late', { deliveryTimestamp })));
  await stage.sendInGroup(producer, 'g', 1);
}

async function unknownTopic(stage) {
  const producer = await stage.producer({ topics: [] });
  const thrown = await refused('a send to a topic that does not exist', () => producer.send(stage.message('lost')));
  that(`${thrown.code} ${thrown.message}`.includes('40402'), `TOPIC_NOT_FOUND: ${thrown}`);
  await refused('a producer for a topic that does not exist', () => stage.producer());
  await refused('a consumer of a topic that does not exist', () => stage.simple());
}

module.exports = {
  send, 'send-sizes': sizes, 'send-concurrent': concurrent, 'send-fifo': fifo, 'send-wrong-type': wrongType,
  'unknown-topic': unknownTopic,
};
