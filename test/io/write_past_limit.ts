import { writeFileAtomic } from '../../lib/io/atomic.js';

// Run by atomic.test.ts under a file size limit; exceeding it also sends SIGXFSZ.
process.on('SIGXFSZ', () => undefined);
try {
  await writeFileAtomic(process.argv[2] ?? '', [new Float32Array(4_000_000).fill(1)]);
  console.log('REPORT {"code":"none"}');
} catch (error) {
  const { code, message } = error as { code: string; message: string };
  console.log(`REPORT ${JSON.stringify({ code, message })}`);
}
