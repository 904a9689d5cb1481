"""Seeds of random numbers."""

from __future__ import annotations

import numpy as np


def mix_seeds(*seeds: int) -> int:
    """Combine several non-negative seeds into one, such as the seed of a training and the number of an epoch.

    It is from 0 to 2³² - 1, and most likely different for any other seeds, also in another order.
    """
    return int(np.random.SeedSequence(seeds).generate_state(1)[0])
