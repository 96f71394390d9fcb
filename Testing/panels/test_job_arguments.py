"""What a panel hands to its work: every setting, at a value that is no default, under the name that the work takes."""

import importlib
import inspect
from pathlib import Path

import numpy as np
import pytest

from DiscRelaxometryLib import mrml
from DiscRelaxometryLib.echo import EchoSeries
from DiscRelaxometryLib.image import Geometry, Image, read_image, write_image
from DiscRelaxometryLib.jobs import Job
from DiscStatsLib.settings import AnalysisSettings
from panels.host import click, close_panel, open_panel, process

GRID = Geometry((30, 24, 6), (1.0, 1.0, 4.0), (0, 0, 0), (0, 0, 1, 1, 0, 0, 0, -1, 0))
TIMES = np.array([1.0, 20.0, 40.0])
#: Every parameter node's defaults; a new or changed one has to be written here, too.
DEFAULTS = {
    "DiscRelaxometry": {
        "inputVolume": None, "segmentation": None, "engine": "auto", "useGpu": True, "convention": "auto",
        "seriesFolder": "", "series": None, "times": [], "kind": "auto", "alignment": "auto", "model": "mono2/nlls",
        "lowerBound": 1.0, "upperBound": 1000.0, "onlyDiscs": False, "inspect": False, "relaxationMap": None,
        "m0Map": None, "offsetMap": None, "exportFolder": ""},
    "DiscAtlas": {
        "people": [], "peopleFolder": "", "convention": "project", "template": "shipped", "atlasFolder": "",
        "backend": "coordinates", "outputFolder": "", "quality": None, "mapVolume": None},
    "DiscStats": {
        "participantsFile": "", "mapsFolder": "", "quantity": "", "atlasFolder": "", "formula": "", "contrast": "",
        "fwe": True, "tfce": True, "fdr": True, "cluster": True, "permutations": 5000, "seed": 1, "workers": 1,
        "availableCase": True, "dropRows": True, "errors": "auto", "standardErrors": "classical", "resultMaps": [],
        "shownMap": None, "clusters": None, "resultsFolder": "", "studyFolder": "", "studyFormula": True,
        "pooled": False, "processes": 1, "varianceGroups": "", "blocks": "", "alternative": "two-sided", "ranks": False,
        "pareto": False, "session": "", "change": ""},
}


@pytest.fixture
def opened(slicer, monkeypatch, request):
    """A panel with a recorder in place of its work."""
    panel = open_panel(getattr(importlib.import_module(request.param), f"{request.param}Widget"))
    panel.jobs = []
    monkeypatch.setattr(panel.work, "run", lambda job, *more, **named: panel.jobs.append(job))
    monkeypatch.setattr(panel.work, "ensurePackages", lambda *a: True)
    yield panel
    close_panel(panel)


def plain(value):
    """Return a parameter as a plain value."""
    if isinstance(value, Path):
        return "" if value == Path() else str(value)
    return getattr(value, "value", value)


def parameters(job) -> set:
    """Return the names that the job's function takes, progress left out."""
    module, _, name = job.function.partition(":")
    signature = inspect.signature(getattr(importlib.import_module(module), name))
    return {n for n, p in signature.parameters.items() if p.kind is not p.VAR_KEYWORD} - {"progressCallback"}


@pytest.mark.parametrize("module", sorted(DEFAULTS))
def test_defaults_of_all_settings_are_these(slicer, module):
    node = getattr(importlib.import_module(module), f"{module}Logic")().getParameterNode()
    assert {name: plain(node.getValue(name)) for name in node.allParameters} == DEFAULTS[module]


def series(panel):
    echoes = 1000 * np.exp(-TIMES[:, None, None, None] / np.full(GRID.shape, 60.0))
    p = panel._parameterNode
    array = np.zeros(GRID.shape, np.uint8)
    array[1:5, 4:9, 6:24], array[1:5, 14:19, 6:24] = 11, 12
    p.inputVolume = mrml.volume_from_image(Image(np.full(GRID.shape, 5.0, np.float32), GRID), "T2w")
    p.segmentation = mrml.segmentation_from_labels(Image(array, GRID), "Discs", p.inputVolume)
    p.series = mrml.sequence_from_series(EchoSeries(echoes.astype(np.float32), TIMES, "T2", GRID), "echoes")
    process()
    return p, array, echoes


@pytest.mark.parametrize("opened", ["DiscRelaxometry"], indirect=True)
def test_maps(opened):
    p, array, _ = series(opened)
    p.kind, p.alignment, p.model = type(p.kind).T1rho, type(p.alignment).on, type(p.model).rician
    p.lowerBound, p.upperBound, p.onlyDiscs, p.times = 3.0, 333.0, True, [2.0, 22.0, 44.0]
    click(opened.ui.computeButton)
    job, = opened.jobs
    assert set(job.arguments) == parameters(job) - {"workers"}
    found = job.arguments
    assert (found["series"].kind, found["series"].times_ms.tolist()) == ("T1rho", [2.0, 22.0, 44.0])
    assert found["align"] == "on"
    options = found["options"]
    assert (options.model, options.estimator, options.bounds) == ("mono2", "rician", (3.0, 333.0))
    np.testing.assert_array_equal(found["mask"].array, array)
    p.onlyDiscs = False
    click(opened.ui.computeButton)
    assert opened.jobs[1].arguments["mask"] is None


@pytest.mark.parametrize("opened", ["DiscRelaxometry"], indirect=True)
def test_segment_and_carry(opened):
    p, array, echoes = series(opened)
    p.engine, p.useGpu = type(p.engine).onnx, False
    click(opened.ui.segmentButton)
    click(opened.ui.carryButton)
    segment, carry = opened.jobs
    assert {"image", "engine", "device"} <= parameters(segment) and set(carry.arguments) <= parameters(carry)
    assert (segment.arguments["engine"], segment.arguments["device"]) == ("onnx", None)
    np.testing.assert_array_equal(segment.arguments["image"].array, 5.0)
    np.testing.assert_array_equal(carry.arguments["labels"].array, array)
    np.testing.assert_array_equal(carry.arguments["anatomical"].array, 5.0)
    np.testing.assert_allclose(carry.arguments["echo_image"].array, echoes[0], rtol=1e-5)


@pytest.mark.parametrize("opened", ["DiscAtlas"], indirect=True)
def test_register(opened, tmp_path):
    array = np.zeros(GRID.shape, np.uint8)
    nodes = []
    for n, name in enumerate(("sub-b", "sub-c", "sub-a")):
        array[1:5, 4:9 + n, 6:24] = 11
        nodes.append(mrml.segmentation_from_labels(Image(array.copy(), GRID), name))
    p = opened._parameterNode
    p.people, p.outputFolder, p.atlasFolder = [nodes[2], nodes[0]], tmp_path / "out", tmp_path / "atlas"
    p.template, p.backend = type(p.template).folder, type(p.backend).elastix
    click(opened.ui.registerButton)
    job, = opened.jobs
    found = job.arguments
    assert set(found) == parameters(job)
    assert (found["template"], found["atlas_folder"], found["backend"], found["output"], found["levels"]) == (
        "folder", str(tmp_path / "atlas"), "elastix", str(tmp_path / "out"), None)
    assert {n: np.count_nonzero(i.array) for n, i in found["people"].items()} == {
        "sub-a": 4 * 7 * 18, "sub-b": 4 * 5 * 18}, "each person's own discs"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """A shuffled table, with one row that has no map, and maps whose values say whose they are."""
    folder = tmp_path_factory.mktemp("cohort")
    order = [7, 2, 9, 0, 5, 1, 8, 3, 6, 4]
    rows = [f"sub-{n:02d}\t{30 + (n * n) % 11}\t{1 + (n * 3) % 5}" for n in order]
    (folder / "participants.tsv").write_text("participant_id\tage\tgrade\n" + "\n".join(rows) + "\n")
    for n in range(9):
        write_image(Image(np.full(GRID.shape, float(n), np.float32), GRID),
                    folder / "maps" / f"sub-{n:02d}_space-DiscAtlas_T2.nii.gz")
    return folder, [n for n in order if n < 9]


@pytest.mark.parametrize("opened", ["DiscStats"], indirect=True)
@pytest.mark.parametrize("flip", [False, True])
def test_analysis(opened, cohort, flip):
    """Maps belong to their row by id, and each setting arrives; twice, so that none is fixed or inverted."""
    pytest.importorskip("pandas")
    folder, order = cohort
    p = opened._parameterNode
    p.participantsFile, p.mapsFolder = folder / "participants.tsv", folder / "maps"
    p.formula, p.contrast = "T2 ~ grade + age", "grade" if flip else "age"
    p.fwe, p.tfce, p.fdr, p.cluster = flip, not flip, flip, not flip
    p.permutations, p.seed, p.workers = 321 + flip, 54 + flip, 2 + flip
    p.availableCase, p.dropRows = flip, not flip
    p.errors = type(p.errors)["symmetric" if flip else "exchangeable"]
    p.standardErrors = type(p.standardErrors)["hc3" if flip else "classical"]
    p.alternative = type(p.alternative)["greater" if flip else "less"]
    p.ranks, p.pareto = flip, not flip
    opened.ui.varianceEdit.setText("" if flip else " scanner ")
    opened.ui.blocksEdit.setText("family" if flip else "")
    process()
    click(opened.ui.runButton)
    job, = opened.jobs
    assert set(job.arguments) <= parameters(Job("DiscStatsLib.analysis:analyze"))
    found = job.arguments | vars(job.arguments["settings"])
    assert {k: found[k] for k in ("formula", "contrasts", "correction", "n_permutations", "seed", "missing",
                                  "missing_covariates", "workers", "errors", "standard_errors", "levels", "alternative",
                                  "ranks", "tail", "variance_groups", "blocks")} == {
        "formula": "T2 ~ grade + age", "contrasts": p.contrast, "correction": ("fwe", "fdr") if flip else (
            "tfce", "cluster"), "n_permutations": 321 + flip, "seed": 54 + flip, "workers": 2 + flip,
        "missing": "available" if flip else "complete", "missing_covariates": "error" if flip else "drop",
        "errors": p.errors.value, "standard_errors": p.standardErrors.value, "levels": None,
        "alternative": "greater" if flip else "less", "ranks": flip, "tail": "counted" if flip else "pareto",
        "variance_groups": "" if flip else "scanner", "blocks": "family" if flip else None}
    if not flip:
        # Every setting is in the panel and was changed above, but for those that are for scripts.
        scripts = {"min_count", "exchange", "cluster_p", "tfce", "device", "distribute"}
        defaults = vars(AnalysisSettings())
        assert {k for k, v in vars(job.arguments["settings"]).items() if v == defaults[k]} == scripts | {
            "missing_covariates", "standard_errors", "ranks"}
    table, maps = found["participants"], found["maps"]["T2"]
    assert table["participant_id"].tolist() == [f"sub-{n:02d}" for n in order]
    # Files, which the child process reads.
    assert {person: read_image(Path(file)).array.flat[0] for person, file in maps.items()} == {
        f"sub-{n:02d}": n for n in order}
    assert table["grade"].tolist() == [1 + (n * 3) % 5 for n in order]
    assert found["atlas_labels"].array.any() and found["regions"].array.any() and found["region_names"]


@pytest.mark.parametrize("opened", ["DiscStats"], indirect=True)
def test_study(opened, tmp_path):
    (tmp_path / "participants.tsv").write_text("participant_id\tage\nsub-01\t30\n")
    p = opened._parameterNode
    p.studyFolder, p.formula, p.contrast, p.permutations, p.seed, p.processes = tmp_path, "age", "age", 123, 45, 3
    p.errors, p.standardErrors, p.availableCase = type(p.errors).symmetric, type(p.standardErrors).hc3, False
    p.pooled, p.change = True, type(p.change).rate
    opened.ui.sessionEdit.setText("all ")
    opened.ui.varianceEdit.setText("scanner")
    click(opened.ui.studyButton)
    job, = opened.jobs
    assert job.arguments == {"path": str(tmp_path), "processes": 3, "formula": "age", "contrast": "age",
                             "permutations": 123, "seed": 45, "errors": "symmetric", "standard_errors": "hc3",
                             "pooled": True, "missing": "complete", "session": "all", "change": "per-year",
                             "variance_groups": "scanner"}
    from DiscStudyLib.folder import make_settings

    assert set(job.arguments) - {"path", "processes"} <= parameters(job) | set(vars(make_settings()))


@pytest.mark.parametrize("opened", ["DiscStats"], indirect=True)
def test_a_click_on_a_cluster_jumps_to_the_voxel_of_its_peak(opened, slicer, monkeypatch):
    """The peak of the cluster that was clicked, in RAS: right, anterior and superior are positive."""
    import types

    from DiscRelaxometryLib.tables import Column, Table

    places, quantities = {1: [4, 3, 2], 2: [20, 15, 4]}, {1: "T2", 2: "T1rho"}
    rows = []
    for number, index in places.items():
        left, posterior, superior = GRID.index_to_world(index)
        rows.append({"cluster": number, "quantity": quantities[number], "contrast": "age", "level": "L4-L5",
                     "peak_r": -left, "peak_a": -posterior, "peak_s": superior})
    names = ("cluster", "quantity", "contrast", "level", "peak_r", "peak_a", "peak_s")
    opened._parameterNode.clusters = mrml.table_node(Table("clusters", [Column(n) for n in names], rows))
    volume = mrml.volume_from_image(Image(np.zeros(GRID.shape, np.float32), GRID), "T2")
    jumps, plots = [], []
    opened._results.result = object()
    monkeypatch.setattr(opened.logic, "plotAt", lambda result, **place: plots.append(place))
    monkeypatch.setattr(slicer.modules, "markups", types.SimpleNamespace(logic=lambda: types.SimpleNamespace(
        JumpSlicesToLocation=lambda *place: jumps.append(place[:3]))))
    for row in (1, 0):
        opened.ui.clusterTable.cellClicked.emit(row, 0)
    assert plots == [{"chartNode": None, "cluster": n, "quantity": q, "contrast": "age"}
                     for n, q in reversed(quantities.items())]
    for jump, index in zip(jumps, ([20, 15, 4], [4, 3, 2])):
        to_index = np.linalg.inv(mrml.ras_matrix(mrml.volume_geometry(volume)))
        np.testing.assert_allclose((to_index @ [*jump, 1])[:3], index, atol=1e-6)
