import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import {
  AbortError,
  checkOptions,
  errorCodes,
  fromNative,
  isErrorCode,
  nearest,
  PannsError,
  throwIfAborted,
} from '../lib/errors.js';

t.test('PannsError carries what was given, and nothing else', async (t) => {
  const cause = new Error('inner');
  const error = new PannsError('ERR_PANNS_SHAPE', 'expected 128 channels, got 64', {
    cause,
    where: 'Cnn14/conv_block3.conv1',
    expected: 128,
    actual: 64,
  });
  t.ok(error instanceof Error);
  t.equal(error.name, 'PannsError');
  t.equal(error.code, 'ERR_PANNS_SHAPE');
  t.equal(error.message, 'Cnn14/conv_block3.conv1: expected 128 channels, got 64');
  t.equal(error.where, 'Cnn14/conv_block3.conv1');
  t.equal(error.expected, 128);
  t.equal(error.actual, 64);
  t.equal(error.cause, cause);
  t.match(String(error), /^PannsError: Cnn14/);

  const bare = new PannsError('ERR_PANNS_IO', 'disk full');
  t.equal(bare.message, 'disk full');
  for (const field of ['where', 'expected', 'actual', 'cause']) t.notOk(field in bare, field);
});

t.test('the place is not written twice', async (t) => {
  const error = new PannsError('ERR_PANNS_IO', 'a.wav: gone', { where: 'a.wav' });
  t.equal(error.message, 'a.wav: gone');
});

t.test('unknown options are errors that name the nearest known one', async (t) => {
  const known = ['batch', 'device', 'threads', 'sampleRate'];
  checkOptions(undefined, known, 'tag');
  checkOptions({}, known, 'tag');
  checkOptions({ batch: 1, sampleRate: 32000 }, known, 'tag');
  for (const [typo, meant] of [
    ['bacth', 'batch'],
    ['thread', 'threads'],
    ['samplerate', 'sampleRate'],
    ['devise', 'device'],
  ] as const) {
    t.throws(() => checkOptions({ batch: 1, [typo]: 1 }, known, 'tag'), {
      code: 'ERR_PANNS_OPTION',
      where: 'tag',
      actual: typo,
      message: `tag: unknown option "${typo}"; did you mean "${meant}"? (known: ${known.join(', ')})`,
    });
  }
  const elsewhere = { learningRate: 'optimizer.lr' };
  t.throws(() => checkOptions({ learningRate: 1 }, ['lrScale'], 'train', elsewhere), {
    message: 'train: unknown option "learningRate"; did you mean "optimizer.lr"? (known: lrScale)',
  });
  t.throws(() => checkOptions({ constructor: 1 }, ['lrScale'], 'train', elsewhere), {
    message: /did you mean "lrScale"/,
  });
  t.throws(() => checkOptions({ x: 1 }, [], 'close'), {
    code: 'ERR_PANNS_OPTION',
    message: 'close: unknown option "x" (there are none)',
  });
  for (const [wrong, name] of [
    [null, 'null'],
    [[1], 'array'],
    [4, 'number'],
    ['cpu', 'string'],
  ] as const) {
    t.throws(() => checkOptions(wrong, known, 'tag'), {
      code: 'ERR_PANNS_OPTION',
      message: `tag: expected an options object, got ${name}`,
    });
  }
});

t.test('nearest counts edits, swaps of neighbours included', async (t) => {
  t.equal(nearest('abdc', ['abcx', 'abcd', 'abzz']), 'abcd', 'a swap is one edit, not two');
  t.equal(nearest('kitten', ['sitting', 'mitten', 'kit']), 'mitten');
  t.equal(nearest('', ['abc', 'a']), 'a');
  t.equal(nearest('rate', ['start', 'sampleRate']), 'sampleRate', 'the end of a longer name');
  t.equal(nearest('cat', ['take', 'category']), 'category', 'the beginning of a longer name');
  t.equal(nearest('lr', ['lrScale', 'l']), 'l', 'two letters may be chance');
  t.equal(nearest('x', []), undefined);
});

t.test('native errors become PannsError', async (t) => {
  const native = Object.assign(new Error('conv1: expected 3, got 4'), {
    code: 'ERR_PANNS_SHAPE',
    where: 'conv1',
  });
  const error = fromNative(native, 'forward');
  t.ok(error instanceof PannsError);
  t.match(error, { code: 'ERR_PANNS_SHAPE', where: 'conv1', message: 'conv1: expected 3, got 4' });
  t.equal(error.cause, native);

  t.match(fromNative(Object.assign(new Error('no'), { code: 'ERR_PANNS_IO' }), 'pack'), {
    code: 'ERR_PANNS_IO',
    where: 'pack',
    message: 'pack: no',
  });
  const abort = fromNative(Object.assign(new Error('stopped'), { code: 'ABORT_ERR' }));
  t.ok(abort instanceof AbortError);
  t.equal(abort.message, 'stopped');
  for (const stranger of [
    new TypeError('bad_alloc'),
    Object.assign(new Error('bad_alloc'), { code: 'ERR_PANNS_NO_SUCH_CODE' }),
    Object.assign(new Error('bad_alloc'), { code: 'toString' }),
    'bad_alloc',
  ]) {
    const wrapped = fromNative(stranger);
    t.match(wrapped, { code: 'ERR_PANNS_INTERNAL', message: 'bad_alloc' });
    t.equal(wrapped.cause, stranger);
  }
  t.equal(fromNative(error), error, 'no second wrapping');
  t.equal(fromNative(abort), abort);
});

t.test('aborting', async (t) => {
  throwIfAborted(undefined);
  const controller = new AbortController();
  throwIfAborted(controller.signal);
  const reason = new Error('enough');
  controller.abort(reason);
  t.throws(() => throwIfAborted(controller.signal), { name: 'AbortError', code: 'ABORT_ERR' });
  try {
    throwIfAborted(controller.signal);
  } catch (error) {
    t.ok(error instanceof AbortError);
    t.equal((error as AbortError).cause, reason);
  }
});

t.test('every code that the sources name is documented', async (t) => {
  const root = join(import.meta.dirname, '..');
  const named = new Map<string, string>();
  for (const folder of ['lib', 'native']) {
    for (const name of readdirSync(join(root, folder), { recursive: true }) as string[]) {
      if (!/\.(ts|h|cpp|cu|cuh|inc)$/.test(name)) continue;
      const text = readFileSync(join(root, folder, name), 'utf8');
      for (const [, code = ''] of text.matchAll(/["'](ERR_PANNS_\w+)["']/g)) named.set(code, name);
    }
  }
  t.ok(named.size > 0, 'some codes are named');
  for (const [code, file] of named) t.ok(isErrorCode(code), `${code} (${file})`);
  for (const code of Object.keys(errorCodes)) t.match(code, /^ERR_PANNS_[A-Z_]+$/);
});
