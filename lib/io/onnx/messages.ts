import { blob, type Deferred, type Fields, fields, float, integer, message, text } from './wire.js';

/** One dimension of an input or output: its size, or a name for a size that may change. */
export type Dimension = number | string;

/** An input or output of the graph; all are float32. */
export interface ValueInfo {
  readonly name: string;
  readonly shape: readonly Dimension[];
}

/** A constant of the graph: weights, tables, axes. */
export interface Initializer {
  readonly name: string;
  readonly type: 'float32' | 'int64';
  readonly shape: readonly number[];
  readonly data: Deferred;
}

/** A number is an INT, a list INTS, text a STRING; a FLOAT says so. */
export type Attribute = number | string | readonly number[] | { readonly float: number };
export type Attributes = Readonly<Record<string, Attribute>>;

export interface Node {
  readonly op: string;
  readonly name: string;
  readonly inputs: readonly string[];
  readonly output: string;
  readonly attributes: Attributes;
}

export interface Graph {
  readonly name: string;
  readonly description: string;
  readonly nodes: readonly Node[];
  readonly initializers: readonly Initializer[];
  readonly inputs: readonly ValueInfo[];
  readonly outputs: readonly ValueInfo[];
}

export interface OnnxModel {
  readonly opset: number;
  readonly irVersion: number;
  readonly producer: { readonly name: string; readonly version: string };
  readonly graph: Graph;
  readonly metadata: readonly (readonly [key: string, value: string])[];
}

/** TensorProto.DataType. */
const ELEMENT = { float32: 1, int64: 7 } as const;
/** AttributeProto.AttributeType. */
const ATTRIBUTE = { float: 1, int: 2, string: 3, ints: 7 } as const;

// Each function encodes one message of onnx.proto3 (ONNX 1.12 and later); the first argument of a
// field is its number there.

/** ModelProto: the content of an .onnx file. */
export function encodeModel(model: OnnxModel): Fields {
  const { opset, irVersion, producer, graph, metadata } = model;
  return fields(
    integer(1, irVersion),
    text(2, producer.name),
    text(3, producer.version),
    // The operators of ONNX itself: their domain is the empty one.
    message(8, fields(text(1, ''), integer(2, opset))),
    message(7, encodeGraph(graph)),
    ...metadata.map(([key, value]) => message(14, fields(text(1, key), text(2, value)))),
  );
}

function encodeGraph({ nodes, name, initializers, description, inputs, outputs }: Graph): Fields {
  return fields(
    ...nodes.map((node) => message(1, encodeNode(node))),
    text(2, name),
    ...initializers.map((tensor) => message(5, encodeTensor(tensor))),
    text(10, description),
    ...inputs.map((value) => message(11, encodeValueInfo(value))),
    ...outputs.map((value) => message(12, encodeValueInfo(value))),
  );
}

function encodeNode({ op, name, inputs, output, attributes }: Node): Fields {
  return fields(
    ...inputs.map((input) => text(1, input)),
    text(2, output),
    text(3, name),
    text(4, op),
    ...Object.entries(attributes).map(([key, value]) => message(5, encodeAttribute(key, value))),
  );
}

function encodeAttribute(name: string, value: Attribute): Fields {
  if (typeof value === 'number') {
    return fields(text(1, name), integer(3, value), integer(20, ATTRIBUTE.int));
  }
  if (typeof value === 'string') {
    return fields(text(1, name), text(4, value), integer(20, ATTRIBUTE.string));
  }
  if ('float' in value) {
    return fields(text(1, name), float(2, value.float), integer(20, ATTRIBUTE.float));
  }
  const items = value.map((item) => integer(8, item));
  return fields(text(1, name), ...items, integer(20, ATTRIBUTE.ints));
}

function encodeTensor({ name, type, shape, data }: Initializer): Fields {
  return fields(
    ...shape.map((size) => integer(1, size)),
    integer(2, ELEMENT[type]),
    text(8, name),
    blob(9, data),
  );
}

function encodeValueInfo({ name, shape }: ValueInfo): Fields {
  const dimensions = shape.map((size) =>
    message(1, typeof size === 'number' ? integer(1, size) : text(2, size)),
  );
  const tensor = fields(integer(1, ELEMENT.float32), message(2, fields(...dimensions)));
  return fields(text(1, name), message(2, message(1, tensor)));
}
