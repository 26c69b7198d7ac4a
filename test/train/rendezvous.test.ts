import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { NativeGroup } from '../../lib/addon.js';
import { openProcessGroup } from '../../lib/train/distributed.js';
import { meetingPoint } from '../../lib/train/launcher.js';
import { meet } from '../../lib/train/rendezvous.js';

/** A port that nobody listens at. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

const address = '127.0.0.1';

/** Once somebody listens there, to whom we are a stranger that goes again. */
async function listening(port: number): Promise<void> {
  for (;;) {
    const socket = connect(port, address);
    const answered = await once(socket, 'connect').then(
      () => true,
      () => false,
    );
    socket.destroy();
    if (answered) return;
    await sleep(10);
  }
}

/** Processes of rendezvous_worker.ts, and what each printed. */
async function runWorkers(
  ranks: readonly string[],
  size: number,
  scenario = 'whole',
  seconds = 60,
) {
  const port = await freePort();
  const worker = join(import.meta.dirname, 'rendezvous_worker.ts');
  return Promise.all(
    ranks.map(async (rank) => {
      const env = {
        ...process.env,
        ...{ RANK: rank, WORLD_SIZE: String(size), LOCAL_RANK: rank },
        ...{ MASTER_ADDR: address, MASTER_PORT: String(port) },
      };
      const args = [...process.execArgv, worker, scenario, String(seconds)];
      const child = spawn(process.execPath, args, { env, stdio: ['ignore', 'pipe', 'inherit'] });
      let output = '';
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        output += text;
      });
      const [status] = await once(child, 'close');
      return { status, answer: output === '' ? undefined : JSON.parse(output) };
    }),
  );
}

t.test('three processes meet, agree and part', async (t) => {
  const ended = await runWorkers(['2', '0', '1'], 3);
  for (const { status, answer } of ended) {
    t.equal(status, 0);
    t.match(answer, { kind: 'torchrun', sums: [3, 3, 1.75], whole: true, first: [7, 0] });
    t.equal(answer.failed.code, 'ERR_PANNS_DATA');
    t.match(answer.failed.message, 'a clip is damaged');
  }
  t.match(ended[1]?.answer.failed.message, /^process 2: /, 'the others say whose it is');
});

t.test('a process that ends leaves nobody waiting', async (t) => {
  const [zero, one, two] = await runWorkers(['0', '1', '2'], 3, 'lost');
  t.equal(one?.status, 3);
  t.match(zero?.answer.error, { code: 'ERR_PANNS_PARALLEL', message: /process 1 has ended/ });
  t.match(two?.answer.error, { code: 'ERR_PANNS_PARALLEL', message: /process 0 has ended/ });
});

/** Meetings in this process, settled. */
async function meetAll(
  port: number,
  who: readonly { rank: number; size: number }[],
  timeoutSeconds = 20,
): Promise<PromiseSettledResult<NativeGroup>[]> {
  const all = who.map((one) => meet({ ...one, address, port, timeoutSeconds }));
  const settled = await Promise.allSettled(all);
  for (const one of settled) if (one.status === 'fulfilled') await one.value.leave();
  return settled;
}

function checkFailed(t: Test, settled: PromiseSettledResult<unknown> | undefined, message: RegExp) {
  t.equal(settled?.status, 'rejected');
  t.match((settled as PromiseRejectedResult).reason, { code: 'ERR_PANNS_PARALLEL', message });
}

t.test('a process alone', async (t) => {
  const group = await meet({
    rank: 0,
    size: 1,
    address,
    port: await freePort(),
    timeoutSeconds: 5,
  });
  t.same([...(await group.sum(Float64Array.of(4)))], [4]);
  await group.leave();
});

t.test('two that do not agree on how many they are', async (t) => {
  const who = [
    { rank: 0, size: 2 },
    { rank: 1, size: 3 },
  ];
  const settled = await meetAll(await freePort(), who);
  for (const one of settled)
    checkFailed(t, one, /process 1 was started as one of 3, process 0 of 2/);
});

t.test('two with one rank', async (t) => {
  const who = [0, 1, 1].map((rank) => ({ rank, size: 3 }));
  const [zero, ...ones] = await meetAll(await freePort(), who);
  checkFailed(t, zero, /two processes were started as number 1 of 3/);
  for (const one of ones) checkFailed(t, one, /two processes were started as number 1 of 3/);
});

t.test('a second process of rank 0, and any other program at the address', async (t) => {
  const port = await freePort();
  const first = meet({ rank: 0, size: 2, address, port, timeoutSeconds: 20 });
  await listening(port);
  const [second] = await meetAll(port, [{ rank: 0, size: 2 }]);
  checkFailed(t, second, /is in use: by a second process of rank 0/);
  const [one] = await meetAll(port, [{ rank: 1, size: 2 }]);
  t.equal(one?.status, 'fulfilled', 'the first goes on undisturbed');
  await (await first).leave();
});

t.test('strangers are let go', async (t) => {
  const port = await freePort();
  const first = meet({ rank: 0, size: 2, address, port, timeoutSeconds: 20 });
  await listening(port);
  const rubbish = [
    'GET / HTTP/1.1\r\nHost: x\r\n\r\n',
    Buffer.from([0x50, 0x4e, 0x4e, 0x31, 99, 1, 0, 0, 0, 0]),
    Buffer.from([0x50, 0x4e, 0x4e, 0x31, 0, 255, 255, 255, 255]),
    Buffer.concat([Buffer.from('PNN1\0\x02\0\0\0'), Buffer.from('{}')]),
    Buffer.concat([Buffer.from('PNN1\0\x04\0\0\0'), Buffer.from('null')]),
  ];
  const strangers = rubbish.map((bytes) =>
    connect(port, address)
      .on('error', () => {})
      .end(bytes),
  );
  const silent = connect(port, address);
  await Promise.all(strangers.map((socket) => once(socket.resume(), 'close')));
  const group = await meet({ rank: 1, size: 2, address, port, timeoutSeconds: 20 });
  const host = await first;
  const [there, here] = await Promise.all([group, host].map((one) => one.sum(Float64Array.of(2))));
  t.same([...(there ?? [])], [4]);
  t.same([...(here ?? [])], [4]);
  await Promise.all([group.leave(), host.leave()]);
  silent.destroy();
});

t.test('nobody comes, or something else listens', async (t) => {
  const port = await freePort();
  const [alone] = await meetAll(port, [{ rank: 0, size: 3 }], 1);
  checkFailed(t, alone, /after 1 s 1 of 3 processes had come/);
  const [lost] = await meetAll(port, [{ rank: 1, size: 3 }], 2);
  checkFailed(t, lost, /waited 2 s for process 0 at .*MASTER_PORT.*: .*ECONNREFUSED/);
  const other = createServer((socket) => socket.on('error', () => {}).end('220 smtp ready\r\n'));
  other.listen(0, address);
  await once(other, 'listening');
  const [foreign] = await meetAll((other.address() as AddressInfo).port, [{ rank: 1, size: 2 }], 2);
  checkFailed(t, foreign, /waited 2 s for process 0 .*: says what is not ours/);
  other.close();
});

t.test('a process that says nothing is waited for as long as was said', async (t) => {
  const port = await freePort();
  const [zero, one] = await Promise.all(
    [0, 1].map((rank) => meet({ rank, size: 2, address, port, timeoutSeconds: 3 })),
  );
  const waiting = async () => void (await zero?.sum(Float64Array.of(1)));
  await t.rejects(waiting, {
    code: 'ERR_PANNS_PARALLEL',
    message: /^process 0: process 1 has said nothing for 3 s/,
  });
  await Promise.all([zero?.leave(), one?.leave()]);
});

t.test('the meeting point', async (t) => {
  const given = { MASTER_ADDR: 'node0', MASTER_PORT: '29500' };
  t.same(meetingPoint(given), { address: 'node0', port: 29500 });
  const agent = { ...given, TORCHELASTIC_USE_AGENT_STORE: 'True' };
  t.same(meetingPoint(agent), { address: 'node0', port: 29501 }, "torchrun's agent has the port");
  t.same(meetingPoint({ ...agent, PANNS_MASTER_PORT: '4000' }), { address: 'node0', port: 4000 });
  const error = { code: 'ERR_PANNS_PARALLEL' };
  t.throws(() => meetingPoint({ MASTER_PORT: '29500' }), { ...error, message: /MASTER_ADDR/ });
  t.throws(() => meetingPoint({ ...given, MASTER_PORT: '0' }), { ...error, message: /got "0"/ });
  t.throws(() => meetingPoint({ ...agent, MASTER_PORT: '65535' }), error);
  t.throws(() => meetingPoint({ ...given, PANNS_MASTER_PORT: 'x' }), {
    ...error,
    message: /PANNS_MASTER_PORT/,
  });
});

t.test('models on the CPU need MPI', async (t) => {
  const before = { ...process.env };
  Object.assign(process.env, { RANK: '0', WORLD_SIZE: '2', LOCAL_RANK: '0' });
  t.teardown(() => {
    process.env = before;
  });
  await t.rejects(openProcessGroup(), {
    code: 'ERR_PANNS_UNSUPPORTED',
    message: /mpirun.*or train on GPUs/s,
  });
});
