import { spawn } from 'node:child_process';
import { accessSync, constants, type Stats, statSync } from 'node:fs';
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join, resolve } from 'node:path';
import { AbortError, checkOptions, PannsError, throwIfAborted } from '../errors.js';
import { ioError, systemCode } from '../io/failure.js';
import { NAN_REMEDY } from './decode.js';
import { findNotFinite, zeroNotFinite } from './finite.js';

/** Which part of the audio to decode, and how. */
export interface FfmpegOptions {
  /** Where to begin, in seconds; 0 by default. */
  start?: number | undefined;
  /** How much to decode, in seconds; to the end by default. Less comes where the audio ends before. */
  duration?: number | undefined;
  /** The rate of the result, in Hz. */
  sampleRate: number;
  /** The number of channels of the result: only 1, which ffmpeg mixes down from all. */
  channels?: 1 | undefined;
  /** Whether NaN and infinite samples become 0 instead of an error; false by default. */
  nanToZero?: boolean | undefined;
  /** More audio than this, in seconds, is an error; 6 hours by default. */
  maxSeconds?: number | undefined;
  /** Ends the ffmpeg process when it is aborted. */
  signal?: AbortSignal | undefined;
}

/** Mono audio: samples in about -1..1, and their rate in Hz. */
export interface FfmpegAudio {
  samples: Float32Array;
  sampleRate: number;
}

const OPTIONS = [
  ...([
    'start',
    'duration',
    'sampleRate',
    'channels',
    'nanToZero',
    'maxSeconds',
    'signal',
  ] as const),
];

/** As in native/audio/decode.h: a small file can unfold to days of silence. */
const MAX_SECONDS = 6 * 3600;

/** As there: longer than any recording, and stands for no limit at all. */
const MOST_SECONDS = 1e9;

/** ffmpeg's last words are few; a stream of warnings must not fill the memory. */
const STDERR_CHARACTERS = 8192;

/**
 * The path of the ffmpeg program, or undefined where there is none: `PANNS_FFMPEG` when it is set,
 * else the first `ffmpeg` in `PATH` that may be executed.
 */
export function findFfmpeg(): string | undefined {
  const chosen = process.env.PANNS_FFMPEG;
  if (chosen) return isProgram(chosen) ? resolve(chosen) : undefined;
  const name = process.platform === 'win32' ? 'ffmpeg.exe' : 'ffmpeg';
  return (process.env.PATH ?? '')
    .split(delimiter)
    .filter((folder) => folder !== '')
    .map((folder) => join(folder, name))
    .find(isProgram);
}

/**
 * Decodes the first audio stream of whatever ffmpeg reads (AAC, M4A, MP4, WMA, WebM, ...) to mono
 * samples at the rate asked for.
 *
 * `source` is a path or the bytes of a file. Bytes go through a temporary file of this user's,
 * because MP4 files may keep their index at the end, which a pipe cannot reach. Nothing goes
 * through a shell, and ffmpeg may open local files only.
 *
 * Rejects with ERR_PANNS_AUDIO_FFMPEG (no ffmpeg program, or it failed), ERR_PANNS_AUDIO_NOT_FOUND,
 * ERR_PANNS_AUDIO_FORMAT (not media, or without audio), ERR_PANNS_AUDIO_EMPTY, ERR_PANNS_AUDIO_RANGE,
 * ERR_PANNS_AUDIO_TOO_LONG, ERR_PANNS_AUDIO_NAN, ERR_PANNS_OPTION, ERR_PANNS_IO, and AbortError.
 */
export async function decodeWithFfmpeg(
  source: string | Uint8Array,
  options: FfmpegOptions,
): Promise<FfmpegAudio> {
  checkOptions(options, OPTIONS, 'decodeWithFfmpeg');
  const { start = 0, duration, sampleRate, nanToZero = false } = options;
  const { maxSeconds = MAX_SECONDS, signal } = options;
  checkNumbers(options);
  throwIfAborted(signal);
  const program = findFfmpeg();
  if (program === undefined) throw missing();
  const where = typeof source === 'string' ? source : 'audio in memory';
  return withFile(source, async (path) => {
    const whole = duration === undefined || duration > maxSeconds;
    // One second more than the limit shows that there is more.
    const seconds = whole ? Math.min(maxSeconds, MOST_SECONDS) + 1 : duration;
    const output = await run(program, path, { start, seconds, sampleRate, signal, where });
    const samples = await toFloats(output);
    if (samples.length === 0) throw nothing(where, start);
    if (samples.length > maxSeconds * sampleRate) {
      const message =
        `expected at most ${maxSeconds} s of audio, there is more; read it in ranges ` +
        '(start, duration) or raise maxSeconds';
      throw new PannsError('ERR_PANNS_AUDIO_TOO_LONG', message, { where, expected: maxSeconds });
    }
    if (nanToZero) await zeroNotFinite(samples);
    else await checkFinite(samples, sampleRate, start, where);
    return { samples, sampleRate };
  });
}

function checkNumbers(options: FfmpegOptions): void {
  const { start, duration, sampleRate, channels, maxSeconds } = options;
  const fail = (name: string, expected: string, actual: unknown): never => {
    throw new PannsError('ERR_PANNS_OPTION', `expected ${name} to be ${expected}, got ${actual}`, {
      where: 'decodeWithFfmpeg',
      expected,
      actual,
    });
  };
  const range = (name: string, expected: string, actual: unknown): never => {
    throw new PannsError(
      'ERR_PANNS_AUDIO_RANGE',
      `expected a ${name} ${expected}, got ${actual} s`,
      {
        where: 'decodeWithFfmpeg',
        expected,
        actual,
      },
    );
  };
  if (!Number.isInteger(sampleRate) || sampleRate < 1) {
    fail('sampleRate', 'a whole number of Hz', sampleRate);
  }
  if (channels !== undefined && channels !== 1) fail('channels', '1', channels);
  if (maxSeconds !== undefined && !(maxSeconds > 0)) {
    fail('maxSeconds', 'a number above 0', maxSeconds);
  }
  if (start !== undefined && !(start >= 0 && Number.isFinite(start)))
    range('start', 'of 0 s or later', start);
  if (duration !== undefined && !(duration > 0 && Number.isFinite(duration))) {
    range('duration', 'above 0 s', duration);
  }
}

interface Job {
  start: number;
  seconds: number;
  sampleRate: number;
  signal: AbortSignal | undefined;
  where: string;
}

/** Runs ffmpeg; resolves to the pieces of its output. */
async function run(program: string, path: string, job: Job): Promise<Buffer[]> {
  const { start, seconds, sampleRate, signal, where } = job;
  const args = [
    ...['-hide_banner', '-nostdin', '-loglevel', 'error'],
    // Playlists name other files and addresses; only plain local files may be opened.
    ...['-protocol_whitelist', 'file'],
    ...['-ss', decimal(start), '-t', decimal(seconds)],
    ...['-i', `file:${resolve(path)}`],
    ...['-map', '0:a:0', '-ac', '1', '-ar', String(sampleRate)],
    ...['-f', 'f32le', '-c:a', 'pcm_f32le', 'pipe:1'],
  ];
  throwIfAborted(signal);
  return new Promise((settle, reject) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], windowsHide: true });
    const output: Buffer[] = [];
    let errors = '';
    const abort = () => child.kill('SIGKILL');
    signal?.addEventListener('abort', abort, { once: true });
    child.stdout.on('data', (piece: Buffer) => output.push(piece));
    child.stderr.setEncoding('utf8');
    child.stderr.on('data', (piece: string) => {
      errors = (errors + piece).slice(-STDERR_CHARACTERS);
    });
    child.on('error', (cause) => {
      signal?.removeEventListener('abort', abort);
      reject(failure(`${program} did not start: ${cause.message}`, where, cause));
    });
    child.on('close', (status, killer) => {
      signal?.removeEventListener('abort', abort);
      if (signal?.aborted) reject(new AbortError(undefined, { cause: signal.reason }));
      else if (status === 0) settle(output);
      else {
        // Of bytes in memory the path is that of a passing file, which nobody knows.
        const said = errors.replaceAll(`file:${resolve(path)}`, where);
        reject(explain(said, status === null ? `signal ${killer}` : `status ${status}`, where));
      }
    });
  });
}

/** Plain decimal digits: ffmpeg does not read an exponent. */
function decimal(seconds: number): string {
  return seconds.toFixed(6);
}

/** Bytes that are copied without a pause: less than a millisecond. */
const COPIED_AT_ONCE = 1 << 20;

async function toFloats(pieces: readonly Buffer[]): Promise<Float32Array> {
  const length = pieces.reduce((sum, piece) => sum + piece.length, 0);
  const bytes = new Uint8Array(length - (length % 4));
  let at = 0;
  let pause = COPIED_AT_ONCE;
  for (const piece of pieces) {
    if (at >= pause) {
      await new Promise(setImmediate);
      pause = at + COPIED_AT_ONCE;
    }
    const part = piece.subarray(0, bytes.length - at);
    bytes.set(part, at);
    at += part.length;
  }
  return new Float32Array(bytes.buffer);
}

async function checkFinite(
  samples: Float32Array,
  sampleRate: number,
  start: number,
  where: string,
): Promise<void> {
  const index = await findNotFinite(samples);
  if (index < 0) return;
  const message = `expected finite samples, the one at ${start + index / sampleRate} s is ${samples[index]}; ${NAN_REMEDY}`;
  throw new PannsError('ERR_PANNS_AUDIO_NAN', message, { where });
}

/** What ffmpeg's last line says, under the code it belongs to. */
function explain(errors: string, status: string, where: string): PannsError {
  const last = errors.trimEnd().split('\n').at(-1)?.trim() || 'it gave no reason';
  const silent = /matches no streams|does not contain any stream/.test(errors);
  // Our own arguments are valid: it is the file that is not, where a name like .mp3 chose the reader.
  const unknown = /Invalid data found|: Invalid argument$/m.test(errors);
  if (!silent && !unknown) return failure(`ffmpeg ended with ${status}: ${last}`, where);
  const message = silent
    ? 'there is no sound in this file: is it a picture, or a video without sound?'
    : `this is no audio file, or a damaged one; ffmpeg says: ${last}`;
  return new PannsError('ERR_PANNS_AUDIO_FORMAT', message, { where });
}

function nothing(where: string, start: number): PannsError {
  return start > 0
    ? new PannsError('ERR_PANNS_AUDIO_RANGE', `the audio ends before ${start} s`, { where })
    : new PannsError('ERR_PANNS_AUDIO_EMPTY', 'expected audio, got no samples', { where });
}

function failure(message: string, where: string, cause?: unknown): PannsError {
  return new PannsError('ERR_PANNS_AUDIO_FFMPEG', message, {
    where,
    ...(cause === undefined ? {} : { cause }),
  });
}

function missing(): PannsError {
  const chosen = process.env.PANNS_FFMPEG;
  const what = chosen
    ? `PANNS_FFMPEG names ${chosen}, which is not a program`
    : 'this format is read through the ffmpeg program, and there is none in PATH';
  const message =
    `${what}; install it (Debian, Ubuntu: apt-get install ffmpeg; Fedora: dnf install ffmpeg-free; ` +
    'macOS: brew install ffmpeg) or name it in PANNS_FFMPEG';
  return new PannsError('ERR_PANNS_AUDIO_FFMPEG', message);
}

/** Calls `use` with the path of a file that holds the source. */
async function withFile<T>(
  source: string | Uint8Array,
  use: (path: string) => Promise<T>,
): Promise<T> {
  if (typeof source === 'string') {
    await checkFile(source);
    return use(source);
  }
  if (source.length === 0) throw nothing('audio in memory', 0);
  let folder: string | undefined;
  try {
    try {
      folder = await mkdtemp(join(tmpdir(), 'panns-'));
      await writeFile(join(folder, 'audio'), source, { mode: 0o600 });
    } catch (error) {
      throw ioError(error, 'write', folder ?? tmpdir());
    }
    return await use(join(folder, 'audio'));
  } finally {
    if (folder !== undefined) await rm(folder, { recursive: true, force: true });
  }
}

async function checkFile(path: string): Promise<void> {
  const found = path.includes('\0') ? undefined : await fileAt(path);
  if (found === undefined) {
    throw new PannsError('ERR_PANNS_AUDIO_NOT_FOUND', 'no such audio file', { where: path });
  }
  if (!found.isFile()) {
    const actual = found.isDirectory() ? 'a directory' : 'a device or pipe';
    throw new PannsError('ERR_PANNS_IO', `expected an audio file, got ${actual}`, { where: path });
  }
  if (found.size === 0) throw nothing(path, 0);
}

async function fileAt(path: string): Promise<Stats | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    const code = systemCode(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw ioError(error, 'read', path);
  }
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}
