import { kindOf } from '../errors.js';
import type { Builder } from './tensor.js';

/** Which arguments of a builder's functions are tensors. */
const TENSORS: Readonly<Record<keyof Builder, readonly number[]>> = {
  ...{ scope: [], register: [], unused: [] },
  ...{
    logmel: [0],
    unsqueeze: [0],
    specAugment: [0],
    mixup: [0],
    dropout: [0],
    pool: [0],
    fold: [0],
  },
  ...{ relu: [0], relu6: [0], hardSwish: [0], sigmoid: [0], softmax: [0] },
  ...{ meanOverFrequency: [0], reduceTime: [0] },
  ...{ batchNorm: [1], conv: [1], conv1d: [1], linear: [1] },
  ...{ add: [0, 1], concat: [0, 1], scale: [0, 1], attentionPool: [0, 1], upsample: [0, 1] },
};

/** Whether a builder made this, as far as can be seen. */
export function isTensor(value: unknown): boolean {
  return typeof (value as { ref?: unknown } | null | undefined)?.ref === 'string';
}

/**
 * A builder that looks at its tensors first: a wrong one would else be a TypeError somewhere inside.
 *
 * `fail` gets the path of the module, or of the function where that has no name.
 */
export function checkTensors(
  builder: Builder,
  fail: (path: string, what: string) => never,
  pathOf: (module: string) => string,
): Builder {
  const checked = Object.entries(builder).map(([name, make]) => {
    const places = TENSORS[name as keyof Builder];
    if (places.length === 0) return [name, make];
    return [
      name,
      (...given: unknown[]) => {
        const wrong = places.find((place) => !isTensor(given[place]));
        if (wrong === undefined) return make(...given);
        const module = typeof given[0] === 'string' ? given[0] : name;
        const what = `expected argument ${wrong + 1} of ${name} to be a tensor, got ${kindOf(given[wrong])}`;
        return fail(pathOf(module), what);
      },
    ];
  });
  return Object.fromEntries(checked) as Builder;
}
