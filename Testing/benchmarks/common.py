"""What the benchmarks share: data, the machine, runs in other processes, and results as JSON and Markdown.

A benchmark collects its tables in :class:`Results`, which prints them and keeps them in ``results/NAME.json``;
``tables.py`` writes the pages of ``Docs/validation`` from there. Run the scripts in the environment that ``make test``
makes, or in any other in which the project is installed.
"""

import json
import os
import platform
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).resolve().parent / "results"
# The phantoms of the tests, and Training; the project's own packages are installed.
sys.path[1:1] = [str(ROOT / "Testing"), str(ROOT)]
#: Number of threads of programs that are compared with each other.
THREADS = 2


def shared_data() -> Path:
    """Return the folder of data that the repository does not hold (``DISC_SHARED_DATA``), or end."""
    folder = os.environ.get("DISC_SHARED_DATA")
    if not folder or not Path(folder).is_dir():
        sys.exit("DISC_SHARED_DATA names no folder: this benchmark needs data that the repository does not hold.")
    return Path(folder)


def held_out(manifest: Path | None) -> tuple:
    """Return a network (the shipped one by default) and the people held out of it; end where there are none."""
    from DiscRelaxometryLib.discs import load_model

    model = load_model(manifest)
    people = model.manifest["training"]["people"]["test"]
    if not people:
        sys.exit("Nobody was held out of this network: name that of a fold (--manifest runs/fold0/weights/"
                 "lumbar-discs.json).")
    return model, people


def load() -> float:
    """Return the load average of the last minute."""
    return round(os.getloadavg()[0], 1)


def processor() -> str:
    """Return the processor's name, its widest vector instructions, and the number of cores given to this process."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    name = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), "unknown")
    vectors = next((word.upper() for word in ("avx512f", "avx2") if word in text), "no AVX2")
    return f"{name}, {vectors}, {len(os.sched_getaffinity(0))} cores"


def commit() -> str:
    """Return the commit of this checkout; a plus sign follows where Python files differ from it."""
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "DiscRelaxometry", "DiscAtlas", "DiscStats")
    return git("rev-parse", "--short=8", "HEAD") + ("+" if changed else "")


def versions(*packages: str, python: str = sys.executable) -> dict[str, str]:
    """Return the version of each package that an interpreter has installed."""
    code = ("import json, sys\nfrom importlib import metadata\nfound = {}\nfor name in sys.argv[1:]:\n"
            "    try:\n        found[name] = metadata.version(name)\n"
            "    except metadata.PackageNotFoundError:\n        pass\nprint(json.dumps(found))")
    done = subprocess.run([python, "-c", code, *packages], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def clock() -> tuple[float, float]:
    """Return wall and CPU seconds of this process and of its children that have ended."""
    usage = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return time.perf_counter(), sum(u.ru_utime + u.ru_stime for u in usage)


def peak_gb() -> float:
    """Return the peak memory of this process or of a child that has ended, in GB."""
    return max(resource.getrusage(w).ru_maxrss for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1e6


def text_of(cell, form: str = "") -> str:
    """Return a cell's text: numbers by their column's format, truth as yes or no, missing as nothing."""
    if cell is None or cell != cell:
        return ""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return format(cell, form or (",d" if isinstance(cell, int) else ".3g"))


def markdown(columns: list, rows: list) -> str:
    """Return a Markdown table.

    Parameters
    ----------
    columns : list of str or (str, str)
        Heading, and the format of the column's numbers.
    rows : list of sequences of cells
    """
    names, forms = zip(*((c, "") if isinstance(c, str) else c for c in columns))
    lines = [names, *([text_of(c, f) for c, f in zip(row, forms)] for row in rows)]
    # No space behind a bar: a count of words then counts words, and not bars.
    head, *body = (f"|{' |'.join(line)}|" for line in lines)
    return "\n".join([head, "|---" * len(names) + "|", *body])


@dataclass(frozen=True)
class Aim:
    """A figure, what was aimed at, and what was reached.

    Attributes
    ----------
    figure : str
    value : float
    at_least, at_most : float or None
        The aim; one of the two.
    form : str
        Format of the value.
    unit : str
        Written behind the value.
    """

    figure: str
    value: float
    at_least: float | None = None
    at_most: float | None = None
    form: str = "g"
    unit: str = ""

    def row(self) -> list:
        """Return figure, aim, reached value, and whether it was met."""
        least = self.at_least is not None
        limit = self.at_least if least else self.at_most
        return [self.figure, f"{'>=' if least else '<='} {limit:g}", f"{self.value:{self.form}} {self.unit}".strip(),
                bool(self.value >= limit if least else self.value <= limit)]


class Results:
    """Tables and aims of one benchmark, printed as they come and kept in ``results/NAME.json``.

    Tables that a run does not make keep what the file holds, with the run that made them.

    Parameters
    ----------
    name : str
        Of the file; that of the script.
    peers : dict of str to str, optional
        Programs compared with, and their versions.
    """

    def __init__(self, name: str, peers: dict[str, str] | None = None):
        self.path = RESULTS / f"{name}.json"
        self.content = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {"tables": {}}
        self.run = {"commit": commit(), "date": time.strftime("%Y-%m-%d"), "load": str(load()),
                    "processor": processor()} | ({"peers": peers} if peers else {})

    def table(self, key: str, columns: list, rows: list, **facts) -> None:
        """Print a table and keep it; `facts` go beside it (such as ``voxels=60000``)."""
        print(f"\n{key}: {', '.join(f'{k} {v}' for k, v in facts.items())}\n\n{markdown(columns, rows)}", flush=True)
        plain = [[c.item() if hasattr(c, "item") else c for c in row] for row in rows]
        self.content["tables"][key] = {"columns": columns, "rows": plain, "facts": facts, "run": self.run}
        self.save()

    def aims(self, *aims: Aim) -> None:
        """Keep what was aimed at and reached, together, in place of earlier rows on the same figures."""
        figures = {aim.figure for aim in aims}
        others = [row for row in self.content.get("aims", []) if row[0] not in figures]
        self.content["aims"] = others + [aim.row() for aim in aims]
        print(f"\n{markdown(['figure', 'aim', 'reached', 'met'], [aim.row() for aim in aims])}", flush=True)
        self.save()

    def save(self) -> None:
        """Write the file."""
        RESULTS.mkdir(exist_ok=True)
        self.path.write_text(json.dumps(self.content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


# ---- programs that take turns, each in a process of its own --------------------------------------------------------

def contest(script: str, name: str, python: str, source: Path, folder: Path, count: int) -> dict:
    """Run one contestant of a script in a new process.

    Parameters
    ----------
    script : str
        File that calls :func:`child` where it is started with ``--child NAME SOURCE TARGET COUNT``.
    name : str
        Of the contestant.
    python : str
        Interpreter with its packages.
    source : Path
        ``.npz`` with its data.
    folder : Path
        Where its result goes.
    count : int
        Permutations.

    Returns
    -------
    dict
        Its result with ``wall``, ``cpu`` (s), ``peak`` (GB), ``order`` (of permutations) and so on.
    """
    target = folder / f"{name}-{count}.npz"
    blas = "1" if name == "nilearn" else str(THREADS)  # nilearn has a process for each thread
    done = subprocess.run([python, script, "--child", name, str(source), str(target), str(count)], text=True,
                          env=os.environ | {"OPENBLAS_NUM_THREADS": blas}, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-2000:]}")
    import numpy as np

    with np.load(target) as data:
        return dict(data) | json.loads(target.with_suffix(".json").read_text())


def child(functions: dict, name: str, source: str, target: str, count: str) -> None:
    """Run a contestant, whose function returns (clock at its start, result), and write its result and cost."""
    import numpy as np

    with np.load(source) as data:
        loaded = dict(data)
    start, result = functions[name](loaded, int(count))
    if "joblib" in sys.modules:
        # The CPU time of worker processes is known only when they have ended.
        from joblib.externals.loky import get_reusable_executor
        get_reusable_executor().shutdown(wait=True)
    stop = clock()
    np.savez(target, **result)
    cost = {"wall": stop[0] - start[0], "cpu": stop[1] - start[1], "peak": peak_gb()}
    Path(target).with_suffix(".json").write_text(json.dumps(cost))
