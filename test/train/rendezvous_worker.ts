// One of several processes that meet by torchrun's variables; prints what came of it.
import { PannsError } from '../../lib/index.js';
import { ProcessGroup } from '../../lib/train/distributed.js';
import { findLauncher, meetingPoint } from '../../lib/train/launcher.js';
import { meet } from '../../lib/train/rendezvous.js';

const scenario = process.argv[2];
const timeoutSeconds = Number(process.argv[3]);

async function run() {
  const launcher = findLauncher();
  if (launcher === undefined) throw new Error('no launcher');
  const { rank, size, localRank } = launcher;
  const star = await meet({ rank, size, ...meetingPoint(), timeoutSeconds });
  const group = new ProcessGroup(star, { localRank, averaging: {} });
  if (scenario === 'lost' && rank === 1) process.exit(3);
  const sums = await star.sum(Float64Array.of(1, rank, 2 ** -rank));
  const long = new Uint8Array(300_000).map((_, i) => i * (rank + 3));
  const heard = await star.broadcast(rank === 1 ? long : new Uint8Array(), 1);
  const first = await group.first(async () => ({ id: Uint8Array.of(7, rank) }));
  const failed = await group
    .together(async () => {
      if (rank === 2) throw new PannsError('ERR_PANNS_DATA', 'a clip is damaged');
      return rank;
    })
    .catch(({ code, message }) => ({ code, message }));
  const whole = heard.length === long.length && heard.every((byte, i) => byte === ((i * 4) & 255));
  await group.close();
  return { kind: launcher.kind, sums: [...sums], whole, first: [...first.id], failed };
}

const answer = await run().catch(({ code, message }) => ({ error: { code, message } }));
console.log(JSON.stringify(answer));
