"""Two real processes over gloo for the tests that compare them with one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

# The processes leave by os._exit once both results are on disk: gloo's threads may outlive Python's end and abort a process whose work is done
# ("terminate called without an active exception"), which says nothing of the mathematics under test.
PROGRAM = """
import importlib.util, os, sys, time, torch
from pathlib import Path
import torch.distributed as dist
torch.set_num_threads(1)
file, folder, rank = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
sys.path.insert(0, sys.argv[4])
spec = importlib.util.spec_from_file_location("t", file)
t = importlib.util.module_from_spec(spec); spec.loader.exec_module(t)
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
torch.save(t.of_process(rank, 2), folder / f"{rank}.part")
(folder / f"{rank}.part").rename(folder / f"{rank}.pt")
for _ in range(600):
    if (folder / f"{1 - rank}.pt").exists():
        os._exit(0)
    time.sleep(0.1)
os._exit(3)
"""


def run_pair(file: str, folder: Path) -> list:
    """What `of_process(rank, 2)` of a test file returned in each of two processes; raises AssertionError with both stderr texts if one fails."""
    workers = [subprocess.Popen([sys.executable, "-c", PROGRAM, file, str(folder), str(rank), str(Path(__file__).parent)], stderr=subprocess.PIPE, text=True) for rank in range(2)]
    errors = [worker.communicate(timeout=120)[1] for worker in workers]
    assert all(worker.returncode == 0 for worker in workers), errors
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]
