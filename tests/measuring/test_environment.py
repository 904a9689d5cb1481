"""Machine and software by name."""

import dataclasses

import pytest
import torch

from monai_unetpp.measuring.environment import describe_environment


class TestEnvironment:
    def test_names_machine_and_software(self) -> None:
        environment = describe_environment("cpu", "fp32", "torch")
        assert "logical cores" in environment.device
        assert (environment.precision, environment.runtime) == ("fp32", "torch")
        assert environment.threads == torch.get_num_threads()
        assert environment.versions["torch"] == torch.__version__
        assert {"monai", "monai-unetpp", "python", "numpy"} <= set(environment.versions)
        assert environment.date.endswith("+00:00")

    def test_auto_is_written_as_what_it_means(self) -> None:
        assert describe_environment("cpu", "auto").precision in ("fp32", "bf16")

    def test_device(self) -> None:
        with pytest.raises(ValueError, match="device must be a CPU or a CUDA device"):
            describe_environment("meta")

    def test_in_a_line(self) -> None:
        environment = dataclasses.replace(
            describe_environment("cpu", "fp32"), device="abacus", threads=2, date="today", versions={"monai": "1.6"}
        )
        assert environment.line() == "abacus, 2 threads, MONAI 1.6, today"
