"""How all texts that people read write numbers: ``42 %``, ``-0.010``, ``1 to 2``, ``3 mm``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

_TIMES = "\N{MULTIPLICATION SIGN}"


def significant(value: float, digits: int = 3) -> str:
    """``value`` to ``digits`` significant digits, never in scientific notation: 0.01234 gives ``"0.0123"``."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    rounded = float(f"{value:.{digits - 1}e}")
    decimals = digits - 1 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:.{max(decimals, 0)}f}"


def decimal(value: float, decimals: int) -> str:
    """``value`` with so many decimals, or with two significant digits where it is smaller than the last of them.

    Example:
        >>> decimal(1.5, 2), decimal(0.013, 2), decimal(0.00897, 2), decimal(0.0, 2)
        ('1.50', '0.01', '0.0090', '0.00')
    """
    return f"{value:.{decimals}f}" if not 0 < abs(value) < 10**-decimals else significant(value, 2)


def percent(share: float, form: str = ".0f") -> str:
    """A share such as 0.5 as ``"50 %"``, its number in the format ``form``."""
    return f"{100 * share:{form}} %"


def rough_percent(share: float) -> str:
    """A share of samples in percent, in which what is rare is not taken for never, nor what is frequent for always.

    Example:
        >>> rough_percent(0.004), rough_percent(0.5), rough_percent(0.9996), rough_percent(1.0)
        ('under 1 %', '50 %', 'over 99 %', '100 %')
    """
    if 0 < share < 0.01:
        return "under 1 %"
    return "over 99 %" if 0.99 < share < 1 else percent(share)


def time_unit(seconds: Iterable[float]) -> tuple[str, float]:
    """The unit for the largest of ``seconds``, and the factor that converts seconds to it."""
    return ("ms", 1e3) if max(seconds, default=1.0) < 1 else ("s", 1.0)


def join_shape(shape: Sequence[int]) -> str:
    """Sizes joined by multiplication signs."""
    return f" {_TIMES} ".join(map(str, shape))
