// The three parts of the model, run by onnxruntime-web: encoder, one step of the flow, decoder.
"use strict";

class Trouble extends Error {}

async function load(path, kind) {
  const answer = await fetch(path).catch(() => null);
  if (!answer || !answer.ok) {
    throw new Trouble(`The file ${path} is missing. Write the page anew: poflow-lite course play FOLDER`);
  }
  return kind === "json" ? answer.json() : new Uint8Array(await answer.arrayBuffer());
}

async function unpacked(bytes) { // of a gzip file, unless the server has unpacked it
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** The page's data, and functions that encode an image, make a step, and decode a list of codes. */
async function prepare() {
  if (location.protocol === "file:") {
    throw new Trouble("Opened as a file, this page may not read the model beside it. In its folder, run " +
      "“python -m http.server”, then open http://localhost:8000 in the browser.");
  }
  if (typeof WebAssembly !== "object" || typeof DecompressionStream !== "function") {
    throw new Trouble("This browser cannot run the model: it lacks WebAssembly, or it is switched off. " +
      "A current Firefox, Chrome, Edge or Safari can. The course’s first lesson shows the same in pictures.");
  }
  const [data, wasm, ...parts] = await Promise.all([
    load("play.json", "json"), load("runtime/ort.wasm.gz").then(unpacked),
    ...["encoder", "step", "decoder"].map(name => load(`model/${name}.onnx`)),
  ]);
  const ort = await import("./runtime/ort.mjs").catch(() => {
    throw new Trouble("The file runtime/ort.mjs is missing. Write the page anew: poflow-lite course play FOLDER");
  });
  Object.assign(ort.env.wasm, { numThreads: 1, wasmBinary: wasm });
  const [encoder, step, decoder] = await Promise.all(parts.map(part => ort.InferenceSession.create(part)));
  const one = async (session, inputs) => {
    const feeds = Object.entries(inputs).map(([name, [values, shape]]) => [name, new ort.Tensor("float32", values, shape)]);
    return (await session.run(Object.fromEntries(feeds)))[session.outputNames[0]].data;
  };
  const d = data.latent, pixels = 3 * SIDE * SIDE;
  const run = {
    encode: x => one(encoder, { x: [x, [1, 3, SIDE, SIDE]] }),
    step: (z, y, t) => one(step, { z: [z, [1, d]], y: [Float32Array.from(y), [1, y.length]], t: [Float32Array.of(t), [1]] }),
    decode: async codes => {
      const z = new Float32Array(d * codes.length);
      codes.forEach((code, i) => z.set(code, d * i));
      const x = await one(decoder, { z: [z, [codes.length, d]] });
      return codes.map((_, i) => x.subarray(pixels * i, pixels * (i + 1)));
    },
  };
  return [data, run];
}
