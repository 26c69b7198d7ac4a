import { PannsError } from '../errors.js';
import type { DetectedEvent } from './events.js';

/** The events of one file. */
export interface FileDetection {
  /** As it is written to the text. */
  readonly file: string;
  readonly events: readonly DetectedEvent[];
}

/**
 * How events are written: `csv` with file, onset, offset, label and score; `tsv` as DCASE and sed_eval
 * read it; `json`; `audacity`, a label track of one file.
 */
export type EventFormat = 'csv' | 'tsv' | 'json' | 'audacity';

/** All of {@link EventFormat}. */
export const eventFormats: readonly EventFormat[] = ['csv', 'tsv', 'json', 'audacity'];

/**
 * Events as the text of a file; times are in seconds.
 *
 * @throws PannsError `ERR_PANNS_OPTION` for an unknown format, and for several files as `audacity`
 */
export function formatEvents(detections: readonly FileDetection[], format: EventFormat): string {
  const rows = detections.flatMap(({ file, events }) => events.map((event) => ({ file, event })));
  const lines = (list: readonly string[]) => list.map((line) => `${line}\n`).join('');
  switch (format) {
    case 'csv':
      return lines([
        'filename,onset,offset,event_label,score',
        ...rows.map(({ file, event: { onset, offset, label, score } }) =>
          [quoted(file), time(onset), time(offset), quoted(label), time(score)].join(','),
        ),
      ]);
    case 'tsv':
      return lines([
        'filename\tonset\toffset\tevent_label',
        ...rows.map(({ file, event: { onset, offset, label } }) =>
          [plain(file), time(onset), time(offset), plain(label)].join('\t'),
        ),
      ]);
    case 'json':
      return `${JSON.stringify(detections, null, 2)}\n`;
    case 'audacity':
      if (detections.length > 1) {
        throw optionError('a label track belongs to one file', `${detections.length} files`);
      }
      return lines(
        rows.map(({ event: { onset, offset, label } }) =>
          [onset.toFixed(6), offset.toFixed(6), plain(label)].join('\t'),
        ),
      );
    default:
      throw optionError(`expected format to be one of ${eventFormats.join(', ')}`, format);
  }
}

/** To a microsecond, and no zeros behind. */
function time(seconds: number): string {
  return String(Number(seconds.toFixed(6)));
}

/** A cell of a CSV file as RFC 4180 has it. */
function quoted(text: string): string {
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** These formats have no way to write a tab or a line break. */
function plain(text: string): string {
  return text.replace(/[\t\r\n]+/g, ' ');
}

function optionError(what: string, actual: unknown): PannsError {
  const where = 'formatEvents';
  return new PannsError('ERR_PANNS_OPTION', `${what}, got ${actual}`, { where, actual });
}
