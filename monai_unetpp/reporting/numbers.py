"""How all reports write numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

__all__ = ["NBSP", "join_shape", "minus", "percent", "significant", "time_unit"]

# a line may break between a mean and its spread, but not inside either
NBSP = "\N{NO-BREAK SPACE}"
_TIMES = "\N{MULTIPLICATION SIGN}"


def minus(text: str) -> str:
    """``text`` with minus signs for hyphens."""
    return text.replace("-", "\N{MINUS SIGN}")


def significant(value: float, digits: int = 3) -> str:
    """``value`` to ``digits`` significant digits, never in scientific notation: 0.01234 gives ``"0.0123"``."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else minus(str(value))
    rounded = float(f"{value:.{digits - 1}e}")
    decimals = digits - 1 - math.floor(math.log10(abs(rounded)))
    return minus(f"{rounded:.{max(decimals, 0)}f}")


def percent(share: float, decimals: int = 0) -> str:
    """A share such as 0.5 as ``"50 %"``."""
    return minus(f"{100 * share:.{decimals}f}{NBSP}%")


def time_unit(seconds: Iterable[float]) -> tuple[str, float]:
    """The unit for the largest of ``seconds``, and the factor that converts seconds to it."""
    return ("ms", 1e3) if max(seconds, default=1.0) < 1 else ("s", 1.0)


def join_shape(shape: Sequence[int]) -> str:
    """Sizes joined by multiplication signs."""
    return f" {_TIMES} ".join(map(str, shape))
