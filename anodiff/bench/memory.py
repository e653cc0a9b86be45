"""The most memory a process held during a stretch of its work."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


class Peak:
    """The peak from its making until `mb` is asked for, of the whole process with its libraries.

    Linux forgets the highest resident size on request; elsewhere the peak is that of the process so far. On a CUDA
    device `device_mb` is the peak of torch's allocations there.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.init()  # the counter is not there before
            torch.cuda.reset_peak_memory_stats(device)
        with suppress(OSError):  # another system, or not allowed: the peak so far stands
            _RESET.write_text("5")

    def mb(self) -> float:
        """Resident memory at its highest, in 10^6 bytes."""
        if _STATUS.is_file() and (found := re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())):
            return int(found[1]) * 1024 / 1e6
        import resource

        highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return highest / 1e6 if sys.platform == "darwin" else highest * 1024 / 1e6

    def device_mb(self) -> float | None:
        """Memory of the accelerator at its highest, in 10^6 bytes; None on a CPU."""
        return torch.cuda.max_memory_allocated(self.device) / 1e6 if self.device.type == "cuda" else None
