"""The review page in a real browser: from opening to a decision on disk and a run that obeys it."""

import shutil

import numpy as np
import pytest
from support.cohort_phantom import make_spine_study
from support.review_page import decisions, served
from support.review_study import upright_index
from support.study_runs import light_runs

from DiscRelaxometryLib.image import read_image
from DiscRelaxometryLib.labels import disc_value
from DiscStudyLib import run_study
from DiscStudyLib.engine import exclusive
from DiscStudyLib.review import Session

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser, page, width=1280, height=800, scheme="light", **more):
    tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme, **more)
    tab.errors = []
    tab.on("pageerror", lambda error: tab.errors.append(str(error)))
    tab.on("console", lambda m: tab.errors.append(m.text) if m.type == "error" and "409" not in m.text else None)
    tab.goto(page.address)
    tab.wait_for_selector("body[data-shown]")
    return tab


def wait_for(tab, name, value):
    tab.wait_for_selector(f'body[data-{name}="{value}"]', timeout=60000)  # the page's policy allows no evaluation


def painted(tab, name="main") -> int:
    """Return how many colors a view shows: 1 where nothing was drawn."""
    return tab.evaluate("""name => { const c = document.getElementById(name), d = c.getContext('2d').getImageData(0, 0,
        c.width, c.height).data, s = new Set(); for (let n = 0; n < d.length; n += 4) s.add(d[n] << 16 | d[n + 1] << 8 |
        d[n + 2]); return s.size; }""", name)


def test_a_long_list_comes_in_pages_and_is_searched(browser, page):
    tab = browser.new_page()
    many = [{"id": f"sub-{n:02d}", "flagged": n == 2, "done": False} for n in range(1, 251)]

    def crowded(route):
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "people": many})

    tab.route("**/api/state", crowded)
    tab.goto(page.address)
    wait_for(tab, "shown", "sub-01")
    assert tab.locator("#people li").count() == 100 and tab.inner_text("#range") == "1\u2013100"
    assert tab.is_disabled("#before") and tab.inner_text("#progress") == "0 of 250"
    tab.click("#after")
    tab.click("#after")
    assert tab.inner_text("#range") == "201\u2013250" and tab.is_disabled("#after")
    assert tab.locator("#people li").last.inner_text() == "sub-250"
    tab.fill("#find", "SUB-03")
    assert tab.locator("#people li").all_inner_texts() == ["sub-03"] and tab.is_hidden("#pages")
    tab.press("#find", "Enter")
    wait_for(tab, "shown", "sub-03")
    tab.fill("#find", "nobody")
    assert tab.locator("#people li").count() == 0 and tab.inner_text("#progress") == "0 of 0"
    tab.fill("#find", "")
    assert tab.inner_text("#range") == "1\u2013100"
    tab.close()


def test_keyboard_alone_from_first_to_last(browser, page, study):
    tab = opened(browser, page)
    assert tab.evaluate("document.body.dataset.shown") == "sub-02"  # the flagged person first
    assert painted(tab) > 20 and painted(tab, "map") > 5 and painted(tab, "solid") > 5
    tab.keyboard.press("a")
    wait_for(tab, "shown", "sub-01")
    for _ in range(2):
        tab.keyboard.press("ArrowDown")
    tab.keyboard.press("x")
    tab.keyboard.type("hardware")
    tab.keyboard.press("Enter")
    wait_for(tab, "decided", "sub-01 L2-L3 excluded")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("r")
    tab.keyboard.type("T12-L1")
    tab.keyboard.press("Enter")
    wait_for(tab, "decided", "sub-01 L3-L4 renamed")
    for _ in range(9):
        tab.keyboard.press("ArrowUp")
    tab.keyboard.press("a")
    wait_for(tab, "shown", "sub-03")
    assert tab.inner_text("#progress") == "2 of 3"
    found = {d.disc: (d.decision, d.reason, d.renamed_to, d.reviewer) for d in decisions(study).values()}
    assert found == {("sub-02", "all"): ("accepted", "", "", "AB"), ("sub-01", "all"): ("accepted", "", "", "AB"),
                     ("sub-01", "L2-L3"): ("excluded", "hardware", "", "AB"),
                     ("sub-01", "L3-L4"): ("renamed", "", "T12-L1", "AB")}
    tab.keyboard.press("a")
    tab.wait_for_selector("#message:has-text('last participant')")
    tab.keyboard.press("u")
    wait_for(tab, "decided", "sub-03 all undo")
    assert ("sub-03", "all") not in decisions(study)
    assert not tab.errors
    tab.close()


def test_a_picture_of_the_report_opens_its_disc_or_says_the_command(browser, study):
    link = (study / "derivatives/disc-relaxometry/review.html").as_uri() + "#sub-01/L4-L5"
    with served(study) as page:
        tab = browser.new_page()
        tab.goto(link)
        tab.wait_for_selector('body[data-shown="sub-01"]')
        assert tab.inner_text("#discs [aria-selected=true] b") == "L4-L5"
        page.stop()
    tab.goto("about:blank")
    tab.goto(link)
    assert "disc-relaxometry review study" in tab.inner_text("body")
    tab.close()


def test_a_page_that_was_killed_leaves_a_link_that_says_the_command(browser, study):
    from DiscStudyLib.folder import Study
    from DiscStudyLib.review import write_link

    tab = browser.new_page()
    tab.goto(write_link(Study(study), "http://127.0.0.1:9/?token=gone").as_uri())
    tab.wait_for_timeout(500)
    assert "The review page is not running" in tab.inner_text("body")
    tab.close()


def test_without_graphics_hardware_and_webgl_all_views_are_drawn(browser, page):
    other = browser.browser_type.launch(executable_path=CHROMIUM, args=[
        "--no-sandbox", "--disable-gpu", "--disable-3d-apis", "--disable-accelerated-2d-canvas"])
    tab = opened(other, page)
    assert tab.evaluate("document.createElement('canvas').getContext('webgl')") is None
    assert painted(tab) > 20 and painted(tab, "map") > 5 and painted(tab, "solid") > 5
    other.close()


def test_two_reviewers_do_not_write_over_each_other(browser, page, study):
    tab = opened(browser, page)
    Session(study, reviewer="CD").decide("sub-02", "all", "excluded", reason="motion")
    tab.keyboard.press("a")
    tab.wait_for_selector("#message:has-text('was decided by CD meanwhile')")
    assert decisions(study)["sub-02", "all"].reviewer == "CD"
    assert "excluded by CD" in tab.inner_text("#discs")  # what is on disk is shown now
    tab.keyboard.press("a")
    wait_for(tab, "decided", "sub-02 all accepted")
    tab.close()


def test_a_closed_browser_in_mid_edit_loses_nothing(browser, page, study):
    tab = opened(browser, page)
    with tab.expect_response("**/api/draft"):
        paint(tab)
    tab.close()
    tab = opened(browser, page)
    tab.wait_for_selector("#message:has-text('unsaved drawing was found')")
    for key in ("n", "Escape", "n", "p"):  # neither another participant nor leaving drops it
        tab.keyboard.press(key)
    tab.wait_for_selector("#message:has-text('unsaved drawing was found')")
    tab.keyboard.press("s")
    wait_for(tab, "decided", "sub-02 L4-L5 corrected")
    assert [d.decision for d in decisions(study).values()] == ["corrected"]
    assert not list((study / "derivatives/disc-relaxometry/review.drafts").iterdir())
    tab.close()


def test_a_drawing_is_undone_or_discarded(browser, page, study):
    tab = opened(browser, page)
    for key in ("z", "x"):
        with tab.expect_response("**/api/draft"):
            paint(tab)
        with tab.expect_response("**/api/draft"):
            tab.keyboard.press(key)
        assert not list((study / "derivatives/disc-relaxometry").glob("review.drafts/*"))
        tab.keyboard.press("Escape")
    assert not tab.locator("#editing").is_visible() and not tab.errors
    tab.close()


def test_a_run_makes_the_page_read_only_until_it_ends(browser, page, study):
    tab = opened(browser, page)
    with exclusive(study / "derivatives/disc-relaxometry"):
        tab.wait_for_selector("#message:has-text('read only until it ends')")
        assert tab.is_disabled("#accept")
        tab.keyboard.press("a")
    tab.wait_for_selector("#accept:not([disabled])")
    assert tab.is_hidden("#message") and not decisions(study)
    tab.close()


def paint(tab, level="L4-L5"):
    """Erase across the middle of a disc; return nothing: what was drawn is looked up on disk."""
    rows = tab.locator("#discs li")
    while tab.locator("#discs li[aria-selected=true] b").inner_text() != level:
        tab.keyboard.press("ArrowDown")
    assert rows.count() >= 4
    tab.keyboard.press("e")
    box, place = tab.locator("#main").bounding_box(), tab.evaluate("""async level => {
        const { view, state, slice } = (await import("/now.js")).now;
        const v = view.v, [nk, nj, ni] = v.shape, ratio = window.devicePixelRatio || 1;
        const value = Number(Object.keys(state.labels).find(k => state.labels[k] === level));
        let [sk, sj, n] = [0, 0, 0];
        for (let k = 0; k < nk; k++) for (let j = 0; j < nj; j++)
            if (v.labels[(k * nj + j) * ni + slice] === value) { sk += k; sj += j; n++; }
        return [(view.x0 + (sj / n - view.j0 + 0.5) * view.px) / ratio,
                (view.y0 + (view.k1 - sk / n + 0.5) * view.py) / ratio];
    }""", level)
    tab.keyboard.press("d")
    tab.mouse.move(box["x"] + place[0], box["y"] + place[1])
    tab.mouse.down()
    tab.mouse.move(box["x"] + place[0] + 6, box["y"] + place[1])
    tab.mouse.up()


def test_a_person_is_corrected_and_exactly_what_depends_on_it_is_redone(browser, tmp_path):
    """The whole way: run, draw in the browser, run again."""
    for library in ("jinja2", "matplotlib", "pandas", "patsy"):
        pytest.importorskip(library)
    study = make_spine_study(tmp_path / "study", (1, 3))
    with light_runs():
        run_study(study)
    results = study / "derivatives/disc-relaxometry"
    before = {p: p.read_bytes() for p in results.glob("sub-01/anat/*.nii.gz")}
    with served(study) as page:
        tab = opened(browser, page)
        tab.goto(page.address + "#sub-02")
        tab.reload()
        wait_for(tab, "shown", "sub-02")
        paint(tab)
        tab.keyboard.press("s")
        wait_for(tab, "decided", "sub-02 L4-L5 corrected")
        assert not tab.errors
        tab.close()
        page.stop()
    drawn = read_image(results / "sub-02/anat/sub-02_desc-reviewed_dseg.nii.gz")
    automatic = read_image(results / "sub-02/anat/sub-02_desc-discs_dseg.nii.gz")
    assert not drawn.geometry.difference(automatic.geometry)
    changed = drawn.array != automatic.array
    assert changed.any() and set(automatic.array[changed]) == {disc_value("L4-L5")}
    with light_runs():
        run = run_study(study)
    redone = {(o.person, o.step) for o in run.outcomes if o.state == "done"}
    assert redone == {*(("sub-02", s) for s in ("review", "normalize", "measure", "automatic", "grade", "tile",
                                                 "atlas")),
                      *(("", s) for s in ("tables", "means", "decisions", "report"))}
    assert {p: p.read_bytes() for p in before} == before
    final = read_image(results / "sub-02/anat/sub-02_desc-final_dseg.nii.gz")
    assert (final.array == drawn.array).all()


@pytest.mark.parametrize("width, height", [(1280, 800), (820, 1180)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_reached_at_both_widths(browser, page, width, height, scheme):
    tab = opened(browser, page, width, height, scheme)
    for name in ("accept", "exclude", "rename", "edit", "next", "previous", "main", "solid", "map", "progress"):
        box = tab.locator(f"#{name}").bounding_box()
        assert box["width"] > 20 and box["height"] > 10, name
        assert box["x"] >= 0 and box["x"] + box["width"] <= width + 1 and box["y"] + box["height"] <= height + 1, name
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    unnamed = tab.evaluate("""[...document.querySelectorAll('button, input, select, canvas')].filter(e =>
        !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).map(e => e.id)""")
    assert not unnamed
    tab.close()


def test_statistical_maps_have_a_threshold_and_clusters_that_jump(browser, study):
    from DiscAtlasLib import load_atlas
    from DiscRelaxometryLib.image import write_image
    from DiscRelaxometryLib.tables import Column, Table

    labels, folder = load_atlas().labels, study / "derivatives/disc-relaxometry/group/analysis-main"
    value, place = np.where(labels.array >= 11, 1.0, np.nan), np.argwhere(labels.array == disc_value("L4-L5"))[0]
    value[tuple(place)] = -8.0
    write_image(labels.like(value.astype(np.float32)), folder / "space-DiscAtlas_stat-nT2w_age_t.nii.gz")
    x, y, z = labels.geometry.index_to_world(place[::-1])  # L, P, S
    columns = ("quantity", "contrast", "level", "peak", "p_extent", "voxels", "peak_r", "peak_a", "peak_s")
    row = dict(zip(columns, ("nT2w", "age", "L4-L5", -8.0, 0.01, 1, -x, -y, z)))
    Table("clusters", [Column(c) for c in columns], [row]).write(folder / "nT2w_clusters.tsv")
    with served(study) as page:
        tab = opened(browser, page)
        tab.keyboard.press("m")
        wait_for(tab, "shown", "main: nT2w_age_t")
        tab.keyboard.press("ArrowLeft")
        tab.focus("#clusters tbody tr")
        tab.keyboard.press("Enter")
        assert tab.is_hidden("#next") and tab.inner_text("#mainName") == "Map on the atlas"
        assert f"slice {upright_index(labels, place)} of" in tab.inner_text("#where")
        before = painted(tab)
        tab.focus("#threshold")
        for _ in range(30):
            tab.keyboard.press("ArrowRight")
        assert tab.inner_text("#thresholdText").startswith("\u00b1") and painted(tab) != before
        tab.keyboard.press("m")
        wait_for(tab, "shown", "sub-02")
        assert tab.is_visible("#next") and tab.inner_text("#mainName") == "Outlines" and not tab.errors
        page.stop()
