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
