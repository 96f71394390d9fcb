"""The color tables that Slicer installs as files and ``slicer-core`` lacks: Viridis, Plasma and DivergingBlueRed.

Anchors are taken from matplotlib's tables (CC0) and joined linearly; a channel differs by at most 4 of 255
(DivergingBlueRed, matplotlib's RdBu reversed, is near Slicer's table but not equal to it).
"""

import numpy as np

ANCHORS = {
    "Viridis": (
        "440154 470d60 48186a 482374 472d7b 453781 424086 3e4989 3b528b 375b8d 33638d 2f6b8e 2c728e 297a8e "
        "26828e 23898e 21918c 1f988b 1fa088 22a785 28ae80 32b67a 3fbc73 4ec36b 5ec962 70cf57 84d44b 98d83e "
        "addc30 c2df23 d8e219 ece51b fde725"),
    "Plasma": (
        "0d0887 220690 310597 3f049c 4c02a1 5901a5 6600a7 7201a8 7e03a8 8a09a5 9511a1 a01a9c aa2395 b32c8e "
        "bc3587 c43e7f cc4778 d35171 da5a6a e06363 e66c5c eb7655 f0804e f58b47 f89540 fba139 fdac33 feb82c "
        "fdc527 fcd225 f8df25 f4ed27 f0f921"),
    "DivergingBlueRed": (
        "053061 2065ab 4393c3 90c4dd d1e5f0 f7f6f6 fddbc7 f3a481 d6604d b1182b 67001f"),
}


def table(name: str, size: int = 256) -> np.ndarray:
    """Return an RGB table of shape (size, 3) with values from 0 to 1."""
    anchors = np.array([[int(h[i:i + 2], 16) for i in (0, 2, 4)] for h in ANCHORS[name].split()]) / 255
    position = np.linspace(0, 1, len(anchors))
    return np.stack([np.interp(np.linspace(0, 1, size), position, channel) for channel in anchors.T], axis=1)


def add_color_tables(slicer) -> None:
    """Add the tables to the scene under the names and IDs that Slicer gives them."""
    for name in ANCHORS:
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLColorTableNode")
        node.UnRegister(None)
        # The tag makes the node's ID the one Slicer's color logic makes from the file, so that scenes move over.
        node.SetSingletonTag(f"File{name}.txt")
        node.SetName(name)
        node.SetTypeToUser()
        values = table(name)
        node.SetNumberOfColors(len(values))
        for index, (red, green, blue) in enumerate(values):
            node.SetColor(index, str(index), red, green, blue, 1.0)
        node.GetLookupTable().SetTableRange(0, len(values) - 1)
        node.SetHideFromEditors(False)
        node.SaveWithSceneOff()
        slicer.mrmlScene.AddNode(node)
