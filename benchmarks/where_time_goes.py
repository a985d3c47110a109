"""Where the time of a cut network goes that its MACs do not explain, and which shapes are faster at equal MACs.

    python benchmarks/where_time_goes.py --weights best.safetensors [--sides 320 640 --rounds 60]

One run, interleaved, batch 1: the network, its uniform cut to 1/8 in multiples of 8, and cuts of other shapes with at most the same MACs, in
OpenVINO fp32 and bf16 and in ONNX Runtime; then the layers of the 1/8 network beside those of the whole one, by OpenVINO's own counters.
Shapes do not need trained weights: time does not depend on them.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import numpy as np

from interleave import interleaved
from octrim.data.pictures import letterbox
from octrim.data.scenes import drawn_scene
from octrim.network.cost import network_cost
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from octrim.targets.opening import open_session
from octrim.targets.openvino.graph import openvino_model

RUNTIMES = (("openvino", "fp32"), ("openvino", "bf16"), ("onnxruntime", "fp32"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--sides", nargs="*", type=int, default=[320, 640])
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    whole = load(options.weights)
    networks = {"whole": whole, **shapes(whole)}
    for side in options.sides:
        picture = letterbox(drawn_scene(0), side, side)[0][None]
        sessions = {}
        for name, model in networks.items():
            for runtime, precision in RUNTIMES:
                session = open_session(model, runtime, precision)
                session.prepare(1, side, side)
                sessions[name, f"{runtime} {precision}"] = session
        times = interleaved({key: (lambda session=session, picture=picture: session(picture)) for key, session in sessions.items()}, options.rounds)
        print(f"\n{side} px, batch 1, medians in ms (speed-up)")
        rows = []
        for name, model in networks.items():
            cost = network_cost(model.network, side)
            cells = []
            for runtime, precision in RUNTIMES:
                key = f"{runtime} {precision}"
                median, first = (float(np.median(times[which, key])) for which in (name, "whole"))
                cells.append(f"{median:.2f} ({first / median:.2f}x)")
            rows.append([name, f"{cost.parameters:,}", f"{cost.macs / 1e6:.0f} M", f"{cost.channels:,}", *cells])
        print(columns(["network", "parameters", "MACs", "channels", *(" ".join(one) for one in RUNTIMES)], rows))
        for precision in ("f32", "bf16"):
            layers(whole, networks["uniform 1/8, align 8"], side, precision, options.rounds)


def shapes(whole: Model) -> dict[str, Model]:
    """Cuts with at most the MACs of the uniform one."""
    uniform = plan(whole, "1/8", 8)
    share = uniform.after.macs / uniform.before.macs
    found = {"uniform 1/8, align 8": uniform}
    for align in (8, 1):
        found[f"learned, align {align}"] = plan(whole, None, align, "group-l2", budget=f"macs={share:.6f}")
    # The stem and the first stage run on the largest maps: keep them at the least, and the deep half wider.
    found["thin start, wide end"] = plan(
        whole, "1/8", 8, keep_map={f"model.{index}": "1/4" for index in (6, 7, 8, 9, 10, 13, 14, 17, 18, 20, 21, 23)}
    )
    return {
        name: prune(whole, made)
        for name, made in found.items()
        if made.after.macs <= uniform.after.macs * 1.005 or name.startswith(("uniform", "thin"))
    }


def layers(whole: Model, small: Model, side: int, precision: str, rounds: int) -> None:
    """Microseconds per row of the table (fused operations under the convolution's name), median of the rounds."""
    found = [profile(model, side, precision, rounds) for model in (whole, small)]
    costs = [network_cost(model.network, side).convs for model in (whole, small)]
    totals = [sum(times.values()) for times in found]
    print(f"\nOpenVINO {precision} at {side} px by layer, microseconds: whole {totals[0]:.0f}, 1/8 {totals[1]:.0f}")
    rows = []
    for name in sorted(found[1], key=lambda one: -found[1][one])[:16]:
        macs = [cost[name].macs / 1e6 if name in cost else 0.0 for cost in costs]
        before, after = found[0].get(name, 0.0), found[1][name]
        rows.append([name, f"{before:.0f}", f"{after:.0f}", f"{100 * after / totals[1]:.0f} %", f"{macs[0]:.1f}", f"{macs[1]:.2f}"])
    print(columns(["layer", "whole", "1/8", "share", "MACs whole, M", "MACs 1/8, M"], rows))


def columns(heads: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[index]) for row in (heads, *rows)) for index in range(len(heads))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (heads, *rows))


def profile(model: Model, side: int, precision: str, rounds: int) -> dict[str, float]:
    """Median microseconds of every executed node, summed by the row it belongs to."""
    import openvino as ov

    config = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", "PERF_COUNT": True, "ENABLE_CPU_PINNING": False}
    request = ov.Core().compile_model(openvino_model(model, side, side, 1, pixels=True), "CPU", config).create_infer_request()
    picture = letterbox(drawn_scene(0), side, side)[0][None]
    rows = [row.name for row in model.network.convs if row.name not in model.network.heads]
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        request.infer([picture])
        nodes = [node for node in request.get_profiling_info() if node.status == ov.ProfilingInfo.Status.EXECUTED]
        # Fusing takes the rows' names away; convolutions are numbered as they were built: in the table's order, Detect's at the end.
        convs = sorted((node.node_name for node in nodes if node.node_type == "Convolution"), key=lambda name: int(name.rpartition("_")[2]))
        named = dict(zip(convs, [*rows, *["Detect's convolutions"] * (len(convs) - len(rows))], strict=True))
        sums: dict[str, float] = defaultdict(float)
        for node in nodes:
            sums[named.get(node.node_name, f"all {node.node_type}")] += node.real_time.total_seconds() * 1e6
        for name, value in sums.items():
            times[name].append(value)
    return {name: float(np.median(values)) for name, values in times.items()}


if __name__ == "__main__":
    main()
