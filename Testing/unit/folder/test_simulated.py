"""Results of simulated studies carry the label in every table and beside every image, once."""

import json

import numpy as np

from DiscRelaxometryLib.image import Geometry, Image, write_image
from DiscRelaxometryLib.tables import Column, Table, read_tsv
from DiscStudyLib.folder.simulated import label_results


def test_tables_and_images_are_labelled_once(tmp_path):
    table = Table("t", [Column("a", "ms", "A")], [{"a": 1.5}, {"a": None}]).write(tmp_path / "t.tsv")
    image = write_image(Image(np.zeros((2, 2, 2), np.uint8), Geometry((2, 2, 2))), tmp_path / "map.nii.gz")
    outputs = [table, table.with_suffix(".json"), image]
    first = label_results(outputs)
    before = {p: p.read_bytes() for p in first}
    assert label_results(first) == first and {p: p.read_bytes() for p in first} == before
    assert tmp_path / "map.json" in first
    assert read_tsv(table)["data"] == ["SIMULATED", "SIMULATED"] and read_tsv(table)["a"] == ["1.5", "n/a"]
    described = json.loads(table.with_suffix(".json").read_text())
    assert described["Simulated"] is True and described["a"]["Units"] == "ms"
