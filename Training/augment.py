"""One training sample: a stack of slices cut from a person, deformed, and made to look like another scanner's.

Everything is done on torch tensors of one stack, (slices, rows, columns), from a ``torch.Generator``.
"""

import math

import torch
from torch.nn import functional

from DiscRelaxometryLib.discs import CLASSES, DISC
from Training.dataset import Person
from Training.lateral import canal_kept, clear_canal, draw_outline, fill_muscle, narrow

CROP = (288, 192)
SPACING = 0.6
SLICES = 5
#: Shares of samples that are lateral, and whose contrast is synthesized.
LATERAL, SYNTHETIC = 0.25, 0.3


class Dice:
    """Random numbers from one generator."""

    def __init__(self, generator: torch.Generator):
        self.generator = generator

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Return a number between `low` and `high`."""
        return low + (high - low) * torch.rand((), generator=self.generator).item()

    def normal(self, *shape: int) -> torch.Tensor:
        """Return standard normal numbers."""
        return torch.randn(*shape, generator=self.generator)

    def chance(self, probability: float) -> bool:
        """Return True with a probability."""
        return self.uniform() < probability

    def integer(self, count: int) -> int:
        """Return 0..count-1."""
        return int(torch.randint(count, (), generator=self.generator))

    def smooth(self, rows: int, columns: int, size: tuple[int, int]) -> torch.Tensor:
        """Return a smooth random field of `size` from a coarse grid of normal numbers."""
        return functional.interpolate(self.normal(1, 1, rows, columns), size, mode="bicubic", align_corners=True)[0, 0]


def sample(person: Person, dice: Dice) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a stack (SLICES, rows, columns) and soft labels (classes, rows, columns) of its center slice."""
    lateral, synthetic = dice.chance(LATERAL), dice.chance(SYNTHETIC)
    slices, step_mm = pick_slices(person, dice)
    grid = place_grid(person, dice)
    if lateral:
        image, soft = lateral_stack(person, slices, step_mm, grid, dice)
    else:
        stack, labels, unit = cut(person, slices, grid, every_slice=synthetic)
        image, soft = pick(stack[None], labels[None], unit)
        image, soft = image[0], soft[0].reshape(len(labels), -1, *CROP)
    if synthetic:
        image = synthesize(image, soft, dice)
    image = change_contrast(image, dice, invert=not synthetic)
    image, target = degrade(image, soft[len(soft) // 2], dice)
    target = torch.cat([(1 - target.sum(0, keepdim=True)).clamp_min(0), target])
    return image, target


def pick(stack: torch.Tensor, labels: torch.Tensor, grid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Interpolate signal (n, c, h, w) and labels (n, ..., h, w) at grid (n, rows, columns, 2) in one go."""
    labels = labels.reshape(len(labels), -1, *labels.shape[-2:])
    both = functional.grid_sample(torch.cat([stack, labels], 1), grid, padding_mode="border", align_corners=False)
    inside = (grid.abs() <= 1).all(-1)[:, None]
    image, soft = both[:, :stack.shape[1]], both[:, stack.shape[1]:] * inside
    # Beyond the volume there is air.
    return torch.where(inside, image, image.amin()), soft


def lateral_stack(person: Person, slices: torch.Tensor, step_mm: float, grid: torch.Tensor, dice: Dice):
    """Return a stack as if seen far from the mid-plane, and the soft labels of each of its slices."""
    outline = draw_outline(dice)
    side = 1 if dice.chance(0.5) else -1
    center = dice.uniform(0.3, 1.25) * outline.half_width
    thickness = dice.uniform(0, 5) if dice.chance(0.4) else 0.0
    parts = 3 if thickness > 1.5 else 1
    muscle, clear, images, softs = dice.chance(0.5), [], [], []
    for part in range(parts):
        inner = thickness * ((part + 0.5) / parts - 0.5)
        u = center + inner + side * step_mm * (torch.arange(SLICES) - SLICES // 2).float()
        moved, emptied = narrow(person, grid, u, outline)
        stack, labels, unit = cut(person, slices, moved, every_slice=True)
        image, soft = pick(stack[:, None], labels, unit)
        images.append((image[:, 0], emptied))
        softs.append(soft)
        clear.append(canal_kept(u))
    image, emptied, soft = (torch.stack(v).mean(0) for v in (*zip(*images), softs))
    if muscle:
        image = fill_muscle(image, emptied, dice)
    return clear_canal(image, soft, torch.stack(clear).mean(0), dice)


def pick_slices(person: Person, dice: Dice) -> tuple[torch.Tensor, float]:
    """Pick a center slice, its neighbors' distance and a thickness; return slice indices and the distance in mm.

    The indices have shape (SLICES, thin slices in a thick one). Neighbors at 0.9 to 4.5 mm serve volumes of any
    slice spacing; thick slices are means of thin ones, and so are their labels (partial volume).
    """
    count = person.image.shape[0]
    step = (1, 1, 1, 2, 2, 3, 4, 5)[dice.integer(8)]
    thick = dice.integer(step + 1) if dice.chance(0.5) else 0
    center = dice.integer(count)
    offsets = torch.arange(SLICES) - SLICES // 2
    if dice.chance(0.5):
        offsets = -offsets
    if dice.chance(0.03):
        offsets = offsets * 0
    index = center + step * offsets[:, None] + torch.arange(thick + 1) - thick // 2
    return index.clamp(0, count - 1), step * person.spacing[0]


def cut(person: Person, slices: torch.Tensor, grid: torch.Tensor, every_slice: bool):
    """Cut the window that the grid needs; return signal, soft labels, and the grid in the window's -1..1 units."""
    height, width = person.labels.shape[1:]
    low = grid.amin((0, 1, 2)).floor().long() - 1
    high = grid.amax((0, 1, 2)).ceil().long() + 2
    left, right = max(0, int(low[0])), min(width, int(high[0]))
    top, bottom = max(0, int(low[1])), min(height, int(high[1]))
    image = torch.from_numpy(person.image)[:, top:bottom, left:right]
    labels = torch.from_numpy(person.labels)[:, top:bottom, left:right]
    stack = torch.stack([image[part].mean(0) if len(part) > 1 else image[part[0]] for part in slices])
    wanted = slices if every_slice else slices[SLICES // 2:SLICES // 2 + 1]
    values = torch.arange(1, len(CLASSES), dtype=torch.uint8)[:, None, None]
    soft = torch.stack([torch.stack([(labels[k] == values).float() for k in part]).mean(0) for part in wanted])
    size = torch.tensor([right - left, bottom - top], dtype=torch.float32)
    start = torch.tensor([left, top], dtype=torch.float32)
    return stack, soft, (grid - start + 0.5) * 2 / size - 1


def place_grid(person: Person, dice: Dice) -> torch.Tensor:
    """Return source positions (1, rows, columns, 2: column, row) of a rotated, scaled, bent crop."""
    rows, columns = CROP
    y, x = torch.meshgrid((torch.arange(rows) - (rows - 1) / 2) * SPACING,
                          (torch.arange(columns) - (columns - 1) / 2) * SPACING, indexing="ij")
    if dice.chance(0.5):
        amplitude = dice.uniform(0.5, 2.5)
        x = x + amplitude * dice.smooth(8, 6, CROP)
        y = y + amplitude * dice.smooth(8, 6, CROP)
    if dice.chance(0.4):
        amplitude = dice.uniform(1, 8)
        x = x + amplitude * dice.smooth(4, 3, CROP)
    angle = math.radians(dice.uniform(-25, 25)) if dice.chance(0.6) else 0.0
    zoom = math.exp(dice.uniform(math.log(0.75), math.log(1.3))) if dice.chance(0.7) else 1.0
    aspect = dice.uniform(0.9, 1.1) if dice.chance(0.4) else 1.0
    xs = zoom * aspect * (math.cos(angle) * x - math.sin(angle) * y)
    ys = zoom / aspect * (math.sin(angle) * x + math.cos(angle) * y)
    height, width = person.labels.shape[1:]
    if dice.chance(0.85):
        near = person.column[person.column.shape[0] // 2]
        row = dice.integer(height)
        center = torch.tensor([near[row, 0] + dice.uniform(-40, 60), float(row)])
    else:
        center = torch.tensor([dice.uniform(0, width), dice.uniform(0, height)])
    half = zoom * SPACING / 2 * torch.tensor([columns / person.spacing[2], rows / person.spacing[1]])
    # A crop may hang over the edge by a quarter of its size.
    limit = torch.tensor([float(width), float(height)])
    center = torch.maximum(torch.minimum(center, limit - half / 2), half / 2)
    return torch.stack([center[0] + xs / person.spacing[2], center[1] + ys / person.spacing[1]], -1)[None]


def change_contrast(image: torch.Tensor, dice: Dice, invert: bool) -> torch.Tensor:
    """Change contrast: inversion, gamma, bias field, gain."""
    if invert and dice.chance(0.07):
        image = -image
    if dice.chance(0.4):
        low, high = image.amin(), image.amax()
        unit = (image - low) / (high - low + 1e-6)
        image = unit ** math.exp(dice.uniform(-0.6, 0.6)) * (high - low) + low
        if dice.chance(0.3):
            image = image.clamp_max(dice.uniform(1.0, 3.0))
    if dice.chance(0.4):
        field = dice.uniform(0.1, 0.5) * dice.smooth(4, 3, CROP)
        low = image.amin()
        image = (image - low) * field.exp() + low
    if dice.chance(0.3):
        return (image - image.mean()) / (image.std() + 1e-3)
    return image * dice.uniform(0.75, 1.3) + dice.uniform(-0.25, 0.25)


def synthesize(image: torch.Tensor, soft: torch.Tensor, dice: Dice) -> torch.Tensor:
    """Give every structure and every gray level of the background a random signal (Billot et al., SynthSeg, 2023)."""
    knots = torch.cumsum(dice.normal(7).abs(), 0) if dice.chance(0.3) else dice.normal(7) * 1.2
    position = ((image + 1.5) / 5).clamp(0, 1) * 5.999
    left = position.floor()
    remapped = torch.lerp(knots[left.long()], knots[left.long() + 1], position - left)
    signal = dice.normal(len(CLASSES))
    # The L5-S1 disc looks like the other discs.
    signal[-1] = signal[DISC]
    strength = dice.uniform(0.4, 1.0)
    structure = torch.zeros_like(image)
    coarse = functional.interpolate(image[None], scale_factor=1 / 16, mode="area")
    texture = image - functional.interpolate(coarse, CROP, mode="bilinear", align_corners=False)[0]
    for value in range(1, len(CLASSES)):
        own = signal[value] + dice.uniform(-0.7, 0.7) * texture
        structure = structure + soft[:, value - 1] * own
    covered = soft.sum(1).clamp(0, 1)
    return remapped * (1 - strength * covered) + strength * structure


def degrade(image: torch.Tensor, target: torch.Tensor, dice: Dice):
    """Lower resolution, blur, add ghosts and noise, crop the field of view."""
    size = image.shape[1:]
    if dice.chance(0.25):
        factor = dice.uniform(1.2, 3.2)
        small = [round(size[0] / factor), round(size[1] / (factor if dice.chance(0.5) else dice.uniform(1, factor)))]
        image = functional.interpolate(image[None], small, mode="area")
        image = functional.interpolate(image, size, mode="bilinear", align_corners=False)[0]
    elif dice.chance(0.15):
        sigma = dice.uniform(0.5, 1.6)
        kernel = torch.exp(-0.5 * (torch.arange(-3, 4) / sigma) ** 2)
        kernel = (kernel[:, None] * kernel / kernel.sum() ** 2)[None, None]
        image = functional.conv2d(image[:, None], kernel, padding=3)[:, 0]
    elif dice.chance(0.1):
        kernel = -torch.ones(1, 1, 3, 3) / 9
        kernel[0, 0, 1, 1] += 1
        image = image + dice.uniform(0.3, 1.2) * functional.conv2d(image[:, None], kernel, padding=1)[:, 0]
    if dice.chance(0.1):
        shift = int(dice.uniform(15, 90))
        image = image + dice.uniform(0.05, 0.2) * torch.roll(image, shift, 1 + dice.integer(2))
    if dice.chance(0.4):
        image = image + dice.uniform(0.02, 0.3) * dice.normal(*image.shape)
    if dice.chance(0.12):
        keep = torch.zeros(size)
        top, left = int(dice.uniform(0, 0.35) * size[0]), int(dice.uniform(0, 0.3) * size[1])
        bottom, right = int(dice.uniform(0.65, 1) * size[0]), int(dice.uniform(0.7, 1) * size[1])
        keep[top:bottom, left:right] = 1
        image = image * keep + image.amin() * (1 - keep)
        target = target * keep
    return image, target
