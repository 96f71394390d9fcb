"""What all studies of the tests share: settings that are watched while steps run, and work that is done once."""

import functools
import hashlib
import os
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path

import matplotlib.figure
import PIL.Image
import pytest

import DiscAtlasLib.registration
import DiscStudyLib.report.group
import DiscStudyLib.report.stats
import DiscStudyLib.steps.report
from DiscStudyLib.engine import steps
from DiscStudyLib.folder import Settings

#: Settings that say how people are worked on, on which no result depends.
FREE = {"threads", "on_error", "require_review"}
FIELDS = {f.name for f in fields(Settings)}
#: Registrations of this process, and what it knows to be drawn: names of files, and of figures with many axes.
REGISTERED: dict[tuple, tuple] = {}
DRAWN: set[object] = set()


class WatchedSettings(Settings):
    """Settings that keep the names of the fields that are read."""

    read: set[str] = set()

    def __getattribute__(self, name):
        if name in FIELDS:
            WatchedSettings.read.add(name)
        return super().__getattribute__(name)


@contextmanager
def light_runs(shared: Path | None = None):
    """Watch the settings in every run of a study in this process, and do equal work once.

    In a folder that processes share, each figure is drawn once for all of them.
    """
    with pytest.MonkeyPatch.context() as monkeypatch:
        watch(monkeypatch)
        register_once(monkeypatch)
        draw_once(monkeypatch, shared)
        yield


def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that all workers of a run of the tests have."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a step fail that reads a setting which does not decide on redoing it."""
    run = steps._run

    def watched(item):
        def checked(context):
            settings = context.settings
            context.settings = WatchedSettings(**asdict(settings))
            WatchedSettings.read.clear()
            try:
                item.step.run(context)
            finally:
                context.settings = settings
            unknown = WatchedSettings.read - FREE - set(item.step.parameters) - set(item.step.extra(context))
            assert not unknown, f"{item.step.name} reads {sorted(unknown)}, not among its parameters"

        return run(replace(item, step=replace(item.step, run=checked)))

    monkeypatch.setattr(steps, "_run", watched)


def register_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register equal discs once in a process: the people of a phantom study differ in signal, not in shape."""
    register = DiscAtlasLib.registration._register_level

    def kept(value, atlas, labels, backend, person, landmarks):
        images = (atlas.labels, labels)
        key = (value, backend.name, *(hashlib.sha256(i.array.tobytes() + repr(i.geometry).encode()).digest()
                                      for i in images))
        if landmarks or backend.name != "coordinates" or key not in REGISTERED:
            outcome = register(value, atlas=atlas, labels=labels, backend=backend, person=person, landmarks=landmarks)
            if isinstance(outcome, tuple):
                REGISTERED[key] = outcome
            return outcome
        moving, transform, row = REGISTERED[key]
        return replace(moving, person=person), transform, dict(row)

    monkeypatch.setattr(DiscAtlasLib.registration, "_register_level", functools.wraps(register)(kept))


def draw_once(monkeypatch: pytest.MonkeyPatch, shared: Path | None = None) -> None:
    """Draw each figure of a report once; later ones of its name, or with as many maps, are blank."""
    save = matplotlib.figure.Figure.savefig

    def mark(kind: object) -> Path | None:
        return shared and shared / f"{hashlib.sha256(repr(kind).encode()).hexdigest()}.drawn"

    def is_drawn(kind: object) -> bool:
        return kind in DRAWN or shared is not None and mark(kind).exists()

    def note(kind: object) -> None:
        DRAWN.add(kind)
        if shared:
            mark(kind).touch()

    def kept(self, path, **options):
        name = Path(path).name.split(".partial.")[-1]
        if is_drawn(name):
            PIL.Image.new("RGB", (8, 8), "white").save(path, format="png")
        else:
            save(self, path, **options)
            note(name)

    def of_its_kind(draw):
        @functools.wraps(draw)
        def made(columns, *more):
            kind = draw.__name__, len(columns), *map(str, more[1:2]), len(more)
            figure = matplotlib.figure.Figure() if is_drawn(kind) else draw(columns, *more)
            note(kind)
            return figure
        return made

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", kept)
    for module, name in ((DiscStudyLib.report.group, "atlas_figure"), (DiscStudyLib.report.stats, "atlas_figure"),
                         (DiscStudyLib.steps.report, "map_row")):
        monkeypatch.setattr(module, name, of_its_kind(getattr(module, name)))
