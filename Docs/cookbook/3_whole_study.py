"""A whole study with one call: check it, run it on two processes, print what is missing and where the report is.

python 3_whole_study.py STUDY "pfirrmann + age + C(sex)"
In Slicer's console the same call works with processes=1; Slicer stays responsive if it is run from a terminal instead.
"""

import sys

from DiscStudyLib import Study, make_settings, run_study, validate


def show(fraction, text):
    """Print progress."""
    print(f"{100 * fraction:3.0f} % {text}")


def whole_study(path, formula, processes=2, **settings):
    """Validate and run a study; return the run."""
    for finding in validate(Study(path), make_settings(formula=formula, **settings)):
        print(finding)
    run = run_study(path, formula, processes=processes, progressCallback=show, **settings)
    for person, why in run.missing.items():
        print(f"{person} is incomplete: {why}")
    print(run.timings().to_tsv())
    print("Report:", run.report)
    return run


if __name__ == "__main__" and len(sys.argv) > 2:
    whole_study(*sys.argv[1:])
