"""A small synthetic lumbar column: bodies, discs, canal; for tests that need a known answer."""

import numpy as np
from scipy import ndimage

from DiscRelaxometryLib.image import Geometry, Image

PITCH = 34.0  # mm between discs
DISC_HEIGHT = 10.0


def spine(levels=5, spacing=(3.0, 1.5, 1.5), lordosis=0.0, scoliosis=0.0, width=44.0, above=20.0, below=40.0,
          direction=None, origin=(0.0, 0.0, 0.0), sacrum=True):
    """Return (classes, truth): Images with 1 vertebra, 2 canal, 3 disc, and with levels 11 upward (31 upward).

    `lordosis` and `scoliosis` bend the axis by that many mm at mid-column. The sacrum is not labelled.
    """
    height = below + levels * PITCH + above
    size = [int(np.ceil(n / s)) for n, s in zip((70.0, 110.0, height), spacing)]
    geometry = Geometry(size, spacing, origin, direction or (-1, 0, 0, 0, -1, 0, 0, 0, 1))
    i, j, k = np.meshgrid(*[np.arange(n) * s for n, s in zip(size, spacing)], indexing="ij")
    x, y, z = (a.transpose(2, 1, 0) for a in (i, j, k))
    length = levels * PITCH
    along = np.clip((z - below) / length, -0.2, 1.2)
    cx = 35 + scoliosis * np.sin(np.pi * along)
    cy = 62 + lordosis * np.sin(np.pi * along)
    in_column = (np.abs(x - cx) < width / 2) & (np.abs(y - cy) < 17)
    up = z - below
    level, rest = np.divmod(up, PITCH)
    disc = in_column & (up >= 0) & (up < length) & (rest < DISC_HEIGHT)
    body = in_column & (up >= DISC_HEIGHT) & (up < length) & (rest >= DISC_HEIGHT + 0.01) & ~disc
    canal = (np.abs(x - cx) < 9) & (np.abs(y - cy + 26) < 7)
    spinous = (np.abs(x - cx) < 4) & (np.abs(y - cy + 45) < 10) & (rest > 14) & (rest < 26) & (up > 0) & (up < length)
    within = (up > 0) & (up < length)
    bridge = (np.abs(np.abs(x - cx) - 12) < 3) & (y < cy - 15) & (y > cy - 40) & (rest > 16) & (rest < 24) & within
    classes = np.zeros(x.shape, np.uint8)
    classes[body | spinous | bridge] = 1
    classes[canal] = 2
    classes[disc] = 3
    truth = np.zeros(x.shape, np.uint8)
    truth[classes == 1] = (31 + level[classes == 1]).astype(np.uint8)
    truth[canal] = 2
    truth[disc] = (11 + level[disc]).astype(np.uint8)
    return Image(classes, geometry), Image(truth, geometry)


def t2w(classes, seed=0, noise=6.0, csf=400.0):
    """Return a T2-weighted-like image of the classes, with texture and noise."""
    rng = np.random.default_rng(seed)
    array = classes.array
    signal = np.choose(array, [60.0, 140.0, csf, 110.0]).astype(np.float32)
    texture = ndimage.gaussian_filter(rng.standard_normal(array.shape), 3)
    signal *= 1 + 0.5 * texture / texture.std() * 0.4
    cord = np.zeros(array.shape, bool)
    # Nerve roots: the darker rear part of the canal.
    where = np.argwhere(array == 2)
    cord[tuple(where[where[:, 1] < np.median(where[:, 1])].T)] = True
    signal[cord] = 130.0
    return classes.like(np.abs(signal + noise * rng.standard_normal(array.shape)).astype(np.float32))
