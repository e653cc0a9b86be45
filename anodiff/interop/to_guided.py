"""Our networks in the layout of guided-diffusion."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anodiff.errors import RefusalError
from anodiff.interop.dialect import Order, Place, Skeleton, mixed_qkv, places
from anodiff.interop.guided_layout import ATTENTION, BLOCK, TIME, prefix
from anodiff.nets.attention import AttentionBlock
from anodiff.nets.blocks import Downsample, ResBlock
from anodiff.nets.classifier import Classifier
from anodiff.nets.norm import AdaGN
from anodiff.nets.pool import AdaptivePool, AttentionPool
from anodiff.nets.transformer import SpatialTransformer
from anodiff.nets.unet import UNet


def to_guided_diffusion(net: UNet | Classifier, *, order: Order = "legacy") -> dict[str, Tensor]:
    """The state dict of guided-diffusion that computes what `net` does, sharing no memory with it.

    The null label and the null image have no place there and are left out.

    Args:
        net: a U-Net or a classifier with what guided-diffusion has: attention in the middle, 32 groups, no patch, no
            tokens, no rescaling.
        order: of the rows of query, key and value; "new" is its `use_new_attention_order`.

    Raises:
        RefusalError: the network has a part that guided-diffusion lacks.
    """
    skeleton = _skeleton(net)
    modules = dict(net.named_modules())
    found: dict[str, Tensor] = {}
    for place in places(skeleton):
        module = modules[place.ours]
        found |= {
            f"{prefix(place, skeleton)}.{name}": tensor.detach().clone()
            for name, tensor in _of(place, module, order).items()
        }
    if isinstance(net, Classifier):
        found |= {f"out.{name}": tensor.detach().clone() for name, tensor in _pool(net.pool).items()}
    return found


def _of(place: Place, module: nn.Module, order: Order) -> dict[str, Tensor]:
    """The tensors of a place under their names, the prefix left out."""
    match module:
        case ResBlock():
            return _block(module)
        case AttentionBlock():
            return _attention(module, order)
        case nn.Embedding():
            return {"weight": module.weight[:-1]}  # the null label has no row there
        case nn.Sequential():  # of the time
            return _named(module[0], TIME[0]) | _named(module[2], TIME[1])
        case _:
            return dict(module.named_parameters())


def _block(block: ResBlock) -> dict[str, Tensor]:
    found = _named(block.norm, BLOCK["norm"])
    found |= _named(block.conv, BLOCK["conv"]) | _named(block.last, BLOCK["last"])
    found |= _named(block.skip, BLOCK["skip"])  # nothing, where it is the identity
    if isinstance(block.adapt, AdaGN):
        channels = block.conv.out_channels
        like = block.adapt.affine.weight
        found |= _named(block.adapt.affine, BLOCK["embed"])
        found[f"{BLOCK['second']}.weight"] = like.new_ones(channels)
        found[f"{BLOCK['second']}.bias"] = like.new_zeros(channels)
    else:
        found |= _named(block.adapt.shift, BLOCK["embed"]) | _named(block.adapt.norm, BLOCK["second"])
    return found


def _attention(block: AttentionBlock, order: Order) -> dict[str, Tensor]:
    layer = block.attend
    found = _named(block.norm, ATTENTION["norm"]) | _named(layer.out, ATTENTION["out"])
    found[f"{ATTENTION['out']}.weight"] = layer.out.weight[..., None]  # [C, C, 1]
    for kind in ("weight", "bias"):
        query = getattr(layer.query, kind)
        key, value = getattr(layer.key_value, kind).chunk(2)
        rows = mixed_qkv(query, key, value, heads=layer.heads, order=order)
        found[f"qkv.{kind}"] = rows[..., None] if kind == "weight" else rows
    return found


def _pool(pool: nn.Module) -> dict[str, Tensor]:
    if isinstance(pool, AttentionPool):
        layer = pool.attend
        found = _named(pool.norm, "0") | _named(layer.out, "2.c_proj")
        found["2.c_proj.weight"] = layer.out.weight[..., None]
        found["2.positional_embedding"] = pool.position[0].T.contiguous()  # [C, 1 + n]
        found["2.qkv_proj.weight"] = torch.cat([layer.query.weight, layer.key_value.weight])[..., None]
        found["2.qkv_proj.bias"] = torch.cat([layer.query.bias, layer.key_value.bias])
        return found
    if isinstance(pool, AdaptivePool):
        return _named(pool.norm, "0") | _named(pool.out, "3") | {"3.weight": pool.out.weight[..., None, None]}
    assert isinstance(pool.mlp, nn.Sequential)  # a SpatialPool
    return _named(pool.mlp[0], "0") | _named(pool.mlp[2], "2")


def _named(module: nn.Module, name: str) -> dict[str, Tensor]:
    return {f"{name}.{kind}": tensor for kind, tensor in module.named_parameters()}


def _skeleton(net: UNet | Classifier) -> Skeleton:
    """What stands where in `net`, or a refusal of what the other program lacks."""
    encoder = net.encoder
    blocks, levels = encoder.blocks, encoder.levels
    block, middle = encoder.mid_out, encoder.mid_in
    strided = [module for module in encoder.shrink if isinstance(module, Downsample)]
    lacks = (
        (net.patch != 1, f"patch={net.patch}"),
        (isinstance(net, UNet) and net.token_channels > 0, "tokens"),
        (any(isinstance(m, SpatialTransformer) for m in net.modules()), "a spatial transformer"),
        (block.rescale, "rescale=True"),
        (middle.attention is None, "no attention in the middle"),
        (net.time.shift != 0, f"frequency_shift={net.time.shift}"),
        (block.norm.eps != 1e-5, f"eps={block.norm.eps}"),
        (any(m.conv.padding == (0, 0) for m in strided), "pad='after'"),
        (
            any(m.num_groups != 32 for m in net.modules() if isinstance(m, nn.GroupNorm)),
            "groups other than 32",
        ),
        (
            any(m.groups != 32 for m in net.modules() if isinstance(m, AdaGN)),
            "groups other than 32",
        ),
        (
            isinstance(net, Classifier) and levels - 1 not in _levels(net),
            "no attention on the last level",
        ),
    )
    for lacking, what in lacks:
        if lacking:
            raise RefusalError(f"guided-diffusion has no network with {what}")
    return Skeleton(
        levels=levels,
        blocks=blocks,
        attention=_levels(net),
        residual=not strided,
        modulation="adagn" if isinstance(block.adapt, AdaGN) else "add",
        labels=isinstance(net, UNet) and net.label is not None,
        decoder=isinstance(net, UNet),
    )


def _levels(net: UNet | Classifier) -> frozenset[int]:
    encoder = net.encoder
    firsts = [encoder.down[i * encoder.blocks] for i in range(encoder.levels)]
    return frozenset(i for i, stage in enumerate(firsts) if isinstance(stage.attention, AttentionBlock))
