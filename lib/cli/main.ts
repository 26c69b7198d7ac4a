#!/usr/bin/env node
import { constants } from 'node:os';
import { AbortError } from '../errors.js';
import { runProgram } from './program.js';

const controller = new AbortController();
let stoppedBy: 'SIGINT' | 'SIGTERM' | undefined;
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    // The second one does not wait for anything.
    if (stoppedBy !== undefined) process.exit(128 + constants.signals[signal]);
    stoppedBy = signal;
    controller.abort();
  });
}
// `panns tag ... | head` closes the pipe early: that is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit(0);
});

try {
  process.exitCode = await runProgram(process.argv.slice(2), {
    print: (line) => void process.stdout.write(`${line}\n`),
    messages: process.stderr,
    signal: controller.signal,
  });
} catch (error) {
  if (!(error instanceof AbortError)) throw error;
  process.exitCode = 128 + constants.signals[stoppedBy ?? 'SIGINT'];
}
