// What one case stands on: its topic and group, and clients that are shut down when the case ends.
'use strict';

const { setTimeout: sleep } = require('node:timers/promises');
const { isDeepStrictEqual } = require('node:util');
const { ConsumeResult, FilterExpression, Producer, PushConsumer, SimpleConsumer } = require('rocketmq-client-nodejs');

// A first assignment or heartbeat that is missed comes many seconds later.
const PATIENCE = 60_000;
// The shortest a server allows; the longest a test wants to wait.
const INVISIBLE = 10_000;
// Its own logger is one file for all clients, which the first that shuts down closes.
const SILENT = { info() {}, warn() {}, error() {}, debug() {}, close() {} };

function that(holds, sentence) {
  if (!holds) {
    throw new Error(sentence);
  }
}

const brief = value => (JSON.stringify(value) ?? String(value)).slice(0, 300);

function equal(expected, actual, what) {
  that(isDeepStrictEqual(expected, actual), `${what}: expected ${brief(expected)}, got ${brief(actual)}`);
}

// Waits until the condition holds.
async function eventually(what, condition, patience = PATIENCE) {
  const end = Date.now() + patience;
  while (!await condition()) {
    that(Date.now() < end, `not within ${patience} ms: ${what}`);
    await sleep(20);
  }
}

// What was thrown; it must throw.
async function refused(what, action) {
  try {
    await action();
  } catch (thrown) {
    return thrown;
  }
  throw new Error(`${what}: was accepted`);
}

class Stage {
  constructor(name, flags) {
    this.topic = `T-${flags.run}-${name}`;
    this.group = `G-${flags.run}-${name}`;
    this.options = {
      endpoints: flags.endpoints, namespace: '', sslEnabled: !!flags.tls, requestTimeout: 10_000, logger: SILENT,
    };
    this.clients = [];
  }

  async start(client) {
    // Some of them never say that they cannot start.
    const started = await Promise.race([client.startup().then(() => true), sleep(30_000, false)]);
    that(started, 'a client that starts');
    this.clients.push(client);
    return client;
  }

  async stop(client) {
    this.clients = this.clients.filter(other => other !== client);
    await client.shutdown();
  }

  async close() {
    for (const client of this.clients.reverse()) {
      await Promise.race([client.shutdown().catch(() => {}), sleep(10_000)]);
    }
  }

  producer(more = {}) {
    return this.start(new Producer({ ...this.options, topics: [this.topic], ...more }));
  }

  message(body, more = {}) {
    return { topic: this.topic, body: Buffer.from(body), ...more };
  }

  // Sends prefix0, prefix1, …; what was sent.
  async send(producer, prefix, count) {
    const bodies = numbered(prefix, count);
    for (const body of bodies) {
      await producer.send(this.message(body));
    }
    return bodies;
  }

  async sendInGroup(producer, messageGroup, count) {
    for (const body of numbered(messageGroup, count)) {
      await producer.send(this.message(body, { messageGroup }));
    }
  }

  simple({ group = this.group, topic = this.topic, filter = FilterExpression.SUB_ALL } = {}) {
    const subscriptions = new Map([[topic, filter]]);
    return this.start(new SimpleConsumer({
      ...this.options, consumerGroup: group, subscriptions, awaitDuration: 5000,
    }));
  }

  // A listener that takes what the function takes and fails what it does not; with all that it was given.
  async push(takes = () => true) {
    const received = [];
    const consumer = await this.start(new PushConsumer({
      ...this.options,
      consumerGroup: this.group,
      subscriptions: new Map([[this.topic, FilterExpression.SUB_ALL]]),
      messageListener: {
        consume: async message => {
          received.push(message);
          return await takes(message) ? ConsumeResult.SUCCESS : ConsumeResult.FAILURE;
        },
      },
    }));
    return { consumer, received };
  }
}

// Receives until there are this many, and does this with each.
async function receive(consumer, count, invisible = INVISIBLE, then = async () => {}) {
  const received = [];
  const end = Date.now() + PATIENCE;
  while (received.length < count && Date.now() < end) {
    const some = await consumer.receive(Math.min(32, count - received.length), invisible);
    await Promise.all(some.map(then));
    received.push(...some);
  }
  that(received.length >= count, `${received.length} of ${count} messages came`);
  return received;
}

// Receives until there are this many, acknowledging each.
async function take(consumer, count) {
  return await receive(consumer, count, INVISIBLE, message => consumer.ack(message));
}

// Demands that the group gets nothing more now.
async function nothingMore(consumer) {
  equal([], texts(await consumer.receive(32, INVISIBLE)), 'received when all is done');
}

// Waits until all of these have come, and demands that none came twice.
async function onceAmong(sent, shares) {
  const total = () => texts(shares.flat());
  await eventually(`all ${sent.length} arrive`, () => total().length >= sent.length);
  equal([...sent].sort(), total().sort(), 'received by all');
}

const text = message => message.body.toString();
const texts = messages => messages.map(text);
const numbered = (prefix, count) => Array.from({ length: count }, (_, i) => `${prefix}${i}`);
const beginning = (prefix, bodies) => bodies.filter(body => body.startsWith(prefix));

module.exports = {
  INVISIBLE, Stage, beginning, equal, eventually, nothingMore, numbered, onceAmong, receive, refused, sleep, take, text,
  texts, that,
};
