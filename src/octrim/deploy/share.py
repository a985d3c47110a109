"""`octrim bench --share`: what the runtimes of this machine make of a network and its cut, as one block to add to docs/machines.md."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rich.console import Console

from octrim.deploy.bench import Timings, compared
from octrim.deploy.options import BenchOptions
from octrim.errors import InputError, counted
from octrim.network.initialize import fresh_model
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from octrim.targets.opening import open_session
from octrim.targets.table import live_targets, program


def networks_to_share(options: BenchOptions) -> list[tuple[str, Model]]:
    """The networks that the options name, or yolov5n with random weights, whole and with 1/8 of its channels: times do not depend on the weights."""
    named = [(Path(name).stem, load(name)) for name in options.weights]
    if options.cfg is not None or not named:
        name = options.cfg or "yolov5n"
        whole = fresh_model(name, seed=options.seed)
        named = [(name, whole), (f"{name} cut to 1/8", prune(whole, plan(whole, "1/8", align=8))), *named]
    return named


def able_runtimes(model: Model, options: BenchOptions) -> tuple[list[str], list[str]]:
    """Runtimes that can run the model here, and a line for each that cannot. One that the options name is the only one that is tried."""
    able, refused = [], []
    for runtime in [options.runtime] if options.runtime else live_targets():
        try:
            open_session(model, runtime, options.precision, options.threads)
            able.append(runtime)
        except (InputError, ImportError) as error:
            refused.append(f"{program(runtime)} is left out: {error}")
    if not able:
        raise InputError(f"no runtime can run it here: {'; '.join(refused)}")
    return able, refused


def share(options: BenchOptions, image: np.ndarray, console: Console | None = None) -> tuple[Timings, str, list[str]]:
    """Time every network in every runtime, all side by side. Returns the times, the block in Markdown, and lines about runtimes that are left out.

    image: uint8 BGR `[height, width, 3]`. Raises InputError as `octrim.deploy.bench.compared` does, and where no runtime works.
    """
    networks = networks_to_share(options)
    runtimes, refused = able_runtimes(networks[0][1], options)
    pairs = [(name, model, runtime) for name, model in networks for runtime in runtimes]
    one_size = replace(options, batch=options.batch[:1], imgsz=options.imgsz or (320,))
    found = compared([(name, model) for name, model, _ in pairs], one_size, image, console, [runtime for *_, runtime in pairs])
    return found, block(found, [name for name, _ in networks], runtimes), refused


def block(found: Timings, names: Sequence[str], runtimes: Sequence[str]) -> str:
    """The block in Markdown: a heading with the processor, a line with versions, and a table of milliseconds with a row per network.

    found: times of every network in every runtime, the runtimes of one network beside each other.
    """
    header, rows = found.header, found.rows
    size = f"{header['height']} px" if header["height"] == header["width"] else f"{header['height']}x{header['width']} px"
    lines = [
        f"### {header['processor']}, {counted(header['threads'], 'thread')}, {size}, {header['precision']}",
        "",
        f"OcTrim {version('octrim')}, Python {platform.python_version()}, {header['system']}, {header['runtime']}. Milliseconds of the network "
        f"alone, batch {header['batch']}: median of {counted(header['iterations'], 'round')}, in brackets the 90th percentile.",
        "",
        f"| network | parameters | MACs | {' | '.join(program(runtime) for runtime in runtimes)} |",
        "|---|" + "---:|" * (2 + len(runtimes)),
    ]
    for number, name in enumerate(names):
        own = rows[number * len(runtimes) : (number + 1) * len(runtimes)]
        times = " | ".join(f"{row['network_p50_ms']:.2f} ({row['network_p90_ms']:.2f})" for row in own)
        lines.append(f"| {name} | {own[0]['parameters']:,} | {own[0]['macs'] / 1e6:,.0f} M | {times} |")
    return "\n".join(lines) + "\n"
