"""Statistics learnt from pictures, kept as buffers whose size is known only after learning."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Learnt(nn.Module):
    """A module whose buffers take the size of what is learnt or loaded, so that one `state_dict` carries all."""

    def learn(self, name: str, value: Tensor) -> None:
        """Set buffer `name` to `value` (detached, contiguous)."""
        self.register_buffer(name, value.detach().contiguous())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name, buffer in list(self.named_buffers(recurse=False)):
            value = state_dict.get(prefix + name)
            if value is not None and value.shape != buffer.shape:
                self.register_buffer(name, value.new_empty(value.shape).to(buffer.device))
        super()._load_from_state_dict(state_dict, prefix, *args)
