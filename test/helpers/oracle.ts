import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type Message, type Peer, startPeer } from './peer.js';

/** What a test file asks for the truth: one Python process with PyTorch (test/oracle). */
export interface Oracle {
  /** Why there is none here, as tap's `skip` takes it. */
  readonly skip: string | false;
  /** Runs one function of test/oracle/server.py. */
  call(
    what: string,
    header?: Record<string, unknown>,
    arrays?: readonly Float32Array[],
  ): Promise<Message>;
}

interface Test {
  teardown(body: () => Promise<void>): unknown;
}

const root = join(import.meta.dirname, '..', '..');

/**
 * Starts the oracle with the interpreter in PANNS_PYTHON, else .venv/bin/python; it ends with the
 * test. Without an interpreter or its packages, `skip` says what is missing.
 */
export async function openOracle(t: Test): Promise<Oracle> {
  const python = process.env.PANNS_PYTHON ?? join(root, '.venv', 'bin', 'python');
  if (!existsSync(python)) return missing(`no Python at ${python}; PANNS_PYTHON may name one`);
  const peer: Peer = startPeer(python, [join(root, 'test', 'oracle', 'server.py')], {
    // Several test files run at once.
    OMP_NUM_THREADS: '2',
  });
  t.teardown(() => peer.close());
  try {
    await peer.call({ do: 'hello' });
  } catch (error) {
    const reason = (error as Error).message.trim().split('\n').at(-1);
    return missing(`${python}: ${reason}`);
  }
  return {
    skip: false,
    call: (what, header = {}, arrays = []) => peer.call({ do: what, ...header }, arrays),
  };
}

function missing(reason: string): Oracle {
  return {
    skip: reason,
    call: () => Promise.reject(new Error(reason)),
  };
}
