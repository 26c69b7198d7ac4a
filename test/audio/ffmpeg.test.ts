import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { decodeWithFfmpeg } from '../../lib/audio/ffmpeg.js';

/** What ffmpeg 5.1 writes to stderr, %s for the file, and what is made of it. */
const words = [
  {
    of: 'a picture',
    says: "Stream map '0:a:0' matches no streams.\nTo ignore this, add a trailing '?' to the map.",
    code: 'ERR_PANNS_AUDIO_FORMAT',
    message: /there is no sound in this file: is it a picture/,
  },
  {
    of: 'text under the name of an MP3',
    says: '[mp3 @ 0x1] Failed to read frame size: Could not seek to 1028.\n%s: Invalid argument',
    code: 'ERR_PANNS_AUDIO_FORMAT',
    message: /no audio file.*notes\.mp3: Invalid argument/,
  },
  {
    of: 'bytes of no format',
    says: '%s: Invalid data found when processing input',
    code: 'ERR_PANNS_AUDIO_FORMAT',
    message: /no audio file.*Invalid data found/,
  },
  {
    of: 'a machine without memory',
    says: '%s: Cannot allocate memory',
    code: 'ERR_PANNS_AUDIO_FFMPEG',
    message: /status 1: .*Cannot allocate memory/,
  },
];

const skip = process.platform === 'win32' && 'programs here are shell scripts';
for (const { of, says, code, message } of words) {
  t.test(`what ffmpeg says of ${of}`, { skip }, async (t) => {
    const folder = t.testdir({ 'notes.mp3': 'text' });
    const program = join(folder, 'ffmpeg');
    const path = join(folder, 'notes.mp3');
    const said = says.replace('%s', `file:${path}`);
    writeFileSync(program, `#!/bin/sh\ncat >&2 <<'END'\n${said}\nEND\nexit 1\n`);
    chmodSync(program, 0o755);
    t.intercept(process, 'env', { value: { ...process.env, PANNS_FFMPEG: program } });
    await t.rejects(decodeWithFfmpeg(path, { sampleRate: 8000 }), { code, message, where: path });
  });
}

t.test('NaNs and infinities are read as 0 where that is asked for', { skip }, async (t) => {
  const decoded = Float32Array.of(0.5, Number.NaN, -0.25, Number.POSITIVE_INFINITY);
  const folder = t.testdir({ 'sound.m4a': 'media' });
  const program = join(folder, 'ffmpeg');
  writeFileSync(join(folder, 'decoded'), new Uint8Array(decoded.buffer));
  writeFileSync(program, `#!/bin/sh\ncat '${join(folder, 'decoded')}'\n`);
  chmodSync(program, 0o755);
  t.intercept(process, 'env', { value: { ...process.env, PANNS_FFMPEG: program } });
  const decode = (nanToZero: boolean) =>
    decodeWithFfmpeg(join(folder, 'sound.m4a'), { sampleRate: 8000, nanToZero });
  t.same((await decode(true)).samples, Float32Array.of(0.5, 0, -0.25, 0));
  const told = { code: 'ERR_PANNS_AUDIO_NAN', message: /one at 0\.000125 s is NaN.*nanToZero/ };
  await t.rejects(decode(false), told);
});
