// Runs detector.wasm for OcTrim: node node.mjs detector.wasm [weights.bin]. Reads pictures of the network's size from standard input, three bytes a pixel, and
// writes their boxes to standard output as floats. An empty input ends it.
import fs from "node:fs";
import { Detector } from "./detector.js";

const [code, weights] = process.argv.slice(2).map((path) => fs.readFileSync(path));
const detector = await Detector.open(code, weights ? new Uint8Array(weights).buffer : null);
const room = Buffer.alloc(detector.width * detector.height * 3);
fs.writeSync(1, Buffer.from(new Int32Array([detector.width, detector.height, detector.boxes, detector.values]).buffer));

function filled() {
  for (let at = 0; at < room.length; ) {
    const count = fs.readSync(0, room, at, room.length - at, null);
    if (!count) return false;
    at += count;
  }
  return true;
}

while (filled()) {
  detector.input.set(room);
  const boxes = detector.run();
  const bytes = Buffer.from(boxes.buffer, boxes.byteOffset, boxes.byteLength);
  for (let at = 0; at < bytes.length; ) at += fs.writeSync(1, bytes, at);
}
