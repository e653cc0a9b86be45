"""What is learnt from normals and kept beside the weights."""

from __future__ import annotations

import torch
from torch import Tensor

from anodiff.errors import ConfigError
from anodiff.learnt import Learnt


class Statistic(Learnt):
    """A module with statistics of normal pictures; each starts empty and is float32 once learnt."""

    def expect(self, *names: str) -> None:
        """Declare the statistics, empty until learnt or loaded."""
        for name in names:
            self.register_buffer(name, torch.zeros(0))

    def store(self, name: str, value: Tensor) -> None:
        """Set statistic `name` to `value`, on the device it lived on."""
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
