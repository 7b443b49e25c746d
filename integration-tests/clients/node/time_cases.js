// Messages that are not there yet, and perhaps never will be: delays and transactions.
'use strict';

const { TransactionResolution } = require('rocketmq-client-nodejs/proto/apache/rocketmq/v2/definition_pb');
const { equal, eventually, nothingMore, take, text, texts, that } = require('./stage');

// The server asks about open transactions every half minute, those that are some seconds old.
const CHECKED = 90_000;

async function delay(stage) {
  const { received } = await stage.push();
  const producer = await stage.producer();
  const due = Date.now() + 6000;
  await producer.send(stage.message('late', { deliveryTimestamp: new Date(due) }));
  await producer.send(stage.message('past', { deliveryTimestamp: new Date(due - 60_000) }));
  await eventually('one whose time has passed', () => received.length === 1);
  equal(['past'], texts(received), 'received before');
  await eventually('the late one', () => received.length === 2);
  const after = Date.now() - due;
  // The stock server counts in whole seconds.
  that(after > -1000 && after < 5000, `it came ${after} ms after its time`);
}

async function recall(stage) {
  const producer = await stage.producer();
  const deliveryTimestamp = new Date(Date.now() + 8000);
  const receipt = await producer.send(stage.message('recalled', { deliveryTimestamp }));
  await producer.send(stage.message('kept', { deliveryTimestamp }));
  await producer.recallMessage(stage.topic, receipt.recallHandle);
  const consumer = await stage.simple();
  equal(['kept'], texts(await take(consumer, 1)), 'received');
  await nothingMore(consumer);
}

// Commits "yes" and rolls others back; what it was asked about is kept.
function transactional(stage, asked = new Set()) {
  const check = async message => {
    asked.add(text(message));
    return text(message) === 'yes' ? TransactionResolution.COMMIT : TransactionResolution.ROLLBACK;
  };
  return stage.producer({ checker: { check } });
}

async function sendIn(stage, producer, body) {
  const transaction = producer.beginTransaction();
  await producer.send(stage.message(body), transaction);
  return transaction;
}

async function commit(stage) {
  const producer = await transactional(stage);
  const consumer = await stage.simple();
  const transaction = await sendIn(stage, producer, 'm0');
  await nothingMore(consumer);
  await transaction.commit();
  equal(['m0'], texts(await take(consumer, 1)), 'received');
}

async function rollback(stage) {
  const producer = await transactional(stage);
  const consumer = await stage.simple();
  await (await sendIn(stage, producer, 'never')).rollback();
  await (await sendIn(stage, producer, 'committed')).commit();
  equal(['committed'], texts(await take(consumer, 1)), 'received');
  await nothingMore(consumer);
}

async function check(stage) {
  const asked = new Set();
  const producer = await transactional(stage, asked);
  await sendIn(stage, producer, 'yes');
  await sendIn(stage, producer, 'no');
  await eventually('the producer is asked about both', () => asked.size === 2, CHECKED);
  const consumer = await stage.simple();
  equal(['yes'], texts(await take(consumer, 1)), 'received');
  await nothingMore(consumer);
}

module.exports = {
  'transaction-check': check, delay, recall, 'transaction-commit': commit, 'transaction-rollback': rollback,
};
