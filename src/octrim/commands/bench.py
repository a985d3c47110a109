"""`octrim bench`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from octrim.deploy.options import BenchOptions

if TYPE_CHECKING:
    import numpy as np

    from octrim.network.model import Model


@dataclass(frozen=True)
class Bench(BenchOptions):
    """Time networks side by side, interleaved in one process, stage by stage."""

    def run(self) -> None:
        from octrim.data.pictures import read_picture
        from octrim.data.scenes import drawn_scene
        from octrim.deploy.bench import compared
        from octrim.deploy.bench_report import show_bench, write_bench
        from octrim.network.initialize import fresh_model
        from octrim.runs import new_run, wide_console

        if self.latency_table is not None:
            self._latency_table(self.latency_table)
            return
        image = read_picture(self.source) if self.source else drawn_scene(0)
        if self.share:
            self._share(image)
            return
        networks: list[tuple[str, str | Model]] = [(name, name) for name in self.weights]
        if self.cfg is not None:
            networks.insert(0, (self.cfg, fresh_model(self.cfg, seed=self.seed)))
        found = compared(networks, self, image, wide_console())
        run = new_run(self)
        show_bench(found, run)
        write_bench(found, run.path)
        run.print(f"results: {run.path}")

    def _latency_table(self, path: str) -> None:
        from pathlib import Path

        from octrim.errors import InputError
        from octrim.latency.measure import measured_table
        from octrim.latency.stopwatch import Conditions
        from octrim.latency.table import write_table
        from octrim.machine import usable_cores
        from octrim.network.initialize import fresh_model
        from octrim.network.loading import load
        from octrim.network.options import image_size
        from octrim.runs import typed, wide_console
        from octrim.targets.table import DEFAULT_RUNTIME

        if len(self.weights) + (self.cfg is not None) > 1:
            raise InputError("a latency table is of one network: give one of --weights, or --cfg")
        if self.device == "gpu":
            raise InputError("a latency table is of a processor's runtimes, and device is gpu")
        if Path(path).is_dir() or not Path(path).absolute().parent.is_dir():
            raise InputError(f"{path}: expected the name of a file in a folder that exists")
        name = self.weights[0] if self.weights else self.cfg or "yolov5n"
        model = load(name) if self.weights else fresh_model(name, seed=self.seed)
        size = image_size(self.imgsz, model.image_size, model.network.stride)
        conditions = Conditions(self.runtime or DEFAULT_RUNTIME, self.precision, self.threads or usable_cores(), *size)
        table = measured_table(model.network, Path(name).name, conditions, wide_console())
        write_table(table, path)
        print(
            f"{table.machine}: {Path(name).name} {size[0]}x{size[1]}, whole {table.predict(model.network):.3g} ms, measured in {table.seconds:.0f} s"
        )
        error = f"{100 * table.check.median_error:.1f} % (median), {100 * table.check.largest_error:.1f} % (largest)"
        print(f"error on {table.check.networks} random plans: {error}")
        if table.check.disturbed:
            print("this is far more than on a quiet machine: something else was computing, so measure again before you plan by it")
        print(f"latency table: {path}")
        asked = ("--precision", "int8") if self.precision == "int8" else ()
        words = ("--weights", name, "--budget", "latency=1/4", "--latency-table", path, *asked, "--imgsz", *dict.fromkeys(size))
        print(f"next: {typed('prune', *words)}")

    def _share(self, image: np.ndarray) -> None:
        from octrim.atomic import write_text
        from octrim.deploy.bench_report import write_bench
        from octrim.deploy.share import share
        from octrim.runs import new_run, wide_console

        found, block, refused = share(self, image, wide_console())
        run = new_run(self)
        write_bench(found, run.path)
        write_text(run.path / "share.md", block)
        for line in refused:
            run.print(line)
        print(f"\n{block}")
        run.print(f"this block: {run.path / 'share.md'}; docs/machines.md in OcTrim's repository collects them")
