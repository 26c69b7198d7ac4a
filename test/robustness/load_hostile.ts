// Loads a model file that may end the process, and reports what became of it.
import { loadModel } from '../../lib/inference/model_file.js';

const [path = ''] = process.argv.slice(2);
let report: object = {};
try {
  const model = await loadModel(path, { threads: 1 });
  await model.infer(new Float32Array(8000));
  report = { code: 'loaded', message: 'no error' };
} catch (error) {
  const { code, message } = error as { code?: unknown; message?: unknown };
  report = { code, message };
}
// The peak, in KiB.
const rss = 1024 * process.resourceUsage().maxRSS;
console.log(`REPORT ${JSON.stringify({ ...report, rss })}`);
