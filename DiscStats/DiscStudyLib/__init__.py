"""A study on disk: run with one call, resumed where it was interrupted, and asked for tables, maps and exports.

>>> run = run_study("my-study", "pfirrmann + age", processes=4)                       # doctest: +SKIP
"""

import importlib

# Names are looked up when they are used: the command line's help must not wait for the statistics.
_HOMES = {"after": ("compare_tables", "export_people", "find_maps", "mixed_model", "status_table"),
          "engine": ("Cluster", "StudyRun", "read_rows"),
          "folder": ("Settings", "Study", "make_settings", "validate"),
          "steps": ("make_report", "plan_study", "run_study"),
          "virtual": ("write_virtual_study",)}
_HOME = {name: wing for wing, names in _HOMES.items() for name in names}
__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
