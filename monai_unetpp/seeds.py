"""Seeds of random numbers."""

from __future__ import annotations

import numpy as np


def mix_seeds(*seeds: int) -> int:
    """Combine several seeds into one, such as the seed of a training and the number of an epoch.

    Args:
        seeds: non-negative numbers.

    Returns:
        From 0 to 2³² - 1, most likely different for any other numbers.

    Example:
        >>> mix_seeds(0, 1) == mix_seeds(1, 0)
        False
    """
    return int(np.random.SeedSequence(seeds).generate_state(1)[0])
