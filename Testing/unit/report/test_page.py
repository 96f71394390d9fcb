"""The report: self-contained, escaped, labelled when simulated, and whole in a real browser."""

import base64
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

from DiscAtlasLib import load_atlas
from DiscRelaxometryLib.image import Geometry, Image
from DiscRelaxometryLib.labels import LUMBAR_LEVELS, disc_value
from DiscRelaxometryLib.tables import Column, Table
from DiscStudyLib.report.figures import plot_agreement, plot_cohort, plot_groups, plot_quality, save_figure
from DiscStudyLib.report.figures_maps import (
    Look,
    atlas_figure,
    level_views,
    map_row,
    montage,
    person_tile,
    sagittal_slice,
)
from DiscStudyLib.report.page import (
    SIMULATED,
    Cards,
    Figure,
    Notes,
    Paragraph,
    Report,
    Section,
    TableBlock,
    cell_text,
    render_report,
    write_report,
)

ATTACK = "<script>alert(1)</script>"


def phantom():
    """A stack of five ellipsoids as discs on an oblique, left-handed, anisotropic grid."""
    turn = np.deg2rad(12)
    direction = np.array([[0, 0, 1], [np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0]])
    geometry = Geometry((60, 110, 9), (1.2, 1.5, 4.0), (-15, -40, -80), direction.ravel())
    index = np.moveaxis(np.indices(geometry.shape), 0, -1)[..., ::-1]
    world = geometry.index_to_world(index)
    center = geometry.index_to_world(np.array([30, 55, 4]))
    labels = np.zeros(geometry.shape, np.uint8)
    for n, level in enumerate(("L5-S1", "L4-L5", "L3-L4", "L2-L3", "L1-L2")):
        d = (world - center - [0, 0, -60 + 30 * n]) / [20, 17, 6]
        labels[(d**2).sum(-1) < 1] = disc_value(level)
    noise = np.random.default_rng(0).normal(0, 3, labels.shape)
    image = Image((50 + labels * 8.0 + noise).astype(np.float32), geometry)
    return image, image.like(labels)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    image, labels = phantom()
    tile = person_tile(image, labels)
    figures = {
        "montage": montage([(f"sub-{n:02d}", tile, n == 2) for n in range(5)]),
        "atlas": atlas_figure({"r": (image.like(np.sin(image.array)), Look("RdBu_r", -1, 1, ""))}, labels,
                              ("L4-L5", "L5-S1")),
        "cohort": plot_cohort({"age": [20, 30, 40], "sex": ["F", "M", "F"]}, {"L4-L5": [1, 2, 5]}),
        "agreement": plot_agreement(np.arange(5.0), np.arange(5.0) + 0.1, ["a"] * 5, ("A", "B"), "ms"),
        "groups": plot_groups({"nucleus": {1.0: [3, 4], 2.0: [2, 1]}}, "grade", "T2"),
        "quality": plot_quality({"L4-L5": [0.9, 0.95], "L5-S1": [0.8]}, "Dice", 0.85)}
    blocks = [Figure(save_figure(f, folder / f"{n}.png"), f"Caption {n} {ATTACK}", n) for n, f in figures.items()]
    table = Table("t", [Column("name", "", ATTACK), Column("mean", "ms")], [{"name": ATTACK, "mean": 41.234}] * 70)
    sections = [Section("First", "first", [Cards([("People", "3", "of 4")]), Paragraph(ATTACK), Notes([
        ("warning", ATTACK)]), TableBlock(table, "Table")]), Section("Figures", "figures", blocks)]
    return Report(f"Study {ATTACK}", "Subtitle", sections, footer="footer")


@pytest.mark.parametrize("kind", ["montage", "atlas", "maps"])
def test_fixed_margins_hold_all_words(kind):
    image, labels = phantom()
    atlas = load_atlas().labels
    looks = {key: Look("viridis", -1000, 1000, "relaxation time, ms") for key in ("Mean T1rho", "SD T1rho")}
    tile = np.zeros((400, 240, 3), np.uint8)
    figure = {
        "montage": lambda: montage([(f"sub-{n:07d}", tile[n * 20:], n in (0, 7)) for n in range(9)]),
        "atlas": lambda: atlas_figure({key: (atlas, look) for key, look in looks.items()}, atlas, LUMBAR_LEVELS),
        "maps": lambda: map_row({key: (image, labels, look) for key, look in looks.items()})}[kind]()
    box, (width, height) = figure.get_tightbbox(figure.canvas.get_renderer()), figure.get_size_inches()
    assert min(box.x0, box.y0) >= -0.01 and box.x1 <= width + 0.01 and box.y1 <= height + 0.01


def test_montage_names_and_frames_each_picture():
    (axis,) = montage([(f"sub-{n}", np.full((300 - n, 240, 3), n, np.uint8), n in (0, 9))
                       for n in range(10)]).axes
    at = {int(shown.get_array()[0, 0, 0]): shown.get_extent() for shown in axis.images}  # left, right, bottom, top
    for n, words in enumerate(axis.texts):
        assert words.get_text() == f"sub-{n}" + (" \u2691" if n in (0, 9) else "")
        left, right, bottom, top = at[n]
        x, y = words.get_position()
        assert x == pytest.approx((left + right) / 2) and top - 0.1 < y < top
        assert (bottom - top) / (right - left) == pytest.approx((300 - n) / 240)
        assert n < 8 or (top > at[n - 8][2] and left == at[n - 8][0])
    assert len(at) == 10 and [frame.get_xy() for frame in axis.patches] == [(at[n][0], at[n][3]) for n in (0, 9)]


class Reader(HTMLParser):
    """Collect tags and what they refer to."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.images, self.ids, self.alts = [], [], [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.links += [attributes[k] for k in ("href", "src") if k in attributes]
        if tag == "img":
            self.images.append(attributes["src"])
            self.alts.append(attributes["alt"])
        if "id" in attributes:
            self.ids.add(attributes["id"])


def test_page_is_self_contained_and_escaped(report):
    page = Reader(render_report(report))
    assert "script" not in page.tags
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= page.ids
    assert len(page.images) == 6 and all(page.alts)


def test_all_images_decode(report):
    picture = pytest.importorskip("PIL.Image")
    for uri in Reader(render_report(report)).images:
        data = base64.b64decode(uri.split(",", 1)[1])
        assert min(picture.open(io.BytesIO(data)).size) > 50


def test_simulated_is_said_on_each_page_and_section(report):
    assert SIMULATED not in render_report(report)
    report.simulated = True
    text = render_report(report)
    report.simulated = False
    assert text.count("simulated</span>") == len(report.sections)
    assert SIMULATED in text and 'class="watermark"' in text and f"<title>{SIMULATED}" in text


def test_simulated_is_inside_figures(tmp_path):
    plain = save_figure(plot_quality({"L4-L5": [0.9]}, "Dice"), tmp_path / "a.png").read_bytes()
    marked = save_figure(plot_quality({"L4-L5": [0.9]}, "Dice"), tmp_path / "b.png", simulated=True).read_bytes()
    again = save_figure(plot_quality({"L4-L5": [0.9]}, "Dice"), tmp_path / "c.png").read_bytes()
    assert plain == again != marked


def test_long_tables_say_what_is_left_out(report):
    text = render_report(report)
    assert "10 more rows" in text


@pytest.mark.parametrize(("value", "text"), [
    (None, "\u2013"), (float("nan"), "\u2013"), (41.234, "41.2"), (1234.5, "1234"), (-0.5, "\u22120.5"),
    (1e-5, "1.00e-05"), (3, "3"), ("a", "a"), (0.0, "0")])
def test_cells(value, text):
    assert cell_text(value) == text


def test_sagittal_slice_is_head_up_on_any_grid():
    image, labels = phantom()
    _, names, aspect = sagittal_slice(image, labels)
    rows = {level: np.nonzero(names == disc_value(level))[0].mean() for level in ("L1-L2", "L5-S1")}
    assert rows["L1-L2"] < rows["L5-S1"]
    assert aspect == pytest.approx(1.5 / 1.2, rel=1e-6)


def test_level_views_show_one_disc_only():
    image, labels = phantom()
    sagittal, transverse = level_views(image, labels, disc_value("L4-L5"))
    assert np.isfinite(sagittal).any() and np.isfinite(transverse).any()
    values = sagittal[np.isfinite(sagittal)]
    assert abs(np.median(values) - (50 + 8 * disc_value("L4-L5"))) < 2


def test_real_browser_has_nothing_to_complain_of(report, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
    if not browser:
        pytest.skip("no Chromium found")
    page = write_report(report, tmp_path / "report.html")
    shot = tmp_path / "shot.png"
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}",
         "--enable-logging=stderr", "--window-size=1280,2400", f"--screenshot={shot}", page.as_uri()],
        capture_output=True, text=True, timeout=120)
    assert not re.findall(r".*CONSOLE.*", done.stderr), done.stderr
    picture = pytest.importorskip("PIL.Image")
    pixels = np.asarray(picture.open(shot).convert("RGB"))
    assert pixels.shape[1] == 1280 and pixels.std() > 10
