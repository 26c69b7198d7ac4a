import { EventEmitter } from 'node:events';

/** The part of Node's EventEmitter that is promised: its listeners, by the names in `Events`. */
export interface Emitter<Events extends { [Name in keyof Events]: unknown[] }> {
  on<Name extends keyof Events>(name: Name, listener: (...values: Events[Name]) => void): this;
  once<Name extends keyof Events>(name: Name, listener: (...values: Events[Name]) => void): this;
  off<Name extends keyof Events>(name: Name, listener: (...values: Events[Name]) => void): this;
  /** Calls the listeners, in the order in which they came; whether there were any. */
  emit<Name extends keyof Events>(name: Name, ...values: Events[Name]): boolean;
}

type EmitterClass = new <Events extends { [Name in keyof Events]: unknown[] }>() => Emitter<Events>;

/**
 * EventEmitter under a type of our own: a declaration that names `node:events` would ask every user
 * for the types of Node.js.
 */
export const TypedEmitter: EmitterClass = EventEmitter as unknown as EmitterClass;
