"""Generators of tables and formulas, and what must come out of them, found by another way."""

import csv
import io
from dataclasses import dataclass

import numpy as np
import pandas
import patsy
from hypothesis import strategies as st

#: Cells by kind, as typists, spreadsheets and other programs leave them.
NUMBERS = ["0", "1", "7", "23", "-4", "2.5", "-0.25", "1e3", "007", "12.345", "+3", ".5", "4."]
COMMAS = ["0", "1", "2,5", "-0,25", "1,5e-3", "12,345", "7"]
WORDS = ["M", "F", "drug", "None", "NA", "Zürich", "naïve", "a;b", "x,y", "5 mm", 'say "A"', "n.a.", "two\nlines"]
MISSING = ["", "n/a", "N/A"]
ODD = ["inf", "-inf", "nan", "1e400", "1,234", "1_000", "0x10", "1.2.3", "12/05/2020", "<5", "50%"]
NAMES = ["age", "bmi", "Größe", "pain (VAS)", "group", "site", "body mass", "x;y", "pfirrmann_L4L5"]


@dataclass(frozen=True)
class Written:
    """A table as text cells, and how it is written."""

    names: list[str]
    rows: list[list[str]]
    separator: str
    encoding: str
    newline: str
    quoting: int
    padding: str
    trailing: tuple[int, int]
    empty_lines: bool
    mark: bool

    def raw(self) -> bytes:
        """Return the file's bytes, by Python's own writer."""
        buffer = io.StringIO(newline="")
        quoting = csv.QUOTE_ALL if self.newline == "\r" else self.quoting  # else the writer quotes no line feeds
        writer = csv.writer(buffer, delimiter=self.separator, lineterminator=self.newline, quoting=quoting)
        buffer.write(f"sep={self.separator}{self.newline}" if self.mark else "")
        for number, cells in enumerate([self.names, *self.rows]):
            writer.writerow([self.padding + cell + self.padding for cell in cells] + [""] * self.trailing[number > 0])
            buffer.write(self.separator * 2 + self.newline if self.empty_lines else "")
        return buffer.getvalue().encode(self.encoding)

    def refused(self) -> str:
        """Return what forbids reading the table, or an empty string."""
        if self.encoding == "utf-16-le" or (self.encoding in ("latin-1", "mac-roman") and not self.raw().isascii()):
            return "UTF-8"
        if len(set(self.names)) < len(self.names):
            return "two columns"
        # A name with another separator in it, without quotes: which one separates cannot be told.
        unclear = not self.mark and self.quoting == csv.QUOTE_MINIMAL and self.separator == "," and "x;y" in self.names
        unclear = unclear and self.newline != "\r"
        return "." if unclear else ""

    def lines(self) -> list[int]:
        """Return the line on which each row begins."""
        heights = [1 + self.empty_lines + sum(c.count("\n") for c in row) for row in [self.names, *self.rows]]
        return [1 + self.mark + sum(heights[:n]) for n in range(1, len(heights))]

    def values(self, column: int) -> list:
        """Return a column as numbers and None, or as words and None."""
        cells = [None if row[column] in MISSING else row[column] for row in self.rows]
        given = [c for c in cells if c is not None]
        commas = [c for c in given if "," in c]
        if self.separator != "," and set(given) <= set(COMMAS) and set(commas) - {"12,345"}:
            return [c and float(c.replace(",", ".")) for c in cells]
        return [c and float(c) for c in cells] if set(given) <= set(NUMBERS) else cells


@st.composite
def written_tables(draw) -> Written:
    """Draw a table of people with one to four columns."""
    names = ["participant_id", *draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4,
                                              unique=draw(st.integers(0, 9)) > 0))]
    kinds = [draw(st.sampled_from([NUMBERS, NUMBERS + MISSING, WORDS, WORDS + MISSING, COMMAS, COMMAS + MISSING,
                                   NUMBERS + ODD, ODD])) for _ in names[1:]]
    rows = [[f"sub-{n + 1:02d}", *(draw(st.sampled_from(kind)) for kind in kinds)]
            for n in range(draw(st.integers(1, 6)))]
    return Written(
        names, rows, draw(st.sampled_from("\t\t;;,")),
        draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1", "mac-roman", "utf-16-le"])),
        draw(st.sampled_from(["\n", "\r\n", "\r"])), draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
        draw(st.sampled_from(["", "", " ", "\u00a0"])), (draw(st.integers(0, 2)), draw(st.integers(0, 2))),
        draw(st.booleans()), draw(st.booleans()))


@dataclass(frozen=True)
class Model:
    """A table of people and a formula of it."""

    columns: dict[str, list[str]]
    formula: str

    def frame(self, level: str) -> pandas.DataFrame:
        """Return the people who have all values of the formula at a level, in the types they have."""
        frame = pandas.DataFrame({name: _typed(cells) for name, cells in self.columns.items()})
        if f"grade_{level}" in frame:
            frame["grade"] = frame[f"grade_{level}"]
        used = [n for n in frame if n in self.formula and not n.startswith("grade_")]
        frame = frame.dropna(subset=used)
        whole = [n for n in used if frame[n].dtype.kind == "f" and (frame[n] % 1 == 0).all()]
        return frame.astype(dict.fromkeys(whole, int))

    def matrix(self, level: str):
        """Return patsy's own design matrix at a level, or None where the model cannot be estimated there."""
        frame = self.frame(level)
        if any(frame[name].nunique() == 1 for name in frame if name in self.formula):
            return None  # refused even where an interaction could be estimated
        try:
            matrix = patsy.dmatrix(self.formula.partition("~")[2] or self.formula, frame, env(), NA_action="raise")
        except (patsy.PatsyError, NameError, TypeError, ValueError, SyntaxError, AttributeError):
            return None
        values = np.asarray(matrix)
        if not np.isfinite(values).all() or len(values) <= values.shape[1] or not values.any(axis=0).all():
            return None  # a column of zeros: a combination of groups that nobody has
        return matrix if np.linalg.matrix_rank(values / np.linalg.norm(values, axis=0)) == values.shape[1] else None


def env() -> patsy.EvalEnvironment:
    """Return what a formula may call, written anew."""
    return patsy.EvalEnvironment([{"log": np.log, "sqrt": np.sqrt, "abs": np.abs, "exp": np.exp, "log10": np.log10,
                                   "rank": lambda v: pandas.Series(v).rank()}])


def _typed(cells: list[str]) -> list:
    given = [None if c in MISSING else c for c in cells]
    try:
        return [np.nan if c is None else float(c) for c in given]
    except ValueError:
        return given


_ATOMS = ["age", "bmi", "sex", "C(sex)", "group", "C(group)", "grade", "C(grade)", "log(age)", "I(age**2)", "site",
          "center(age)", "Q('body mass')", "rank(bmi)", "twice", "C(group, Sum)", "C(sex, Treatment('M'))", "date",
          "mixed", "C(grade, levels=[1, 2, 3])", "age:sex", "grade:bmi", "1", "0", "scale(bmi)", "sqrt(bmi)",
          "thousands"]
_WRONG = ["foo", "2*age", "age +", "np.log(age)", "poly(age, 2)", "class", "age bmi", "(age", "log(sex)", "age^2",
          "(1|site)", "age %in% sex", "age - age", "s(age)", "a ~ b ~ age", "~", "log(zero)", "1/zero", "age == 3",
          "-1", "I(age/zero)", "C(nothing)", "participant_id", "mäßig", "Age", "age[0]", "age.mean()", "·"]


@st.composite
def formulas(draw) -> str:
    """Draw a formula: terms with operators between them, in one of ten something that is none."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from(_WRONG))
    terms = draw(st.lists(st.sampled_from(_ATOMS), min_size=1, max_size=3, unique=True))
    text = terms[0]
    for term in terms[1:]:
        text += draw(st.sampled_from([" + ", " + ", " + ", " * ", ":", " - "])) + term
    text = draw(st.sampled_from(["{}", "{}", "{}", "0 + {}", "{} - 1", "({})**2", "1 + {}"])).format(text)
    return draw(st.sampled_from(["{}", "{}", "map ~ {}", "~ {}", "nT2w ~ {}"])).format(text)


@st.composite
def models(draw, people: int) -> Model:
    """Draw a table of people, with gaps, constants and levels without anybody, and a formula of it."""
    random = draw(st.randoms(use_true_random=True))

    def column(cells, gaps=3):
        gone = random.sample(range(people), random.randint(0, gaps))
        return [random.choice(MISSING) if n in gone else random.choice(cells) for n in range(people)]

    ages = [str(random.randint(20, 80)) for _ in range(people)]
    columns = {
        "participant_id": [f"sub-{n + 1:02d}" for n in range(people)], "age": ages,
        "bmi": column([f"{20 + 0.7 * n:.1f}" for n in range(17)]), "sex": column(["M", "F"]),
        "group": column(random.choice([["a", "b", "c"], ["1", "2"], ["None", "drug"], ["M", "m", "F"], ["a"]])),
        "grade_L4L5": column(["1", "2", "3", "4"]),
        "grade_L5S1": column(random.choice([["2"], ["1", "2", "3"]])),
        "site": column(["x", "y"], 0), "body mass": column(["60", "70.5", "81", "95"]),
        "twice": [str(2 * int(a)) for a in ages], "date": column(["2020-01-02", "2021-03-04"], 0),
        "mixed": column(["1", "2", "high"], 0), "zero": column(["0", "1"], 0),
        "thousands": column(["1,234", "2,500"]), "nothing": [""] * people}
    return Model(columns, draw(formulas()))


#: Ways to write the id of a person, by number.
_SPELLED = ["sub-{:02d}", " sub-{:02d}\u00a0", "{:02d}", "{}", "SUB-{:02d}", "sub-{}", "{}.0", "sub-{:03d}",
            "sub_{:02d}"]


@st.composite
def id_columns(draw, people: int) -> list[str]:
    """Draw ids of people: half of the columns are as they should be but for spaces."""
    spelled = draw(st.sampled_from([_SPELLED[:2], _SPELLED]))
    ids = [draw(st.sampled_from(spelled)).format(n) for n in range(1, people + 1)]
    for odd in draw(st.lists(st.sampled_from(["sub-01", "", "n/a", "sub-99", "control", "gone"]), max_size=2)):
        place = draw(st.integers(0, len(ids)))
        ids[place:place + (odd == "gone")] = [] if odd == "gone" else [odd]
    return ids
