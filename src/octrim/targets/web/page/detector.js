// A detector in WebAssembly, for pages and for Node:
//
//     const code = await (await fetch("detector.wasm")).arrayBuffer();
//     const detector = await Detector.open(code);          // and the contents of weights.bin, where there is one
//     const found = detector.detect(context.getImageData(0, 0, width, height), 0.25);
//
// Every object found is { x1, y1, x2, y2, confidence, label, name }, in pixels of the picture, the most confident first.

const MOST = 300; // objects that are kept
const CANDIDATES = 30000; // boxes that enter suppression
const VARIANCE = 0.05; // of 1 - IoU in score voting

export class Detector {
  // code: contents of detector.wasm. weights: contents of weights.bin, for networks that have one.
  static async open(code, weights = null) {
    const { instance } = await WebAssembly.instantiate(code, {});
    return new Detector(instance.exports, weights);
  }

  constructor(calls, weights) {
    this.calls = calls;
    if (weights) this.bytes(required(calls.octrim_weights(weights.byteLength)), weights.byteLength).set(new Uint8Array(weights));
    const error = calls.octrim_open();
    if (error) throw new Error(this.text(calls.detector_message(error)));
    const sizes = calls.octrim_fitted(); // room for four numbers
    calls.detector_sizes(sizes);
    [this.width, this.height, this.boxes, this.values] = new Int32Array(calls.memory.buffer, sizes, 4);
    const names = new Uint32Array(calls.memory.buffer, calls.detector_names.value, this.values - 5);
    this.names = [...names].map((place) => this.text(place));
  }

  // Objects in a picture, { data, width, height } with four bytes a pixel, as a canvas gives it. confidence: the least that an object has.
  // overlap: the largest IoU of two objects of one class. voting: each object is the mean of the boxes around it, which fits better (score voting).
  detect(image, confidence = 0.25, overlap = 0.45, voting = false) {
    this.look(image);
    return this.objects(confidence, overlap, voting);
  }

  // Runs the network on a picture; `objects` then says what is in it, for any confidence.
  look(image) {
    this.fit(image);
    this.run();
    this.seen = { width: image.width, height: image.height };
  }

  // Scales a picture into the network's input, grey around it.
  fit(image) {
    const place = required(this.calls.octrim_source(image.width, image.height));
    this.bytes(place, image.data.length).set(image.data);
    this.calls.octrim_fit(image.width, image.height);
  }

  // Runs the network on its input; returns boxes of 5 + classes numbers: centre, width, height in pixels, objectness, scores.
  run() {
    this.result = this.calls.octrim_run();
    return this.predictions;
  }

  // The network's input: width * height pixels of red, green, blue.
  get input() {
    return this.bytes(this.calls.octrim_input(), this.width * this.height * 3);
  }

  get predictions() {
    return new Float32Array(this.calls.memory.buffer, this.result, this.boxes * this.values);
  }

  // Objects that the last picture has, suppressed.
  objects(confidence = 0.25, overlap = 0.45, voting = false) {
    const candidates = this.candidates(confidence).sort((one, other) => other.confidence - one.confidence).slice(0, CANDIDATES);
    let kept = [];
    for (const one of candidates) {
      if (kept.length === MOST) break;
      if (kept.every((other) => other.label !== one.label || iou(one, other) <= overlap)) kept.push(one);
    }
    if (voting) kept = kept.map((one) => voted(one, candidates));
    const [scaleX, scaleY, left, top] = new Float64Array(this.calls.memory.buffer, this.calls.octrim_fitted(), 4);
    const { width, height } = this.seen;
    const x = (value) => Math.min(Math.max((value - left) / scaleX, 0), width);
    const y = (value) => Math.min(Math.max((value - top) / scaleY, 0), height);
    return kept.map((one) => ({ ...one, x1: x(one.x1), y1: y(one.y1), x2: x(one.x2), y2: y(one.y2), name: this.names[one.label] }));
  }

  // Boxes above a confidence, in pixels of the network's input, unsuppressed.
  candidates(confidence) {
    const numbers = this.predictions, found = [];
    for (let at = 0; at < numbers.length; at += this.values) {
      if (!(numbers[at + 4] > confidence)) continue;
      let best = 5;
      for (let i = 6; i < this.values; i++) if (numbers[at + i] > numbers[at + best]) best = i;
      const score = Math.fround(numbers[at + 4] * numbers[at + best]);
      if (!(score > confidence)) continue;
      const [cx, cy, w, h] = numbers.subarray(at, at + 4);
      found.push({ x1: cx - w / 2, y1: cy - h / 2, x2: cx + w / 2, y2: cy + h / 2, confidence: score, label: best - 5 });
    }
    return found;
  }

  bytes(place, count) {
    return new Uint8Array(this.calls.memory.buffer, place, count); // made anew: the old one is of no use once the memory has grown
  }

  text(place) {
    const bytes = new Uint8Array(this.calls.memory.buffer);
    return new TextDecoder().decode(bytes.subarray(place, bytes.indexOf(0, place)));
  }
}

function required(place) {
  if (!place) throw new Error("not enough memory");
  return place;
}

// The mean of the boxes of an object's class that overlap it, by confidence and overlap.
function voted(object, candidates) {
  const sum = { x1: 0, y1: 0, x2: 0, y2: 0 };
  let total = 0;
  for (const one of candidates) {
    const overlap = one.label === object.label ? iou(object, one) : 0;
    if (!(overlap > 0)) continue;
    const weight = one.confidence * Math.exp(-((1 - overlap) ** 2) / VARIANCE);
    for (const side in sum) sum[side] += weight * one[side];
    total += weight;
  }
  if (!total) return object;
  for (const side in sum) sum[side] /= total;
  return { ...object, ...sum };
}

function iou(one, other) {
  const width = Math.min(one.x2, other.x2) - Math.max(one.x1, other.x1), height = Math.min(one.y2, other.y2) - Math.max(one.y1, other.y1);
  const both = width > 0 && height > 0 ? width * height : 0;
  return both / ((one.x2 - one.x1) * (one.y2 - one.y1) + (other.x2 - other.x1) * (other.y2 - other.y1) - both);
}
