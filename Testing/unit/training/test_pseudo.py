"""Pseudo-labels: what a slice has to show to be kept, who is left out, and that training takes what is kept."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk

torch = pytest.importorskip("torch")

from DiscRelaxometryLib.errors import SegmentationError  # noqa: E402
from DiscRelaxometryLib.image import Geometry, Image  # noqa: E402
from Training import pseudo  # noqa: E402
from Training import train as training  # noqa: E402
from Training.augment import Dice, sample  # noqa: E402
from Training.dataset import load_person, people, read_folds, split  # noqa: E402

#: mm along slices, columns and rows, each another.
SPACING = (4.0, 0.9, 1.2)


def slice_labels(levels=5, shift=0, lowest=11):
    """Return labels (z, y, x) of one slice: discs and bodies before a canal; y runs to anterior."""
    labels = np.zeros((200, 100, 1), np.uint8)
    labels[:, 30:40] = 2
    for n in range(levels):
        bottom = 20 + 34 * n + shift
        labels[bottom:bottom + 8, 44:76], labels[bottom + 9:bottom + 33, 44:76] = lowest + n, lowest + 20 + n
    return labels


def found(labels=None, **changes):
    labels = slice_labels() if labels is None else labels
    image = Image(labels, Geometry(labels.shape[::-1], SPACING))
    discs = [SimpleNamespace(value=int(v), centroid=tuple(image.geometry.index_to_world(
        np.argwhere(labels == v).mean(0)[::-1]))) for v in np.unique(labels) if 11 <= v < 30]
    return SimpleNamespace(**{"labels": image, "discs": discs, "found": True, "certain": True, "review": [], **changes})


@pytest.mark.parametrize("own, number, other, word", [
    ({}, 5, None, ""), ({}, 5, {}, ""), ({"found": False}, 5, None, "no spine"),
    ({"certain": False}, 5, None, "assumption"), ({}, 6, None, "number"), ({}, 4, None, "number"),
    ({"review": ["L4-L5"]}, 5, None, "flagged"),
    ({}, 5, {"labels": slice_labels(lowest=12)}, "disagree"), ({}, 5, {"labels": slice_labels(shift=3)}, "disagree"),
    ({}, 5, {"labels": slice_labels(levels=4)}, ""), ({}, 5, {"labels": slice_labels()[:-1]}, ""),
    ({}, 5, {"labels": slice_labels(lowest=12)[:-1]}, "disagree"), ({}, 5, {"discs": []}, "disagree")])
def test_a_slice_is_kept_only_where_all_agrees(own, number, other, word):
    why = pseudo.verdict(found(**own), number, None if other is None else found(**other))
    assert bool(why) == bool(word) and word in why


@pytest.mark.parametrize("shift, agree", [(0, True), (1, True), (2, False)])
def test_contrasts_agree_from_a_median_dice_of_085(shift, agree):
    # Discs 8 rows high: each row of shift costs an eighth of the overlap.
    assert np.median(pseudo.overlaps(found(), found(slice_labels(shift=shift)))) == pytest.approx(1 - shift / 8)
    assert bool(pseudo.verdict(found(), 5, found(slice_labels(shift=shift)))) == (not agree)


def test_names_are_compared_where_discs_lie_in_one_place_of_the_slice():
    def discs(*places):
        return SimpleNamespace(discs=[SimpleNamespace(value=v, centroid=c) for v, c in places])

    own = discs((11, (0, 0, 0)), (12, (0, 0, 34)))
    assert pseudo.names_alike(own, discs((11, (50, 6, 6)), (12, (50, 0, 40))))  # slices may lie apart
    assert not pseudo.names_alike(own, discs((11, (0, 0, 34))))
    assert not pseudo.names_alike(own, discs((11, (0, 0, 0)), (13, (0, 0, 34))))
    assert pseudo.names_alike(own, discs((12, (0, 0, 34)), (13, (0, 0, 68))))
    assert not pseudo.names_alike(own, discs((11, (0, 11, 0)))) and not pseudo.names_alike(own, discs())


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Return a data folder with slices of four people, one of whom has a mask, and their teacher's answers."""
    masked = read_folds()["folds"][0][0]
    names = ["sub-901", "sub-902", "sub-903", masked]
    for folder in ("spider_midsagittal", "spider_t2space"):
        (tmp_path / folder).mkdir()
    table = "".join(f"{n}\t{5}\n" for n in names)
    (tmp_path / "spider_midsagittal/participants.tsv").write_text("participant_id\tnumber_of_discs\n" + table)
    random, answers = np.random.default_rng(0), {}
    for n in names:
        for contrast in ("T1w", "T2w"):
            signal = sitk.GetImageFromArray(random.integers(1, 250, (200, 100, 1), np.uint8))
            signal.SetSpacing(SPACING)
            sitk.WriteImage(signal, str(tmp_path / f"spider_midsagittal/{n}_{contrast}.nii.gz"))
            answers[n, contrast] = found(slice_labels(lowest=12) if (n, contrast) == ("sub-902", "T1w") else None)
    for n, suffix, array in ((masked, "T2w", random.integers(1, 250, (200, 100, 5), np.uint8)),
                             (masked, "dseg", np.repeat(slice_labels(), 5, 2))):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((0.9, 1.0, 1.0))
        sitk.WriteImage(image, str(tmp_path / f"spider_t2space/{n}_{suffix}.nii.gz"))
    calls = iter([(n, c) for n in names for c in ("T1w", "T2w")])

    def teacher(image, model=None):
        key = next(calls)
        if key == ("sub-903", "T1w"):
            raise SegmentationError("The volume is empty.")
        return answers[key]

    monkeypatch.setattr(pseudo, "segment", teacher)
    return tmp_path, masked


def test_kept_slices_and_masks_are_packed_and_trained_on(data, tmp_path, monkeypatch):
    folder, masked = data
    out = tmp_path / "packed"
    monkeypatch.setattr("sys.argv", ["pseudo", str(out), "--data", str(folder)])
    pseudo.main()
    # sub-902's contrasts disagree, sub-903's T1w is refused, and the person with a mask is in by the mask alone.
    assert people(out) == sorted(["sub-901_T1w", "sub-901_T2w", "sub-903_T2w", masked])
    rows = {line.split("\t")[0]: line.split("\t")[2:] for line in (out / "pseudo.tsv").read_text().splitlines()[1:]}
    assert set(rows) == {f"sub-90{n}_T{c}w" for n in (1, 2, 3) for c in (1, 2)}
    assert "disagree" in rows["sub-902_T1w"][1] and "empty" in rows["sub-903_T1w"][1]
    person = load_person(out, "sub-901_T2w")
    assert person.spacing == pytest.approx((SPACING[0], SPACING[2], SPACING[1]))
    assert person.labels.shape == (1, 200, 100) and set(np.unique(person.labels)) == {0, 1, 2, 3, 4}
    lowest, canal = np.argwhere(person.labels == 4).mean(0), np.argwhere(person.labels == 2).mean(0)
    assert lowest[1] > 150 and canal[2] > lowest[2]  # rows run downward, columns backward
    groups, test = split(out, 0)
    assert test == [masked] and groups == [["sub-901_T1w", "sub-901_T2w", "sub-903_T2w"]]
    for seed in range(6):
        image, target = sample(person, Dice(torch.Generator().manual_seed(seed)))
        assert torch.isfinite(image).all() and torch.isfinite(target).all()
    small = training.NetworkConfig(channels=(8, 8), blocks=(1, 1))
    monkeypatch.setattr(training, "NetworkConfig", lambda: small)
    seen = []
    monkeypatch.setattr(training.Learner, "step", lambda self, image, target, rate, *rest: seen.append(rate))
    monkeypatch.setattr("sys.argv", ["train", "--data", str(out), "--iterations", "2", "--batch", "1", "--peak", "1e-4",
                                     "--device", "cpu", "--runs", str(tmp_path / "runs")])
    monkeypatch.setattr(training, "log", lambda *rest: None)
    training.main()
    assert len(seen) == 2 and max(seen) <= 1e-4


def test_options_reach_the_teacher_and_the_choice_of_people(monkeypatch, tmp_path):
    monkeypatch.setattr(pseudo, "load_model", lambda manifest: ("model of", manifest))
    given = []
    monkeypatch.setattr(pseudo, "label", lambda *words: given.append(words) or ({}, {}))
    monkeypatch.setattr(pseudo, "people", lambda folder: given.append(folder) or [])
    monkeypatch.setattr("sys.argv", ["pseudo", str(tmp_path / "out"), "--data", str(tmp_path), "--every", "7",
                                     "--manifest", "teacher.json"])
    pseudo.main()
    assert given == [(tmp_path / "spider_midsagittal", 7, ("model of", Path("teacher.json"))),
                     tmp_path / "spider_t2space"]


def resized(height=1.0, width=1.0, thickness=1.0):
    size = np.array(slice_labels().shape[::-1])
    spacing = np.array(SPACING) * (thickness, width, height)
    return SimpleNamespace(labels=SimpleNamespace(geometry=SimpleNamespace(size=size, spacing=spacing)))


def test_a_view_is_the_same_whatever_the_thickness_of_the_slice_and_no_other():
    assert pseudo.same_view(resized(), resized(thickness=3))
    assert not pseudo.same_view(resized(), resized(height=1.1))
    assert not pseudo.same_view(resized(), resized(width=1.1))


@pytest.mark.parametrize("good, kept", [(3, True), (2, False)])
def test_the_outlines_of_most_discs_have_to_agree(good, kept):
    labels = slice_labels(shift=2)
    for n in range(good):
        value = 11 + n
        labels[labels == value] = 0
        labels[slice_labels() == value] = value
    assert (pseudo.verdict(found(), 5, found(labels)) == "") == kept


def test_people_for_the_figures_are_left_out(data):
    folder, masked = data
    _, verdicts = pseudo.label(folder / "spider_midsagittal", 4)  # the first of four
    assert {n[:7] for n in verdicts} == {"sub-902", "sub-903"}


def test_contrasts_in_other_views_are_not_compared(data, monkeypatch):
    folder, _ = data
    monkeypatch.setattr(pseudo, "same_view", lambda first, second: False)
    _, verdicts = pseudo.label(folder / "spider_midsagittal", 0)
    assert verdicts["sub-902_T1w"] == verdicts["sub-902_T2w"] == ""
