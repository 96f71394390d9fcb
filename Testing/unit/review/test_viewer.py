"""Slicer's own views of a participant: without the extra a sentence, with it a real scene, the page's token only."""

import asyncio
import sys
from types import SimpleNamespace
from unittest.mock import MagicMock, Mock

import pytest
from support.review_study import make_reviewable

from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.headless import start_headless
from DiscStudyLib.review import Session, SlicerViews


@pytest.fixture
def session(tmp_path):
    return Session(make_reviewable(tmp_path / "study", 2))


def test_without_the_extra_it_is_named(session, monkeypatch):
    monkeypatch.setitem(sys.modules, "trame", None)
    with pytest.raises(StudyError, match="extra 'viewer'"):
        SlicerViews(session)


class State(dict):
    """The state of a trame server: attributes, changed at once inside ``with``."""

    __getattr__, __setattr__ = dict.__getitem__, dict.__setitem__

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def change(self, *names):
        return lambda function: function


@pytest.fixture
def stand_in(monkeypatch):
    """What :class:`SlicerViews` uses of trame 3 and trame-slicer 2, over the scene of this process.

    ``SlicerApp`` has scene, display_manager and view_manager; ``display_manager.show_volume_in_slice_*`` take a volume
    node (or None in front), ``View.set_foreground_opacity`` a share. Everything else only has to be there.
    """
    runtime = start_headless()
    runtime.mrmlScene.Clear(0)
    shown, views = {}, [SimpleNamespace(set_foreground_opacity=lambda value: shown.update(opacity=value))]
    app = SimpleNamespace(
        scene=runtime.mrmlScene, view_manager=SimpleNamespace(get_slice_views=lambda: views),
        display_manager=SimpleNamespace(
            show_volume_in_slice_background=lambda node: shown.update(back=node.GetName()),
            show_volume_in_slice_foreground=lambda node: shown.update(
                front=node and (node.GetName()[:4], node.GetDisplayNode().GetColorNode().GetName())),
            reset_views=lambda: shown.update(reset=True)))
    server = SimpleNamespace(state=State(), cli=Mock(), controller=Mock(), enable_module=Mock(), port=1234,
                             start=Mock())
    for name in ("trame", "trame.app", "trame.ui", "trame.ui.vuetify3", "trame.widgets", "trame_slicer",
                 "trame_slicer.core", "trame_slicer.rca_view"):
        monkeypatch.setitem(sys.modules, name, MagicMock())
    sys.modules["trame.app"].get_server = lambda name, client_type: server
    sys.modules["trame_slicer.core"].SlicerApp = lambda: app
    yield server, shown
    runtime.mrmlScene.Clear(0)


def test_each_participant_has_image_outlines_and_the_map_that_is_chosen(session, stand_in):
    server, shown = stand_in
    views = SlicerViews(session, port=8766)
    assert server.cli.set_defaults.call_args.kwargs == {"authKey": views.token} and len(views.token) > 20
    for person in ("sub-02", "sub-01"):
        views.show(person)
        assert shown == {"back": person, "front": None, "opacity": 0.0, "reset": True}
        scene, state = views.app.scene, server.state
        assert (state.person, state.map, state.maps) == (person, "", ["nT2w"])
        nodes = [scene.GetNthNodeByClass(n, "vtkMRMLSegmentationNode")
                 for n in range(scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode"))]
        assert [n.GetName() for n in nodes] == [f"{person} discs"]
        assert nodes[0].GetSegmentation().GetNumberOfSegments() == 6
        assert not nodes[0].GetDisplayNode().GetVisibility2DFill()
        state.map = "nT2w"
        views._overlay()
        assert (shown["front"], shown["opacity"]) == (("nT2w", "Viridis"), 0.6)
        assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 2, "those of the one before are gone"
    views.serve(lambda: None)
    assert server.start.call_args.kwargs["host"] == "127.0.0.1" and server.start.call_args.kwargs["port"] == 8766
    ready, = server.controller.on_server_ready.add.call_args.args

    async def begin():
        ready()

    asyncio.run(begin())
    assert views.address == f"http://127.0.0.1:1234/?secret={views.token}"


@pytest.mark.slow  # in an environment of its own, with the slicer-core of Slicer 5.11: `make viewer`
@pytest.mark.timeout(300)
def test_a_participant_is_shown_with_outlines_and_map(session):
    pytest.importorskip("trame_slicer", reason="the extra 'viewer' is not installed")
    views, seen = SlicerViews(session), {}
    assert views.server.cli.get_default("authKey") == views.token and len(views.token) > 20

    def look():
        scene = views.app.scene
        views.server.state.map = "nT2w"
        views._overlay()
        volumes = scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
        segments = scene.GetFirstNodeByClass("vtkMRMLSegmentationNode").GetSegmentation()
        overlay = scene.GetNthNodeByClass(1, "vtkMRMLScalarVolumeNode") if volumes > 1 else None
        colors = overlay and overlay.GetDisplayNode().GetColorNode().GetName()
        shown = {v.get_background_volume_id() for v in views.app.view_manager.get_slice_views()}
        names = {scene.GetNodeByID(i).GetName() for i in shown}
        seen[views.server.state.person] = (volumes, segments.GetNumberOfSegments(), colors, names)

    def beside():
        for person in ("sub-01", "sub-02"):
            assert views.ask(person)["address"].endswith(views.token)
            asyncio.run_coroutine_threadsafe(_in_turn(look), views.loop).result(60)
        asyncio.run_coroutine_threadsafe(views.server.stop(), views.loop)

    views.serve(beside)
    assert seen == {p: (2, 6, "Viridis", {p}) for p in ("sub-01", "sub-02")}


async def _in_turn(work):
    work()
