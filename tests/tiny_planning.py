"""A plan that is trained in moments: values to set, and a machine that is not measured."""

from monai_unetpp.planning import Machine

__all__ = ["TINY", "slow_machine"]

TINY = {
    "features": [2, 4, 4],
    "strides": [[2, 2], [2, 2]],
    "kernel_size": [[3, 3]] * 3,
    "patch_size": [16, 16],
    "window_shape": [24, 24],
    "batch_size": 2,
    "steps": 6,
    "num_workers": 0,
    "compile": False,
}


def slow_machine(spatial_dims, device, classes):
    return Machine(operations_per_s=1e10, memory_bytes=2**30, cores=2, device="cpu")
