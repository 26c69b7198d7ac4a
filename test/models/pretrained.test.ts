import { readFileSync } from 'node:fs';
import t from 'tap';
import { digestFile } from '../../lib/io/digest.js';
import { describeModel, modelNames, modelRows } from '../../lib/models/index.js';
import { publishedFiles, publishedUrl } from '../../lib/models/pretrained.js';
import { sharedFile } from '../helpers/shared.js';

t.test('each row is a file of its own that fits its model', async (t) => {
  for (const key of ['name', 'file'] as const) {
    const values = publishedFiles.map((row) => row[key].toLowerCase());
    t.equal(new Set(values).size, values.length, key);
  }
  for (const { name, model, options, file, bytes, md5, sha256, mAP } of publishedFiles) {
    const row = modelRows.find((row) => row.name === model);
    t.ok(row, name);
    t.match(file, String(Math.round(1000 * mAP)), `${name}: the file's name holds its precision`);
    if (name === model) t.equal(row?.published?.mAP, mAP, name);
    else t.notOk(modelNames.includes(name), `${name} is a variant`);
    t.equal(describeModel(model, options ?? {}).config.classes, 527);
    if (bytes !== undefined) t.ok(Number.isSafeInteger(bytes) && bytes > 1e6, name);
    if (md5 !== undefined) t.match(md5, /^[0-9a-f]{32}$/, name);
    if (sha256 !== undefined) t.match(sha256, /^[0-9a-f]{64}$/, name);
  }
  const digests = publishedFiles.flatMap(({ md5, sha256 }) => [md5, sha256]).filter(Boolean);
  t.equal(new Set(digests).size, digests.length, 'no digest stands twice');
});

t.test('a size that is known is that of the model, and a little', async (t) => {
  for (const { name, model, bytes } of publishedFiles) {
    if (bytes === undefined) continue;
    const { stateDict } = describeModel(model);
    const numbers = stateDict.reduce(
      (sum, { shape, dtype }) => sum + shape.reduce((a, b) => a * b, dtype === 'I64' ? 8 : 4),
      0,
    );
    // Names, shapes and padding of a tensor take some 180 bytes in a pickle and 330 in a zip file.
    // Cnn14_16k carries the state of its sampler: 3.8 million indexes of about 9 bytes.
    const most = 400 * stateDict.length + (name === 'Cnn14_16k' ? 36e6 : 0);
    t.ok(bytes > numbers && bytes < numbers + most, `${name}: ${bytes - numbers} bytes beside`);
  }
});

t.test('addresses', async (t) => {
  const url = (name: string) => {
    const row = publishedFiles.find((row) => row.name === name);
    return row && publishedUrl(row);
  };
  t.equal(
    url('Cnn14'),
    'https://zenodo.org/records/3987831/files/Cnn14_mAP%3D0.431.pth?download=1',
  );
  t.equal(
    url('mn10_as_hop_15'),
    'https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/mn10_as_hop_15_mAP_463.pt',
  );
});

const sums = sharedFile('data', 'panns_reference', 'zenodo_3987831_checksums.json');

t.test('digests and sizes agree with a second list', { skip: sums.skip }, async (t) => {
  const { files } = JSON.parse(readFileSync(sums.path, 'utf8')) as {
    files: Record<string, Record<'md5' | 'sha256' | 'bytes', string | number>>;
  };
  for (const [file, facts] of Object.entries(files)) {
    t.match(
      publishedFiles.find((row) => row.file === file),
      facts,
      file,
    );
  }
});

const real = sharedFile('data', 'efficientat_mn04_as', 'mn04_as_mAP_432.pt');

t.test('the row of mn04 is that of its file', { skip: real.skip }, async (t) => {
  t.match(
    publishedFiles.find(({ name }) => name === 'mn04'),
    await digestFile(real.path),
  );
});
