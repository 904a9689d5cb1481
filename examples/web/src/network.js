// The network of an exported folder as a function of one window, by ONNX Runtime Web.

/**
 * @param {object} ort ONNX Runtime Web
 * @param {Uint8Array} bytes of network.onnx
 * @param {number[]} size of a window
 * @param {"webgpu" | "wasm"} device
 * @returns a function of a window; its `release` frees the memory of the network
 */
export async function loadNetwork(ort, bytes, size, device) {
  const provider = device === "webgpu" ? { name: "webgpu", forceCpuNodeNames: findNodes(bytes, "ConvTranspose") } : "wasm";
  // without the warnings that some nodes are on the processor, which is meant
  const session = await ort.InferenceSession.create(bytes, { executionProviders: [provider], logSeverityLevel: 3 });
  const [input] = session.inputNames, [output] = session.outputNames;
  const predict = async (window) => {
    const results = await session.run({ [input]: new ort.Tensor("float32", window, [1, 1, ...size]) });
    const logits = results[output].data;
    results[output].dispose();
    return logits;
  };
  return Object.assign(predict, { release: () => session.release() });
}

/** The names of the nodes of an operator that the WebGPU backend has in two dimensions only; read from the protobuf. */
export function findNodes(bytes, operator) {
  const text = (part) => new TextDecoder().decode(part);
  const first = (message, field) => readFields(message).find(([number]) => number === field)?.[1] ?? new Uint8Array();
  const GRAPH = 7, NODE = 1, NAME = 3, OPERATOR = 4;
  return readFields(first(bytes, GRAPH))
    .filter(([number]) => number === NODE)
    .filter(([, node]) => text(first(node, OPERATOR)) === operator)
    .map(([, node]) => text(first(node, NAME)));
}

/** The fields of a protobuf message that have a length, as [number, bytes]. */
function readFields(bytes) {
  const fields = [];
  let place = 0;
  const varint = () => {
    let value = 0, factor = 1, byte;
    do {
      byte = bytes[place++];
      value += (byte & 127) * factor;
      factor *= 128;
    } while (byte & 128);
    return value;
  };
  while (place < bytes.length) {
    const key = varint();
    const kind = key & 7;
    if (kind === 0) varint();
    else if (kind === 1) place += 8;
    else if (kind === 5) place += 4;
    else {
      const length = varint();
      fields.push([key >>> 3, bytes.subarray(place, place + length)]);
      place += length;
    }
  }
  return fields;
}
