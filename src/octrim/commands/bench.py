"""`octrim bench`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from octrim.deploy.options import BenchOptions

if TYPE_CHECKING:
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

        image = read_picture(self.source) if self.source else drawn_scene(0)
        networks: list[tuple[str, str | Model]] = [(name, name) for name in self.weights]
        if self.cfg is not None:
            networks.insert(0, (self.cfg, fresh_model(self.cfg, seed=self.seed)))
        found = compared(networks, self, image, wide_console())
        run = new_run(self)
        show_bench(found, run)
        write_bench(found, run.path)
        run.print(f"results: {run.path}")
