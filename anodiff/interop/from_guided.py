"""Networks of guided-diffusion as ours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anodiff.errors import ConfigError, ModelFileError
from anodiff.interop.dialect import Projections, sorted_qkv, translated
from anodiff.interop.foreign import Foreign
from anodiff.interop.guided_flags import Unsaid, unsaid
from anodiff.interop.guided_layout import Sizes, dialect, sizes
from anodiff.interop.tensors import Source, assembled, filled, read
from anodiff.nets.attention import heads_for
from anodiff.nets.classifier import Classifier
from anodiff.nets.pool import Pooling


def guided_diffusion(path: str | Path, *, config: str | Mapping[str, Any] | None = None) -> Foreign:
    """A network of guided-diffusion as ours: U-Net, upsampler or noisy classifier, told apart by its tensors.

    Sizes come from the tensors. Heads, the order of query, key and value and the schedule do not: they are known for
    every published file, and found by its sizes.

    Args:
        path: a state dict, `.pt` (no code in it is run) or safetensors.
        config: the name of a published file, or the flags that the network was trained with, as its scripts spell
            them; None: the published file whose sizes the tensors have.

    Raises:
        ModelFileError: no such file, a damaged one, or one of another network.
        ConfigError: what the file leaves open is not known, or our networks lack what it needs.
    """
    return guided(read(path), config=config, what=str(path))


def guided(
    tensors: Mapping[str, Tensor],
    *,
    config: str | Mapping[str, Any] | None = None,
    what: str = "the state dict",
) -> Foreign:
    """As `guided_diffusion`, of tensors in memory; on the meta device, only names and shapes are read."""
    if not {"time_embed.0.weight", "input_blocks.0.0.weight"} <= set(tensors):
        raise ModelFileError(
            f"{what} is no network of guided-diffusion: it lacks time_embed.0 and input_blocks.0.0; "
            "a diffusers folder is read by `diffusers(folder)`"
        )
    source = Source(tensors, what=what)
    found = sizes(source)
    open_ = unsaid(found, config)
    return _classifier(source, found, open_) if found.kind == "classifier" else _unet(source, found, open_)


def _unet(source: Source, found: Sizes, rest: Unsaid) -> Foreign:
    own, learned = _channels(found, rest.learned_variance)
    arguments = {
        "in_channels": own,
        "out_channels": found.outputs,
        **_shared(found, rest),
        "classes": found.classes,
        "cond_channels": found.inputs - own,
        "modulation": found.skeleton.modulation,
        "mid_attention": True,
    }
    state = _trunk(source, found, rest)
    source.finish()
    net = assembled(arguments, state, what=source.what)
    return Foreign(
        net=net,
        arguments=arguments,
        kind="upsampler" if found.inputs > own else "unet",
        table=rest.table(),
        prediction="x0" if rest.x0 else "eps",
        learned_variance=learned,
        names=rest.names,
    )


def _channels(found: Sizes, learned: bool | None) -> tuple[int, bool]:
    """The picture's own channels, and whether the variance was learned; `learned` is what flags say of it.

    An upsampler reads twice its channels; who learned a variance writes twice as many. As many in as out is either
    both or neither: both with 2 or 6, since pictures have 1 or 3.
    """
    i, o = found.inputs, found.outputs
    if o == 2 * i:
        own, seen = i, True
    elif i == 2 * o:
        own, seen = o, False
    elif i == o:
        seen = i in (2, 6) if learned is None else learned
        own = i // 2 if seen else i
    else:
        raise ConfigError(f"a network of guided-diffusion does not have {i} channels in and {o} out")
    if learned not in (None, seen) or (i == o and seen and i % 2):
        raise ConfigError(
            f"config says learn_sigma={learned}, but the network has {i} channels in and {o} out"
        )
    return own, seen


def _classifier(source: Source, found: Sizes, rest: Unsaid) -> Foreign:
    s = found.skeleton
    if s.modulation != "adagn":
        raise ConfigError(
            "classifier_use_scale_shift_norm=False: our classifiers scale and shift their norms"
        )
    if s.levels - 1 not in s.attention:
        raise ConfigError(
            "classifier_attention_resolutions leaves the last level out; our classifiers have attention in the middle "
            "only where the last level has"
        )
    pool, pooled, classes, side = _pool(source)
    size = rest.size if side is None else side << (s.levels - 1)
    size = size or 8 << (s.levels - 1)  # a pooling without positions reads any
    arguments = {
        "in_channels": found.inputs,
        "classes": classes,
        **_shared(found, rest),
        "pool": pool,
        "size": (size, size),
    }
    state = _trunk(source, found, rest) | pooled
    source.finish()
    with torch.device("meta"):
        net = Classifier(**arguments)
    filled(net, state, what=source.what)
    return Foreign(
        net=net.eval(), arguments=arguments, kind="classifier", table=rest.table(), names=rest.names
    )


def _shared(found: Sizes, rest: Unsaid) -> dict[str, Any]:
    s = found.skeleton
    return {
        "width": found.width,
        "multipliers": found.multipliers,
        "blocks": s.blocks,
        "attention": tuple(sorted(s.attention)),
        "heads": rest.heads,
        "head_channels": rest.head_channels,
        "dropout": rest.dropout,
        "resample": "residual" if s.residual else "conv",
    }


def _trunk(source: Source, found: Sizes, rest: Unsaid) -> dict[str, Tensor]:
    """The layers that U-Net and classifier share, and the way up."""

    def attending(source: Source, prefix: str) -> Projections:
        weight = source[f"{prefix}.qkv.weight"].flatten(1)  # [3C, C], a convolution of width 1 there
        bias = source[f"{prefix}.qkv.bias"]
        channels = weight.shape[1]
        heads = heads_for(channels, heads=rest.heads, head_channels=rest.head_channels)
        if channels % heads or (rest.heads is None and channels % rest.head_channels):
            raise ConfigError(
                f"the {channels} channels at {prefix} do not divide into heads "
                f"(num_heads={rest.heads}, num_head_channels={rest.head_channels}); give the network's own in config"
            )
        w = sorted_qkv(weight, heads=heads, order=rest.order)
        b = sorted_qkv(bias, heads=heads, order=rest.order)
        return Projections(*zip(w, b, strict=True))

    return translated(source, found.skeleton, dialect(found.skeleton, attending))


def _pool(source: Source) -> tuple[Pooling, dict[str, Tensor], int, int | None]:
    """Kind of the pooling, its tensors as ours, classes, and the side of the map it knows the positions of."""

    def pairs(names: Mapping[str, str]) -> dict[str, Tensor]:
        return {
            f"pool.{ours}.{kind}": source[f"out.{theirs}.{kind}"]
            for ours, theirs in names.items()
            for kind in ("weight", "bias")
        }

    if "out.2.positional_embedding" in source:
        position = source["out.2.positional_embedding"]  # [C, 1 + n]
        side = math.isqrt(position.shape[1] - 1)
        found = pairs({"norm": "0", "attend.out": "2.c_proj"})
        found["pool.attend.out.weight"] = found["pool.attend.out.weight"].flatten(1)
        found["pool.position"] = position.T[None].contiguous()  # [1, 1 + n, C]
        for kind in ("weight", "bias"):
            rows = source[f"out.2.qkv_proj.{kind}"]  # all queries, all keys, all values; one head or more
            rows = rows.flatten(1) if rows.ndim > 1 else rows
            channels = rows.shape[0] // 3
            found[f"pool.attend.query.{kind}"] = rows[:channels].contiguous()
            found[f"pool.attend.key_value.{kind}"] = rows[channels:].contiguous()
        return "attention", found, len(found["pool.attend.out.bias"]), side
    if "out.3.weight" in source and len(source.shape("out.3.weight")) == 4:
        found = pairs({"norm": "0", "out": "3"})
        found["pool.out.weight"] = found["pool.out.weight"].flatten(1)
        return "adaptive", found, len(found["pool.out.bias"]), None
    if "out.2.weight" in source and len(source.shape("out.0.weight")) == 2:
        found = pairs({"mlp.0": "0", "mlp.2": "2"})
        return "spatial", found, len(found["pool.mlp.2.bias"]), None
    raise ConfigError(
        "classifier_pool: our classifiers pool by attention, adaptive or spatial, and this by another"
    )
