// require() of an ES module, as CommonJS programs use the package.
const { createModel, errorCodes } = require('panns');

async function main() {
  const model = await createModel('Cnn6', { classes: 3, sampleRate: 8000, threads: 1 });
  const { clipwise_output: scores } = await model.infer(new Float32Array(8000).fill(0.1));
  model.dispose();
  console.log(JSON.stringify({ shape: scores.shape, codes: Object.keys(errorCodes).length }));
}

main();
