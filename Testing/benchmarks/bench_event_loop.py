"""Longest time in which the window does not answer while panels work: gaps between timer ticks.

python Testing/benchmarks/bench_event_loop.py

The panels run in the tests' Qt host, on the sample person, a simulated series and a simulated cohort; a job runs in a
child process, and its result is shown by the window's thread when it has ended. Beside the time by the clock, the
processor time of the window's thread in a gap says what remains on an idle machine.
"""

import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import numpy as np
from common import Aim, Results
from panels.host import close_panel, open_panel, start_host

from DiscRelaxometryLib import mrml
from DiscRelaxometryLib.echo import EchoSeries
from DiscRelaxometryLib.image import write_image

TICK_MS = 5


def gaps(work, start) -> tuple[float, float, float]:
    """Return the longest gap (s) between ticks while a job runs, at start and result, and CPU s of the latter."""
    from PySide6 import QtCore

    loop, timer, ticks = QtCore.QEventLoop(), QtCore.QTimer(), []

    def tick():
        ticks.append((time.monotonic(), time.thread_time(), work.child is not None))
        if len(ticks) > 50 and not work.busy and time.monotonic() - begun > 2:
            loop.quit()

    timer.setInterval(TICK_MS)
    timer.timeout.connect(tick)
    begun = time.monotonic()
    QtCore.QTimer.singleShot(100, start)
    timer.start()
    loop.exec()
    timer.stop()
    found = [(b[0] - a[0], b[1] - a[1], a[2] and b[2]) for a, b in zip(ticks, ticks[1:])]
    edges = [(wall, cpu) for wall, cpu, inside in found if not inside]
    return max(wall for wall, _, inside in found if inside), max(w for w, _ in edges), max(c for _, c in edges)


def relaxometry() -> list[tuple]:
    """Measure segmentation, maps and measures of the sample person."""
    from DiscRelaxometryWidgets.sample_data import load_person

    from DiscRelaxometry import DiscRelaxometryWidget

    panel = open_panel(DiscRelaxometryWidget)
    p, ui = panel._parameterNode, panel.ui
    p.inputVolume, p.segmentation = load_person()[0], None
    rows = [("segment discs", *gaps(panel.work, ui.segmentButton.click))]
    image = mrml.image_from_volume(p.inputVolume)
    times = np.array([1.0, 20.0, 40.0, 80.0])
    decay = image.array[None] * np.exp(-times[:, None, None, None] / 60.0)
    p.series = mrml.sequence_from_series(EchoSeries(decay.astype(np.float32), times, "T2", image.geometry), "echoes")
    rows.append(("compute maps", *gaps(panel.work, ui.computeButton.click)))
    rows.append(("measure", *gaps(panel.work, ui.measureButton.click)))
    close_panel(panel)
    return rows


def atlas() -> list[tuple]:
    """Measure the registration of the sample person by the backends that are installed."""
    from DiscAtlas import DiscAtlasWidget

    panel, rows = open_panel(DiscAtlasWidget), []
    panel._parameterNode.people = slicer_nodes("vtkMRMLSegmentationNode")[-1:]
    for backend in ("coordinates", "elastix"):
        panel._parameterNode.backend = type(panel._parameterNode.backend)[backend]
        rows.append((f"register ({backend})", *gaps(panel.work, panel.ui.registerButton.click)))
    close_panel(panel)
    return rows


def statistics(folder: Path) -> list[tuple]:
    """Measure an analysis of 20 simulated people in the shipped atlas."""
    from DiscAtlasLib import load_atlas
    from DiscStats import DiscStatsWidget

    labels, rng = load_atlas().labels, np.random.default_rng(0)
    lines = ["participant_id\tage\n"]
    for n in range(20):
        lines.append(f"sub-{n:02d}\t{30 + n}\n")
        values = np.where(labels.array > 0, rng.normal(80, 5, labels.array.shape), np.nan).astype(np.float32)
        write_image(labels.like(values), folder / f"sub-{n:02d}_space-DiscAtlas_T2.nii.gz")
    (folder / "participants.tsv").write_text("".join(lines))
    panel = open_panel(DiscStatsWidget)
    p = panel._parameterNode
    p.participantsFile, p.mapsFolder, p.formula, p.permutations = folder / "participants.tsv", folder, "age", 200
    rows = [("statistics", *gaps(panel.work, panel.ui.runButton.click))]
    close_panel(panel)
    return rows


def slicer_nodes(name: str) -> list:
    """Return the nodes of a class in the scene."""
    return start_host().util.getNodesByClass(name)


def main() -> None:
    """Measure all and keep the figures."""
    start_host()
    with tempfile.TemporaryDirectory() as folder:
        rows = relaxometry() + atlas() + statistics(Path(folder))
    results = Results("bench_event_loop")
    results.table("gaps", ["work", ("while it runs s", ".2f"), ("at start and result s", ".2f"),
                           ("the same, CPU s", ".2f")], rows)
    results.aims(Aim("Longest gap of the event loop while work runs", max(r[1] for r in rows), at_most=0.2, form=".2f",
                     unit="s"),
                 Aim("Processor time of the longest gap at start and result", max(r[3] for r in rows), at_most=0.2,
                     form=".2f", unit="s"))


if __name__ == "__main__":
    main()
