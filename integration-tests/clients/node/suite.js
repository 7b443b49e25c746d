// Runs the official Node 5.x client through its paces against whatever serves at the given endpoints.
'use strict';

const { parseArgs } = require('node:util');
const { Stage } = require('./stage');

// The longest waits come first, so that the short cases run beside them.
const cases = {
  ...require('./time_cases'), ...require('./simple_cases'), ...require('./push_cases'), ...require('./send_cases'),
};

async function main() {
  const { values: flags } = parseArgs({
    options: {
      endpoints: { type: 'string' }, run: { type: 'string' }, only: { type: 'string' },
      jobs: { type: 'string', default: '16' }, tls: { type: 'boolean' }, list: { type: 'boolean' },
    },
  });
  if (flags.list) {
    console.log(Object.keys(cases).join('\n'));
    return true;
  }
  const only = flags.only?.split(',') ?? Object.keys(cases);
  const unknown = only.filter(name => !cases[name]);
  if (unknown.length || !flags.endpoints || !flags.run) {
    throw new Error(`--endpoints and --run are needed, unknown cases: ${unknown}`);
  }
  const waiting = Object.keys(cases).filter(name => only.includes(name));
  let failed = 0;
  const work = async () => {
    while (waiting.length) {
      failed += await attempt(waiting.shift(), flags) ? 0 : 1;
    }
  };
  await Promise.all(Array.from({ length: Number(flags.jobs) }, work));
  console.log(`${only.length - failed} passed, ${failed} failed`);
  return failed === 0;
}

// Runs a case and prints how it ended, on one line.
async function attempt(name, flags) {
  const started = Date.now();
  const stage = new Stage(name, flags);
  let problem;
  try {
    await cases[name](stage);
  } catch (thrown) {
    const where = thrown.stack?.match(/\/(\w+_cases\.js:\d+)/)?.[1];
    problem = `${thrown.message} (${where})`.replaceAll('\n', ' ');
  }
  await stage.close();
  const seconds = ((Date.now() - started) / 1000).toFixed(1);
  console.log(problem ? `FAIL ${name}: ${problem}, after ${seconds}s` : `PASS ${name} ${seconds}s`);
  return !problem;
}

process.on('unhandledRejection', thrown => console.log(`unhandled: ${thrown}`));
main().then(well => process.exit(well ? 0 : 1), error => {
  console.error(error.message);
  process.exit(2);
});
