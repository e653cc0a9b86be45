"""Where the work is done: a processor or an accelerator, by its name."""

from __future__ import annotations

import torch

from anodiff.errors import DeviceError


def device_of(name: str) -> torch.device:
    """The device called `name`, such as "cpu", "cuda:1" or "mps"; "auto" takes an accelerator where there is one.

    Raises:
        DeviceError: it is not there.
    """
    if name == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(f"The device {name!r} is not there: {error}. Use --device cpu or auto.") from error
    return device
