"""The permutation products on a torch device (a GPU), in float64; optional, with the numbers of the CPU code."""

import numpy as np

from DiscRelaxometryLib.errors import DesignError

from .robust import wald_share
from .schemes import Scheme
from .screen import EMPTY
from .stratum import Stratum, batches, less_fitted, moved_rows, partial_r2, reach_of, to_statistic
from .variance_groups import VarianceGroups

BATCH = 512


def require_device(device: str) -> None:
    """Raise DesignError if torch or the device is not there."""
    try:
        import torch

        torch.zeros(1, dtype=torch.float64, device=device.removeprefix("torch:"))
    except ImportError:
        raise DesignError("A GPU was asked for, but torch is not installed: install it, or choose device 'cpu'.",
                          anchor="gpu") from None
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise DesignError(f"The device '{device}' cannot be used ({reason}): choose device 'cpu'.",
                          anchor="gpu") from None


def serves_torch(stratum: Stratum) -> bool:
    """Tell whether the device takes a stratum; what has missing values or variance groups stays on the CPU."""
    return not (stratum.q.ndim == 3 or stratum.presence is not None or isinstance(stratum.sandwich, VarianceGroups))


def block_maxima_torch(stratum: Stratum, scheme: Scheme, alternative: str, as_z: bool, device: str):
    """Return the largest statistic of each permutation over the voxels, and the count of each voxel."""
    import torch

    device = device.removeprefix("torch:")
    order, sign = scheme.restrict(stratum.rows)
    signed = stratum.kind == "t" and alternative != "two-sided"
    turn = -1.0 if alternative == "less" else 1.0
    identity = np.arange(order.shape[1], dtype=order.dtype)[None]
    observed = partial_r2(stratum, identity, None, signed)[0] * turn
    reach = torch.as_tensor(reach_of(observed), device=device)
    sandwich, basis = stratum.sandwich, stratum.basis

    def times(rows, data):
        rows = torch.as_tensor(rows, device=device)
        return (rows.reshape(-1, rows.shape[2]) @ data).reshape(*rows.shape[:2], -1)

    data = torch.as_tensor(np.ascontiguousarray(stratum.data), device=device)
    squares = None if sandwich is None else torch.as_tensor(sandwich.squares.copy(), device=device)
    best, count = np.empty(len(order)), torch.zeros(len(observed), dtype=torch.int64, device=device)
    for batch in batches(len(order), BATCH):
        part = order[batch], None if sign is None else sign[batch]
        g = times(moved_rows(stratum.q, basis, *part), data)
        if sandwich is None:
            square = g * g
            rho = square[: stratum.r].sum(dim=0) / (1.0 - square[stratum.r:].sum(dim=0)).clamp(min=EMPTY)
        else:
            f = times(moved_rows(sandwich.factors, basis, *part), data)
            variances = times(moved_rows(sandwich.weights.T, None, part[0], None), squares)
            rho = wald_share(g, less_fitted(variances, g, f), stratum.r, stratum.df)
        if signed:
            rho = torch.copysign(rho, g[0]) * turn
        best[batch] = rho.max(dim=1).values.cpu().numpy()
        count += (rho >= reach).sum(dim=0)
    return to_statistic(best, stratum.df, stratum.r, stratum.kind, as_z), count.cpu().numpy()
