"""What every test begins with: torch's own number of threads. A worker of a job sets its own in the process it runs in, and sums over other threads differ in their last bits."""

import pytest
import torch

THREADS = torch.get_num_threads()


@pytest.fixture(autouse=True)
def same_threads_for_every_test():
    torch.set_num_threads(THREADS)
