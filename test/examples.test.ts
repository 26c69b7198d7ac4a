import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { Agent, type IncomingMessage, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { type Test, test } from 'tap';
import { encodeWav16 } from '../lib/audio/wav.js';
import { generateScenes } from '../lib/demo/scenes.js';
import {
  AudioTagger,
  createModel,
  EventDetector,
  embed,
  loadAudio,
  loadModel,
  readSafetensors,
} from '../lib/index.js';
import { packageRoot } from '../lib/native.js';
import { sharedFile } from './helpers/shared.js';

const root = packageRoot();
const sampleRate = 32000;
const published = sharedFile('data', 'efficientat_mn04_as');
const folder = await mkdtemp(join(tmpdir(), 'panns-examples-'));
const place = (...path: string[]) => join(folder, ...path);
const model = place('model.safetensors');
const recording = place('recording.wav');
const notAudio = place('not-audio.wav');

/** What an example gives and how it ends; as it runs, what it has printed so far. */
interface Run {
  readonly child: ChildProcess;
  readonly ended: Promise<{ code: number | null; out: string; err: string }>;
  /** Resolves with all output once it matches; rejects where the example ends before. */
  printed(pattern: RegExp): Promise<string>;
}

function start(example: string, args: readonly string[]): Run {
  // Without the test runner's own options: they would double the time to start.
  const own = { NODE_OPTIONS: '', PANNS_CACHE: place('cache'), PANNS_MIRROR: published.path };
  const env = { ...process.env, ...own };
  const file = join(root, 'examples', `${example}.mjs`);
  const child = spawn(process.execPath, [file, ...args], { cwd: folder, env });
  // Who has ended reads no more.
  child.stdin.on('error', () => undefined);
  let out = '';
  child.stdout.setEncoding('utf8').on('data', (piece: string) => {
    out += piece;
  });
  const ended = (async () => {
    const [[code], err] = await Promise.all([once(child, 'close'), text(child.stderr)]);
    return { code: code as number | null, out, err };
  })();
  const printed = async (pattern: RegExp): Promise<string> => {
    while (!pattern.test(out)) {
      const next = once(child.stdout, 'data');
      const end = await Promise.race([next.then(() => undefined), ended]);
      if (end !== undefined && !pattern.test(out)) {
        throw new Error(`${example} ended with ${end.code} before ${pattern}: ${out}${end.err}`);
      }
    }
    return out;
  };
  return { child, ended, printed };
}

async function run(example: string, ...args: string[]): Promise<string> {
  const { child, ended } = start(example, args);
  child.stdin?.end();
  const { code, out, err } = await ended;
  if (code !== 0) throw new Error(`${example} ended with ${code}: ${out}${err}`);
  return out;
}

/** An example that is given what cannot do: its exit code, and the code of the error it tells of. */
async function fails(t: Test, example: string, args: string[], code: number, error: RegExp) {
  const { child, ended } = start(example, args);
  child.stdin?.end();
  const end = await ended;
  t.equal(end.code, code, `${example} ${args.join(' ')}`);
  t.match(end.err, error);
  t.notMatch(end.err, /\n\s+at /, 'no stack for what the user can mend');
}

test('sounds and a model for the examples', async () => {
  const classes = ['bark', 'siren'];
  const { clips } = generateScenes({ count: 24, seed: 1, sampleRate, seconds: 1, classes });
  for (const name of classes) await mkdir(place('sounds', name), { recursive: true });
  for (const [i, { samples, labels }] of clips.entries()) {
    const [label = 0, more] = labels;
    if (more !== undefined) continue;
    await writeFile(
      place('sounds', classes[label] ?? '', `${i}.wav`),
      encodeWav16(samples, sampleRate),
    );
  }
  const [scene] = generateScenes({ count: 1, seed: 2, sampleRate, seconds: 5, classes }).clips;
  await writeFile(recording, encodeWav16(scene?.samples ?? new Float32Array(1), sampleRate));
  await writeFile(notAudio, 'these are words\n'.repeat(100));
  await mkdir(place('nothing'));
  // Random weights of Cnn6 tell sounds apart a little; those of mn04 give every sound the same scores.
  using random = await createModel('Cnn6', { classes: ['dog', 'rain', 'wind'], seed: 3 });
  await random.save(model);
});

test('every example is described, and tested here', async (t) => {
  const files = (await readdir(join(root, 'examples'))).filter((name) => name.endsWith('.mjs'));
  const page = await readFile(join(root, 'examples', 'README.md'), 'utf8');
  const rows = [...page.matchAll(/^\| \[([\w-]+\.mjs)\]/gm)].map(([, name]) => name);
  t.same(rows.sort(), files.sort());
  const own = await readFile(join(root, 'test', 'examples.test.ts'), 'utf8');
  for (const file of files) t.match(own, `test('${file} `);
});

test('the types of the examples hold', async (t) => {
  const compiler = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
  const child = spawn(process.execPath, [compiler, '-p', join(root, 'examples')]);
  const [found] = await Promise.all([text(child.stdout), once(child, 'close')]);
  t.equal(found, '');
  t.equal(child.exitCode, 0);
});

test('tag.mjs prints the labels of a recording', async (t) => {
  const lines = (await run('tag', recording, model)).trim().split('\n');
  using tagger = await AudioTagger.load(model);
  const { labels } = await tagger.tag(recording);
  t.equal(lines[0], `${recording}: 5.0 s, windows: 1`);
  const printed = lines.slice(2).map((line) => line.split(/\s+/));
  const expected = labels.map(({ label, score }) => [score.toFixed(3), label]);
  t.same(
    printed.map((words) => [words[0], words.at(-1)]),
    expected,
  );
  await fails(t, 'tag', [notAudio, model], 1, /^ERR_PANNS_AUDIO_FORMAT: .*not-audio\.wav/);
  await fails(t, 'tag', [place('absent.wav'), model], 1, /^ERR_PANNS_AUDIO_NOT_FOUND/);
  await fails(t, 'tag', [], 2, /^usage: /);
});

test('tag.mjs fetches published weights', { skip: published.skip }, async (t) => {
  t.match(
    await run('tag', place('sounds', 'siren', '0.wav')),
    /^0\.\d{3} [█·]{20} {2}0\.\d{3} \w/m,
  );
});

/** The recording as raw bytes, and what the detector finds in it in the window of the example. */
async function listenTo() {
  const { samples } = await loadAudio(recording, { sampleRate });
  using detector = await EventDetector.load(model, { windowSeconds: 1, hopSeconds: 0.25 });
  const { framewise } = await detector.detect(samples, { framewise: true });
  // Untrained scores hardly move: the widest gap among the middle ones of a class parts events from
  // pauses, whatever rounding does.
  const all = framewise?.data.filter((_, i) => i % detector.labels.length === 0).sort() ?? [];
  const middle = [...all.slice(Math.floor(all.length / 4), Math.ceil((3 * all.length) / 4))];
  const gaps = middle.slice(1).map((high, i) => ({ low: middle[i] ?? 0, high }));
  const widest = gaps.reduce((a, b) => (b.high - b.low > a.high - a.low ? b : a));
  const threshold = (widest.low + widest.high) / 2;
  const { events, seconds } = await detector.detect(samples, { threshold });
  const over = events.filter(({ offset }) => offset < seconds).length;
  const lines = events.map(({ onset, offset, label, score }) => {
    return `${onset.toFixed(2)} ${offset.toFixed(2)} ${score.toFixed(3)} ${label}`;
  });
  const s16le = Buffer.alloc(2 * samples.length);
  const f32le = Buffer.alloc(4 * samples.length);
  for (const [i, sample] of samples.entries()) {
    s16le.writeInt16LE(Math.round(32768 * sample), 2 * i);
    f32le.writeFloatLE(sample, 4 * i);
  }
  return { lines: lines.sort(), over, threshold: String(threshold), s16le, f32le };
}

let known: ReturnType<typeof listenTo> | undefined;
const heard = () => (known ??= listenTo());

test('stream.mjs prints events of raw samples as they come', async (t) => {
  const { lines, over, threshold, ...bytes } = await heard();
  t.ok(over > 0, 'there is something to hear that ends');
  const options = ['--model', model, '--threshold', threshold];
  for (const format of ['s16le', 'f32le'] as const) {
    const { child, ended } = start('stream', [...options, '--format', format]);
    // Pieces that end inside a sample.
    for (let at = 0; at < bytes[format].length; at += 30_001) {
      child.stdin?.write(bytes[format].subarray(at, at + 30_001));
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    child.stdin?.end();
    const { code, out, err } = await ended;
    t.same([code, err, out.trim().split('\n').sort()], [0, '', lines], format);
  }
});

test('stream.mjs ends at SIGINT, also while it waits for sound', async (t) => {
  const { threshold, s16le } = await heard();
  const live = start('stream', ['--model', model, '--threshold', threshold]);
  // Twice, so that what is heard at the end is over once it begins anew.
  live.child.stdin?.write(Buffer.concat([s16le, s16le]));
  await live.printed(/\d \w+\n/);
  live.child.kill('SIGINT');
  const { code, err } = await live.ended;
  t.same([code, err], [0, 'stopped\n']);
});

test('stream.mjs says what is wrong with its input', async (t) => {
  await fails(t, 'stream', ['--model', model], 1, /^ERR_PANNS_AUDIO_EMPTY/);
  await fails(t, 'stream', ['--model', model, '--format', 'mp3'], 2, /^usage: .*s16le\|f32le/);
});

test('train-folder.mjs stops at SIGINT and goes on to the same weights', async (t) => {
  const whole = ['--model', 'mn04', '--seconds', '1', '--epochs', '5'];
  t.match(
    await run('train-folder', 'sounds', 'whole', ...whole),
    /accuracy [01]\.\d{3}\nwrote whole/,
  );
  const part = start('train-folder', ['sounds', 'part', ...whole]);
  // At once: of few steps the last must not be done when the signal arrives.
  await part.printed(/^step 1\//m);
  part.child.kill('SIGINT');
  const { code, out } = await part.ended;
  t.equal(code, 130);
  t.match(out, /^stopped; --resume goes on from part\/checkpoints\/step-\d+\.safetensors$/m);
  const before = Number(/step-(\d+)\.safetensors$/m.exec(out)?.[1]);
  const rest = await run('train-folder', 'sounds', 'part', '--resume');
  t.match(rest, new RegExp(`^step ${before + 1}/`), 'the next step comes first');
  const files = ['whole', 'part'].map((name) => readFile(place(name, 'model.safetensors')));
  const [one, other] = await Promise.all(files);
  t.ok(one?.equals(other ?? Buffer.alloc(0)), 'bit for bit');
});

test('train-folder.mjs says what it cannot train on', async (t) => {
  await fails(t, 'train-folder', ['nothing', 'run'], 1, /^ERR_PANNS_DATA: nothing: /);
  await fails(t, 'train-folder', ['sounds', 'run', '--resume'], 1, /^ERR_PANNS_CHECKPOINT/);
  await fails(t, 'train-folder', ['sounds', 'whole'], 1, /^ERR_PANNS_OPTION: .*another training/);
});

test('fine-tune.mjs begins with a file of weights', async (t) => {
  using base = await createModel('mn04', { classes: 5, seed: 4 });
  await base.save(place('base.pt'));
  const out = await run(
    'fine-tune',
    'sounds',
    'own.safetensors',
    '--from',
    'base.pt',
    '--seconds',
    '1',
  );
  t.match(out, /^classifier: step 40, .*\neverything: step 2, /m, 'the classifier comes first');
  using tuned = await loadModel(place('own.safetensors'));
  t.same(tuned.classes, ['bark', 'siren']);
  const [first, then] = await Promise.all(
    [base, tuned].map((from) => from.getParameter('features.0.0.weight')),
  );
  t.notSame(first, then, 'the second stage trains everything');
  await fails(t, 'fine-tune', ['sounds', 'x.pt', '--from', notAudio], 1, /^ERR_PANNS_CHECKPOINT/);
});

test('fine-tune.mjs learns from published weights', { skip: published.skip }, async (t) => {
  const out = await run('fine-tune', 'sounds', 'tuned.safetensors', '--seconds', '1');
  t.match(out, /^everything: .* accuracy 100\.0 %\nwrote tuned/m);
  using tagger = await AudioTagger.load(place('tuned.safetensors'));
  const { labels } = await tagger.tag(place('sounds', 'bark', '2.wav'));
  t.equal(labels[0]?.label, 'bark');
});

test('embeddings.mjs finds the nearest windows', async (t) => {
  await writeFile(place('sounds', 'bark', 'damaged.wav'), 'RIFF and no more');
  const { child, ended } = start('embeddings', ['index', 'sounds', 'store.safetensors', model]);
  child.stdin?.end();
  const { code, out, err } = await ended;
  await rm(place('sounds', 'bark', 'damaged.wav'));
  t.equal(code, 0);
  t.match(err, /^passed over: ERR_PANNS_AUDIO_\w+: .*damaged\.wav.*\n$/);
  const { tensors } = await readSafetensors(place('store.safetensors'));
  const count = tensors.get('embedding')?.shape[0];
  t.match(out, new RegExp(`^wrote store\\.safetensors: windows: ${count}\n$`));

  const asked = place('sounds', 'siren', '0.wav');
  const found = await run('embeddings', 'query', asked, 'store.safetensors');
  using network = await loadModel(model);
  const { data: own } = await embed(network, asked, { windowSeconds: 2 });
  const norm = (row: Float32Array) => Math.sqrt(row.reduce((sum, x) => sum + x * x, 0));
  const near: { path: string; cosine: number }[] = [];
  for (const name of await readdir(place('sounds'), { recursive: true })) {
    if (!name.endsWith('.wav')) continue;
    const path = place('sounds', name);
    const { data } = await embed(network, path, { windowSeconds: 2 });
    const product = data.reduce((sum, x, i) => sum + x * (own[i] ?? 0), 0);
    near.push({ path, cosine: product / (norm(own) * norm(data)) });
  }
  near.sort((a, b) => b.cosine - a.cosine);
  t.equal(near.length, count);
  t.equal(near[0]?.path, asked);
  const best = near.slice(0, 5).map(({ path, cosine }) => {
    return `  ${cosine.toFixed(4)} ${path} 0.0 to 1.0 s`;
  });
  t.equal(found, ['0.0 to 1.0 s is like', ...best, ''].join('\n'));
  const noStore = ['query', asked, model];
  await fails(t, 'embeddings', noStore, 1, /^ERR_PANNS_DATA: .*no store of embeddings/);
  await fails(t, 'embeddings', ['index', 'absent', 'x.safetensors', model], 1, /^ENOENT: /);
});

/** A POST whose body is sent by the caller; the answer may come before the body has ended. */
function post(port: number, headers: Record<string, string> = {}) {
  // A connection that is to be closed is cut once the answer is sent, whatever is still on the way.
  const agent = new Agent({ keepAlive: true });
  const sending = request({ port, agent, method: 'POST', headers });
  sending.on('error', () => undefined);
  const answered = once(sending, 'response').then(async ([response]) => {
    const { statusCode: status, headers: own } = response as IncomingMessage;
    const answer = JSON.parse(await text(response as IncomingMessage)) as Record<string, unknown>;
    agent.destroy();
    return { status, headers: own, answer };
  });
  return { sending, answered };
}

async function listen(...args: string[]): Promise<Run & { port: number }> {
  const server = start('server', ['--model', model, '--port', '0', ...args]);
  const port = Number(/port: (\d+)/.exec(await server.printed(/port: \d+/))?.[1]);
  return { ...server, port };
}

test('server.mjs answers audio by tags, and bad audio by what is wrong', async (t) => {
  const { port, child, ended } = await listen('--megabytes', '1');
  const send = (bytes: string | Uint8Array) => {
    const { sending, answered } = post(port);
    sending.end(bytes);
    return answered;
  };
  const { status, answer } = await send(await readFile(recording));
  using tagger = await AudioTagger.load(model);
  const { labels } = await tagger.tag(recording);
  t.same([status, answer], [200, { seconds: 5, labels }]);

  const text = await send('these are words');
  t.match(text, { status: 415, answer: { code: 'ERR_PANNS_AUDIO_FORMAT', error: /audio/ } });
  t.match(await send(''), { status: 422, answer: { code: 'ERR_PANNS_AUDIO_EMPTY' } });
  t.match(await send(Buffer.alloc(3e6)), { status: 413, answer: { error: /1000000 bytes/ } });
  const hours = encodeWav16(new Float32Array(310 * 1000), 1000);
  const long = await send(hours);
  t.match(long, { status: 413, answer: { code: 'ERR_PANNS_AUDIO_TOO_LONG' } });
  const got = await fetch(`http://localhost:${port}/`);
  t.same([got.status, got.headers.get('allow')], [405, 'POST']);

  // Who hangs up is no failure of the server's.
  const { sending, answered } = post(port, { 'content-length': '1000' });
  sending.write('RIFF');
  await new Promise((resolve) => setTimeout(resolve, 50));
  sending.destroy();
  await t.rejects(answered);
  t.equal((await send(await readFile(recording))).status, 200, 'it goes on');
  child.kill('SIGTERM');
  const end = await ended;
  t.same([end.code, end.err], [0, '']);
});

test('server.mjs refuses more than it can hold, and ends what is under way', async (t) => {
  const { port, child, ended } = await listen('--waiting', '1');
  const bytes = await readFile(recording);
  const slow = post(port);
  slow.sending.write(bytes.subarray(0, 1000));
  let refused = post(port);
  refused.sending.end(bytes);
  let { status, headers } = await refused.answered;
  // The first may come second.
  if (status === 200) {
    refused = post(port);
    refused.sending.end(bytes);
    ({ status, headers } = await refused.answered);
  }
  t.same([status, headers['retry-after']], [503, '1']);
  child.kill('SIGTERM');
  // Who comes before the signal is refused as above, who comes just then is cut off.
  let late = '';
  for (let i = 0; i < 1000 && late !== 'ECONNREFUSED'; i++) {
    const { sending, answered } = post(port);
    sending.end(bytes);
    late = await answered.then(
      () => '',
      ({ code }) => code,
    );
  }
  t.equal(late, 'ECONNREFUSED');
  slow.sending.end(bytes.subarray(1000));
  t.equal((await slow.answered).status, 200);
  t.equal((await ended).code, 0);
});

test('server.mjs says when there is no model', async (t) => {
  await fails(t, 'server', ['--model', place('absent.pt')], 1, /^ERR_PANNS_IO: .*absent\.pt/);
});

test('the folder of the examples is removed', async () => {
  await rm(folder, { recursive: true, force: true });
});
