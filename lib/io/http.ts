import { systemCode } from './failure.js';

/** A redirect leads to another at most so often; what is published needs one or two. */
const MOST_REDIRECTS = 5;

/** Faults of a certificate or of the handshake, which trying again does not heal. */
const TRUST = /CERT|SELF_SIGNED|UNABLE_TO|ERR_TLS|ERR_SSL/;

/** An attempt to fetch something that did not work out; it never leaves the package. */
export class AttemptFailed extends Error {
  /** Whether another attempt may do better. */
  readonly again: boolean;
  /** How long the server asks to wait before it, in ms. */
  readonly waitMs: number | undefined;

  constructor(
    message: string,
    options: { again: boolean; waitMs?: number | undefined; cause?: unknown },
  ) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined);
    this.again = options.again;
    this.waitMs = options.waitMs;
  }
}

/**
 * GETs an address and follows its redirects, which may go to https, and to http only from http.
 *
 * The answer has status 200, 206 or 416, and its body is as stored: compressed ones are refused.
 *
 * @throws AttemptFailed; the reason of `signal` once it is aborted
 */
export async function openUrl(
  address: URL,
  headers: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<Response> {
  let url = address;
  for (let hops = 0; hops <= MOST_REDIRECTS; hops++) {
    const response = await request(url, headers, signal);
    const { status } = response;
    if (status === 200 || status === 206 || status === 416) {
      const encoding = response.headers.get('content-encoding') ?? 'identity';
      if (encoding === 'identity') return response;
      await dismiss(response);
      throw new AttemptFailed(`the server sends the file as "${encoding}"`, { again: true });
    }
    await dismiss(response);
    if (![301, 302, 303, 307, 308].includes(status)) throw refusal(response);
    url = redirected(url, response.headers.get('location'));
  }
  throw new AttemptFailed(`more than ${MOST_REDIRECTS} redirects, the last to ${place(url)}`, {
    again: false,
  });
}

/** Frees the connection of an answer whose body is not wanted. */
export async function dismiss(response: Response): Promise<void> {
  await response.body?.cancel().catch(() => undefined);
}

/** What went wrong in the network, with the codes that Node.js keeps in the cause. */
export function networkFailure(error: unknown, doing: string): AttemptFailed {
  const cause = error instanceof Error && error.cause !== undefined ? error.cause : error;
  // Trying several addresses of a host gives an AggregateError without a message.
  const first = cause instanceof AggregateError ? cause.errors[0] : cause;
  const code = systemCode(first) ?? '';
  const text = (first instanceof Error && first.message) || String(first);
  const named = code === '' || text.includes(code) ? text : `${text} (${code})`;
  return new AttemptFailed(`${doing}: ${named}`, { again: !TRUST.test(code), cause: error });
}

async function request(
  url: URL,
  headers: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<Response> {
  try {
    return await fetch(url, {
      headers: { 'accept-encoding': 'identity', 'user-agent': 'panns', ...headers },
      redirect: 'manual',
      signal,
    });
  } catch (error) {
    signal.throwIfAborted();
    throw networkFailure(error, `no answer from ${url.host}`);
  }
}

function redirected(from: URL, location: string | null): URL {
  const known = location !== null && URL.canParse(location, from.href);
  if (!known) throw new AttemptFailed(`${from.host} redirects to no address`, { again: false });
  const to = new URL(location, from);
  const allowed =
    to.protocol === 'https:' || (to.protocol === 'http:' && from.protocol === 'http:');
  if (allowed) return to;
  throw new AttemptFailed(
    `${from.host} redirects from ${from.protocol} to ${to.protocol}//${to.host}, which is refused`,
    { again: false },
  );
}

function refusal({ status, statusText, headers }: Response): AttemptFailed {
  const again = status === 408 || status === 425 || status === 429 || status >= 500;
  const text = statusText === '' ? '' : ` ${statusText}`;
  const waitMs = again ? retryAfter(headers.get('retry-after')) : undefined;
  return new AttemptFailed(`the server answers ${status}${text}`, { again, waitMs });
}

/** The header's value, seconds or a date, in ms from now. */
function retryAfter(value: string | null): number | undefined {
  if (value === null) return undefined;
  const wait = /^\d+$/.test(value) ? 1000 * Number(value) : Date.parse(value) - Date.now();
  return Number.isNaN(wait) ? undefined : Math.max(0, wait);
}

/** An address without its query, which may be a signature. */
function place({ protocol, host, pathname }: URL): string {
  return `${protocol}//${host}${pathname}`;
}
