// Changes of ONNX graphs that ONNX Runtime's build for WebGPU needs.

// Fields in onnx.proto: of ModelProto, GraphProto, NodeProto, ValueInfoProto, TypeProto and TypeProto.Tensor.
const [GRAPH, NODE, INPUT, NAME, OPERATOR, TYPE, TENSOR, ELEMENTS] = [7, 1, 11, 3, 4, 2, 1, 1];
const [FLOAT, INT16] = [1, 5]; // types of elements
const [VARINT, FIXED64, BYTES, FIXED32] = [0, 1, 2, 5]; // types of fields on the wire

/**
 * Names the nodes of some operators, so that ONNX Runtime can be told where to run them. Those of exported decoders have no
 * names.
 *
 * @param model Uint8Array with a ModelProto
 * @param operators such as "Sin"
 * @returns {model, names}: a new Uint8Array, and the names in it
 */
export function nameNodes(model, operators) {
  const names = [];
  const named = (node) => {
    const operator = [...fields(node)].find(({ number }) => number === OPERATOR);
    const text = new TextDecoder().decode(operator.value);
    if (!operators.includes(text)) return [node];
    names.push(`${text} ${names.length}`);
    return [node, ...field(NAME, [new TextEncoder().encode(names.at(-1))])];
  };
  const graph = (bytes) => changed(bytes, NODE, named);
  return { model: joined(changed(model, GRAPH, graph)), names };
}

/** Makes fp32 of inputs of int16, which are cast to fp32 anyway, and for which that build has no cast. A new Uint8Array. */
export function widenInputs(model) {
  const elements = (tensor) => {
    const [first, ...others] = fields(tensor); // elem_type goes before the shape
    if (first.number !== ELEMENTS || first.whole[1] !== INT16) return [tensor];
    return [Uint8Array.of(first.whole[0], FLOAT), ...others.map(({ whole }) => whole)];
  };
  const type = (bytes) => changed(bytes, TENSOR, elements);
  const input = (bytes) => changed(bytes, TYPE, type);
  return joined(changed(model, GRAPH, (graph) => changed(graph, INPUT, input)));
}

/** A message in pieces, with each value of a field replaced by the pieces that a function makes of it. */
function changed(message, wanted, replace) {
  return [...fields(message)].flatMap(({ number, value, whole }) => (number === wanted ? field(number, replace(value)) : [whole]));
}

/** The fields of a message: {number, value, whole}, with the bytes of the value, and of the key, too. */
function* fields(message) {
  for (let at = 0; at < message.length; ) {
    const start = at;
    const varint = () => {
      let value = 0;
      for (let factor = 1; ; factor *= 128) {
        const byte = message[at++];
        value += (byte & 127) * factor;
        if (!(byte & 128)) return value;
      }
    };
    const key = varint();
    const type = key % 8;
    if (type === VARINT) varint();
    const size = type === BYTES ? varint() : { [VARINT]: 0, [FIXED64]: 8, [FIXED32]: 4 }[type];
    if (!(at + size <= message.length)) throw new Error("the graph is damaged");
    const value = message.subarray(at, (at += size));
    yield { number: Math.floor(key / 8), value, whole: message.subarray(start, at) };
  }
}

/** A field of bytes, in pieces. */
function field(number, pieces) {
  const size = pieces.reduce((sum, piece) => sum + piece.length, 0);
  return [Uint8Array.from([...varintOf(number * 8 + BYTES), ...varintOf(size)]), ...pieces];
}

function varintOf(value) {
  return value < 128 ? [value] : [(value % 128) + 128, ...varintOf(Math.floor(value / 128))];
}

function joined(pieces) {
  const bytes = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}
