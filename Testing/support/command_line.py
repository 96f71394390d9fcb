"""The command line as a user calls it, in this process: to start one takes longer than most commands."""

import io
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout

import pytest

from DiscStudyLib.cli.main import main


def command(*words, cwd=".") -> subprocess.CompletedProcess:
    """Call ``disc-relaxometry`` with these words in a folder; return what the process would have returned."""
    out, errors = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    arguments = ["disc-relaxometry", *map(str, words)]
    with pytest.MonkeyPatch.context() as patch, chdir(cwd), redirect_stdout(out), redirect_stderr(errors):
        patch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code or 0
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    texts = []
    for stream in (out, errors):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode("utf-8"))
    return subprocess.CompletedProcess(arguments, code, *texts)

