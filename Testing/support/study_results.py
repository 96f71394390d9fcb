"""The phantom study of three levels that several files of tests share, and readers of what it wrote."""

import functools
import re

from DiscRelaxometryLib.image import read_image
from DiscRelaxometryLib.labels import disc_value
from DiscStudyLib.engine import shipped_atlas

from .cohort_phantom import LEVELS

#: Grades of L5-S1, L4-L5 and L3-L4; one disc is missing.
GRADES = ((1, 2, 3), (2, 4, 1), (3, 3, 2), (4, 1, 5), (5, 5, 0), (2, 4, 4))
PEOPLE = [f"sub-{n:02d}" for n in range(1, len(GRADES) + 1)]
GRADE = {(p, level): g for p, own in zip(PEOPLE, GRADES) for level, g in zip(LEVELS, own) if g}
#: Who has each map.
HAVE = {"T1rho": PEOPLE, "T2": [p for p in PEOPLE if p != "sub-03"], "nT2w": PEOPLE}
SETTINGS = {"levels": LEVELS, "permutations": 120, "analysis": "grade", "align": "off", "alpha": 0.5,
            "sensitivity": "participant_id != sub-06"}


def output(study, name):
    return study / "derivatives" / "disc-relaxometry" / name


def warped(study, person, key):
    """Return a person's map in atlas space, as written."""
    return read_image(output(study, f"{person}/anat/{person}_space-DiscAtlas_{key}.nii.gz"))


def stat(study, name, analysis="grade"):
    return read_image(output(study, f"group/analysis-{analysis}/space-DiscAtlas_stat-{name}.nii.gz")).array


@functools.cache
def at_level(level):
    return read_image(shipped_atlas().parent / "atlas_dseg.nii.gz").array == disc_value(level)


def page_tables(run, section):
    """Return caption -> rows of the tables of a section of the report, cells as text by column."""
    html = run.report.read_text(encoding="utf-8").split(f'id="{section}"')[1].split("<section")[0]
    found = {}
    for table in html.split("<table>")[1:]:
        table = table.split("</table>")[0]
        names = [re.sub(r"<[^>]*>", "", re.split(r"<span", h)[0]).strip() for h in re.findall(r"<th[^>]*>(.*?)</th>",
                                                                                              table, re.DOTALL)]
        body = table.split("<tbody>")[1]
        rows = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in body.split("<tr>")[1:]]
        found[re.search(r"<caption>(.*?)</caption>", table).group(1)] = [dict(zip(names, row)) for row in rows]
    return found
