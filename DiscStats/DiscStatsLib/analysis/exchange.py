"""What a contrast's errors allow: which observations change places or signs, alone, in blocks or in variance groups."""

from dataclasses import dataclass

import numpy as np

from DiscRelaxometryLib.errors import DesignError

from ..design import Contrast, Design
from ..permutation import Scheme, alike_blocks, constant_in_blocks, make_scheme
from ..settings import AnalysisSettings
from .data import AnalysisData
from .model import Cell, ContrastFit, make_cells


@dataclass(frozen=True)
class Exchange:
    """What may be rearranged: people are the same rows at all levels."""

    data: AnalysisData
    designs: dict[int, Design]
    settings: AnalysisSettings
    #: Shape (n,). Exchangeability block of each row.
    blocks: np.ndarray | None
    #: Shape (n,). Variance group of each row.
    groups: np.ndarray | None
    #: Shape (n,). What each row is in its block.
    places: np.ndarray | None

    def mode(self, contrast: Contrast) -> str | None:
        """Return how blocks are exchanged for a contrast; None without blocks."""
        if self.blocks is None:
            return None
        return self.settings.exchange or ("whole" if self._constant_in(self.blocks, contrast) else "within")

    def cells(self, contrast: Contrast) -> tuple[list[Cell], list[str]]:
        """Return the cells of a contrast; flipped signs do not need all of a block, permuted blocks do.

        Block means stay where observations have variances of their own: the leverage of an intercept for each block is
        not known to HC3 and G.
        """
        mode, settings = self.mode(contrast), self.settings
        flips = settings.errors == "symmetric" or (settings.errors == "auto" and self.groups is not None)
        absorbed = mode == "within" and self.groups is None and settings.standard_errors == "classical"
        return make_cells(self.data, self.designs, settings, whole=self.blocks if mode == "whole" and not flips
                          else None, within=self.blocks if absorbed else None)

    def remarks(self, mode: str | None) -> list[str]:
        """Name the blocks that stay in their place because no other one holds the same places."""
        if mode != "whole" or self.blocks is None:
            return []
        units = [np.flatnonzero(self.blocks == b) for b in np.unique(self.blocks)]
        alone = [self.data.ids[u[0][0]] for u in alike_blocks(units, self.places).values() if len(u) == 1]
        return [f"{', '.join(alone[:20])}{' and others' if len(alone) > 20 else ''} hold levels or visits as nobody "
                "else does and keep their place where whole blocks are exchanged."] if alone else []

    def scheme(self, fitted: ContrastFit, cells: list[Cell]) -> tuple[Scheme, str | None]:
        """Return flips or permutations for a contrast, and how blocks are exchanged."""
        settings = self.settings
        mode = "whole" if fitted.flip and self.blocks is not None else self.mode(fitted.contrast)
        types = None
        if not self.data.covariates and all(c.packed is None and np.array_equal(c.rows, cells[0].rows) for c in cells):
            # Rows with the same design at every level can change places without changing anything.
            shape = (self.data.n, len(self.designs), fitted.contrast.weights.shape[1])
            stacked = np.full(shape, np.inf)
            for k, design in enumerate(self.designs.values()):
                stacked[design.rows, k] = design.matrix
            rows = stacked.reshape(len(stacked), -1)
            rows = rows if self.groups is None else np.column_stack([rows, self.groups])
            types = np.unique(rows, axis=0, return_inverse=True)[1].ravel()
        units = self.groups if self.blocks is None else self.blocks
        if self.blocks is None and self.groups is not None and not fitted.flip and self._constant_in(
                self.groups, fitted.contrast):
            raise DesignError(f"'{fitted.contrast.name}' compares variance groups, whose members do not change places: "
                              "choose errors 'auto' or 'symmetric' (sign flips).", anchor="exchangeability")
        return make_scheme(self.data.n, settings.n_permutations, settings.seed, flip=fitted.flip, blocks=units,
                           exchange=mode or "within", row_types=types, places=self.places), mode

    def _constant_in(self, blocks: np.ndarray, contrast: Contrast) -> bool:
        tested = np.flatnonzero(np.any(contrast.weights != 0, axis=0))
        for design in self.designs.values():
            if np.any(tested >= design.matrix.shape[1]):
                return False
            if not constant_in_blocks(design.matrix[:, tested], blocks[design.rows]):
                return False
        return True
