import type { Evaluation } from '../train/evaluate.js';
import { formatNumber, formatPercent, formatTable } from './format.js';

/** Scores as one line: `accuracy 91.2 %  mAP 0.95 ...`. */
export function scoreLine({
  accuracy,
  mAP,
  mAUC,
  dPrime,
  loss,
}: Pick<Evaluation, 'accuracy' | 'mAP' | 'mAUC' | 'dPrime' | 'loss'>): string {
  const parts = accuracy === undefined ? [] : [`accuracy ${formatPercent(accuracy)}`];
  parts.push(`mAP ${formatNumber(mAP)}`, `mAUC ${formatNumber(mAUC)}`);
  parts.push(`d' ${formatNumber(dPrime)}`, `loss ${formatNumber(loss)}`);
  return parts.join('  ');
}

/** A row a class, the best first. */
export function classTable({ perClass }: Evaluation): string {
  const order = [...perClass].sort(
    (a, b) => (b.averagePrecision || 0) - (a.averagePrecision || 0) || (a.label < b.label ? -1 : 1),
  );
  return formatTable(
    [
      { title: 'class' },
      { title: 'clips', align: 'right' },
      { title: 'AP', align: 'right' },
      { title: 'AUC', align: 'right' },
    ],
    order.map(({ label, clips, averagePrecision, auc }) => {
      return [label, clips, formatNumber(averagePrecision), formatNumber(auc)];
    }),
  );
}
