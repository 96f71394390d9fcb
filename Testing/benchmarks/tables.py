"""Write the tables of ``Docs/validation`` from ``results/*.json``: ``make tables``.

A page says ``<!-- table: NAME/KEY [COLUMNS] -->``, ``<!-- aims: NAME NAME -->`` or ``<!-- runs -->``, and then
``<!-- end -->``; what lies between is written here. COLUMNS are numbers of columns, from 1, where a page shows only
some. Runs lists code, date, load and peers of each table on the page.
"""

import json
import re
import sys

from common import RESULTS, ROOT, markdown, text_of

PAGES = ("Docs/validation.md", "Docs/validation/*.md", "Docs/panels-testing.md")
BLOCK = re.compile(r"<!-- (table|aims|runs)(?::? ([^>]*?))? -->\n.*?<!-- end -->", re.S)


def results() -> dict[str, dict]:
    """Return the content of each results file by its name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))}


def table(words: str, found: dict) -> str:
    """Return a table, or some of its columns."""
    name, _, some = words.partition(" ")
    file, key = name.split("/")
    content = found[file]["tables"][key]
    which = [int(n) - 1 for n in some.split()] or range(len(content["columns"]))
    columns = [c if isinstance(c, str) else tuple(c) for c in content["columns"]]
    return markdown([columns[n] for n in which], [[row[n] for n in which] for row in content["rows"]])


def aims(words: str, found: dict) -> str:
    """Return aims, values reached, and whether they were met."""
    rows = [[*row[:3], text_of(row[3]).replace("no", "**no**")] for name in words.split()
            for row in found[name].get("aims", [])]
    return markdown(["figure", "aim", "reached", "met"], rows)


def runs(page: str, found: dict) -> str:
    """Return which run made each table of a page."""
    made: dict[tuple, list[str]] = {}
    for words in re.findall(r"<!-- table: (\S+)", page):
        file, key = words.split("/")
        run = found[file]["tables"][key]["run"]
        peers = ", ".join(f"{name} {version}" for name, version in run.get("peers", {}).items())
        made.setdefault((file, run["commit"], run["date"], run["load"], peers), []).append(key)
    rows = [[f"{file}: {', '.join(keys)}", *rest] for (file, *rest), keys in made.items()]
    return markdown(["tables", "code", "date", "load", "peers"], rows)


def rendered(page: str, found: dict) -> str:
    """Return a page with its tables as the results say."""
    def block(match: re.Match) -> str:
        kind, words = match.group(1), match.group(2) or ""
        body = {"table": table, "aims": aims}[kind](words, found) if kind != "runs" else runs(page, found)
        return f"<!-- {kind}{': ' + words if words else ''} -->\n{body}\n<!-- end -->"

    return BLOCK.sub(block, page)


def pages() -> dict:
    """Return each page's path and its text as it should be."""
    found = results()
    paths = [path for pattern in PAGES for path in sorted(ROOT.glob(pattern))]
    return {path: rendered(path.read_text(encoding="utf-8"), found) for path in paths}


def main() -> None:
    """Write the pages, or with ``--check`` end with 1 where one differs."""
    stale = [path for path, text in pages().items() if path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv:
        sys.exit(f"run: make tables ({', '.join(p.name for p in stale)})" if stale else 0)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
    print(f"{len(stale)} page(s) changed")


if __name__ == "__main__":
    main()
