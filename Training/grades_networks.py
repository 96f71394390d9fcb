"""Descent of the grading network's perceptrons and convolutions, and its temperatures."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch.nn import functional

from DiscRelaxometryLib.atomic import atomic_path
from DiscRelaxometryLib.grades import CLIP, GRADES, PICTURE
from Training.train import has_bfloat16

#: Rows and columns of what is varied to make a picture.
MARGIN = (96, 128)
PEAK_RATE, WARM_UP = 3e-3, 0.2
#: Of a perceptron and of convolutions; more of the latter hurts calibration.
EPOCHS = (60, 28)
#: Weight of a finding in the loss beside a threshold of the grade.
FINDING = 0.25
#: Greatest turn (rad), logarithm of zoom, and shift (pixels) of a picture; SD of the logarithms of gain and exponent.
TURN, ZOOM, SHIFT, GAIN, NOISE = 0.15, 0.12, 4.0, 0.06, 0.02
FEATURE_NOISE = 0.2


def vary(pictures: torch.Tensor) -> torch.Tensor:
    """Return pictures (n, 6, *MARGIN) turned, zoomed, moved, perhaps upside down, with other signal and noise."""
    n, (rows, columns) = len(pictures), pictures.shape[2:]

    def spread(*shape: int) -> torch.Tensor:
        return 2 * torch.rand(*shape) - 1

    turn, zoom, shift = TURN * spread(n), torch.exp(ZOOM * spread(n)), SHIFT * spread(n, 2)
    down = (torch.rand(n) < 0.5).float() * -2 + 1
    c, s = torch.cos(turn) * zoom, torch.sin(turn) * zoom
    high, wide = PICTURE[1:]
    place = torch.stack([torch.stack([c * wide / columns, -s * high / columns, shift[:, 0] * 2 / columns], 1),
                         torch.stack([s * wide / rows * down, c * high / rows * down, shift[:, 1] * 2 / rows], 1)], 1)
    grid = functional.affine_grid(place, [n, *PICTURE], align_corners=False)
    seen = functional.grid_sample(pictures.float(), grid, align_corners=False)
    gain, power = (torch.exp(GAIN * torch.randn(n, k))[:, :, None, None] for k in (3, 1))
    signal = (seen[:, :3] * gain).clamp_min(1e-4) ** power
    signal = signal + NOISE * torch.rand(n, 1, 1, 1) * torch.randn_like(signal)
    return torch.cat([signal, seen[:, 3:]], 1)


def middle(pictures: np.ndarray) -> np.ndarray:
    """Return the part of pictures (n, 6, *MARGIN) that is graded."""
    r, c = ((whole - part) // 2 for whole, part in zip(pictures.shape[2:], PICTURE[1:]))
    return pictures[:, :, r:r + PICTURE[1], c:c + PICTURE[2]]


def descend(network: torch.nn.Module, draw: Callable, targets: torch.Tensor, epochs: int, batch: int, decay: float,
            seed: int, half: bool = False) -> None:
    """Fit a network by AdamW (Loshchilov and Hutter 2019) in one cycle; `draw` gives the input of some rows."""
    weights = torch.ones(targets.shape[1])
    weights[GRADES - 1:] = FINDING
    batch = min(batch, len(targets))
    steps = len(targets) // batch
    torch.manual_seed(seed)
    rng, descent = np.random.default_rng(seed), torch.optim.AdamW(network.parameters(), PEAK_RATE, weight_decay=decay)
    cycle = torch.optim.lr_scheduler.OneCycleLR(descent, PEAK_RATE, total_steps=epochs * steps, pct_start=WARM_UP)
    network.train()
    for _ in range(epochs):
        order = rng.permutation(len(targets))
        for rows in order[:steps * batch].reshape(steps, batch):
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                odds = network(draw(rows))
            loss = functional.binary_cross_entropy_with_logits(odds.float(), targets[rows], weights)
            descent.zero_grad()
            loss.backward()
            descent.step()
            cycle.step()
    network.eval()


def train_members(network: torch.nn.Module, features: np.ndarray, pictures: np.ndarray, targets: np.ndarray, seed: int,
                  folder: Path | None = None) -> None:
    """Train the perceptrons and convolutions of a network whose statistics are set; `folder` keeps those that are done.

    Where the processor has instructions for bfloat16 the convolutions are trained in it.
    """
    from safetensors.torch import load_file, save

    x, y = torch.from_numpy(pictures), torch.as_tensor(targets, dtype=torch.float32)
    with torch.inference_mode():
        z = network.standardize(torch.as_tensor(features, dtype=torch.float32)).clamp(-CLIP, CLIP)
    z, half = z.clone(), has_bfloat16()
    given = hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in (features, pictures, targets)))
    for n, (reader, eye) in enumerate(zip(network.readers, network.eyes)):
        kept = folder and folder / f"{given.hexdigest()[:16]}-{seed + n}.safetensors"
        if kept and kept.exists():
            both = load_file(kept)
            for name, member in (("reader.", reader), ("eye.", eye)):
                member.load_state_dict({k.removeprefix(name): v for k, v in both.items() if k.startswith(name)})
            continue
        torch.manual_seed(seed + n)
        for layer in (*reader.modules(), *eye.modules()):
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
        descend(reader, lambda rows: z[rows] + FEATURE_NOISE * torch.randn(len(rows), z.shape[1]), y, EPOCHS[0], 64,
                3e-2, seed + n)
        descend(eye, lambda rows: vary(x[rows]).contiguous(memory_format=torch.channels_last), y, EPOCHS[1], 32,
                2e-2, seed + n, half)
        if kept:
            print(f"trained {kept.name}", flush=True)
            state = {f"{k}.{name}": v.contiguous() for k, member in (("reader", reader), ("eye", eye))
                     for name, v in member.state_dict().items()}
            with atomic_path(kept) as temporary:
                temporary.write_bytes(save(state))


def temperatures(odds: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the temperatures (outputs,) by which log-odds (n, outputs) of others predict targets best.

    Thresholds share one, by the probability of the grade; each finding has its own (Guo et al. 2017).
    """
    found, grade = np.ones(targets.shape[1]), targets[:, :GRADES - 1].sum(axis=1)

    def grade_loss(logarithm: float) -> float:
        higher = np.minimum.accumulate(1 / (1 + np.exp(-odds[:, :GRADES - 1] / np.exp(logarithm))), axis=1)
        p = -np.diff(np.column_stack([np.ones(len(odds)), higher, np.zeros(len(odds))]), axis=1)
        return -np.log(np.maximum(p[np.arange(len(odds)), grade], 1e-9)).mean()

    def best(loss: Callable) -> float:
        return float(np.exp(minimize_scalar(loss, bounds=(-1.5, 1.5), method="bounded").x))

    found[:GRADES - 1] = best(grade_loss)
    for n in range(GRADES - 1, targets.shape[1]):
        margin = np.where(targets[:, n], odds[:, n], -odds[:, n])
        found[n] = best(lambda logarithm, margin=margin: np.logaddexp(0, -margin / np.exp(logarithm)).mean())
    return found
