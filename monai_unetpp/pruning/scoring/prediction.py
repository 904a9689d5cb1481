"""From an image file to the label maps of every level, on the file's own grid."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from monai.networks.utils import eval_mode
from monai.transforms import Compose, Invertd, InvertibleTransform, MapTransform
from monai.transforms.utils import allow_missing_keys_mode
from torch import nn

from monai_unetpp.data.datasets.labelled import LabelledCase
from monai_unetpp.data.formats.reader import read_label_map
from monai_unetpp.inferers import NestedSlidingWindowInferer
from monai_unetpp.inferers.depth_gate import gate_name
from monai_unetpp.inferers.window_memory import usable_memory_bytes
from monai_unetpp.networks import NestedUNet
from monai_unetpp.pruning.results import OperatingPoint
from monai_unetpp.window_layout import AUTO

logger = logging.getLogger(__name__)

EMBEDDED = "levels"
"""Key of the network whose levels are evaluated; extra operating points have their names as keys."""

_LARGEST_COPY_BYTES = 2**30
"""Larger logits are not copied for speed, as memory may be short."""

Network = Callable[..., Any]
_Array = npt.NDArray[Any]


def predict_case(
    network: Network,
    case: LabelledCase,
    *,
    preprocessing: Callable[..., Any],
    inferer: Callable[..., Any],
    postprocessing: Callable[..., Any],
    levels: Sequence[str] | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, _Array]:
    """The label maps of one case, as ``evaluate_levels`` scores them, for pictures.

    Args:
        network: as for ``evaluate_levels``.
        case: one of the ``cases`` that ``evaluate_levels`` returns.
        preprocessing: as for ``evaluate_levels``.
        inferer: as for ``evaluate_levels``.
        postprocessing: as for ``evaluate_levels``.
        levels: names of the levels; by default ``network.levels``.
        device: where the network runs.

    Returns:
        Integer label map ``(H, W[, D])`` on the label's grid, by level.

    Raises:
        TypeError: a network, inferer or transform that returns a wrong type.
        ValueError: an unknown level, or label maps that are not on the label's grid.
    """
    source = list_sources(network, levels, {})[0]
    pipeline = Pipeline(preprocessing, inferer, postprocessing)
    shape = read_label_map(case.label, getattr(network, "spatial_dims", None)).data.shape
    with networks_ready([source], torch.device(device)):
        image = pipeline.load(case)
        logits = source.pick(pipeline.infer(image, source, torch.device(device)))
        return {point.level: pipeline.label_map(logits[point.level], image, shape) for point in source.points}


@dataclasses.dataclass(frozen=True)
class LevelSource:
    """A network, the operating points of one pass of it, and its gates: depths chosen per window at some tolerance."""

    key: str
    network: Network
    points: tuple[OperatingPoint, ...]
    gates: tuple[OperatingPoint, ...] = ()

    @property
    def levels(self) -> list[str]:
        """Levels of the points."""
        return [point.level for point in self.points]

    @property
    def asked(self) -> list[str]:
        """Levels and gates to request from the inferer."""
        return [*self.levels, *(gate.level for gate in self.gates)]

    @property
    def module(self) -> nn.Module | None:
        """The network, or the module of which it is a method; None for other functions."""
        owner = getattr(self.network, "__self__", self.network)
        return owner if isinstance(owner, nn.Module) else None

    def forward(self, x: torch.Tensor) -> Any:
        """Logits by level; possibly a bare tensor if there is one level."""
        if hasattr(self.network, "forward_levels"):
            outputs: Any = self.network.forward_levels(x, self.levels)
        else:
            outputs = self.network(x)
        if not isinstance(outputs, Mapping):
            return outputs
        # sliding windows weight the outputs in place, so outputs must share no memory with each other or the input
        seen, separate = {x.data_ptr()}, {}
        for level in self.levels:
            if level in outputs:
                tensor = outputs[level]
                separate[level] = tensor.clone() if tensor.data_ptr() in seen else tensor
                seen.add(tensor.data_ptr())
        return separate

    def pick(self, outputs: Any) -> Mapping[str, torch.Tensor]:
        """The logits ``(1, C, H, W[, D])`` of each level from the inferer's output."""
        if isinstance(outputs, _OneByOne):
            return outputs
        if isinstance(outputs, torch.Tensor) and len(self.points) == 1:
            return {self.levels[0]: outputs}
        if not isinstance(outputs, Mapping):
            raise TypeError(
                f"network must return a dict of logits by level through the inferer, got {type(outputs).__name__}. "
                "Convert BasicUNetPlusPlus with NestedUNet.from_basic_unetplusplus, wrap other networks in a function "
                "that names its outputs, and leave buffer_steps of SlidingWindowInferer at None."
            )
        missing = [level for level in self.levels if not isinstance(outputs.get(level), torch.Tensor)]
        if missing:
            raise ValueError(
                f"network must return logits of every level through the inferer, got none for {', '.join(missing)} "
                f"but {', '.join(map(str, outputs)) or 'nothing'}. Name the levels that it has in levels."
            )
        return {level: outputs[level] for level in self.levels}


class _OneByOne(dict[str, torch.Tensor]):
    """The logits of levels, each computed when it is asked for, and not kept."""

    def __init__(self, infer: Callable[[str], torch.Tensor]) -> None:
        super().__init__()
        self._infer = infer

    def __missing__(self, level: str) -> torch.Tensor:
        return self._infer(level)


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """From an image file to a label map on its grid."""

    preprocessing: Callable[..., Any]
    inferer: Callable[..., Any]
    postprocessing: Callable[..., Any]
    _by_source: dict[str, NestedSlidingWindowInferer] = dataclasses.field(default_factory=dict, repr=False)
    _pruned: dict[str, NestedUNet] = dataclasses.field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.inferer, NestedSlidingWindowInferer):
            for name, wanted in (("levels", None), ("output", "logits")):
                if getattr(self.inferer, name) != wanted:
                    raise ValueError(
                        f"inferer must have {name}={wanted!r} where levels are scored, got "
                        f"{getattr(self.inferer, name)!r}. Leave it out: all levels are requested here, and "
                        "postprocessing takes the logits."
                    )

    def load(self, case: LabelledCase) -> torch.Tensor:
        """The prepared image, ``(C, H, W[, D])``."""
        files = [str(file) for file in case.image]
        with _without_missing_keys(self.preprocessing):
            image = self.preprocessing({"image": files[0] if len(files) == 1 else files})["image"]
        if not isinstance(image, torch.Tensor):
            raise TypeError(f"preprocessing must give a tensor, got {type(image).__name__}. Load it with LoadImaged.")
        return image

    def infer(
        self, image: torch.Tensor, source: LevelSource, device: torch.device, whole: Sequence[int] | None = None
    ) -> Any:
        """The output of the inferer for a batch of one image, or of a part of an image of the shape ``whole``.

        Where the logits of all levels would not fit into memory, as of many classes, each level takes its own pass. So
        does each, really pruned, where the inferer chooses its windows, which depend on depth and memory of a network.
        """
        plain = image.as_tensor() if isinstance(image, MetaTensor) else image
        batch = plain[None].to(device, torch.float32)
        # it compiles or converts the network itself, and keeps the result for the next case
        network: Any = source.network
        own = isinstance(self.inferer, NestedSlidingWindowInferer) and hasattr(network, "forward_levels")
        prunes = own and self.inferer.roi_size == AUTO and isinstance(network, NestedUNet)  # type: ignore[attr-defined]

        def infer_alone(level: str) -> torch.Tensor:
            if own:
                key = f"{source.key} {level}"
                if prunes and key not in self._pruned:
                    self._pruned[key] = network.prune(level)
                return torch.as_tensor(self._of(key, level)(batch, self._pruned[key] if prunes else network))
            alone = dataclasses.replace(source, points=(source.points[source.levels.index(level)],))
            return alone.pick(self.inferer(batch, alone.forward))[level]

        inferer: Any = self._of(source.key, source.asked) if own else self.inferer
        several = len(source.levels) > 1 and not source.gates
        if several and (prunes or _is_too_much(source, inferer if own else None, batch, whole)):
            return _OneByOne(infer_alone)
        return inferer(batch, network if own else source.forward)

    def _of(self, key: str, levels: Sequence[str] | str) -> NestedSlidingWindowInferer:
        if key not in self._by_source:
            self._by_source[key] = self.inferer.with_options(levels=levels)  # type: ignore[attr-defined]
        return self._by_source[key]

    def depths(self, source: LevelSource) -> dict[str, dict[str, int]]:
        """The depths of the windows of the last image at each gate of a network."""
        return dict(self._by_source[source.key].depths) if source.gates else {}

    def label_map(self, logits: torch.Tensor, image: torch.Tensor, shape: tuple[int, ...]) -> _Array:
        """Integer labels on the file's grid of ``shape``."""
        result = self.postprocessing({"pred": _with_meta(_channels_last(logits[0]), image), "image": image})["pred"]
        values = _on_grid(result, shape, "postprocessing must give one label map on the image's own grid")
        if values.dtype.kind == "f":
            if not np.array_equal(values, np.rint(values)):
                raise ValueError("postprocessing must give integer labels. Use AsDiscreted, and Invertd with nearest.")
            values = values.astype(np.int64)
        return values

    def invert(self, values: torch.Tensor, image: torch.Tensor, shape: tuple[int, ...]) -> _Array:
        """Values from 0 to 1, ``(1, H, W[, D])``, interpolated onto the file's grid of ``shape``."""
        if not isinstance(self.preprocessing, InvertibleTransform):
            raise TypeError(
                f"preprocessing must be invertible, got {type(self.preprocessing).__name__}. Use MONAI's Compose."
            )
        invert = Invertd(keys="pred", transform=self.preprocessing, orig_keys="image", nearest_interp=False)
        result = invert({"pred": _with_meta(values.cpu(), image), "image": image})["pred"]
        return _on_grid(result, shape, "preprocessing must be invertible to the image's own grid").clip(0.0, 1.0)


def _is_too_much(
    source: LevelSource, inferer: NestedSlidingWindowInferer | None, batch: torch.Tensor, whole: Sequence[int] | None
) -> bool:
    """Whether the logits of all levels need more memory than is free, as far as both are known."""
    classes = getattr(source.network, "config", {}).get("out_channels")
    if classes is None:
        return False
    shape = batch.shape if whole is None else (1, *whole)
    if inferer is not None:
        needed, device = inferer.estimate_memory(shape, classes, network=source.network).stitching_bytes, inferer.device
    else:
        # what MONAI's sliding windows hold: logits and weights of the windows
        needed, device = len(source.levels) * (classes + 1) * math.prod(shape[2:]) * batch.element_size(), None
    free = usable_memory_bytes(device or batch.device)
    if free is None or needed <= free:
        return False
    logger.info("The logits of all levels need %.1f GB of %.1f GB: one after the other.", needed / 1e9, free / 1e9)
    return True


def _without_missing_keys(preprocessing: Callable[..., Any]) -> contextlib.AbstractContextManager[Any]:
    """Let transforms skip missing keys, such as that of the label."""
    flat = preprocessing.flatten().transforms if isinstance(preprocessing, Compose) else (preprocessing,)
    chosen: Any = Compose([each for each in flat if isinstance(each, MapTransform)])
    return allow_missing_keys_mode(chosen) if chosen.transforms else contextlib.nullcontext()


def _with_meta(values: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    # Invertd skips tensors without metadata, with only a warning
    plain = values.as_tensor() if isinstance(values, MetaTensor) else values
    return MetaTensor(plain, meta=dict(image.meta)) if isinstance(image, MetaTensor) else plain


def _channels_last(logits: torch.Tensor) -> torch.Tensor:
    """The same ``(C, H, W[, D])``, on a CPU with the channels of a voxel adjacent in memory.

    This makes torch's argmax over them about ten times as fast.
    """
    if logits.device.type != "cpu" or logits.nbytes > _LARGEST_COPY_BYTES:
        return logits
    return logits.movedim(0, -1).contiguous().movedim(-1, 0)


def _on_grid(result: Any, shape: tuple[int, ...], rule: str) -> _Array:
    plain = result.as_tensor() if isinstance(result, MetaTensor) else result
    values = plain.detach().cpu().numpy() if isinstance(plain, torch.Tensor) else np.asarray(plain)
    if values.shape[:1] != (1,) or values.size != np.prod(shape) or values.shape[1 : len(shape) + 1] != shape:
        raise ValueError(f"{rule} {shape}, got shape {values.shape}. Take the argmax, and end with Invertd.")
    return values.reshape(shape)


def list_sources(
    network: Network,
    levels: Sequence[str] | None,
    extra: Mapping[OperatingPoint, Network],
    adaptive: Sequence[float] = (),
) -> list[LevelSource]:
    """The networks to run on each case: the one whose levels are evaluated, then the extra ones."""
    names = getattr(network, "levels", None) if levels is None else levels
    if isinstance(names, str) or not names or len(set(names)) < len(names):
        raise ValueError(
            f"levels must be different names of levels, shallowest first, got {names!r}. Pass the keys of the "
            "network's dict, as in levels=['L1', 'L2']."
        )
    embedded = tuple(OperatingPoint(name=str(name), level=str(name)) for name in names)
    gates = tuple(OperatingPoint(name=gate_name(each), level=gate_name(each)) for each in adaptive)
    sources = [LevelSource(EMBEDDED, network, embedded, gates)]
    for point, other in extra.items():
        if not isinstance(point, OperatingPoint) or point.kind != "extra":
            raise TypeError(
                f"extra must map operating points of kind 'extra' to networks, got {point!r}. Write "
                "{OperatingPoint('L2 trained alone', 'L2', 'extra'): network}."
            )
        if point.name in {EMBEDDED, *(each.name for source in sources for each in source.points)}:
            raise ValueError(f"extra must have unique names, got {point.name!r} again. Rename the point.")
        sources.append(LevelSource(point.name, other, (point,)))
    for source in sources:
        has_levels, listed = hasattr(source.network, "forward_levels"), getattr(source.network, "levels", None)
        if not callable(source.network) and not has_levels:
            told = type(source.network).__name__
            raise TypeError(f"network must be callable, got {told}. Pass a module or a function.")
        known = list(listed) if has_levels and isinstance(listed, (tuple, list)) else source.levels
        unknown = [level for level in source.levels if level not in known]
        if unknown:
            raise ValueError(
                f"levels must be among {', '.join(map(str, known))} of the network, got {', '.join(unknown)}. Name "
                "only levels that it has."
            )
    return sources


@contextlib.contextmanager
def networks_ready(sources: Sequence[LevelSource], device: torch.device) -> Iterator[None]:
    """The networks on the device, in eval mode, without gradients."""
    modules = [source.module for source in sources if source.module is not None]
    for module in modules:
        module.to(device)
    with eval_mode(*modules):
        yield
