"""Memory that a training frees, in processes of their own, as it concerns a whole process."""

import json
import sys

import pytest
from forked import run_forked

_PROGRAM = """
import json, resource, sys
import torch
from monai_unetpp import NestedUNet
from monai_unetpp.training import accelerate
from monai_unetpp.training.acceleration import keep_freed_memory, return_freed_memory

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

possible = keep_freed_memory()
return_freed_memory()
before = new_pages()
if sys.argv[1] == "accelerate":
    accelerate(NestedUNet(2, 1, 2, features=(2, 4)))
else:
    keep_freed_memory()
# once or twice the heap grows, until it has room for the tensor and its alignment
new_pages()
kept, held = new_pages(), resident()
return_freed_memory()
returned = held - resident()
print(json.dumps([possible, before, kept, returned, new_pages()]))
"""
_PAGES = 2**24 * 4 // 4096


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only the GNU C library can keep memory")
@pytest.mark.parametrize("by", ["keep_freed_memory", "accelerate"])
def test_pages_are_used_again_until_they_are_returned(by, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM)
    done = run_forked(program, by, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    possible, before, kept, returned, after = json.loads(done.stdout)
    if not possible or before < _PAGES:
        pytest.skip("needs the GNU C library, and pages of the usual size")
    assert kept < _PAGES / 10
    assert returned > 2**24 * 4 / 2
    assert after > _PAGES
