
// The page: takes pictures, videos and the camera to the detector, and draws what it finds.

const MOST_PIXELS = 16e6; // larger pictures are made smaller first: some browsers have no larger canvas
const LISTED = 50; // objects in the table
const COLOURS = ["#e69f00", "#0072b2", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#f0e442"]; // after Okabe and Ito, as octrim predict draws
const INK = ["#000", "#fff", "#fff", "#fff", "#000", "#000", "#000"];

const $ = (id) => document.getElementById(id);
const view = $("view"), pen = view.getContext("2d");
const copy = document.createElement("canvas"), reader = copy.getContext("2d", { willReadFrequently: true, alpha: false });
const data = JSON.parse($("data").textContent);
const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

let detector; // undefined until it is open
let shown = null; // { picture, width, height }: what is on the stage
let asked = 0; // grows with everything that is asked for, so that what takes long does not take the place of what was asked for after it
let turn = 0; // grows whenever something else is shown, so that what was shown before stops
let facing = "environment"; // the camera asked for
const times = []; // of the latest frames: milliseconds of the network and of everything, moment

// What was found in the latest picture or frame, for programs that look at the page.
globalThis.octrim = { found: [], frames: 0, image: null };

function tell(problem) {
  $("problem").textContent = problem;
  $("problem").hidden = !problem;
}

// Tells why a film or the camera cannot be shown; what was there before stays.
function failed(problem) {
  tell(problem);
  $("pause").hidden = true;
  if (shown) return;
  view.hidden = true;
  $("empty").hidden = false;
  $("stage").classList.add("empty");
}

// Runs the network on what is on the stage, and draws.
function look() {
  const { picture, width, height } = shown, shrink = Math.min(1, Math.sqrt(MOST_PIXELS / (width * height)));
  const columns = Math.max(1, Math.round(width * shrink)), rows = Math.max(1, Math.round(height * shrink));
  if (copy.width !== columns || copy.height !== rows) Object.assign(copy, { width: columns, height: rows });
  reader.drawImage(picture, 0, 0, columns, rows);
  const image = reader.getImageData(0, 0, columns, rows), start = performance.now();
  detector.fit(image);
  const fitted = performance.now();
  detector.run();
  const network = performance.now() - fitted;
  detector.seen = image;
  octrim.image = image;
  octrim.frames++;
  select();
  times.push([network, performance.now() - start, start]);
  if (times.length > 30) times.shift();
}

// Takes the objects above the slider's confidence, and draws.
function select() {
  octrim.found = detector.objects(Number($("confidence").value));
  draw();
  list();
}

function draw() {
  const wide = $("stage").clientWidth, high = Math.max(240, innerHeight * 0.66), sharp = Math.min(devicePixelRatio || 1, 3);
  const scale = Math.min(wide / copy.width, high / copy.height), width = Math.round(copy.width * scale), height = Math.round(copy.height * scale);
  if (view.width !== Math.round(width * sharp) || view.height !== Math.round(height * sharp)) {
    Object.assign(view, { width: Math.round(width * sharp), height: Math.round(height * sharp) });
    Object.assign(view.style, { width: `${width}px`, height: `${height}px` });
  }
  pen.drawImage(copy, 0, 0, view.width, view.height);
  const unit = view.width / copy.width, line = 2 * sharp, letter = 13 * sharp;
  pen.font = `600 ${letter}px system-ui, sans-serif`;
  pen.textBaseline = "top";
  for (const one of [...octrim.found].reverse()) {
    const colour = one.label % COLOURS.length, left = one.x1 * unit, top = one.y1 * unit;
    pen.lineWidth = line;
    pen.strokeStyle = pen.fillStyle = COLOURS[colour];
    pen.strokeRect(left, top, (one.x2 - one.x1) * unit, (one.y2 - one.y1) * unit);
    const text = `${one.name} ${one.confidence.toFixed(2)}`, length = pen.measureText(text).width + letter / 2, tall = letter * 1.3;
    const x = Math.max(0, Math.min(left - line / 2, view.width - length)), y = top >= tall ? top - tall : top;
    pen.fillRect(x, y, length, tall);
    pen.fillStyle = INK[colour];
    pen.fillText(text, x + letter / 4, y + letter * 0.15);
  }
}

function list() {
  const found = octrim.found, counts = new Map();
  for (const one of found) counts.set(one.name, (counts.get(one.name) || 0) + 1);
  $("summary").textContent = found.length ? [...counts].map(([name, count]) => `${count} ${name}`).join(", ") : "Nothing found.";
  $("objects").hidden = !found.length;
  $("objects").tBodies[0].replaceChildren(
    ...found.slice(0, LISTED).map((one) => {
      const line = document.createElement("tr");
      const size = `${Math.round(one.x2 - one.x1)} × ${Math.round(one.y2 - one.y1)}`;
      for (const text of [one.name, one.confidence.toFixed(3), `${Math.round(one.x1)}, ${Math.round(one.y1)}`, size]) line.insertCell().textContent = text;
      const mark = document.createElement("i");
      mark.style.background = COLOURS[one.label % COLOURS.length];
      line.cells[0].prepend(mark);
      return line;
    }),
  );
}

const middle = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
const short = (value) => (value < 10 ? value.toFixed(1) : String(Math.round(value)));

function report() {
  if (!times.length) return;
  $("network").textContent = short(middle(times.map((one) => one[0])));
  $("all").textContent = short(middle(times.map((one) => one[1])));
  const [first, last] = [times[0][2], times[times.length - 1][2]];
  $("rate").textContent = shown.moving && last > first ? short((1000 * (times.length - 1)) / (last - first)) : "–";
}

// Ends what is shown, and returns the number of what is shown next.
function begin(moving) {
  const video = $("video");
  for (const track of video.srcObject ? video.srcObject.getTracks() : []) track.stop();
  if (video.src) URL.revokeObjectURL(video.src);
  video.pause();
  video.srcObject = null;
  video.removeAttribute("src");
  times.length = 0;
  tell("");
  $("empty").hidden = true;
  $("stage").classList.remove("empty");
  view.hidden = false;
  $("pause").hidden = !moving;
  $("pause").textContent = "Pause";
  $("turn").hidden = true;
  return ++turn;
}

// A picture that stays: it is looked at until its time is known well.
async function still(picture) {
  const mine = begin(false);
  shown = { picture, width: picture.width, height: picture.height, moving: false };
  look();
  for (const until = performance.now() + 300; performance.now() < until && times.length < 20 && mine === turn; ) {
    await new Promise((done) => setTimeout(done));
    if (mine === turn) look();
  }
  if (mine === turn) report();
}

// The video element's frames, as they come.
function follow(mine) {
  const video = $("video");
  const next = () => (video.requestVideoFrameCallback ? video.requestVideoFrameCallback(step) : requestAnimationFrame(step));
  const step = () => {
    if (mine !== turn) return;
    if (video.readyState >= 2 && video.videoWidth) {
      shown = { picture: video, width: video.videoWidth, height: video.videoHeight, moving: true };
      look();
      report();
    }
    next();
  };
  next();
}

async function openFile(file) {
  const wish = ++asked;
  if (file.type.startsWith("video/")) {
    const mine = begin(true), video = $("video");
    video.src = URL.createObjectURL(file);
    try {
      await video.play();
      follow(mine);
    } catch {
      if (mine === turn) failed(`${file.name}: this browser cannot play it.`);
    }
    return;
  }
  tell("");
  $("summary").textContent = `Reading ${file.name} …`;
  try {
    const picture = await createImageBitmap(file, { colorSpaceConversion: "none" });
    if (wish === asked) await still(picture);
  } catch (error) {
    if (wish !== asked) return;
    tell(`${file.name}: this browser cannot read it as a picture (${error.message}).`);
    if (shown) list();
    else $("summary").textContent = "";
  }
}

// In words, why there is no camera.
const noCamera = (error) =>
  ({
    NotAllowedError: "it is not allowed on this page. The browser's settings can allow it",
    NotFoundError: "the browser finds none",
    NotReadableError: "it cannot be read. Perhaps another program uses it",
  })[error.name] || error.message;

async function openCamera() {
  asked++;
  const mine = begin(true), video = $("video");
  if (!navigator.mediaDevices) {
    failed("The browser gives cameras only to pages from https:// or localhost.");
    return;
  }
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: facing, width: { ideal: 640 }, height: { ideal: 480 } }, audio: false });
    if (mine !== turn) {
      for (const track of stream.getTracks()) track.stop();
      return;
    }
    video.srcObject = stream;
    await video.play();
    follow(mine);
    const cameras = (await navigator.mediaDevices.enumerateDevices()).filter((one) => one.kind === "videoinput");
    $("turn").hidden = cameras.length < 2;
  } catch (error) {
    if (mine === turn) failed(`No camera: ${noCamera(error)}.`);
  }
}

// The picture or film that the page carries.
const openExample = () => openFile(new File([bytes(data.example)], "The example", { type: data.type }));

$("file").onchange = () => {
  const [file] = $("file").files;
  if (file) openFile(file);
  $("file").value = "";
};
$("camera").onclick = openCamera;
$("example").onclick = openExample;
$("turn").onclick = () => {
  facing = facing === "user" ? "environment" : "user";
  openCamera();
};
$("pause").onclick = () => {
  const stop = $("pause").textContent === "Pause";
  $("pause").textContent = stop ? "Go on" : "Pause";
  if (stop) $("video").pause();
  else $("video").play();
};
$("confidence").oninput = () => {
  $("level").textContent = Number($("confidence").value).toFixed(2);
  if (shown) select();
};
addEventListener("resize", () => {
  if (shown) draw();
});
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("stage").classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files.length) openFile(event.dataTransfer.files[0]);
  });
}

$("stage").classList.add("empty");
for (const one of document.querySelectorAll(".tools button, #file")) one.disabled = true;
try {
  detector = await Detector.open(bytes(data.code), data.weights ? bytes(data.weights).buffer : null);
  for (const one of document.querySelectorAll(".tools button, #file")) one.disabled = false;
  $("example").hidden = !data.example;
  octrim.detector = detector;
  if (data.example) await openExample();
} catch (error) {
  tell(`This browser cannot run the network: ${error.message}. It needs WebAssembly with SIMD: Chrome 91, Firefox 89, Safari 16.4 or later.`);
}
