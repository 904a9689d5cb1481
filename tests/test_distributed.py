"""Starting and ending a process group; training with two processes is tested with the bundles."""

import socket

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from monai_unetpp import distributed


@pytest.fixture
def one_process(monkeypatch):
    """The environment that ``torchrun`` gives to a single process."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    for name, value in {"RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


def test_the_cpu_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert distributed.local_device() == torch.device("cpu")


@pytest.mark.parametrize(("rank", "expected"), [(None, "cuda:0"), ("3", "cuda:3")])
def test_each_process_has_its_own_gpu(monkeypatch, rank, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    if rank is None:
        monkeypatch.delenv("LOCAL_RANK", raising=False)
    else:
        monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert distributed.local_device() == torch.device(expected)
    assert distributed.local_device("cpu") == torch.device("cpu")


def test_under_torchrun_gpus_have_no_number_and_suffice_for_all_processes(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert distributed.local_device("cuda:1") == torch.device("cuda:1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert distributed.local_device("cuda") == torch.device("cuda:1")
    with pytest.raises(ValueError, match=r"device must have no number under torchrun, got cuda:0\. Each process"):
        distributed.local_device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match=r"got more than 2\. Give --nproc_per_node=2, or --device cpu"):
        distributed.local_device()


def test_processes_that_share_cases_take_a_gpu_each_unless_one_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    found = [distributed.own_device(asked) for asked in (None, *map(torch.device, ("cuda", "cuda:1", "cpu")))]
    assert found == [torch.device(name) for name in ("cuda:3", "cuda:3", "cuda:1", "cpu")]


@pytest.mark.slow
def test_gathering_waits_for_the_slowest_process(monkeypatch):
    """Scoring a share can take hours longer than another: the default group would give up after minutes."""
    asked = {}
    distributed.finish()  # forgets the group of another test
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda *_: 2)

    def new_group(backend, timeout):
        asked.update(backend=backend, hours=timeout.total_seconds() / 3600)
        return "patient"

    def all_gather_object(parts, own, group):
        asked.update(group=group)
        parts[:] = [own, {"b": 2}]

    made = []
    monkeypatch.setattr(dist, "new_group", lambda **options: made.append(1) or new_group(**options))
    monkeypatch.setattr(dist, "all_gather_object", all_gather_object)
    assert distributed.gather({"a": 1}) == {"a": 1, "b": 2}
    # a group of its own for each call would hold its sockets until the end
    assert distributed.gather({"a": 1}) == {"a": 1, "b": 2}
    assert made == [1]
    monkeypatch.undo()
    distributed.finish()
    assert asked == {"backend": "gloo", "hours": 24, "group": "patient"}


def test_a_process_joins_once_on_the_device_that_was_asked_for(monkeypatch):
    joined = []
    monkeypatch.setattr(dist, "is_torchelastic_launched", lambda: True)
    monkeypatch.setattr(distributed, "start", joined.append)
    monkeypatch.setattr(distributed, "finish", lambda: None)
    with distributed.process_group(torch.device("cpu")):
        monkeypatch.setattr(dist, "is_initialized", lambda: True)
        assert joined == [torch.device("cpu")]
        with distributed.process_group():
            pass
    assert joined == [torch.device("cpu")]


def test_starting_without_torchrun_says_how_to_start(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(RuntimeError, match=r"RANK is not set\. Start distributed training with torchrun"):
        distributed.start()
    assert not dist.is_initialized()


def test_gpus_get_nccl_unless_the_cpu_is_asked_for(monkeypatch):
    chosen = {}
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.update(device=device))
    monkeypatch.setattr(dist, "init_process_group", lambda **options: chosen.update(options))
    distributed.start()
    # the other processes wait while the first one scores whole cases
    assert chosen.pop("timeout").total_seconds() >= 3600
    assert chosen == {"device": torch.device("cuda:1"), "backend": "nccl"}
    distributed.start("cpu")
    assert chosen["backend"] == "gloo"


@pytest.mark.slow
def test_start_train_and_finish(one_process):
    distributed.start()
    distributed.start()
    assert dist.get_backend() == "gloo"
    network = DistributedDataParallel(nn.Linear(2, 1))
    network(torch.ones(1, 2)).sum().backward()
    assert network.module.weight.grad.tolist() == [[1.0, 1.0]]
    distributed.finish(network)
    assert not dist.is_initialized()
    assert not hasattr(network, "reducer")


def test_a_single_process_gathers_its_own_value():
    with distributed.gathered("done") as values:
        assert values == ["done"]
        assert not dist.is_initialized()


@pytest.mark.slow
def test_finishing_without_a_group_does_nothing():
    distributed.finish()
    distributed.finish(nn.Linear(1, 1))
    assert not dist.is_initialized()
