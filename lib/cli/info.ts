import { modelNames } from '../models/index.js';
import { describeMachine, machineRows } from './machine.js';
import { defineVerb, EXIT } from './verb.js';

/** `panns info`: what this installation is and can use. */
export const info = defineVerb(
  {
    name: 'panns info',
    summary: 'Show versions, processor, audio library and devices',
    options: { json: { type: 'boolean', help: 'print JSON' } },
  },
  async ({ json }, _, { print }) => {
    const machine = await describeMachine();
    if (json) {
      print(JSON.stringify({ ...machine, models: modelNames }));
      return EXIT.ok;
    }
    const rows = [...machineRows(machine), ['models', modelNames.join(', ')] as const];
    for (const [name, value] of rows) print(`${name.padEnd(15)}${value}`);
    return EXIT.ok;
  },
);
