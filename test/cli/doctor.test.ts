import { spawnSync } from 'node:child_process';
import { chmodSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { runProgram } from '../../lib/cli/program.js';

interface Report {
  ok: boolean;
  machine: { node: string; cuda: { available: boolean; problem: string } };
  findings: { name: string; state: string; text: string; mend?: string }[];
}

/** Runs `panns doctor ...` in this process. */
async function doctor(...argv: string[]) {
  let out = '';
  const code = await runProgram(['doctor', ...argv], {
    print: (line) => {
      out += `${line}\n`;
    },
    messages: { write: () => true },
    signal: new AbortController().signal,
  });
  return { code, out };
}

t.test('a machine on which it works', async (t) => {
  const { code, out } = await doctor('--json');
  const { ok, machine, findings } = JSON.parse(out) as Report;
  t.equal(code, 0);
  t.equal(ok, true);
  t.equal(machine.node, process.versions.node);
  const named = (name: string) => findings.find((one) => one.name.trim() === name);
  t.match(named('CPU trial'), { state: 'ok' });
  t.match(named('CUDA'), { state: machine.cuda.available ? 'ok' : 'note' });
  t.match(named('panns_cuda.so'), { state: /ok|note/ });
  t.equal(named('CUDA trial')?.state, machine.cuda.available ? 'ok' : undefined);

  const text = await doctor();
  t.equal(text.code, 0);
  t.match(text.out, /^ {2}CPU trial +a small network computes$/m);
  t.match(text.out, /\nIt works\.\n$/);
});

t.test('a GPU that is asked for and missing is a fault', async (t) => {
  const { code, out } = await doctor('--cuda', '--json');
  const { machine, findings } = JSON.parse(out) as Report;
  if (machine.cuda.available) {
    t.equal(code, 0);
    return;
  }
  t.equal(code, 1);
  const found = findings.find(({ name }) => name === 'CUDA');
  t.match(found, { state: 'fault', text: new RegExp(`\\(${machine.cuda.problem}\\)$`) });
  t.ok(found?.mend, 'says what mends it');
  const text = (await doctor('--cuda')).out;
  t.match(text, /^! CUDA /m);
  t.match(text, /^ +to mend it: /m);
  t.match(text, /\n1 fault\.\n$/);
});

t.test('a cache that cannot be written to', async (t) => {
  const root = process.getuid?.() === 0 && 'root may write everywhere';
  const folder = t.testdir({ closed: {} });
  const before = process.env.PANNS_CACHE;
  t.teardown(() => {
    if (before === undefined) delete process.env.PANNS_CACHE;
    else process.env.PANNS_CACHE = before;
  });
  const cache = async () => {
    const { findings } = JSON.parse((await doctor('--json')).out) as Report;
    return findings.find(({ name }) => name === 'cache access');
  };
  process.env.PANNS_CACHE = join(folder, 'new', 'deep');
  t.match(await cache(), { state: 'ok', text: 'can be made' });
  process.env.PANNS_CACHE = folder;
  t.match(await cache(), { state: 'ok', text: 'can be written to' });
  await t.test('closed to us', { skip: root }, async (t) => {
    chmodSync(join(folder, 'closed'), 0o555);
    process.env.PANNS_CACHE = join(folder, 'closed');
    t.match(await cache(), { state: 'note', mend: /PANNS_CACHE/ });
    chmodSync(join(folder, 'closed'), 0o755);
  });
});

t.test('a binary that does not load is told, with what mends it', async (t) => {
  const script = `
    import { runProgram } from ${JSON.stringify(new URL('../../lib/cli/program.ts', import.meta.url))};
    process.exitCode = await runProgram(['doctor'], {
      print: console.log, messages: process.stderr, signal: new AbortController().signal });`;
  const child = spawnSync(
    process.execPath,
    [...process.execArgv, '--input-type=module', '-e', script],
    { encoding: 'utf8', env: { ...process.env, PANNS_BINDING: '/no/such.node' } },
  );
  t.equal(child.status, 1, child.stderr);
  t.match(child.stdout, /^! addon +ERR_PANNS_NATIVE_MISSING: .*\/no\/such\.node/m);
});
