"""Slicer's own views of a participant: without the extra a sentence, with it a real scene, the page's token only."""

from __future__ import annotations

import asyncio
import sys

import pytest
from support.review_study import make_reviewable

from DiscRelaxometryLib.errors import StudyError
from DiscStudyLib.review import Session, SlicerViews


@pytest.fixture
def session(tmp_path):
    return Session(make_reviewable(tmp_path / "study", 2))


def test_without_the_extra_it_is_named(session, monkeypatch):
    monkeypatch.setitem(sys.modules, "trame", None)
    with pytest.raises(StudyError, match="extra 'viewer'"):
        SlicerViews(session)


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
