"""The moving average of the weights in training."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler
from torch import nn

from monai_unetpp.distributed import unwrapped

_STATE = "ema_momentum"


class WeightAverage:
    """The exponential moving average of a network's weights, by ignite's ``EMAHandler``, or the network itself.

    The average covers a share of the steps done so far, so that their final number need not be known, but at most 500
    steps: the momentum of step ``t`` is ``1 / (1 + share * t)``, but at least 0.002. It has a state, so that an
    interrupted training gives the same result.

    Args:
        network: the network whose weights to average, possibly wrapped for distributed training.
        share: share of the steps so far to average over, such as 0.04; None for no average.
        least: the smallest momentum.

    Raises:
        ValueError: a share or momentum outside of 0 to 1.
    """

    def __init__(self, network: nn.Module, share: float | None = None, least: float = 0.002) -> None:
        if share is not None and not 0 < share < 1:
            raise ValueError(f"share must lie between 0 and 1, got {share}. 0.04 is usual; None averages nothing.")
        if not 0 < least < 1:
            raise ValueError(f"least must lie between 0 and 1, got {least}. 0.002 is usual.")
        self.share = share
        self.least = least
        self._network = unwrapped(network)
        self._handler = None if share is None else EMAHandler(self._network, least, handle_buffers="update")

    @property
    def averaged(self) -> nn.Module:
        """The network with the averaged weights; the network itself without averaging."""
        return self._network if self._handler is None else self._handler.ema_model

    def attach(self, engine: Engine) -> None:
        """Follow the trainer ``engine``."""
        if self._handler is not None:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._set_momentum)
            self._handler.attach(engine, _STATE, warn_if_exists=False)

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights; empty without averaging."""
        return {} if self._handler is None else self.averaged.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a state from :meth:`state_dict`."""
        if self._handler is not None:
            self.averaged.load_state_dict(state_dict)

    def _set_momentum(self, engine: Engine) -> None:
        momentum = max(self.least, 1 / (1 + (self.share or 0) * engine.state.iteration))
        setattr(engine.state, _STATE, momentum)
