"""The command line with options and files that are slightly wrong."""

import pytest
from support.command_line import command

from corpus.common import assert_sentence
from corpus.made_nifti import write_series


def test_maps_take_the_kind_from_the_series(tmp_path):
    """A default overrides what the input says of itself."""
    write_series(tmp_path / "sub-01_MESE.nii.gz")
    done = command("maps", "sub-01_MESE.nii.gz", "--output", "maps", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "maps" / "T2.nii.gz").exists() and not (tmp_path / "maps" / "T1rho.nii.gz").exists()
    done = command("maps", "sub-01_MESE.nii.gz", "--kind", "T1rho", "--output", "other", cwd=tmp_path)
    said = done.stdout.replace("T2.nii.gz", "") + done.stderr
    assert "T2" in said and "T1rho" in said


@pytest.mark.parametrize("options", [("--times", "10;20;40;80"), ("--times", "10,20,40,80,"),
                                     ("--times", "10 20 40 80"), ("--kind", "t2")])
def test_values_of_options_that_cannot_be_read(tmp_path, options):
    """A slip of the keyboard in an option's value ends in a traceback."""
    path = write_series(tmp_path / "sub-01_MESE.nii.gz")
    kind = ("--kind", "T2") if options[0] == "--times" else ()
    done = command("maps", path, *kind, *options, "--output", tmp_path / "maps")
    if done.returncode == 0:
        assert (tmp_path / "maps" / "T2.nii.gz").exists()
    else:
        assert_sentence(done, options[0].strip("-"))


MEANS = "participant_id\tmean\tsite\nsub-01\t1\tMünchen\nsub-02\t2\tx\nsub-03\t3.5\tx\n"


def test_tables_in_another_encoding(tmp_path):
    """An encoding that one verb names in a sentence is a traceback in another."""
    path = tmp_path / "means.tsv"
    path.write_bytes(MEANS.encode("latin-1"))
    assert_sentence(command("agreement", path, path), "means.tsv", "UTF-8")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_byte_order_marks_say_the_encoding(tmp_path, encoding):
    """A spreadsheet's 'Unicode text' is read as any other table."""
    (tmp_path / "plain.tsv").write_text(MEANS, encoding="utf-8")
    (tmp_path / "marked.tsv").write_bytes(MEANS.encode(encoding))
    plain, marked = (command("agreement", f"{n}.tsv", f"{n}.tsv", cwd=tmp_path) for n in ("plain", "marked"))
    assert marked.returncode == plain.returncode == 0, marked.stderr
    assert marked.stdout == plain.stdout
