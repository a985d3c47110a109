"""How fast is an exported page in Chromium, beside the same network in C on this machine and in ONNX Runtime's own WebAssembly (onnxruntime-web)?

    npm install onnxruntime-web@1.30.0
    python -m benchmarks.browser --weights small.safetensors --imgsz 320 --ort node_modules/onnxruntime-web/dist [--rounds 20]

One picture at a time, one thread everywhere, letterboxing and suppression left out, decoding included. The page's network and onnxruntime-web take
turns in one page, in bursts of five, the first run of each not timed; medians. Before anything is timed, both are held to each other.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from octrim.deploy.export import export
from octrim.network.loading import load
from octrim.targets.opening import open_session
from tests.chromium import Page, chromium

_PAGE = """<!doctype html><script type="module">
import { Detector } from "./detector.js";
import * as ort from "./ort/ort.wasm.min.mjs";
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = new URL("./ort/", location.href).href;
const bytes = async (name) => { const answer = await fetch(name); return answer.ok ? answer.arrayBuffer() : null; };
const detector = await Detector.open(await bytes("detector.wasm"), WEIGHTS ? await bytes("weights.bin") : null);
const session = await ort.InferenceSession.create("model.onnx", { executionProviders: ["wasm"], graphOptimizationLevel: "all" });
const pixels = new Uint8Array(await bytes("picture"));
const planes = new Float32Array(pixels.length), count = pixels.length / 3;
for (let i = 0; i < count; i++) for (let c = 0; c < 3; c++) planes[c * count + i] = pixels[3 * i + c] / 255;
const feeds = { [session.inputNames[0]]: new ort.Tensor("float32", planes, [1, 3, detector.height, detector.width]) };
detector.input.set(pixels);
globalThis.run = { page: () => detector.run(), ort: async () => (await session.run(feeds))[session.outputNames[0]].data };
globalThis.time = async (rounds) => {
  const times = { page: [], ort: [] };
  for (let round = 0; round < rounds; round++) for (const name of ["page", "ort"]) for (let i = 0; i < 6; i++) {
    const start = performance.now();
    await run[name]();
    if (i) times[name].push(performance.now() - start);
  }
  return times;
};
const [one, other] = [[...run.page()], [...await run.ort()]];
globalThis.apart = Math.max(...one.map((value, i) => Math.abs(value - other[i])));
globalThis.version = ort.env.versions.web;
</script>"""


def main() -> None:
    """Print a row per way of running."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--ort", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    model = load(options.weights)
    picture = np.random.default_rng(0).integers(0, 256, (1, options.imgsz, options.imgsz, 3), np.uint8)
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "web"
        export(model, folder, "web", imgsz=options.imgsz)
        export(model, folder / "model.onnx", "onnx", imgsz=options.imgsz)
        (folder / "picture").write_bytes(picture.tobytes())
        (folder / "bench.html").write_text(_PAGE.replace("WEIGHTS", "1" if (folder / "weights.bin").exists() else "0"))
        shutil.copytree(options.ort, folder / "ort")
        with _served(folder) as address, chromium() as page:
            page.open(f"{address}/bench.html", 800)
            page.until("globalThis.version", 60)
            apart, version = page.value("[apart, version]")
            page.value("time(10)")  # the browser compiles anew what runs often
            native = open_session(model, "c", threads=1)
            openvino = open_session(model, "openvino", threads=1)
            for _ in range(4):
                _add(times, page, options.rounds // 4)
                for label, session in (("C, this machine's vectors", native), ("OpenVINO", openvino)):
                    times.setdefault(label, []).extend(_timed(session, picture, options.rounds // 4))
    print(f"{options.weights}, {options.imgsz} px; onnxruntime-web {version}; the two in the page differ by {apart:.1e}")
    for label, values in sorted(times.items()):
        print(f"{label}: median {median(values):.2f} ms, fastest {min(values):.2f}")


def _add(times: dict[str, list[float]], page: Page, rounds: int) -> None:
    for label, values in page.value(f"time({rounds})").items():
        times.setdefault({"page": "page (WebAssembly)", "ort": "onnxruntime-web"}[label], []).extend(values)


def _timed(session: Any, picture: np.ndarray, rounds: int) -> list[float]:
    found = []
    for _ in range(rounds):
        for index in range(6):
            start = perf_counter()
            session(picture)
            if index:
                found.append(1000 * (perf_counter() - start))
    return found


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """Address at which a server has the folder."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


if __name__ == "__main__":
    main()
