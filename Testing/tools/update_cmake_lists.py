"""Write each module's CMakeLists.txt from the files that git lists: ``make cmake-lists``.

A Lib file that is not listed is silently absent after install, so the lists are made, never typed.
"""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
MODULES = ("DiscRelaxometry", "DiscAtlas", "DiscStats")

TEMPLATE = """\
#-----------------------------------------------------------------------------
# Made by Testing/tools/update_cmake_lists.py
set(MODULE_NAME {module})

#-----------------------------------------------------------------------------
set(MODULE_PYTHON_SCRIPTS
{scripts}
  )

set(MODULE_PYTHON_RESOURCES
{resources}
  )

#-----------------------------------------------------------------------------
slicerMacroBuildScriptedModule(
  NAME ${{MODULE_NAME}}
  SCRIPTS ${{MODULE_PYTHON_SCRIPTS}}
  RESOURCES ${{MODULE_PYTHON_RESOURCES}}
  WITH_GENERIC_TESTS
  )

#-----------------------------------------------------------------------------
if(BUILD_TESTING)
  # Register the unittest subclass in the main script as a ctest; it is also available at runtime.
  slicer_add_python_unittest(SCRIPT ${{MODULE_NAME}}.py)
endif()
"""


def tracked(folder: str) -> list[str]:
    """Return the files under `folder` that git tracks or would track, relative to it, sorted."""
    listing = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
                             cwd=ROOT / folder, capture_output=True, text=True, check=True).stdout
    return sorted({name for name in listing.split("\0") if name and (ROOT / folder / name).exists()})


def cmake_list(module: str) -> str:
    """Return the text of a module's CMakeLists.txt."""
    files = tracked(module)
    scripts = [f for f in files if f.endswith(".py") and not f.startswith("Testing/")]
    scripts.sort(key=lambda name: (name != f"{module}.py", name))
    resources = [f for f in files if f.startswith("Resources/")]
    return TEMPLATE.format(module=module, scripts="\n".join(f"  {s}" for s in scripts),
                           resources="\n".join(f"  {r}" for r in resources))


if __name__ == "__main__":
    for name in MODULES:
        (ROOT / name / "CMakeLists.txt").write_text(cmake_list(name), encoding="utf-8", newline="\n")
