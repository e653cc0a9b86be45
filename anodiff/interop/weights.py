"""Published weights in our networks, and our networks in a published layout.

| function | reads or writes |
|---|---|
| `diffusers(folder)` | a `UNet2DModel` or the `unet/` of a pipeline |
| `guided_diffusion(path)` | a U-Net, upsampler or noisy classifier of guided-diffusion |
| `to_guided_diffusion(net)` | the state dict that guided-diffusion reads |

Nothing is downloaded, and neither of the two programs is needed.
"""

from __future__ import annotations

from anodiff.interop.foreign import Foreign
from anodiff.interop.from_diffusers import diffusers
from anodiff.interop.from_guided import guided_diffusion
from anodiff.interop.published import PUBLISHED
from anodiff.interop.to_guided import to_guided_diffusion

__all__ = ["PUBLISHED", "Foreign", "diffusers", "guided_diffusion", "to_guided_diffusion"]
