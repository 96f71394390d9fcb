"""A drawn sagittal spine with known discs, for the tests of grades."""

import numpy as np
from scipy import ndimage

from DiscRelaxometryLib.image import Geometry, Image

CSF, MARROW, ANNULUS, BACK, FAT = 200.0, 100.0, 30.0, 40.0, 170.0
HEIGHT, LENGTH, STEP = 10.0, 34.0, 36.0
MM = 0.6


def spine(nuclei=(150,) * 6, heights=(HEIGHT,) * 6, slices=1, canal=CSF, marrow=MARROW, tilt=0.0, blur=1.0, fat=FAT):
    """Draw a straight spine on x = slice, y = to anterior, z = to superior: signal and labels, discs 11 upward."""
    rows, columns = int(260 / MM), int(120 / MM)
    z, y = np.meshgrid(np.arange(rows) * MM, np.arange(columns) * MM, indexing="ij")
    c, s = np.cos(tilt), np.sin(tilt)
    z, y = c * (z - 130) - s * (y - 60) + 130, s * (z - 130) + c * (y - 60) + 60
    signal, labels = np.full(z.shape, BACK), np.zeros(z.shape, np.uint8)
    signal[y < 22] = fat
    signal[np.abs(y - 60) > 54] = 1  # air: 0 would be a mask
    sac = np.abs(y - 30) < 6
    signal[sac], labels[sac] = canal, 2
    bodies = np.abs(y - 60) < LENGTH / 2
    signal[bodies], labels[bodies] = marrow, 1
    for n, (nucleus, height) in enumerate(zip(nuclei, heights)):
        along, across = z - (40 + n * STEP), y - 60
        disc = (np.abs(along) < height / 2) & bodies
        signal[disc], labels[disc] = ANNULUS, 11 + n
        signal[(np.abs(along) < 0.43 * height) & (across > -12.2) & (across < 10.5)] = nucleus
    geometry = Geometry((slices, columns, rows), (4.0 if slices == 1 else 1.0, MM, MM), (0.0, 0.0, 0.0),
                        (1, 0, 0, 0, -1, 0, 0, 0, 1))

    def image(a):
        return Image(np.repeat(a[:, :, None], slices, axis=2), geometry)
    # A pixel of blur, as scanners have.
    return image(ndimage.gaussian_filter(signal, blur).astype(np.float32)), image(labels)
