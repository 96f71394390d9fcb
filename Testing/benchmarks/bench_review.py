"""How long a reviewer waits: everyone of a study that was run, accepted by keyboard in a headless browser.

python Testing/benchmarks/bench_review.py demo/spider-cohort
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import Aim, Results, versions

#: Seconds that a reviewer looks at a person.
LOOK = 2
#: What the browser reports once a person is on screen.
SHOWN = 'body[data-shown="{}"]'


def memory_gb(pid: int) -> float:
    """Return the highest resident memory of a process so far."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1e6


def review(study: Path) -> tuple[list[float], float, float, int]:
    """Accept everyone; return seconds until the next person is on screen, all seconds, memory, and decisions."""
    from playwright.sync_api import sync_playwright

    from DiscStudyLib.review import Session

    people = Session(study).people
    words = [sys.executable, "-u", "-c", "from DiscStudyLib.cli import main; main()", "review", str(study),
             "--port", "8791", "--no-browser", "--reviewer", "XX"]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "300"})
    try:
        address = next(w for w in server.stdout.readline().split() if w.startswith("http"))
        with sync_playwright() as play:
            tab = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"]).new_page(
                viewport={"width": 1280, "height": 800})
            started = time.perf_counter()
            tab.goto(address)
            tab.wait_for_selector(SHOWN.format(people[0]))
            waits = []
            for person in people[1:]:
                tab.wait_for_timeout(1000 * LOOK)  # what comes next is fetched meanwhile
                pressed = time.perf_counter()
                tab.keyboard.press("a")
                tab.wait_for_selector(SHOWN.format(person))
                waits.append(time.perf_counter() - pressed)
            tab.keyboard.press("a")
            tab.wait_for_selector("#message:not([hidden])")
            total = time.perf_counter() - started
        return waits, total, memory_gb(server.pid), sum(k.done for k in Session(study).overview())
    finally:
        server.terminate()
        server.communicate()


def main() -> None:
    """Review a copy of the study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    given = parser.parse_args()
    results = Results("bench_review", versions("playwright"))
    with tempfile.TemporaryDirectory() as folder:
        study = Path(shutil.copytree(given.study, Path(folder) / "study"))
        (study / "derivatives/disc-relaxometry/review.tsv").unlink(missing_ok=True)
        waits, total, memory, done = review(study)
    results.table("review", ["participants", ("all (s)", ".0f"), ("next, median (s)", ".2f"),
                             ("next, longest (s)", ".2f"), ("memory of the server (GB)", ".2f"), "decisions on disk"],
                  [[len(waits) + 1, total, statistics.median(waits), max(waits), memory, done]], look_s=LOOK)
    results.aims(Aim("33 people reviewed by keyboard, every image shown (s)", total, at_most=180, form=".0f", unit="s"),
                 Aim("Next person on screen (longest)", max(waits), at_most=1, form=".2f", unit="s"),
                 Aim("Memory of the review's program", memory, at_most=2, form=".2f", unit="GB"))


if __name__ == "__main__":
    main()
