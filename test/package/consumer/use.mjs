// What a user's program does with the installed package: train two steps on the folder `sounds`,
// save, tag a file, and say in JSON what came out.
import { AudioTagger, createModel, fromFolder, Trainer } from 'panns';

const dataset = await fromFolder('sounds');
const size = { sampleRate: 8000, melBins: 16, hopSize: 80, windowSize: 256, fmax: 4000 };
const model = await createModel('Cnn6', { ...size, classes: dataset.classes, threads: 1 });
const trainer = new Trainer(model, { dataset, batchSize: 2, clipSeconds: 0.5, epochs: 1 });
const losses = [];
for await (const { loss } of trainer) losses.push(loss);
trainer.dispose();
await model.save('model.safetensors');
model.dispose();
const tagger = await AudioTagger.load('model.safetensors', { threads: 1 });
const { labels } = await tagger.tag(process.argv[2]);
tagger.dispose();
console.log(JSON.stringify({ losses, labels }));
