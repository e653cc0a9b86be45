"""What the training tests share."""

from __future__ import annotations

import pytest
import torch
from small_run import run


def undisturbed(tmp_path_factory, **options):
    folder = tmp_path_factory.mktemp("whole")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    run(folder, **options)
    torch.set_num_threads(before)
    return folder


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A run that nobody interrupted."""
    return undisturbed(tmp_path_factory)


@pytest.fixture(scope="session")
def whole_adaptive(tmp_path_factory):
    """One whose levels follow its losses."""
    return undisturbed(tmp_path_factory, adaptive=True)


@pytest.fixture(autouse=True)
def one_thread():
    """The order of sums, and so the last bits, follow the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
