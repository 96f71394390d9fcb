"""The review page's server: who may ask for what, and what is answered."""

import gzip
import itertools
import json
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from support.review_page import decisions, request, served
from support.review_study import outlines

from DiscRelaxometryLib.image import Geometry, Image, write_image
from DiscRelaxometryLib.labels import disc_value
from DiscStudyLib.engine import exclusive
from DiscStudyLib.review import ReviewPage, Session, volumes
from DiscStudyLib.review.page import _Server
from DiscStudyLib.review.volumes import Volume, as_stored, group_volume


@pytest.mark.parametrize("path, headers", [
    ("/", {"X-Token": ""}), ("/?token=wrong", {"X-Token": ""}), ("/api/state", {"X-Token": "wrong"}),
    ("/api/state", {"Host": "evil.example"}), ("/page.js", {"Host": "evil.example:80"}),
    ("/api/state", {"Origin": "http://evil.example"}), ("/api/volume?id=sub-01&name=image", {"X-Token": ""})])
def test_without_token_or_from_elsewhere_nothing_is_shown(page, path, headers):
    status, body, _ = request(page, path, **headers)
    assert status == 403 and b"sub-01" not in body


def test_a_decision_from_another_origin_is_refused(page, study):
    body = {"person": "sub-01", "level": "all", "decision": "accepted", "seen": []}
    for headers in ({"X-Token": "wrong"}, {"Origin": "http://127.0.0.1:1"}, {"Host": "localhost.evil"}):
        assert request(page, "/api/decide", "POST", body, **headers)[0] == 403
    assert not decisions(study)


def test_the_page_loads_nothing_from_elsewhere_and_no_file_of_the_study(page):
    status, _, headers = request(page, f"/?token={page.token}")
    assert status == 200 and "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer"
    for path in ("/../../participants.tsv", "/..%2f..%2fpyproject.toml", "/link.html", "/sub-01", "//etc/passwd"):
        assert request(page, path)[0] in (403, 404), path


@pytest.mark.parametrize("path, body", [
    ("/api/decide", {}), ("/api/decide", {"person": "sub-01", "level": "all", "decision": "accepted", "seen": [1]}),
    ("/api/correct", {"person": "sub-01", "voxels": [1], "seen": []}),
    ("/api/correct", {"person": "sub-01", "voxels": [99999999, 12], "seen": []}),
    ("/api/correct", {"person": "sub-01", "voxels": [0, 99], "seen": []}),
    ("/api/decide", {"person": "../sub-01", "level": "all", "decision": "accepted", "seen": []}),
    ("/api/draft", {"person": "../../x", "voxels": [1, 2]})])
def test_requests_that_make_no_sense_are_one_sentence(page, study, path, body):
    before = sorted(study.rglob("*"))
    status, answer, _ = request(page, path, "POST", body)
    assert status in (400, 409) and json.loads(answer)["error"]
    assert sorted(study.rglob("*")) == before


def test_what_is_decided_on_the_page_is_written_as_it_was_given(page, study):
    for given in ({"level": "L3-L4", "decision": "excluded", "reason": "motion"},
                  {"level": "L1-L2", "decision": "renamed", "renamed_to": "T12-L1", "reason": "six lumbar"},
                  {"level": "L4-L5", "decision": "accepted"}):
        seen = json.loads(request(page, "/api/person?id=sub-02")[1])["person"]["seen"]
        assert request(page, "/api/decide", "POST", {"person": "sub-02", "seen": seen, **given})[0] == 200
        written = decisions(study)["sub-02", given["level"]]
        assert {k: getattr(written, k) for k in ("decision", "reason", "renamed_to", "reviewer")} == {
            "reason": "", "renamed_to": "", "reviewer": "AB"} | {k: v for k, v in given.items() if k != "level"}


def test_a_drawing_is_unsaved_until_it_is_saved_or_dropped(page):
    def draft():
        return json.loads(request(page, "/api/person?id=sub-01")[1])["draft"]

    labels = page.volumes("sub-01", 0)["image"].labels.array
    place = int(np.flatnonzero(labels == disc_value("L4-L5"))[0])
    for path, voxels, kept in (("/api/draft", [place, 0], {"voxels": [place, 0]}), ("/api/draft", [], None),
                               ("/api/draft", [place, 0], {"voxels": [place, 0]}), ("/api/correct", [place, 0], None)):
        assert request(page, path, "POST", {"person": "sub-01", "voxels": voxels, "seen": []})[0] == 200
        assert draft() == kept


def test_a_port_in_use_is_one_sentence(page, study):
    from DiscRelaxometryLib.errors import StudyError

    with pytest.raises(StudyError, match="is in use, perhaps by another review page"):
        ReviewPage(Session(study), page.server.server_port)


def test_the_reports_link_leads_to_the_page_while_it_runs(study):
    link = study / "derivatives/disc-relaxometry/review.html"
    with served(study) as page:
        assert page.address in link.read_text()
        assert link.stat().st_mode & 0o077 == 0  # the address holds the token
        page.stop()
    assert page.token not in link.read_text()
    assert "disc-relaxometry review study" in link.read_text()


def test_a_volume_is_asked_for_by_its_name(page, monkeypatch):
    image = page.volumes("sub-01", 0)["image"]
    other = replace(image, low=image.low - 100)
    monkeypatch.setattr(page, "volumes", lambda person, stamp: {"image": image, "T2": other})
    found = {name: gzip.decompress(request(page, f"/api/volume?id=sub-01&name={name}")[1]) for name in ("image", "T2")}
    assert found == {"image": image.content(), "T2": other.content()} and found["image"] != found["T2"]


def test_volumes_are_what_is_on_disk(page, study):
    head = json.loads(request(page, "/api/person?id=sub-01")[1])["volumes"]
    assert set(head) == {"image", "nT2w"}  # no map in atlas space was made
    shape = head["image"]["shape"]
    data = np.frombuffer(gzip.decompress(request(page, "/api/volume?id=sub-01&name=image")[1]), np.uint8)
    labels = data[data.size // 2:].reshape(shape)
    stored = outlines()
    assert {v: (labels == v).sum() for v in (2, 11, 15)} == {v: (stored.array == v).sum() for v in (2, 11, 15)}
    # Slowest axis from foot to head: L5-S1 (11) lies lowest; then from front to back: the canal lies behind.
    assert np.argwhere(labels == 11)[:, 0].max() < np.argwhere(labels == 15)[:, 0].min()
    assert np.argwhere(labels == 2)[:, 1].min() > np.argwhere(labels == 11)[:, 1].max()


def test_a_byte_is_a_place_in_the_range_and_0_is_missing_only():
    """Axes and their voxel sizes, slowest first; values at and beyond the ends of the range."""
    geometry = Geometry((6, 1, 2), (1.0, 2.0, 3.0), (0, 0, 0))
    array = np.array([[-9, 10, 20, 30, 99, np.nan], [10, 10, 20, 20, 30, 30]], np.float32)[:, None]
    image = Image(array, geometry)
    volume = Volume("T2", "ms", image, image.like(np.full(array.shape, 11, np.uint8)), 10.0, 30.0)
    assert list(volume.content()) == [1, 1, 128, 255, 255, 0, 1, 1, 128, 128, 255, 255] + 12 * [11]
    head = volume.head()
    assert (head["shape"], head["spacing"], head["unit"]) == ([2, 1, 6], [3, 2, 1], "ms")


def test_a_map_of_the_group_lies_on_the_discs_of_the_atlas(monkeypatch, tmp_path):
    """Also of an atlas whose voxels are stored in another order; its range is around 0."""
    geometry = Geometry((5, 6, 7), (1.0, 2.0, 3.0), (4.0, -5.0, 6.0), (-np.eye(3)[[2, 0, 1]]).ravel())
    labels = np.zeros(geometry.shape, np.uint8)
    labels[1:3, 2:5, 3:5] = 11
    atlas = Image(labels, geometry)
    path = write_image(atlas.like(np.where(labels, np.float32(-2.5), np.nan)), tmp_path / "desc-x_stat-t.nii.gz")
    monkeypatch.setattr(volumes, "context_atlas_of", lambda study: SimpleNamespace(labels=atlas))
    found = group_volume(SimpleNamespace(study=None), path)
    assert (found.name, found.low, found.high, found.colors) == ("t", -2.5, 2.5, "diverging")
    np.testing.assert_array_equal(np.isfinite(found.image.array), found.labels.array == 11)
    assert (found.labels.array == 11).sum() == 12


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
def test_what_is_drawn_on_the_upright_volume_lies_in_the_file_where_it_was_drawn(axes, signs):
    """Any order and sense of axes: back to the same voxels, and each voxel at its place in the body."""
    geometry = Geometry((5, 6, 7), (1.0, 2.0, 3.0), (4.0, -5.0, 6.0), (np.eye(3)[list(axes)] * signs).ravel())
    image = Image(np.arange(210).astype(np.uint8).reshape(geometry.shape), geometry)
    shown = image.upright()
    assert np.allclose(shown.geometry.matrix3, np.diag(np.diag(shown.geometry.matrix3)))
    assert (np.diag(shown.geometry.matrix3) > 0).all()
    stored = as_stored(shown.array, geometry)
    assert not stored.geometry.difference(geometry)
    np.testing.assert_array_equal(stored.array, image.array)
    place = (1, 2, 3)
    index = np.rint(shown.geometry.world_to_index(geometry.index_to_world(place))).astype(int)
    assert shown.array[tuple(index[::-1])] == image.array[place[::-1]]


def test_a_decision_being_written_is_no_run_in_progress(page, monkeypatch):
    begun, end = threading.Event(), threading.Event()
    decide = page.session.decide

    def slowly(*args, **more):
        with exclusive(page.session.study.output):
            begun.set()
            end.wait(20)
        decide(*args, **more)

    monkeypatch.setattr(page.session, "decide", slowly)
    body = {"person": "sub-01", "level": "all", "decision": "accepted", "seen": []}
    answers = []
    work = [threading.Thread(target=lambda: answers.append(request(page, "/api/decide", "POST", body)[0]))]
    work[0].start()
    assert begun.wait(20)
    work.append(threading.Thread(target=lambda: answers.append(json.loads(request(page, "/api/lock")[1]))))
    work[1].start()
    work[1].join(0.3)
    end.set()
    for some in work:
        some.join()
    assert 200 in answers and {"readOnly": False} in answers


@pytest.mark.parametrize("error, said", [(ConnectionResetError(), ""), (BrokenPipeError(), ""),
                                         (KeyError("a"), "KeyError")])
def test_a_closed_browser_is_no_error_and_a_fault_is_shown(capsys, error, said):
    server = _Server.__new__(_Server)
    try:
        raise error
    except Exception:
        server.handle_error(None, ("127.0.0.1", 1))
    shown = capsys.readouterr().err
    assert said in shown and bool(shown) == bool(said)
