// Downloads in a process of its own: argv holds a row and options as JSON.
import { fetchPublished } from '../../lib/inference/download.js';

const [row, options] = JSON.parse(process.argv[2] ?? '');
process.stdout.write(`path ${await fetchPublished(row, options)}\n`);
