// A process of its own, so that each case has its own environment and driver.
import { cudaStatus } from '../../lib/cuda.js';
import { PannsError } from '../../lib/errors.js';
import { createModel } from '../../lib/inference/model.js';

const TINY = { sampleRate: 4000, windowSize: 128, hopSize: 40, fmax: 1900, classes: 3 };

const warnings: string[] = [];
process.removeAllListeners('warning');
process.on('warning', (warning: Error & { code?: string }) => {
  if (warning.name === 'PannsWarning') warnings.push(`${warning.code} ${warning.message}`);
});

/** What device a model comes to live on, or the error. */
async function place(device: 'auto' | 'cuda'): Promise<{ code?: string; message?: string }> {
  try {
    using _ = await createModel('Cnn6', { ...TINY, device });
    return {};
  } catch (error) {
    if (!(error instanceof PannsError)) throw error;
    return { code: error.code, message: error.message };
  }
}

const answer = {
  status: await cudaStatus(),
  auto: { ...(await place('auto')), ...(await place('auto')) },
  cuda: await place('cuda'),
};
// Warnings are told a tick later.
await new Promise((resolve) => setImmediate(resolve));
console.log(JSON.stringify({ ...answer, warnings }));
