"""Longest time in which the window does not answer while the Disc Relaxometry panel works: gaps between timer ticks.

python Testing/benchmarks/bench_event_loop.py

The panel runs in the tests' Qt host, on the sample person and a simulated series; a job runs in a child process, and
its result is shown by the window's thread when it has ended.
"""

from __future__ import annotations

import os
import time

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import numpy as np
from common import Aim, Results
from panels.host import close_panel, open_panel, start_host

from DiscRelaxometryLib import mrml
from DiscRelaxometryLib.echo import EchoSeries

TICK_MS = 5


def gaps(work, start) -> tuple[float, float]:
    """Return the longest gap between ticks (s) while a job runs, and while its start and result are handled."""
    from PySide6 import QtCore

    loop, timer, ticks = QtCore.QEventLoop(), QtCore.QTimer(), []

    def tick():
        ticks.append((time.monotonic(), work.busy))
        if len(ticks) > 50 and not work.busy and time.monotonic() - begun > 2:
            loop.quit()

    timer.setInterval(TICK_MS)
    timer.timeout.connect(tick)
    begun = time.monotonic()
    QtCore.QTimer.singleShot(100, start)
    timer.start()
    loop.exec()
    timer.stop()
    found = [(b[0] - a[0], a[1] and b[1]) for a, b in zip(ticks, ticks[1:])]
    return max(g for g, inside in found if inside), max(g for g, inside in found if not inside)


def main() -> None:
    """Measure segmentation and maps, and keep the figures."""
    start_host()
    from DiscRelaxometryWidgets.sample_data import load_person

    from DiscRelaxometry import DiscRelaxometryWidget

    panel = open_panel(DiscRelaxometryWidget)
    rows = []
    p = panel._parameterNode
    p.inputVolume, reference = load_person()
    p.segmentation = None
    rows.append(("segment discs", *gaps(panel.work, panel.ui.segmentButton.click)))
    image = mrml.image_from_volume(p.inputVolume)
    times = np.array([1.0, 20.0, 40.0, 80.0])
    decay = image.array[None] * np.exp(-times[:, None, None, None] / 60.0)
    p.series = mrml.sequence_from_series(EchoSeries(decay.astype(np.float32), times, "T2", image.geometry), "echoes")
    rows.append(("compute maps", *gaps(panel.work, panel.ui.computeButton.click)))
    close_panel(panel)
    results = Results("bench_event_loop")
    results.table("gaps", ["work", ("while it runs s", ".2f"), ("at start and result s", ".2f")], rows)
    results.aims(Aim("Longest gap of the event loop while work runs", max(r[1] for r in rows), at_most=0.2, form=".2f",
                     unit="s"))


if __name__ == "__main__":
    main()
