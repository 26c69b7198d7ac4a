import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { serialize } from 'node:v8';
import type { Call } from './op.js';

const folder = process.env.PANNS_RECORD_OPS;
let count = 0;

/**
 * Keeps what an op is called with in the folder PANNS_RECORD_OPS, where that is set: the cases that
 * scripts/bundle-gpu.mjs takes to a machine with a GPU.
 */
export function record({ op, attrs = {}, inputs, state = {} }: Call): void {
  if (!folder) return;
  mkdirSync(folder, { recursive: true });
  const name = `${op}-${process.pid}-${String(count++).padStart(4, '0')}.case`;
  writeFileSync(join(folder, name), serialize({ op, attrs, inputs, state }));
}
