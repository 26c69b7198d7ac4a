const MASK = 0xffffffffn;

/**
 * Philox4x32-10 in exact integers, from the paper (Salmon et al., SC 2011): the word of one element
 * of the stream (seed, step, node), laid out as native/core/philox.h says.
 */
export function randomWord(seed: bigint, step: number, node: number, element: number): number {
  const call = BigInt(Math.floor(element / 4));
  let counter = [call & MASK, call >> 32n, BigInt(node), BigInt(step)] as const;
  let key = [seed & MASK, seed >> 32n] as const;
  for (let round = 0; round < 10; round++) {
    const [a, b, c, d] = counter;
    const p = 0xd2511f53n * a;
    const q = 0xcd9e8d57n * c;
    counter = [(q >> 32n) ^ b ^ key[0], q & MASK, (p >> 32n) ^ d ^ key[1], p & MASK];
    key = [(key[0] + 0x9e3779b9n) & MASK, (key[1] + 0xbb67ae85n) & MASK];
  }
  return Number(counter[element % 4]);
}

/** The integer in [0, n) that a word stands for. */
export function below(word: number, n: number): number {
  return Number((BigInt(word) * BigInt(n)) >> 32n);
}
