"""Light: what is the same part under another lamp becomes the same picture, and nothing else does."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch

from anodiff import compose
from anodiff.codec.backbone import backbone
from anodiff.codec.feature import FeatureCodec
from anodiff.codec.light import DIM, Light
from anodiff.config import load
from anodiff.detect.heatmap import blur
from anodiff.errors import ConfigError, DataError


def parts(count: int, *, seed: int = 0, own: float = 0.02) -> torch.Tensor:
    """Coloured pictures [count, 3, 40, 56] in [.3, .7] of one part, each with a texture of its own."""
    rng = torch.Generator().manual_seed(seed)
    part = torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(9))
    white = torch.rand(count, 3, 40, 56, generator=rng) - 0.5
    return (0.4 + 0.2 * part + own * blur(white, 2.0)).clamp(0.3, 0.7)


def lit(images: torch.Tensor, *, seed: int = 1, much: float = 1.0) -> torch.Tensor:
    """Each under a lamp to one side and a gain of its own, nothing clipped."""
    rng = torch.Generator().manual_seed(seed)
    gain, offset, side, up = torch.rand(4, len(images), 1, 1, 1, generator=rng)
    across, down = torch.linspace(-1, 1, 56), torch.linspace(-1, 1, 40)[:, None]
    return images * (1 - 0.5 * much * gain) + much * (
        0.2 * offset + 0.05 * (side - 0.5) * across + 0.05 * (up - 0.5) * down
    )


def learnt(images: torch.Tensor, mode: Literal["equal", "auto"] = "auto") -> tuple[Light, bool]:
    light = Light(mode)
    return light, light.learn(images.split(5)).equal


def test_lamp_and_gain_leave_no_trace() -> None:
    images = parts(12)
    light, equal = learnt(lit(images))
    assert equal
    torch.testing.assert_close(light(lit(images, seed=2)), light(lit(images, seed=3)), atol=1e-5, rtol=0)
    usual, out = (light_of(images) for images in (lit(images), light(lit(images))))
    torch.testing.assert_close(out, usual.mean(0).expand(12, 4), atol=1e-4, rtol=0)


def light_of(images: torch.Tensor) -> torch.Tensor:
    """Mean, deviation and both slopes over it of each picture [n, 4], by a least-squares fit of numpy's."""
    across, down = np.meshgrid(np.linspace(-1, 1, 56), np.linspace(-1, 1, 40))
    axes = np.stack([np.ones(40 * 56), across.ravel(), down.ravel()], axis=1)
    found = []
    for image in images.double().numpy():
        of, *_ = np.linalg.lstsq(axes, image.mean(0).ravel(), rcond=None)
        deviation = np.sqrt(((image - (axes @ of).reshape(40, 56)) ** 2).mean())
        found.append([of[0], deviation, of[1] / deviation, of[2] / deviation])
    return torch.tensor(found, dtype=torch.float32)


def test_hues_and_defects_stay() -> None:
    images = parts(12)
    light, _ = learnt(lit(images))
    red = images[:1] * torch.tensor([1.2, 0.9, 0.9])[:, None, None]
    spot = images[:1].clone()
    spot[..., 10:14, 10:14] = 0.0
    plain = light(images[:1])
    assert (light(red)[:, 0] - plain[:, 0]).mean() > 0.03
    assert (light(red)[:, 1] - plain[:, 1]).mean() < -0.01
    away = torch.ones(40, 56, dtype=torch.bool)
    away[10:14, 10:14] = False
    assert (light(spot) - plain)[..., 10:14, 10:14].max() < -0.2
    assert (light(spot) - plain)[..., away].abs().max() < 0.05


def test_auto_leaves_light_that_hardly_varies() -> None:
    rough = parts(12, own=1.0)
    for images, wanted in ((rough, False), (lit(rough, much=0.05), False), (lit(rough), True)):
        light, equal = learnt(images)
        assert equal is wanted
        assert torch.equal(light(images), images) is not wanted
    assert learnt(rough, "equal")[1]
    assert not learnt(parts(1))[1]
    assert "one picture tells nothing" in Light().learn([parts(1)]).sentence
    found = Light().learn([lit(parts(6))])
    assert found.after < 0.1 * found.before
    assert f"{found.before:.4f} as they are" in found.sentence


def test_a_picture_of_one_grey_is_no_trouble() -> None:
    light, _ = learnt(lit(parts(6)), "equal")
    grey = torch.full((1, 3, 40, 56), 0.37)
    grey[..., 0, 0] += 1e-4
    out = light(grey)
    assert out.isfinite().all()
    assert out.std() < 1e-4 / DIM
    assert light(grey[:, :1]).shape == (1, 1, 40, 56)


def test_a_picture_does_not_depend_on_its_neighbours() -> None:
    light, _ = learnt(lit(parts(6)))
    images = lit(parts(4, seed=5))
    torch.testing.assert_close(light(images), torch.cat([light(row) for row in images.split(1)]))


def test_what_was_learnt_travels_in_the_state() -> None:
    light, _ = learnt(lit(parts(6)))
    other = Light()
    with pytest.raises(ConfigError, match="learnt nothing"):
        other(parts(1))
    other.load_state_dict(light.state_dict())
    assert torch.equal(other(parts(2)), light(parts(2)))
    with pytest.raises(DataError, match="at least one good picture"):
        other.learn([])


def test_the_codec_sees_the_same_part_under_every_lamp() -> None:
    images = parts(8)
    net = backbone("tf_efficientnet_lite0", (1, 2), weights="random")
    codes = {}
    for name, light in (("equal", Light()), ("keep", None)):
        codec = FeatureCodec(net, whitening="stage", light=light)
        if light is not None:
            light.learn([lit(images)])
        codec.learn([lit(images)])
        one, two = (codec.encode(lit(images, seed=seed)) for seed in (2, 3))
        codes[name] = float((one - two).abs().mean())
    assert codes["equal"] < 0.02 * codes["keep"]


def test_who_has_a_light() -> None:
    def light(*words: str) -> Light | None:
        codec = compose.codec(load(preset="tiny", overrides=[*words, "codec.weights=random"]))
        assert isinstance(codec, FeatureCodec)
        return codec.light

    assert light() is None
    assert isinstance(light("codec.light=auto"), Light)
    labels = "labels={kind: cluster, count: 2}"  # some kinds may be darker than others
    assert light("codec.light=auto", labels) is None
    assert isinstance(light("codec.light=equal", labels), Light)
