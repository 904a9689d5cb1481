"""Run a network with torch.compile."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any

import torch

from monai_unetpp.inferers.predictors.eager import computing, copy_for_device
from monai_unetpp.inferers.predictors.predictor import (
    Predictor,
    check_module,
    complete_batch,
    named_outputs,
    output_names,
)
from monai_unetpp.inferers.predictors.tracing import trace_network


class CompiledPredictor(Predictor):
    """Runs a network as one program compiled by torch.compile for a single batch shape.

    It is compiled with the first batch, which takes seconds to minutes, and never again. Smaller batches are padded
    with zeros, and cost as much as full ones.

    Args:
        network: a module that ``torch.export`` supports.
        backend: backend of torch.compile.
        **settings: see :class:`Predictor`.

    Raises:
        TypeError: the network is not a module.
        RuntimeError: there is no C++ compiler, which torch needs for a CPU.
    """

    runtime = "compile"

    def __init__(
        self, network: Callable[..., Any], *, backend: str | Callable[..., Any] = "inductor", **settings: Any
    ) -> None:
        super().__init__(network, **settings)
        module = check_module(network, self.runtime)
        if backend == "inductor" and self.device.type == "cpu":
            _check_cpp_compiler()
        self.backend = backend
        self._copy = copy_for_device(module, self)
        self._names: tuple[str, ...] = ()
        self._program: Callable[[torch.Tensor], tuple[torch.Tensor, ...]] | None = None

    def prepare(self, windows: torch.Tensor) -> None:
        """Compile with a first batch, unless already done."""
        if self._program is None:
            self(windows)

    def _predict(self, windows: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        network = self._copy.current()
        # the program is compiled for one dtype and one layout, down to the strides of axes of length one
        batch = complete_batch(self._converted(windows), self.batch_size).clone(memory_format=torch.contiguous_format)
        with computing(self.device, self.precision):
            if self._program is None:
                # a traced graph has its own code, so the programs of many predictors do not count as compilations of
                # one function, of which torch allows few
                self._names = output_names(network, self.levels, batch)
                graph = trace_network(network, self.levels, batch).module()
                self._channels = windows.shape[1]
                self._program = torch.compile(graph, fullgraph=True, dynamic=False, backend=self.backend)
            outputs = self._program(batch)
        return named_outputs([output[: windows.shape[0]] for output in outputs], self._names)


def _check_cpp_compiler() -> None:
    names = (os.environ.get("CXX"), "g++", "clang++", "cl")
    if not any(shutil.which(name) for name in names if name):
        raise RuntimeError(
            "runtime 'compile' needs a C++ compiler on a CPU, got none (looked for CXX, g++, clang++, cl). Install "
            "one, such as g++, or use runtime 'openvino' or 'torch'."
        )
