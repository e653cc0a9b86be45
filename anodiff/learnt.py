"""What is learnt from pictures and kept beside the weights, as buffers whose size is known only after learning."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from anodiff.errors import ConfigError


class Learnt(nn.Module):
    """A module with statistics of pictures; each starts empty and is float32 once learnt.

    Its buffers take the size of what is learnt or loaded, so that one `state_dict` carries all.
    """

    def expect(self, *names: str) -> None:
        """Declare the statistics, empty until learnt or loaded."""
        for name in names:
            self.register_buffer(name, torch.zeros(0))

    def store(self, name: str, value: Tensor) -> None:
        """Set statistic `name` to `value` (detached, contiguous, float32), on the device it lived on."""
        device = self.get_buffer(name).device
        self.register_buffer(name, value.detach().to(device, torch.float32).contiguous())

    def learnt(self, name: str) -> Tensor:
        """The statistic `name`; ConfigError while it is empty."""
        value = self.get_buffer(name)
        if not value.numel():
            raise ConfigError(
                f"{type(self).__name__} has learnt nothing yet: teach it with good pictures, or load a model."
            )
        return value

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name, buffer in list(self.named_buffers(recurse=False)):
            value = state_dict.get(prefix + name)
            if value is not None and value.shape != buffer.shape:
                self.register_buffer(name, value.new_empty(value.shape).to(buffer.device))
        super()._load_from_state_dict(state_dict, prefix, *args)
