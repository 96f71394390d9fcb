"""Simulated maps directly in atlas space, thousands in minutes: for error rates and power (SIMULATED).

What image simulation, fitting and registration do to a map is reduced to three things: fit noise at the Cramer-Rao
bound, correlation of that noise by thick slices and interpolation, and a smooth error of the correspondence.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from DiscRelaxometryLib.image import Image
from DiscRelaxometryLib.labels import disc_value
from DiscRelaxometryLib.measure import disc_coordinates, disc_frame, spine_axes
from DiscStudyLib.virtual.people import VirtualPerson
from DiscStudyLib.virtual.signal import ECHO_MS, SPIN_LOCK_MS, PlantedEffect, disc_values

from .precision import cramer_rao_sd


def simulate_maps(atlas_labels: Image, people: Sequence[VirtualPerson], kind: str = "T1rho",
                  levels: Sequence[str] = ("L4-L5",), effects: Sequence[PlantedEffect] = (), snr: float = 60.0,
                  misregistration: float = 0.04, slice_mm: float = 4.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Simulate one map per person on an atlas.

    Parameters
    ----------
    atlas_labels : Image
        Disc labels of the atlas; an LPS-aligned grid, slices along the last array axis (left-right).
    people : sequence of VirtualPerson
    kind : str
        ``T1rho`` or ``T2``.
    levels : sequence of str
    effects : sequence of PlantedEffect
    snr : float
        Signal at time 0 over noise; 0 noise for infinity.
    misregistration : float
        SD of the error of disc coordinates (which run from -1 to 1), smooth over the disc.
    slice_mm : float
        Extent over which slices correlate the noise.
    seed : int

    Returns
    -------
    measured, truth : numpy.ndarray, shape (people, voxels)
        Voxels of the atlas with one of the levels, in C order; `truth` has no noise and no misregistration.
    """
    mask = np.isin(atlas_labels.array, [disc_value(level) for level in levels])
    times = SPIN_LOCK_MS if kind == "T1rho" else ECHO_MS
    measured = np.empty((len(people), np.count_nonzero(mask)), np.float32)
    truth = np.empty_like(measured)
    place = np.cumsum(mask).reshape(mask.shape) - 1
    for level in levels:
        inside = atlas_labels.array == disc_value(level)
        xyz = atlas_coordinates(atlas_labels, level)
        columns = place[inside]
        spacing = atlas_labels.geometry.spacing
        for row, person in enumerate(people):
            rng = np.random.default_rng([seed, person.seed, disc_value(level), kind == "T2"])
            truth[row, columns] = disc_values(person, level, kind, xyz, effects)
            shifted = xyz + misregistration * _waves(xyz, rng)
            values = disc_values(person, level, kind, shifted, effects)
            noise = _slice_noise(inside, spacing, slice_mm, rng)
            measured[row, columns] = values + cramer_rao_sd(values, times, snr) * noise
    return measured, truth


def atlas_coordinates(atlas_labels: Image, level: str) -> np.ndarray:
    """Return disc coordinates (n, 3): LR, AP, CC of a level's voxels in an atlas, in C order."""
    inside = atlas_labels.array == disc_value(level)
    frame = disc_frame(inside, atlas_labels.geometry, spine_axes(atlas_labels, disc_value(level)))
    return disc_coordinates(inside, atlas_labels.geometry, frame)[0]


def _waves(xyz: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a smooth random vector (n, 3) of unit variance: an offset, and a wave across the disc."""
    offset = rng.normal(0, np.sqrt(0.5), 3)
    phase = rng.normal(0, 1.5, (3, 3)) @ xyz.T + rng.uniform(0, 2 * np.pi, (3, 1))
    return offset + np.sin(phase).T


def _slice_noise(inside: np.ndarray, spacing: Sequence[float], slice_mm: float, rng: np.random.Generator) -> np.ndarray:
    """Return noise of unit variance at the voxels of a mask, correlated as slices and linear interpolation do."""
    box = ndimage.find_objects(inside.astype(np.uint8))[0]
    noise = rng.standard_normal(inside[box].shape)
    # Linear interpolation is about a Gaussian of 0.4 voxels; a slice's box of width w has the SD w / sqrt(12).
    sigma = (0.4, 0.4, slice_mm / np.sqrt(12) / spacing[0])
    noise = ndimage.gaussian_filter(noise, sigma, mode="wrap")
    return (noise / noise.std())[inside[box]]
