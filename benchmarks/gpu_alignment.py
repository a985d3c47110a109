"""What channel counts cost on an NVIDIA GPU: cuts that are aligned, unaligned, and unaligned but padded with zero channels.

    python benchmarks/gpu_alignment.py [--cfg yolov5n yolov5s --side 640 --batch 1 32 --dtype float16 --rounds 30]

Needs PyTorch with CUDA. The table is walked into it: batch norm folded, channels-last, decoding left out, one CUDA graph per network, cuDNN free to
measure its kernels. All networks of a batch size take turns in one run; a time is that of ten launches of the graph, over ten. Weights are fresh:
time does not depend on them. This is cuDNN, not TensorRT, which fuses more and may choose other kernels.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from interleave import interleaved
from octrim.backends.numpy import NumpyOps
from octrim.data.pictures import letterbox
from octrim.data.scenes import drawn_scene
from octrim.network.cost import network_cost
from octrim.network.initialize import fresh_model, fresh_tensors
from octrim.network.model import Model
from octrim.network.rows import walk
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from octrim.targets.session import float_batch
from octrim.targets.tensorrt.cuda import nvidia_smi
from torch_walk import FoldedOps

LAUNCHES = 10
CUTS = (("1/2", 8), ("0.45", 1), ("0.45", 8), ("0.45", 16), ("0.45", 32), ("0.15", 1), ("0.15", 8), ("0.15", 16), ("1/8", 1), ("1/8", 8))


def padded(model: Model, multiple: int) -> Model:
    """The network with every count rounded up: what padding with zero channels makes of it."""
    network = model.network
    rows = tuple(
        replace(row, channels=-(-row.channels // multiple) * multiple) if row.op == "conv" and row.name not in network.heads else row
        for row in network.rows
    )
    wide = replace(network, rows=rows)
    return replace(model, network=wide, tensors=fresh_tensors(wide))


def candidates(whole: Model) -> dict[str, Model]:
    networks = {"whole": whole}
    for keep, align in CUTS:
        cut = prune(whole, plan(whole, keep, align=align, criterion="l2"))
        networks[f"{keep} align {align}"] = cut
        if align == 1:
            networks |= {f"{keep} align 1, padded to {multiple}": padded(cut, multiple) for multiple in (8, 16)}
    return networks


def graph_of(model: Model, images: torch.Tensor, dtype: torch.dtype) -> tuple[torch.cuda.CUDAGraph, FoldedOps]:
    """A CUDA graph of one pass over `images`, after three passes on a side stream in which cuDNN chooses its kernels; and its weights, to be kept."""
    ops = FoldedOps(model, "cuda", dtype, torch.channels_last)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.inference_mode(), torch.cuda.stream(stream):
        for _ in range(3):
            walk(model.network, ops, images)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        walk(model.network, ops, images)
    return graph, ops


def check(model: Model, dtype: torch.dtype) -> float:
    """Largest difference of a logit from NumPy's in float32, over the largest logit, at 64 pixels."""
    images = float_batch(np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8))
    with torch.inference_mode():
        batch = torch.from_numpy(images).to("cuda", dtype).contiguous(memory_format=torch.channels_last)
        found = walk(model.network, FoldedOps(model, "cuda", dtype, torch.channels_last), batch)
    truth = walk(model.network, NumpyOps(model), images)
    return max(float(np.abs(a.float().cpu().numpy() - b).max() / np.abs(b).max()) for a, b in zip(found, truth, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg", nargs="*", default=["yolov5n", "yolov5s"])
    parser.add_argument("--side", type=int, default=640)
    parser.add_argument("--batch", nargs="*", type=int, default=[1, 32])
    parser.add_argument("--dtype", choices=["float16", "float32"], default="float16", help="float32 with TF32, PyTorch's default for convolutions")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path, help="a JSON file for the numbers")
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    torch.backends.cudnn.benchmark = True
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}, {options.dtype}, {nvidia_smi()}")
    results = []
    for cfg in options.cfg:
        networks = candidates(fresh_model(cfg))
        print(f"{cfg}: largest error against NumPy {max(check(networks[name], dtype) for name in ('whole', '0.45 align 1')):.1e}")
        for batch in options.batch:
            picture = float_batch(letterbox(drawn_scene(0), options.side, options.side)[0][None].repeat(batch, 0))
            images = torch.from_numpy(picture).to("cuda", dtype).contiguous(memory_format=torch.channels_last)
            graphs = {name: graph_of(model, images, dtype) for name, model in networks.items()}

            def launches(graph: torch.cuda.CUDAGraph) -> None:
                for _ in range(LAUNCHES):
                    graph.replay()
                torch.cuda.synchronize()

            times = interleaved({name: (lambda graph=graph: launches(graph)) for name, (graph, _) in graphs.items()}, options.rounds)
            print(f"\n{cfg}, {options.side} px, batch {batch}, {options.dtype}: median milliseconds per launch")
            print(f"{'':28} {'parameters':>11} {'M MACs':>8} {'ms':>8} {'p10':>8} {'p90':>8} {'whole/this':>10}")
            for name, model in networks.items():
                cost, values = network_cost(model.network, options.side), times[name] / LAUNCHES
                low, median, high = (float(np.percentile(values, share)) for share in (10, 50, 90))
                ratio = float(np.median(times["whole"] / times[name]))
                print(f"{name:28} {cost.parameters:11,} {cost.macs / 1e6:8.0f} {median:8.3f} {low:8.3f} {high:8.3f} {ratio:10.2f}")
                results.append(
                    {"cfg": cfg, "batch": batch, "name": name, "parameters": cost.parameters, "macs": cost.macs, "ms": median, "ratio": ratio}
                )
            del graphs
            torch.cuda.empty_cache()
    if options.out is not None:
        options.out.write_text(json.dumps(results, indent=1), "utf-8")


if __name__ == "__main__":
    main()
