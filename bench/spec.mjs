// The spec of a model, for cases that drive a training session without a Trainer and its data.
import { describeModel } from '../dist/models/index.js';

export function modelSpec(name) {
  return describeModel(name, {}).spec;
}
