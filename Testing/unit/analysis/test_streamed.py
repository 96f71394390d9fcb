"""Maps of which memory holds a few voxels at a time: the results are those of maps that it holds."""

import pickle

import numpy as np
import pandas as pd
import pytest
from support.analyses import analyze

from DiscRelaxometryLib.image import Geometry, Image
from DiscRelaxometryLib.parallel import ordered
from DiscStatsLib.analysis import Values, data, model
from DiscStatsLib.permutation import cluster_null, max_statistic

N, SHAPE = 30, (3, 8, 12)
LABELS = np.zeros(SHAPE, np.uint8)
LABELS[:, 1:7, 1:11], LABELS[0, 1:7, 1:11] = 11, 12


def study(seed=0):
    """Return a table and maps (n, v) that people have from a slice of their own on; the fourth voxel nobody has."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"participant_id": [f"s{i:02}" for i in rng.permutation(N)], "grade": rng.integers(1, 6, N),
                          "age": rng.uniform(20, 80, N), "scan": list("ab") * (N // 2),
                          "person": np.arange(N) // 2})
    table.loc[5, "age"] = np.nan
    maps = (80 + rng.normal(size=(N, *SHAPE)) + table.grade.to_numpy()[:, None, None, None]).astype(np.float32)
    maps[np.arange(12) < rng.integers(0, 7, N)[:, None, None, None] + np.zeros((3, 8, 1))] = np.nan
    flat = maps[:, LABELS > 0]
    flat[:, 3] = np.nan
    return table, flat


def on_disk(folder, values, rng):
    """Return the same values on disk: rows and columns in another order, between others that do not belong to them."""
    n, v = values.shape
    array = np.lib.format.open_memmap(folder / "maps.npy", "w+", np.float32, (n + 4, v + 9))
    array[:] = np.inf
    rows, columns = rng.permutation(n + 4)[:n], rng.permutation(v + 9)[:v]
    array[np.ix_(rows, columns)] = values
    array.flush()
    return Values(np.load(folder / "maps.npy", mmap_mode="r"), rows, columns)


CASES = {"default": {}, "complete": {"missing": "complete"}, "flipped": {"errors": "symmetric"},
         "hc3": {"standard_errors": "hc3"}, "groups": {"variance_groups": "scan"}, "ranks": {"ranks": True},
         "within": {"blocks": "person", "exchange": "within"}, "one worker": {"workers": 1}}


@pytest.mark.parametrize("case", list(CASES))
def test_results_do_not_depend_on_what_memory_holds(case, tmp_path, monkeypatch):
    table, values = study()
    options = {"n_permutations": 60, "seed": 4, "workers": 2, "levels": ["L5-S1", "L4-L5"]} | CASES[case]
    if case == "complete":
        values = np.where(np.isnan(values), 80 + np.random.default_rng(3).normal(size=values.shape), values)
        values[3, :4] = np.nan
    values = values.astype(np.float32)
    atlas = Image(LABELS, Geometry(SHAPE[::-1]))
    whole = analyze(values.astype(float), atlas, table, "map ~ grade + age", "grade", **options)
    for module, name, size in ((model, "KEPT", 0), (data, "NUMBERS", 900), (model, "NUMBERS", 900),
                               (model, "DESIGN_BLOCK", 3000), (max_statistic, "VOXEL_BLOCK", 11),
                               (cluster_null, "MAP_NUMBERS", 5000)):
        monkeypatch.setattr(module, name, size)
    some = analyze({"map": on_disk(tmp_path, values, np.random.default_rng(1))}, atlas, table, "map ~ grade + age",
                   "grade", **options)
    assert list(whole.maps) == list(some.maps) and whole.warnings == some.warnings
    for name, image in whole.maps.items():
        np.testing.assert_allclose(some.maps[name].array, image.array, rtol=1e-6, atol=1e-6, err_msg=name)
    for name, null in whole.null.items():
        np.testing.assert_allclose(some.null[name], null, rtol=1e-9, err_msg=name)
    assert whole.provenance["participants"] == some.provenance["participants"]


@pytest.mark.parametrize("kept", [0, 2 ** 25])
def test_blocks_of_voxels_are_worked_on_elsewhere(kept, tmp_path, monkeypatch):
    """What is sent holds no map that lies on disk, and comes back with the same results."""
    cloudpickle, sent = pytest.importorskip("cloudpickle"), []

    def elsewhere(work, items, workers=None, progress=None, words=str):
        sent.append(cloudpickle.dumps((work, items)))
        work, items = cloudpickle.loads(sent[-1])
        return ordered(work, items, 1, progress=progress, words=words)

    table, values = study()
    atlas, formula = Image(LABELS, Geometry(SHAPE[::-1])), "map ~ grade + age"
    options = {"n_permutations": 60, "seed": 4, "levels": ["L5-S1", "L4-L5"]}
    here = analyze(values.astype(float), atlas, table, formula, "grade", **options)
    for module, name, size in ((model, "KEPT", kept), (max_statistic, "VOXEL_BLOCK", 11),
                               (cluster_null, "MAP_SHARE", 9)):
        monkeypatch.setattr(module, name, size)
    maps = {"map": on_disk(tmp_path, values.astype(np.float32), np.random.default_rng(1))}
    there = analyze(maps, atlas, table, formula, "grade", distribute=elsewhere, **options)
    for name, image in here.maps.items():
        np.testing.assert_allclose(there.maps[name].array, image.array, rtol=1e-6, atol=1e-6, err_msg=name)
    for name, null in here.null.items():
        np.testing.assert_allclose(there.null[name], null, rtol=1e-9, err_msg=name)
    assert len(sent) == 2 and not any(maps["map"].array[:3].tobytes() in content for content in sent)
    own = np.arange(12.0).reshape(3, 4)
    on_file, raw = maps["map"].array, np.memmap(tmp_path / "raw.dat", np.float32, "w+", shape=(3, 4))
    # In memory, part of a file, turned round, without a header, and as it is.
    for array in (own, on_file[1:], on_file[::-1], raw, on_file.reshape(-1, 1)):
        again = pickle.loads(pickle.dumps(Values(array, np.arange(2), np.arange(1))))
        np.testing.assert_array_equal(again.array, array)


def test_values_of_another_number_of_voxels_or_people_are_refused():
    from DiscRelaxometryLib.errors import DesignError

    table, values = study()
    atlas = Image(LABELS, Geometry(SHAPE[::-1]))
    for cut in (np.s_[:, 1:], np.s_[1:]):
        own = values[cut]
        with pytest.raises(DesignError, match="maps for|has shape"):
            analyze({"map": Values(own, *map(np.arange, own.shape))}, atlas, table, "map ~ grade", "grade")
