"""Faster training steps that stay right: memory format and convolutions, torch.compile, and memory that is kept."""

from __future__ import annotations

import ctypes
import logging
import sys

import torch
from torch import nn
from torch.nn import functional

from monai_unetpp.distributed import unwrapped

logger = logging.getLogger(__name__)

#: Output channels up to which it was faster to pad the first axis before a convolution, at least for small inputs.
_SOME_CHANNELS = 16

#: Parameters of ``mallopt`` in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
#: Values up to which glibc by itself raises the thresholds, and its default for the number of mappings.
_TRIM_BYTES, _MMAP_BYTES, _MMAPS = 2**26, 2**25, 65536


def accelerate(network: nn.Module, channels_last: bool = False, compile: bool = False) -> nn.Module:
    """Speed up the training of a network in place; names and values of its weights stay the same.

    On a CPU, with the GNU C library, this process also keeps the memory that it frees for the next step. Some
    convolutions of volumes are computed in another way there: see :func:`.pad_depth`, with channels last, and
    :class:`.ShortAxisConv3d`, without which autocast to bfloat16 can give wrong gradients.

    Args:
        network: a nested U-Net in training, possibly wrapped for distributed training.
        channels_last: keep the channels of a voxel adjacent in memory, which is faster on many processors. A wrapper
            for distributed training remembers the layout of its network, and would mix up gradients if it changed: then
            nothing is done, and the network must be given before it is wrapped.
        compile: compile it by ``torch.compile`` at the first step. If this is impossible, such as without a C++
            compiler, a warning is logged and training continues without it.

    Returns:
        The same network.
    """
    inner = unwrapped(network)
    device = next(inner.parameters()).device
    if channels_last and inner is network:
        flat = getattr(inner, "spatial_dims", 3) == 2
        inner.to(memory_format=torch.channels_last if flat else torch.channels_last_3d)  # type: ignore[call-overload]
        if device.type == "cpu":
            pad_depth(inner)
    if device.type == "cpu":
        for module in inner.modules():
            if type(module) is nn.Conv3d:
                module.__class__ = ShortAxisConv3d
        keep_freed_memory()
    if compile and _can_compile(device):
        # in place, as a wrapper would change the names of the weights
        inner.compile(dynamic=False)
    return network


def _can_compile(device: torch.device) -> bool:
    try:
        torch.compile(lambda x: 2 * x)(torch.ones(2, device=device))
    except Exception as e:
        reason = (str(e).strip().splitlines() or [type(e).__name__])[0]
        logger.warning("The network is trained without torch.compile, which does not work here (%s).", reason)
        return False
    return True


class DepthPaddedConv3d(nn.Conv3d):
    """A convolution that pads the first axis of its input itself, and leaves the others to the library.

    oneDNN has a fast gradient of the weights for AVX2 only where the first axis needs no padding. Otherwise it unfolds
    the input into a matrix, which is slow where the output has few channels. Results are the same but for rounding.
    """

    #: Output channels up to which it is faster for inputs of any size, and voxels of a small batch at most.
    few_channels, small_voxels = 8, 2**15
    __constants__ = [*nn.Conv3d.__constants__, "few_channels", "small_voxels"]  # noqa: RUF012  # as torch has it
    padding: tuple[int, int, int]

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Convolve ``(B, C, D, H, W)``; ``torch.jit.script`` takes it too."""
        if self.out_channels > self.few_channels and input.numel() > self.small_voxels * self.in_channels:
            whole: torch.Tensor = self._conv_forward(input, self.weight, self.bias)
            return whole
        depth, height, width = self.padding
        padded = functional.pad(input, [0, 0, 0, 0, depth, depth])
        return functional.conv3d(
            padded, self.weight, self.bias, self.stride, (0, height, width), self.dilation, self.groups
        )


class ShortAxisConv3d(nn.Conv3d):
    """A convolution in float32, also under autocast, where an axis of its input is shorter than its kernel.

    On processors with AVX-512, oneDNN 3.12, as in torch 2.13, reads memory that nobody wrote for such inputs in
    bfloat16: gradients of the weights are random numbers or NaN, and so are outputs of a single channel with channels
    last. The lowest resolution of a small patch is such an input.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Convolve ``(B, C, D, H, W)``; ``torch.jit.script`` takes it too."""
        depth, height, width = self.kernel_size
        if input.shape[2] < depth or input.shape[3] < height or input.shape[4] < width:
            with torch.autocast("cpu", enabled=False):
                # another layer may have left its output in half precision
                widened = input.to(self.weight.dtype)
                convolved: torch.Tensor = self._conv_forward(widened, self.weight, self.bias)
        else:
            convolved = self._conv_forward(input, self.weight, self.bias)
        return convolved

    def _get_name(self) -> str:
        # the layers of a network are recognized by how they are printed
        return "Conv3d"


def pad_depth(network: nn.Module) -> nn.Module:
    """Let the convolutions of a network pad the first axis themselves where that makes training faster.

    That is so on processors with AVX2 and no AVX-512, for padded 3D convolutions with few output channels. The network,
    on a CPU and with channels last, is changed in place and returned; its weights and their names stay the same.
    """
    if torch.backends.cpu.get_cpu_capability() == "AVX2":
        for module in network.modules():
            if _may_gain(module):
                module.__class__ = DepthPaddedConv3d
    return network


def _may_gain(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.Conv3d)
        and type(module) in (nn.Conv3d, ShortAxisConv3d)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and module.padding[0] > 0
        and module.out_channels <= _SOME_CHANNELS
    )


def keep_freed_memory() -> bool:
    """Keep the memory that large tensors free for the next ones, which makes training steps on a CPU faster.

    Otherwise the C library gives it back to the system in every step, and the system clears each page that it hands
    out again. It holds for the whole process, until :func:`return_freed_memory`. Returns whether this is possible: only
    with the GNU C library, thus on most Linux systems.
    """
    library = _gnu_library()
    # no mappings of their own for large tensors, and nothing cut off at the end of the heap
    return library is not None and bool(library.mallopt(_MMAP_MAX, 0) and library.mallopt(_TRIM_THRESHOLD, -1))


def return_freed_memory() -> None:
    """Give the memory that is free back to the system, and from now on as soon as it is freed."""
    library = _gnu_library()
    if library is not None:
        library.mallopt(_MMAP_MAX, _MMAPS)
        library.mallopt(_MMAP_THRESHOLD, _MMAP_BYTES)
        library.mallopt(_TRIM_THRESHOLD, _TRIM_BYTES)
        library.malloc_trim(0)


def _gnu_library() -> ctypes.CDLL | None:
    """The C library of this process, if it is the GNU one."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "gnu_get_libc_version") else None
