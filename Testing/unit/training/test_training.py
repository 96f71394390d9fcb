"""Folds, samples, measures of quality, and a training that resumes; on made-up people."""

import argparse
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage
from support import ROOT, shared_data

torch = pytest.importorskip("torch")

from DiscRelaxometryLib.discs import load_model  # noqa: E402
from DiscRelaxometryLib.image import Geometry, Image  # noqa: E402
from Training import augment, calibrate, evaluate, export  # noqa: E402
from Training import train as training  # noqa: E402
from Training.augment import CROP, SLICES, Dice, pick_slices, sample  # noqa: E402
from Training.calibrate import choose_review, choose_threshold  # noqa: E402
from Training.dataset import class_labels, load_person, make_folds, read_folds, spine_column, split  # noqa: E402
from Training.degrade import DEGRADATIONS, low_resolution  # noqa: E402
from Training.evaluate import discs_between, front_of_canal, reference_bodies  # noqa: E402
from Training.lateral import Outline, canal_kept, fill_muscle, narrow  # noqa: E402
from Training.metrics import dice, surface_dice, surface_distance  # noqa: E402
from Training.pack import pack_person  # noqa: E402

sys.path.insert(0, str(ROOT / "Testing" / "benchmarks"))
import common  # noqa: E402
from segmentation_tables import pooled, write_tables  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a data folder with two people: boxes of body and disc in front of a canal, x, y, z as in SPIDER."""
    folder = tmp_path_factory.mktemp("people")
    for number in (900, 901):
        labels = np.zeros((160, 120, 9), np.uint8)  # z, y, x
        labels[:, 40:50] = 2
        for level, bottom in enumerate(range(10, 150, 28)):
            labels[bottom:bottom + 20, 52:90] = 1
            labels[bottom - 8:bottom, 54:88] = 11 + level
        signal = np.array([30, 80, 200] + [0] * 8 + [120] * 10)[labels] + np.random.default_rng(0).normal(0, 5,
                                                                                                          labels.shape)
        for name, array in (("T2w", signal.clip(0, 255).astype(np.uint8)), ("dseg", labels)):
            image = sitk.GetImageFromArray(array)
            image.SetSpacing((0.9, 0.6, 0.6))
            sitk.WriteImage(image, str(folder / f"sub-{number}_{name}.nii.gz"))
    (folder / "participants.tsv").write_text("participant_id\tpfirrmann_L5S1\nsub-900\t2\nsub-901\t4\n")
    return folder


@pytest.fixture(scope="module")
def person(folder):
    return load_person(folder, "sub-900")


def test_every_person_is_tested_once_and_never_trained_on_then():
    folds = read_folds()["folds"]
    tests = [name for fold in folds for name in fold]
    assert len(tests) == len(set(tests)) == 33
    assert "sub-078" in folds[0]  # the embedded person is held out of the network that figures are of


@pytest.mark.shared_data
@pytest.mark.parametrize("fold", range(4))
def test_a_fold_trains_on_all_others(fold):
    groups, test = split(shared_data("spider_t2space"), fold)
    trained = {n for g in groups for n in g}
    assert len(groups) == 3 and not trained & set(test) and len(trained) + len(test) == 33


@pytest.mark.shared_data
def test_the_number_after_the_last_fold_trains_on_everyone():
    groups, test = split(shared_data("spider_t2space"), 4)
    assert len(groups) == 4 and test == [] and len({n for g in groups for n in g}) == 33


@pytest.mark.shared_data
def test_folds_come_from_their_seed():
    assert make_folds(shared_data("spider_t2space")) == read_folds()


def test_values_of_the_data_become_classes():
    np.testing.assert_array_equal(class_labels(np.array([0, 1, 2, 3, 11, 12, 18])), [0, 1, 2, 3, 4, 3, 3])


def test_slices_are_upright(person):
    # Column 0 is anterior: discs lie before the canal; row 0 is superior: L5-S1 is the lowest.
    discs, canal, lowest = (np.argwhere(person.labels == value).mean(0) for value in (3, 2, 4))
    assert discs[2] < canal[2] and lowest[1] > discs[1]
    assert person.spacing == pytest.approx((0.9, 0.6, 0.6))


def test_column_is_the_bodies_and_not_the_arches(person):
    column = spine_column(person.labels)
    # y 52..89 of 120 from posterior to anterior is column 30..67 from anterior.
    assert column[4, 60, 0] == pytest.approx(48.5, abs=1) and column[4, 60, 1] == pytest.approx(18.5, abs=1.5)


def test_samples_are_finite_soft_labels_and_come_from_the_seed(person):
    first, second = ([sample(person, random) for _ in range(12)]
                     for random in (Dice(torch.Generator().manual_seed(5)) for _ in range(2)))
    for (image, target), (again, _) in zip(first, second):
        assert image.shape == (SLICES, *CROP) and target.shape == (5, *CROP)
        assert torch.isfinite(image).all() and torch.equal(image, again)
        assert target.min() >= 0 and torch.allclose(target.sum(0), torch.ones(CROP), atol=1e-5)


def test_neighbors_stay_in_the_volume(person):
    random = Dice(torch.Generator().manual_seed(0))
    for _ in range(50):
        slices, step = pick_slices(person, random)
        assert slices.min() >= 0 and slices.max() < 9 and step in [pytest.approx(0.9 * n) for n in range(1, 6)]


def test_lateral_slices_narrow_as_the_outline_says(person):
    column = torch.from_numpy(person.column[4])
    rows = torch.full((1, 101), 80.0)
    middle, half = column[80]
    grid = torch.stack([middle + half * torch.linspace(-5, 5, 101)[None], rows], -1)[None]
    moved, emptied = narrow(person, grid, torch.tensor([0.0, 14.4, 30.0]), Outline(24.0, 2.0, 0.0))
    # In the mid-plane nothing moves; a point at 0.8 half lengths shows what was at the border: sqrt(1 - 0.6^2) = 0.8.
    torch.testing.assert_close(moved[:1], grid, rtol=1e-3, atol=1e-2)
    assert moved[1, 0, 58, 0].item() == pytest.approx((middle + half).item(), abs=0.01)
    assert moved[1, 0, 95, 0].item() == pytest.approx(grid[0, 0, 95, 0].item(), abs=1e-3)
    # Beyond the half width nothing of the disc is left but its center line, and all of its place is empty.
    assert emptied[0, 0, 50] == 0 and emptied[2, 0, 55] == 1 and emptied[2, 0, 95] == 0
    lateral = (moved[2, 0, :, 0] - middle).abs() < half
    assert lateral.sum() <= 1


def test_a_rounder_outline_keeps_more_of_the_length():
    u = torch.tensor([12.0])
    assert Outline(24.0, 3.0, 0.0).share(u) > Outline(24.0, 2.0, 0.0).share(u) > 0
    assert Outline(24.0, 2.0, 0.0).share(torch.tensor([25.0])) == 0
    torch.testing.assert_close(canal_kept(torch.tensor([0.0, -5.0, 8.0, 20.0])), torch.tensor([1.0, 1.0, 0.5, 0.0]))


def test_muscle_is_put_only_where_something_was_emptied():
    random = Dice(torch.Generator().manual_seed(0))
    image, emptied = random.normal(SLICES, 64, 48), torch.zeros(SLICES, 64, 48)
    emptied[:, 20:40] = 1
    filled = fill_muscle(image, emptied, random)
    assert torch.equal(filled[:, :20], image[:, :20]) and not torch.equal(filled[:, 20:40], image[:, 20:40])


@pytest.mark.parametrize("lateral, synthetic", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_every_kind_of_sample_is_finite_with_labels_that_sum_to_one(person, monkeypatch, lateral, synthetic):
    monkeypatch.setattr(augment, "LATERAL", lateral)
    monkeypatch.setattr(augment, "SYNTHETIC", synthetic)
    random = Dice(torch.Generator().manual_seed(2))
    for _ in range(6):
        image, target = sample(person, random)
        assert torch.isfinite(image).all() and torch.allclose(target.sum(0), torch.ones(CROP), atol=1e-5)


def test_packed_people_are_the_same_people(folder, tmp_path, person):
    pack_person(folder, "sub-900", tmp_path, 0, 0)
    packed = load_person(tmp_path, "sub-900")
    np.testing.assert_array_equal(packed.labels, person.labels)
    np.testing.assert_allclose(packed.image, person.image, atol=1e-6)
    assert packed.spacing == person.spacing
    pack_person(folder, "sub-900", tmp_path, 0, 10)
    np.testing.assert_allclose(load_person(tmp_path, "sub-900").image, person.image[..., 10:], atol=1e-6)
    with pytest.raises(ValueError, match="cut off labelled voxels"):
        pack_person(folder, "sub-900", tmp_path, 0, 60)


def options(folder, runs, iterations, **changes):
    return argparse.Namespace(**{"data": folder, "folds": [0], "minutes": 1.0, "iterations": iterations, "batch": 2,
                                 "seed": 1, "workers": 0, "processes": 1, "device": "cpu", "runs": runs, "start": None,
                                 "peak": training.PEAK_RATE, **changes})


@pytest.fixture
def small_network(monkeypatch):
    small = training.NetworkConfig(channels=(8, 8), blocks=(1, 1))
    monkeypatch.setattr(training, "NetworkConfig", lambda: small)


def test_training_resumes_where_it_stopped(folder, tmp_path, small_network):
    training.train(0, options(folder, tmp_path, 2))
    training.train(0, options(folder, tmp_path, 3))
    state = torch.load(tmp_path / "fold0/checkpoint.pt", weights_only=True)
    assert state["step"] == 3 and state["resumed"] == 1
    assert json.loads((tmp_path / "fold0/run.json").read_text())["train"] == ["sub-900", "sub-901"]


def test_folds_trained_together_see_none_of_their_own_people(folder, tmp_path, small_network, monkeypatch):
    monkeypatch.setattr(training, "split", lambda data, fold: ([[f"sub-90{1 - fold}"]], [f"sub-90{fold}"]))
    seen = {0: [], 1: []}
    monkeypatch.setattr(training, "sample", lambda group, dice: (
        torch.full((SLICES, 8, 8), float(group.name[-1])), torch.ones(5, 8, 8) / 5))
    monkeypatch.setattr(training.Learner, "step", lambda self, image, *rest: seen[self.fold].append(image[:, 0, 0, 0]))
    monkeypatch.setattr(training, "log", lambda *rest: None)
    training.train(0, options(folder, tmp_path, 3, folds=[0, 1], batch=4))
    assert all((v == 1).all() and len(v) == 2 for v in seen[0]) and len(seen[0]) == 3
    assert all((v == 0).all() and len(v) == 2 for v in seen[1])


@pytest.mark.parametrize("calibration", [{}, {"temperature": 1.7, "review_threshold": 0.83, "samples": 9}])
def test_a_manifest_has_the_runs_calibration_and_people(tmp_path, monkeypatch, calibration):
    from safetensors.torch import save_file

    config = training.NetworkConfig(channels=(8, 8), blocks=(1, 1))
    save_file({k: v.contiguous() for k, v in export.build_network(config).state_dict().items()},
              tmp_path / "average.safetensors")
    (tmp_path / "run.json").write_text(json.dumps({
        "config": config.to_dict(), "fold": 2, "seed": 1, "batch": 15, "start": "", "gpu": "",
        "train": ["sub-002_T2w", "sub-002_T1w", "sub-001_T2w"], "test": ["sub-003_T2w"]}))
    if calibration:
        (tmp_path / "calibration.json").write_text(json.dumps(calibration))
    monkeypatch.setattr(export, "export_onnx", lambda network, examples, sizes, path, *rest: path.write_bytes(b"graph"))
    model = load_model(export.export(tmp_path, tmp_path / "weights"))
    assert model.temperature == calibration.get("temperature", 1.0)
    assert model.manifest["review_threshold"] == calibration.get("review_threshold", 0.9)
    assert model.manifest["training"]["people"] == {"train": ["sub-001", "sub-002"], "test": ["sub-003"]}
    assert model.manifest["calibration"] == ({"samples": 9} if calibration else {})


def test_an_uneven_batch_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "split", lambda data, fold: ([["sub-900"], ["sub-901"]], []))
    with pytest.raises(ValueError, match="multiple of 2 groups"):
        training.train(0, options(folder, tmp_path, 3, batch=3))


def test_loss_is_least_for_the_truth():
    target = torch.zeros(1, 5, 8, 8)
    target[:, 0] = 1
    target[:, 0, 2:5], target[:, 3, 2:5] = 0, 1
    right, wrong = 50 * target, 50 * target.flip(2)
    assert training.loss_of(right, target) < 0.01 < 0.5 < training.loss_of(wrong, target)


def test_learning_rate_runs_one_cycle():
    rates = [training.learning_rate(p) for p in np.linspace(0, 1, 101)]
    assert max(rates) == rates[4] == pytest.approx(training.PEAK_RATE)
    assert rates[-1] == pytest.approx(0.01 * training.PEAK_RATE) and rates[0] < rates[2] < rates[4]


def test_dice_and_surface_distance_of_shifted_boxes():
    first = np.zeros((30, 30, 30), bool)
    first[5:25, 5:25, 5:25] = True
    second = np.roll(first, 2, 0)
    assert dice(first, second) == pytest.approx(0.9)
    assert surface_distance(first, first, (1, 1, 1)) == 0
    # Two faces are 2 mm apart, the sides overlap but for two rows: between 0 and 2 mm.
    distance = surface_distance(first, second, (1, 1, 1))
    assert 0.3 < distance < 0.8
    assert surface_distance(first, second, (3, 1, 1)) > distance
    assert np.isnan(dice(first & False, first & False)) and np.isnan(surface_distance(first, first & False, (1, 1, 1)))


def test_a_wall_shifted_by_one_voxel_is_one_voxel_away():
    first = np.zeros((20, 10, 10), bool)
    first[:10] = True
    second = np.zeros_like(first)
    second[:12] = True
    assert surface_distance(first, second, (0.5, 1, 1)) == pytest.approx(1.0)


def test_threshold_separates_what_can_be_separated():
    scores, bad = np.array([0.5, 0.7, 0.9, 0.95, 0.97]), np.array([1, 1, 0, 0, 0], bool)
    assert 0.7 < choose_threshold(scores, bad) < 0.9
    # The one bad disc among the good ones is given up: finding it would flag them all.
    assert 0.7 < choose_threshold(np.append(scores, 0.96), np.append(bad, True)) < 0.9


def test_a_folds_temperature_comes_from_the_other_folds_people(monkeypatch):
    rng, drawn = np.random.default_rng(5), {}
    for fold, temperature in ((0, 8.0), (1, 2.0), (2, 2.0)):
        logits = rng.normal(0, 2, (2000, 5))
        odds = np.exp(logits - logits.max(1, keepdims=True)).cumsum(1)
        drawn[fold] = logits * temperature, (rng.uniform(size=(2000, 1)) * odds[:, -1:] > odds).sum(1)
    monkeypatch.setattr(calibrate, "sample_fold", lambda data, runs, fold: drawn[fold])
    found, own = calibrate.choose_temperature(None, None, 0, [0, 1, 2]), set(read_folds()["folds"][0])
    assert found["temperature"] == pytest.approx(2, rel=0.1) and found["samples"] == 4000
    assert found["ece_after"] < 0.05 < found["ece_before"] and not own & set(found["people"])


def test_a_folds_threshold_never_sees_its_own_people():
    def part(scores, dices):
        return {"rows": [{"review": False, "expected_dice": s, "dice": d} for s, d in zip(scores, dices)]}

    own, others = part([0.1, 0.2], [0.95, 0.95]), part([0.5, 0.6, 0.7, 0.9, 0.95], [0.6, 0.9, 0.7, 0.9, 0.93])
    results = {"spider": {"0": own, "1": others}, "degraded": {"0": own, "1": others}}
    chosen = choose_review(results, 0, [0, 1])
    assert 0.7 < chosen["review_threshold"] < 0.9 and chosen["recall"] == 1 and chosen["discs"] == 10
    assert chosen["bad"] == 4 and chosen["false_alarms"] == pytest.approx(1 / 3)


def test_coarse_image_keeps_its_place():
    k, j, i = np.indices((40, 30, 10))
    geometry = Geometry((10, 30, 40), (1.0, 0.5, 0.5), (3, 4, 5), (-1, 0, 0, 0, -1, 0, 0, 0, 1))
    fine = Image(geometry.index_to_world(np.stack([i, j, k], -1))[..., 0].astype(np.float32) + 100, geometry)
    coarse = low_resolution(fine, 1.0, 5.0)
    assert coarse.geometry.spacing == (5.0, 1.0, 1.0) and coarse.array.shape == (20, 15, 2)
    world = coarse.geometry.index_to_world([[0, 3, 3], [1, 3, 3]])[:, 0] + 100
    np.testing.assert_allclose(coarse.array[3, 3], world, atol=1e-3)


def test_degradations_change_the_signal_and_not_the_grid():
    image = Image(np.random.default_rng(0).uniform(50, 200, (40, 30, 6)).astype(np.float32), Geometry((6, 30, 40)))
    for name, change in DEGRADATIONS.items():
        worse = change(image, 3)
        assert worse.geometry == image.geometry and np.isfinite(worse.array).all() and worse.array.min() >= 0
        assert (name == "as acquired") == np.array_equal(worse.array, image.array)


def test_folds_are_pooled_with_their_own_threshold_and_by_the_size_of_their_bins():
    def fold(name, count, accuracy, score):
        return {"people": [{"person": name}], "rows": [{"review": True, "expected_dice": score}],
                "bins": [{"low": 0.8, "high": 0.9, "count": count, "confidence": 0.85, "accuracy": accuracy}]}

    joined = pooled({"0": fold("b", 30, 0.85, 0.7), "1": fold("a", 10, 0.45, 0.7)}, {"0": 0.6, "1": 0.8})
    assert [p["person"] for p in joined["people"]] == ["a", "b"]
    assert [r["review"] for r in joined["rows"]] == [False, True]
    assert joined["bins"][0]["accuracy"] == pytest.approx(0.75) and joined["ece"] == pytest.approx(0.1)


def test_tables_of_a_single_fold(tmp_path, monkeypatch):
    """One network held people out: there are no other folds' runs beside it."""
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    (tmp_path / "fold2").mkdir()
    (tmp_path / "fold2" / "calibration.json").write_text('{"temperature": 1.5}')
    row = {"person": "a", "slices": 9, "disc": 0.9, "vertebra": 0.8, "right": True, "missed": 0, "extra": 1}
    kept = json.loads(write_tables({"echo": {"2": {"rows": [row]}}}, tmp_path).read_text())
    assert kept["tables"]["echo"]["rows"] == [list(row.values())]


def test_reference_bodies_leave_out_s1_and_what_lies_beyond():
    truth = np.zeros((40, 12, 6), np.uint8)  # values in no order, as the sets have them
    truth[5:10, 3:8], truth[15:20, 3:8], truth[25:30, 3:8] = 2, 3, 1
    bodies, window = reference_bodies(truth, with_s1=False)
    assert np.array_equal(bodies, truth > 0) and np.flatnonzero(window.any((1, 2))).tolist() == list(range(5, 30))
    bodies, window = reference_bodies(truth, with_s1=True)
    assert np.array_equal(bodies, (truth == 3) | (truth == 1))
    assert np.flatnonzero(window.any((1, 2))).tolist() == list(range(15, 30)) and not window[truth == 2].any()


def test_arches_are_behind_the_front_of_the_canal():
    labels = np.zeros((20, 30, 9), np.uint8)  # columns run to anterior
    labels[2:18, 10:14, 3:6] = 2
    front = front_of_canal(labels)
    assert not front[:, :14].any() and front[:, 14:].all()
    assert front_of_canal(np.zeros((4, 4, 4), int)).all()


def test_discs_between_two_bodies_are_found_by_their_centers():
    truth, labels = np.zeros((60, 8, 5), int), np.zeros((60, 8, 5), int)
    truth[0:10], truth[20:30], truth[40:50] = 7, 4, 9
    labels[12:18], labels[31:34], labels[36:39], labels[52:58] = 11, 12, 13, 14
    assert discs_between(truth, labels, [4, 7, 9]) == [[11], [12, 13]]


@pytest.mark.parametrize(("upper", "ordered"), ((12, True), (13, False)))
def test_names_are_in_order_where_they_rise_by_one(tmp_path, monkeypatch, upper, ordered):
    (tmp_path / "vertebrae_t2w").mkdir()
    (tmp_path / "vertebrae_t2w/a_vertebrae.nii.gz").touch()
    truth = np.zeros((11, 4, 3), np.uint8)
    truth[0:3], truth[4:7], truth[8:11] = 1, 2, 3
    labels = np.where(truth, 30 + truth, 11)
    labels[7] = upper
    grid = Geometry((3, 4, 11), (4, 1, 1))
    found = SimpleNamespace(labels=Image(labels, grid), reason="")
    monkeypatch.setattr(evaluate, "read_image", lambda path: Image(truth, grid))
    monkeypatch.setattr(evaluate, "segment", lambda image: found)
    row, = evaluate.evaluate_bodies(tmp_path)["rows"]
    assert (row["between"], row["ordered"], row["dice"], row["right"]) == ([[11], [upper]], ordered, 1, 2)


def test_surface_dice_of_a_shifted_box():
    first = np.zeros((20, 20, 20), bool)
    first[5:15, 5:15, 5:15] = True
    second = np.roll(first, 1, 0)
    assert surface_dice(first, first, (1, 1, 1), 0.6) == 1
    # Of 10^3 - 8^3 surface voxels a slab's face of 100 and the rims of the sides lie 1 mm off, not 0.6.
    near, exact = (surface_dice(first, second, (1, 1, 1), mm) for mm in (1.0, 0.6))
    shell = [m & ~ndimage.binary_erosion(m) for m in (first, second)]
    assert near == 1 and exact == pytest.approx((shell[0] & shell[1]).sum() / shell[0].sum())
    assert surface_dice(first, second, (0.5, 1, 1), 0.6) == 1
    assert np.isnan(surface_dice(first, np.zeros_like(first), (1, 1, 1), 1.0))
