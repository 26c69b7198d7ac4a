/**
 * Every error code of the package and what it means. The C++ core throws the same strings
 * (native/core/error.h).
 */
export const errorCodes = {
  ERR_PANNS_SHAPE: 'a tensor, batch or waveform has the wrong shape, length or element type',
  ERR_PANNS_SPEC: 'a model description is not well formed',
  ERR_PANNS_OPTION: 'an option is unknown, of the wrong type or out of range',
  ERR_PANNS_NATIVE_MISSING: 'no native binary was found for this platform',
  ERR_PANNS_NATIVE_LOAD: 'a native binary was found and could not be loaded',
  ERR_PANNS_BUILD: 'the native binary could not be built from its sources',
  ERR_PANNS_DISPOSED: 'the object was used after dispose() or close()',
  ERR_PANNS_BUSY: 'the object is at work and takes no other job now',
  ERR_PANNS_DEVICE: 'the device is unknown, or it failed while computing',
  ERR_PANNS_CUDA_UNAVAILABLE: 'CUDA was asked for and cannot be used here',
  ERR_PANNS_PARALLEL: 'processes that train together were not joined, or one of them was lost',
  ERR_PANNS_OUT_OF_MEMORY: 'the host or the device has too little memory',
  ERR_PANNS_IO: 'a file could not be read or written',
  ERR_PANNS_DOWNLOAD: 'a published file could not be fetched, or what came is not that file',
  ERR_PANNS_OFFLINE: 'a published file is not on this machine, and downloading is switched off',
  ERR_PANNS_CHECKPOINT: 'a checkpoint is damaged, or does not fit the model',
  ERR_PANNS_DATA: 'a data set, label file or packed file is damaged or inconsistent',
  ERR_PANNS_NAN: 'a loss, gradient or tensor became NaN or infinite',
  ERR_PANNS_UNSUPPORTED: 'the request is valid, and this version or build cannot do it',
  ERR_PANNS_INTERNAL: 'a defect of the package itself',
  ERR_PANNS_AUDIO_NOT_FOUND: 'the audio file does not exist',
  ERR_PANNS_AUDIO_FORMAT: 'the audio format is not known or not supported',
  ERR_PANNS_AUDIO_CORRUPT: 'the audio file is damaged or truncated',
  ERR_PANNS_AUDIO_EMPTY: 'the audio holds no samples',
  ERR_PANNS_AUDIO_RANGE: 'a start, duration, rate or channel lies outside the audio',
  ERR_PANNS_AUDIO_TOO_LONG: 'the audio is longer than the limit in force',
  ERR_PANNS_AUDIO_LIBRARY: 'the audio library is missing, or failed',
  ERR_PANNS_AUDIO_NAN: 'the audio holds NaN or infinite samples',
  ERR_PANNS_AUDIO_FFMPEG: 'the ffmpeg program is missing, or failed',
} as const;

/** One of the keys of {@link errorCodes}. */
export type ErrorCode = keyof typeof errorCodes;

/** What a {@link PannsError} carries beside its code and message. */
export interface PannsErrorOptions {
  /** The error that led to this one. */
  cause?: unknown;
  /** Where it happened: a node path such as `Cnn14/conv_block3.conv1`, a file, or a function. */
  where?: string | undefined;
  /** What would have been right. */
  expected?: unknown;
  /** What came instead. */
  actual?: unknown;
}

/**
 * The error that every function of this package throws or rejects with; only aborting differs
 * ({@link AbortError}).
 *
 * `message` begins with `where`, as the native core writes it. Tell errors apart by `code`.
 */
export class PannsError extends Error {
  override readonly name = 'PannsError';
  readonly code: ErrorCode;
  declare readonly where?: string;
  declare readonly expected?: unknown;
  declare readonly actual?: unknown;

  constructor(code: ErrorCode, message: string, options: PannsErrorOptions = {}) {
    const { where, expected, actual } = options;
    const placed = where && !message.startsWith(`${where}: `) ? `${where}: ${message}` : message;
    super(placed, 'cause' in options ? { cause: options.cause } : undefined);
    this.code = code;
    // Only the fields that were given: a printed error shows no row of `undefined`.
    if (where) this.where = where;
    if (expected !== undefined) this.expected = expected;
    if (actual !== undefined) this.actual = actual;
  }
}

/** What an aborted call rejects with: the name and code of Node's own AbortError. */
export class AbortError extends Error {
  override readonly name = 'AbortError';
  readonly code = 'ABORT_ERR';

  constructor(message = 'The operation was aborted', options?: { cause?: unknown }) {
    super(message, options);
  }
}

/** Throws an {@link AbortError}, with the signal's reason as its cause, once `signal` is aborted. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new AbortError(undefined, { cause: signal.reason });
}

/** How the options of one place are checked: throws ERR_PANNS_OPTION unless `valid`. */
export type OptionCheck = (name: string, actual: unknown, valid: boolean, expected: string) => void;

/** A check that names `where` in its errors, with what was expected and what came. */
export function optionCheck(where: string): OptionCheck {
  return (name, actual, valid, expected) => {
    if (valid) return;
    const what = `expected ${name} to be ${expected}, got ${actual}`;
    throw new PannsError('ERR_PANNS_OPTION', what, { where, expected, actual });
  };
}

/**
 * Throws ERR_PANNS_OPTION when `options` is neither undefined nor a plain options object, or has
 * a name outside `allowed`; the message says which known name is nearest. `elsewhere` are names that
 * other programs have for what is called otherwise here, with that name.
 */
export function checkOptions(
  options: unknown,
  allowed: readonly string[],
  where: string,
  elsewhere: Readonly<Record<string, string>> = {},
): void {
  if (options === undefined) return;
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    const actual = kindOf(options);
    throw new PannsError('ERR_PANNS_OPTION', `expected an options object, got ${actual}`, {
      where,
      expected: 'object',
      actual,
    });
  }
  for (const name of Object.keys(options)) {
    if (allowed.includes(name)) continue;
    const guess = Object.hasOwn(elsewhere, name) ? elsewhere[name] : nearest(name, allowed);
    const hint = guess === undefined ? '' : `; did you mean "${guess}"?`;
    const known = allowed.length === 0 ? 'there are none' : `known: ${allowed.join(', ')}`;
    throw new PannsError('ERR_PANNS_OPTION', `unknown option "${name}"${hint} (${known})`, {
      where,
      expected: allowed,
      actual: name,
    });
  }
  const { signal } = options as { signal?: unknown };
  // Not by instanceof: another realm's signal is as good.
  const isSignal = typeof signal === 'object' && signal !== null && 'addEventListener' in signal;
  if (signal === undefined || isSignal) return;
  const actual = kindOf(signal);
  throw new PannsError('ERR_PANNS_OPTION', `expected signal to be an AbortSignal, got ${actual}`, {
    where,
    expected: 'AbortSignal',
    actual,
  });
}

/** What a wrong value is, for a message: `Float64Array`, `array`, `undefined`. */
export function kindOf(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  if (typeof value !== 'object') return typeof value;
  // A generator's constructor has no name.
  return value.constructor?.name || 'object';
}

/**
 * The candidate with the fewest edits from `name`, letter case aside; the first among equals. One that
 * begins or ends with the whole of it goes before all others: `rate` is meant for `sampleRate`.
 */
export function nearest(name: string, candidates: readonly string[]): string | undefined {
  const word = name.toLowerCase();
  const has = (text: string) => text.startsWith(word) || text.endsWith(word);
  const holding = candidates.filter((candidate) => has(candidate.toLowerCase()));
  let best: string | undefined;
  let least = Number.POSITIVE_INFINITY;
  // Of one or two letters, that may well be chance.
  for (const candidate of word.length > 2 && holding.length > 0 ? holding : candidates) {
    const edits = editDistance(name.toLowerCase(), candidate.toLowerCase());
    if (edits < least) {
      least = edits;
      best = candidate;
    }
  }
  return best;
}

/** Insertions, deletions, replacements and swaps of neighbours between two strings. */
function editDistance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const replace = (last[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      let edits = Math.min(replace, (last[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        edits = Math.min(edits, (beforeLast[j - 2] ?? 0) + 1);
      }
      row.push(edits);
    }
    beforeLast = last;
    last = row;
  }
  return last[b.length] ?? 0;
}

/**
 * Turns what the addon threw into a {@link PannsError} or {@link AbortError}, with the original
 * as its cause; `where` is used when the native error does not say where it happened.
 *
 * An error that carries no code of ours is a defect of the package: ERR_PANNS_INTERNAL.
 */
export function fromNative(error: unknown, where?: string): PannsError | AbortError {
  if (error instanceof PannsError || error instanceof AbortError) return error;
  const fields: { code?: unknown; where?: unknown; message?: unknown } =
    typeof error === 'object' && error !== null ? error : { message: error };
  const message = typeof fields.message === 'string' ? fields.message : String(error);
  if (fields.code === 'ABORT_ERR') return new AbortError(message || undefined, { cause: error });
  const place = typeof fields.where === 'string' && fields.where ? fields.where : where;
  const code = isErrorCode(fields.code) ? fields.code : 'ERR_PANNS_INTERNAL';
  return new PannsError(code, message, { cause: error, where: place });
}

/** Whether `code` is one of the package's own codes. */
export function isErrorCode(code: unknown): code is ErrorCode {
  return typeof code === 'string' && Object.hasOwn(errorCodes, code);
}
