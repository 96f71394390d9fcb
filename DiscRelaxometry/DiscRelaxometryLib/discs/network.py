"""The network: a 2.5-D residual U-Net that labels the center slice of a stack of sagittal slices.

The architecture is the U-Net of Ronneberger et al. (2015) with residual blocks (He et al., 2016) and batch
normalization; it is small (16 channels at full resolution) because it has to run on a laptop without a GPU.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

#: Output channels of the network, in order. L5-S1 is a class of its own: the sacrum beside it names the levels.
CLASSES = ("background", "vertebra", "canal", "disc", "disc L5-S1")
BACKGROUND, VERTEBRA, CANAL, DISC, DISC_L5S1 = range(5)


@dataclass(frozen=True)
class NetworkConfig:
    """Shape of the network and of the grid that it was trained on."""

    #: Sagittal slices in a stack, odd; the center one is labelled.
    slices: int = 5
    #: Feature channels per level, from full resolution down; each level halves the resolution.
    channels: tuple[int, ...] = (16, 32, 64, 128, 160, 192)
    #: Residual blocks per level in the encoder.
    blocks: tuple[int, ...] = (1, 2, 2, 1, 1, 1)
    #: Output channels, see :data:`CLASSES`.
    classes: int = len(CLASSES)
    #: In-plane spacing of the grid.
    spacing_mm: float = 0.6

    @property
    def multiple(self) -> int:
        """Rows and columns have to be multiples of this."""
        return 2 ** (len(self.channels) - 1)

    def to_dict(self) -> dict:
        """Return a JSON-writable dict."""
        return asdict(self)

    @classmethod
    def of(cls, values: dict) -> NetworkConfig:
        """Return the configuration written by :meth:`to_dict`."""
        kept: dict = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**kept)


def build_network(config: NetworkConfig):
    """Return the network as a ``torch.nn.Module``: (n, slices, rows, columns) -> logits (n, classes, rows, columns).

    Rows run from superior to inferior, columns from anterior to posterior; both are multiples of
    ``config.multiple``.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        """Two 3 x 3 convolutions with batch normalization and a residual path."""

        def __init__(self, n_in: int, n_out: int):
            super().__init__()
            self.conv1 = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
            self.norm1 = nn.BatchNorm2d(n_out)
            self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
            self.norm2 = nn.BatchNorm2d(n_out)
            self.skip = nn.Conv2d(n_in, n_out, 1) if n_in != n_out else nn.Identity()

        def forward(self, x):
            """Return the block's output."""
            y = functional.relu(self.norm1(self.conv1(x)))
            return functional.relu(self.norm2(self.conv2(y)) + self.skip(x))

    class UNet(nn.Module):
        """Encoder and decoder with skip connections."""

        def __init__(self):
            super().__init__()
            widths, n_in, encoder = config.channels, config.slices, []
            for width, repeats in zip(config.channels, config.blocks):
                encoder.append(nn.Sequential(*[Block(n_in if r == 0 else width, width) for r in range(repeats)]))
                n_in = width
            self.encoder = nn.ModuleList(encoder)
            self.up = nn.ModuleList([nn.Conv2d(a, b, 1) for a, b in zip(widths[:0:-1], widths[-2::-1])])
            self.decoder = nn.ModuleList([Block(2 * width, width) for width in widths[-2::-1]])
            self.head = nn.Conv2d(widths[0], config.classes, 1)

        def forward(self, x):
            """Return logits."""
            skips = []
            for level, stage in enumerate(self.encoder):
                x = stage(functional.max_pool2d(x, 2) if level else x)
                skips.append(x)
            for step, (up, decode) in enumerate(zip(self.up, self.decoder)):
                x = functional.interpolate(up(x), scale_factor=2.0, mode="nearest")
                x = decode(torch.cat([x, skips[-2 - step]], 1))
            return self.head(x)

    return UNet()
