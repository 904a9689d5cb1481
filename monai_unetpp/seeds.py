"""Seeds of random numbers."""

from __future__ import annotations

import numpy as np

__all__ = ["mix_seeds"]


def mix_seeds(*seeds: int) -> int:
    """One seed out of several, such as that of a training and the number of an epoch.

    Args:
        seeds: from 0 up.

    Returns:
        From 0 to 2³² - 1, most likely another one for any other numbers.

    Example:
        >>> mix_seeds(0, 1) == mix_seeds(1, 0)
        False
    """
    return int(np.random.SeedSequence(seeds).generate_state(1)[0])
