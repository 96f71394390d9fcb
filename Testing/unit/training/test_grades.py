"""Training of the grading network on made-up people: who is trained on, what is learned, what is written."""


import json
import os
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from support import ROOT
from support.grade_phantom import spine
from unit.folder.test_spider import OVERVIEW, mask, write_mha

torch = pytest.importorskip("torch")

from DiscRelaxometryLib.discs import load_engine  # noqa: E402
from DiscRelaxometryLib.grades import GRADES, PICTURE, load_grader, median_grade  # noqa: E402
from DiscRelaxometryLib.image import write_image  # noqa: E402
from DiscStudyLib.folder import import_spider, imported_series  # noqa: E402
from Training import dataset, grades, grades_networks  # noqa: E402
from Training.grades_networks import MARGIN  # noqa: E402
from Training.train import load_person, split  # noqa: E402

sys.path.insert(0, str(ROOT / "Testing" / "benchmarks"))
import grades_tables  # noqa: E402

COLUMNS = ("participant_id", "disc_from_below", "modic", "upper_endplate", "lower_endplate", "narrowing", "bulging",
           "pfirrmann")


def made_discs(people=12, seed=0):
    """Return discs whose grade is what the first feature and the picture say; the second feature is the person."""
    rng, discs = np.random.default_rng(seed), grades.Discs(["signal", "person"])
    for n in range(people):
        for value in range(11, 16):
            grade = 1 + (n + value) % GRADES
            discs.people.append(f"sub-{n:02d}")
            discs.series.append(f"sub-{n:02d}_T2w")
            discs.values.append(value)
            discs.features.append(np.array([-grade + 0.2 * rng.standard_normal(), float(n)]))
            discs.pictures.append(np.full((PICTURE[0], *MARGIN), 0.3 * grade, np.float16))
            discs.gradings.append({"pfirrmann": grade, "narrowing": grade > 3, "bulging": grade > 2,
                                   "modic": 2 * (n % 2), "upper_endplate": 0, "lower_endplate": grade > 4})
    return discs


def write_slices(folder, nuclei):
    """Write T2w slices of drawn spines with the outlines that training would find, and a table of gradings."""
    rows = []
    for n, nucleus in enumerate(nuclei):
        name = f"sub-{n:03d}"
        image, labels = spine([nucleus] * 6 if np.isscalar(nucleus) else nucleus)
        write_image(image, folder / "data" / f"{name}_T2w.nii.gz")
        write_image(labels, folder / "runs" / f"{name}_T2w_dseg.nii.gz")
        rows += [(name, k, 2 * (k == 1), 0, 1, 1, 0, 1 + n % 5) for k in range(1, 6)]
        rows.append((name, 6, 0, 0, 0, 0, 0, "n/a"))
    (folder / "data" / "gradings.tsv").write_text(
        "\n".join("\t".join(map(str, row)) for row in [COLUMNS, *rows]) + "\n")
    return sorted((folder / "data").glob("*_T2w.nii.gz"))


@pytest.fixture
def slices(tmp_path):
    for name in ("data", "runs"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_gradings_are_counted_from_the_lowest_disc(slices):
    write_slices(slices, [100])
    found = grades.read_gradings(slices / "data" / "gradings.tsv")
    assert sorted(found) == [("sub-000", value) for value in range(11, 16)]  # what is not graded is left out
    assert found["sub-000", 11]["modic"] == 2 and found["sub-000", 12]["modic"] == 0


def test_discs_are_joined_with_their_gradings_and_what_is_not_graded_is_kept_apart(slices):
    files = write_slices(slices, [100, 100, 100])
    image, labels = spine()
    write_image(labels.like(np.where(labels.array == 2, 0, labels.array)), slices / "runs" / "sub-000_T2w_dseg.nii.gz")
    write_image(labels.like(0 * labels.array), slices / "runs" / "sub-001_T2w_dseg.nii.gz")
    half = labels.array.copy()
    half[:125][labels.array[:125] == 2] = 0  # no canal beside L5-S1
    write_image(labels.like(half), slices / "runs" / "sub-002_T2w_dseg.nii.gz")
    found = grades.load_discs(files, grades.read_gradings(slices / "data" / "gradings.tsv"), slices / "runs")
    assert "canal is not seen" in found.refused["sub-000_T2w"] and "No spine" in found.refused["sub-001_T2w"]
    assert found.people == ["sub-002"] * 4 and found.values == [12, 13, 14, 15]
    assert list(found.withheld) == [("sub-002_T2w", 11)] and "canal" in found.withheld["sub-002_T2w", 11]
    assert found.x.shape == (4, len(load_grader().config.features)) and set(found.grade) == {3}
    # Thresholds 1 to 4, then narrowing, bulging, Modic, endplates (upper or lower).
    assert found.targets[0].tolist() == [True, True, False, False, True, False, False, True]


def test_a_person_is_in_one_fold_and_folds_are_alike():
    discs = made_discs(23)
    fold = grades.deal_people(discs.people, discs.grade)
    assert fold == grades.deal_people(discs.people[::-1], discs.grade[::-1])
    counts = np.bincount(list(fold.values()), minlength=grades.FOLDS)
    assert len(fold) == 23 and counts.max() - counts.min() <= 1


def test_nobody_is_predicted_by_a_network_that_saw_them(monkeypatch):
    discs, other = made_discs(), made_discs(14, seed=1)
    seen = []

    def remember(discs, members, folder):
        seen.append(set(discs.x[:, 1]))
        return SimpleNamespace(n=len(seen) - 1, odds=None)

    predicted = {}

    def look(network, discs):
        if network is None:
            return np.zeros((len(discs.people), GRADES + 3))
        for person in discs.x[:, 1]:
            predicted.setdefault(person, set()).add(network.n)
        return np.full((len(discs.people), GRADES + 5), 0.5)

    monkeypatch.setattr(grades, "fit", remember)
    monkeypatch.setattr(grades, "evaluated", look)
    (own, others), _ = grades.cross_validate(discs, [other], 0)
    assert (own == 0.5).all() and (others == 0.5).all() and len(seen) == grades.FOLDS
    assert set(predicted) == set(range(14)) and all(len(networks) == 1 for networks in predicted.values())
    assert not any(person in seen[network] for person, networks in predicted.items() for network in networks)


def test_regression_is_that_of_scikit_learn():
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(3)
    z = rng.standard_normal((200, 3))
    y = z @ [1.0, -2.0, 0.5] + rng.standard_normal(200) > 0.3
    weights, bias = grades.regress(z, y)
    theirs = linear.LogisticRegression(C=1 / grades.PENALTY, tol=1e-10, max_iter=1000).fit(z, y)
    assert weights == pytest.approx(theirs.coef_[0], abs=1e-4) and bias == pytest.approx(theirs.intercept_[0], abs=1e-4)


def test_the_grade_is_learned_on_people_kept_apart():
    discs = made_discs(30)
    p = grades.cross_validate(discs, [], members=0)[0][0]
    found = grades_tables.figures(discs.grade, p[:, :GRADES])
    assert found["weighted kappa"] > 0.8 and found["within one"] > 0.95
    narrowed, modic = discs.targets[:, GRADES - 1], discs.targets[:, GRADES + 1]
    assert p[narrowed, GRADES].mean() > p[~narrowed, GRADES].mean() + 0.4
    assert abs(p[modic, GRADES + 2].mean() - p[~modic, GRADES + 2].mean()) < 0.3  # it depends on the person alone


def test_a_missing_feature_counts_as_the_mean():
    discs = made_discs(20)
    network, one = grades.fit(discs, 0), discs.some(np.arange(len(discs.people)) == 0)
    mean, missing = (grades.evaluated(network, replace(one, features=[x])) for x in (discs.x.mean(0), [np.nan, np.nan]))
    assert missing == pytest.approx(mean, abs=1e-5)


def test_a_feature_that_never_differs_or_is_never_measured_says_nothing():
    discs = made_discs(20)
    more = replace(discs, names=[*discs.names, "constant", "missing"],
                   features=[[*x, 3.0, np.nan] for x in discs.features])
    network = grades.fit(more, 0)
    p, plain = grades.evaluated(network, more), grades.evaluated(grades.fit(discs, 0), discs)
    assert p[:, :-1] == pytest.approx(plain[:, :-1], abs=1e-4)
    assert np.isfinite(grades.evaluated(network, replace(more, features=list(more.x + [0, 0, 0.1, 0])))).all()


@pytest.mark.filterwarnings("ignore:.*treespec:FutureWarning")  # torch's own, of its exporter
def test_what_is_written_is_read_by_both_engines(tmp_path):
    for package in ("onnxscript", "onnxruntime", "safetensors"):
        pytest.importorskip(package)
    discs = made_discs(20)
    network = grades.regressions(discs, 2).eval()
    network.temperature.copy_(torch.linspace(0.7, 1.4, GRADES + 3))
    old = os.umask(0o022)
    try:
        model = load_grader(grades.export(network, discs, tmp_path))
    finally:
        os.umask(old)
    assert model.config.features == ("signal", "person") and len(model.manifest["training"]["people"]["train"]) == 20
    pictures = np.random.default_rng(0).random((len(discs.people), *PICTURE))
    with torch.inference_mode():
        given = network(*(torch.tensor(a, dtype=torch.float32) for a in (discs.x, pictures))).numpy()
    for engine, kind in (("onnx", "onnx"), ("torch", "safetensors")):
        assert load_engine(model, engine).run(discs.x, pictures) == pytest.approx(given, abs=1e-5)
        assert model.file(kind).stat().st_mode & 0o777 == 0o644  # as the umask says


def test_pictures_are_learned_on_people_kept_apart(monkeypatch, tmp_path):
    """Of discs whose features say nothing; what is done is kept, and is another for other discs."""
    monkeypatch.setattr(grades_networks, "EPOCHS", (2, 12))
    discs = made_discs(18)
    blind = replace(discs, features=[np.array([0.0, x[1]]) for x in discs.features])
    train, test = (blind.some(rows) for rows in (blind.x[:, 1] < 13, blind.x[:, 1] >= 13))
    network = grades.fit(train, 1, tmp_path)
    p = grades.evaluated(network, test)
    assert grades_tables.figures(test.grade, p[:, :GRADES])["weighted kappa"] > 0.8
    assert not network.training

    def again(*_, **__):
        raise InterruptedError
    monkeypatch.setattr(grades_networks, "descend", again)
    assert np.array_equal(grades.evaluated(grades.fit(train, 1, tmp_path), test), p)
    with pytest.raises(InterruptedError):
        grades.fit(train.some(train.x[:, 1] > 0), 1, tmp_path)


def test_training_is_repeatable(monkeypatch):
    monkeypatch.setattr(grades_networks, "EPOCHS", (2, 1))
    discs = made_discs(5)
    one, two = (grades.evaluated(grades.fit(discs, 1), discs) for _ in range(2))
    assert np.array_equal(one, two)


def test_temperatures_come_from_the_other_folds(monkeypatch):
    """Log-odds of the person in fold k, told by its network: those of k itself are never asked."""
    discs, asked = made_discs(10), []

    def look(network, some):
        folds = {fold[p] for p in some.people}
        return np.full((len(some.people), GRADES + 3), float(folds.pop())) if network is None else np.full(
            (len(some.people), GRADES + 5), network.temperature[0].item())

    def ask(odds, targets):
        assert len(odds) == len(targets)
        asked.append(set(odds.ravel()))
        return np.full(GRADES + 3, len(asked))
    fold = grades.deal_people(discs.people, discs.grade)
    monkeypatch.setattr(grades, "fit", lambda *_: SimpleNamespace(odds=None, temperature=torch.ones(GRADES + 3)))
    monkeypatch.setattr(grades, "evaluated", look)
    monkeypatch.setattr(grades, "temperatures", ask)
    (own,), everyones = grades.cross_validate(discs, [])
    assert asked == [{0, 1, 2, 3, 4} - {k} for k in range(5)] + [{0, 1, 2, 3, 4}]
    assert own[:, 0].tolist() == [fold[p] + 1 for p in discs.people] and set(everyones) == {6}


def test_discs_unlike_the_others_are_set_apart():
    discs = made_discs(20)
    discs.features[7] = np.array([40.0, -60.0])
    p = grades.cross_validate(discs, [], members=0)[0][0]
    near, kept = grades.set_apart(discs, p)
    assert list(near.withheld) == [("sub-01_T2w", 13)] and "unlike" in near.withheld["sub-01_T2w", 13]
    assert len(near.people) == len(near.features) == len(kept) == 99 and len(discs.people) == 100
    # Independent: the covariance of the training set, its diagonal raised, inverted.
    z = (discs.x - discs.x[10:].mean(0)) / discs.x[10:].std(0)
    network = grades.fit(discs.some(np.arange(100) >= 10), 0)
    inverse = np.linalg.inv(np.cov(z[10:].T) + grades.RIDGE * np.eye(2))
    theirs = np.sqrt(np.einsum("ij,jk,ik->i", z, inverse, z) / 2)
    assert grades.evaluated(network, discs)[:, -1] == pytest.approx(theirs, rel=1e-4)


def test_figures_are_those_of_a_table_by_hand():
    read = np.array([1, 1, 2, 3, 5])
    p = np.eye(GRADES)[[0, 1, 1, 2, 2]] * 0.8 + 0.04
    found = grades_tables.figures(read, p)
    assert median_grade(p).tolist() == [1, 2, 2, 3, 3]
    assert found["exact"] == 3 / 5 and found["within one"] == 4 / 5 and found["mean error"] == 3 / 5
    assert found["recall of grade I"] == 1 / 2
    assert found["calibration error"] == pytest.approx(0.84 - 3 / 5)
    # Cohen's kappa with squared differences: 1 - (observed 1 + 4) / (expected, over all pairs of margins).
    found_grade = median_grade(p)
    expected = np.mean((read[:, None] - found_grade[None]) ** 2)
    assert found["weighted kappa"] == pytest.approx(1 - np.mean((read - found_grade) ** 2) / expected)


def test_bootstrap_draws_people():
    read, p = np.array([1, 1, 5, 5]), np.eye(GRADES)[[0, 0, 0, 0]]
    limits = grades_tables.intervals(["a", "a", "b", "b"], read, p)
    assert limits["exact"] == (0.0, 1.0)  # both people right, or both wrong
    assert grades_tables.intervals(["a", "b", "c", "d"], read, p)["exact"][1] <= 1


@pytest.fixture
def imported(tmp_path):
    """Return a study imported from a made archive of ten people: one drawn spine each, T2w and T2 SPACE."""
    archive, study = tmp_path / "archive", tmp_path / "study"
    archive.mkdir()
    overview, gradings = [OVERVIEW.splitlines()[0]], [
        "Patient,IVD label,Modic,UP endplate,LOW endplate,Spondylolisthesis,Disc herniation,Disc narrowing,"
        "Disc bulging,Pfirrman grade"]
    for n in range(1, 11):
        for contrast in ("t2", "t2_SPACE"):
            write_mha(np.full((3, 60, 24), n, np.int16), archive / "images" / f"{n}_{contrast}.mha")
            write_mha(mask(), archive / "masks" / f"{n}_{contrast}.mha")
            overview.append(f"{n}_{contrast},training,7,7,F,,,114,1.5,SIEMENS,Avanto,3500")
        gradings += [f"{n},{k},0,0,{k % 2},0,0,{int(n > 5)},{k % 2},{1 + n % 5}" for k in range(1, 6)]
    (archive / "overview.csv").write_text("\n".join(overview))
    (archive / "radiological_gradings.csv").write_text("\n".join(gradings))
    import_spider(archive, study)
    return study


def write_outlined(path, image, labels, cache):
    """Write a slice, and its outlines where the training looks for them before it segments."""
    write_image(image, path)
    cache.mkdir(parents=True, exist_ok=True)
    write_image(labels, cache / path.name.replace(".nii", "_dseg.nii"))


def test_an_imported_study_trains_the_grades(imported, tmp_path, monkeypatch):
    """The second command, with outlines at hand: images by contrast, gradings, vendor and field, weights."""
    files, table = grades.sources(imported)
    assert [p.name for p in files["T2w"]] == [f"sub-{n:03d}_T2w.nii.gz" for n in range(1, 11)]
    assert len(files["SPACE"]) == 10 and not files["T1w"] and not {*files["T2w"]} & {*files["SPACE"]}
    rng = np.random.default_rng(0)
    for contrast in ("T2w", "SPACE"):
        for path in files[contrast]:
            grade = 1 + int(path.name[4:7]) % 5
            image, labels = spine(200 - 35 * grade + 8 * rng.standard_normal(6), slices=3)
            write_outlined(path, image, labels, grades.outlines_of(tmp_path / "runs") / contrast)
    made = {}
    monkeypatch.setattr(grades, "export", lambda network, discs, folder: made.update(network=network, discs=discs))
    monkeypatch.setattr("common.RESULTS", tmp_path)
    monkeypatch.setattr(grades_tables, "RESAMPLES", 20)
    monkeypatch.setattr(grades_networks, "EPOCHS", (1, 1))
    monkeypatch.setattr("sys.argv", ["grades", "--data", str(imported), "--runs", str(tmp_path / "runs"),
                                     "--weights", str(tmp_path / "weights")])
    grades_tables.main()
    assert len(made["discs"].people) == 50 and set(made["discs"].grade) == {1, 2, 3, 4, 5}
    tables = json.loads((tmp_path / "grades.json").read_text(encoding="utf-8"))["tables"]
    rows = {row[0]: row for row in tables["agreement"]["rows"]}
    assert rows["everyone"][1:3] == [50, 10] and rows["SIEMENS"][1] == 50 and rows["1.5 T"][1] == 50
    assert rows["T2 SPACE, same people"][1] == 50
    assert float(rows["everyone"][3].split()[0]) > 0.5
    assert [row[0] for row in tables["members"]["rows"]] == list(grades_tables.FIGURES)[:-1]


def test_a_quick_run_touches_neither_tables_nor_shipped_weights(imported, tmp_path, monkeypatch, capsys):
    files, _ = grades.sources(imported)
    for contrast in ("T2w", "SPACE"):
        for n, path in enumerate(files[contrast]):
            image, labels = spine([20 + 30 * ((n + k) % 6) for k in range(6)], slices=3)
            write_outlined(path, image, labels, grades.outlines_of(tmp_path / "runs") / contrast)
    made = {}
    monkeypatch.setattr(grades_networks, "EPOCHS", (1, 1))
    monkeypatch.setattr(grades, "export", lambda network, discs, folder: made.update(discs=discs, folder=folder))
    monkeypatch.setattr("common.RESULTS", tmp_path / "results")
    monkeypatch.setattr("sys.argv", ["grades", "--data", str(imported), "--runs", str(tmp_path / "runs"), "--quick"])
    grades_tables.main()
    assert sorted(set(made["discs"].people)) == ["sub-001", "sub-006"] and made["folder"] == tmp_path / "runs"
    assert "weighted kappa" in capsys.readouterr().out and not (tmp_path / "results").exists()


def test_an_imported_study_trains_the_discs(imported):
    """Every series with a mask, upright, all of a person in one fold."""
    assert len(imported_series(imported)) == 20 == len(dataset.people(imported))
    names = []
    for fold in range(4):
        groups, test = split(imported, fold)
        trained, tested = ({dataset.person_of(n) for n in some} for some in (sum(groups, []), test))
        assert not trained & tested and len(trained | tested) == 10
        names += test
    assert sorted(names) == dataset.people(imported)
    person = load_person(imported, "sub-001_acq-SPACE_T2w")
    canal, discs, lowest, bodies = (np.argwhere(person.labels == c).mean(0) for c in
                                    (dataset.CANAL, dataset.DISC, dataset.DISC_L5S1, dataset.VERTEBRA))
    assert discs[2] < canal[2] and lowest[1] > discs[1] and bodies[2] < canal[2]  # anterior left, superior up
    assert person.labels.shape[0] == 3 and (person.labels == dataset.VERTEBRA).any()


def test_no_graded_disc_is_said(tmp_path, monkeypatch, capsys):
    (tmp_path / "gradings.tsv").write_text("\t".join(COLUMNS) + "\n")
    monkeypatch.setattr(grades, "sources", lambda data: ({"T2w": [], "T1w": [], "SPACE": []}, data / "gradings.tsv"))
    monkeypatch.setattr("sys.argv", ["grades", "--data", str(tmp_path)])
    with pytest.raises(SystemExit):
        grades_tables.main()
    assert "no graded disc" in capsys.readouterr().err
