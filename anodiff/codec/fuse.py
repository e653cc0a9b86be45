"""The same backbone, faster: batch norm and activation inside the convolutions, nothing run that nobody reads."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, fx, nn
from torch.fx.proxy import TraceError
from torch.nn.utils.fusion import fuse_conv_bn_eval

from anodiff.codec.backbone import Backbone

ONEDNN = {nn.Identity: ("none", []), nn.ReLU: ("relu", []), nn.ReLU6: ("hardtanh", [0.0, 6.0])}
"""How oneDNN calls the activations it can apply to a convolution's result before that leaves the cache."""


class FusedConv(nn.Module):
    """A convolution with its activation; on a CPU in one oneDNN call, elsewhere and under autograd as two."""

    def __init__(self, conv: nn.Conv2d, act: nn.Module) -> None:
        """Take over the weights of `conv`, whose bias is set, and `act`, a key of `ONEDNN`."""
        super().__init__()
        self.weight = nn.Parameter(conv.weight.detach().contiguous(), False)
        bias = conv.bias if conv.bias is not None else conv.weight.new_zeros(conv.weight.shape[0])
        self.bias = nn.Parameter(bias.detach(), False)
        self.act = act
        self.stride = [int(v) for v in conv.stride]
        self.dilation = [int(v) for v in conv.dilation]
        self.groups = conv.groups
        self.same = isinstance(conv, Conv2dSame)
        self.padding = [0, 0] if self.same else [int(v) for v in conv.padding]
        self.extends = self.same and self.stride == [2, 2] and self.dilation == [1, 1]

    def forward(self, x: Tensor) -> Tensor:
        """`act(conv(x))`."""
        x, weight, padding = self._padded(x)
        if _has_onednn(x):
            name, scalars = ONEDNN[type(self.act)]
            return torch.ops.mkldnn._convolution_pointwise(
                x, weight, self.bias, padding, self.stride, self.dilation, self.groups, name, scalars, ""
            )
        y = F.conv2d(x, weight, self.bias, self.stride, padding, self.dilation, self.groups)
        return self.act(y)

    def _padded(self, x: Tensor) -> tuple[Tensor, Tensor, list[int]]:
        """The input, weight and symmetric padding that together are TensorFlow's "same" padding.

        At stride 2 an even side is to be padded by one more pixel behind than before. Copying the input into a
        larger one costs a fifth of the network's time; a kernel with one row and column of zeros before it, padded
        symmetrically, reads the same pixels.
        """
        if not self.same:
            return x, self.weight, self.padding
        size = self.weight.shape[-1]
        odd = (x.shape[-2] % 2, x.shape[-1] % 2)
        if self.extends and size == self.weight.shape[-2] and size % 2 and odd[0] == odd[1]:
            weight = self.weight if odd[0] else F.pad(self.weight, (1, 0, 1, 0))
            return x, weight, [size // 2, size // 2]
        return (
            pad_same(x, list(self.weight.shape[-2:]), self.stride, self.dilation),
            self.weight,
            self.padding,
        )


def _has_onednn(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not (torch.is_grad_enabled() and x.requires_grad)
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    )


class _Tracer(fx.Tracer):
    """Looks into everything but convolutions and normalisations, which are what is to be replaced."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv2d | nn.BatchNorm2d) or super().is_leaf_module(m, module_qualified_name)


def fused(source: Backbone) -> Backbone:
    """A copy of `source` with the same outputs (within 1e-5) in about half the time on a CPU.

    Each convolution whose result goes to one batch norm only takes it in, with the activation where oneDNN has it;
    what lies beyond the last wanted stage goes. A network that cannot be traced comes back as it is.
    """
    net = copy.deepcopy(source.net)
    try:
        graph = _Tracer().trace(net)
    except (TraceError, TypeError, RuntimeError, AttributeError):
        return source
    module = fx.GraphModule(net, graph)
    graph = module.graph
    graph.eliminate_dead_code()
    modules: dict[Any, Any] = dict(module.named_modules())  # a node's target is its module's path
    for node in list(graph.nodes):
        conv = modules.get(node.target) if node.op == "call_module" else None
        if not isinstance(conv, nn.Conv2d) or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            continue
        follower = _only_follower(node, modules)
        if follower is None or not isinstance(modules[follower.target], nn.BatchNorm2d):
            continue
        norm: Any = modules[follower.target]
        act = getattr(norm, "act", nn.Identity())  # timm's norms carry their activation
        folded = fuse_conv_bn_eval(conv, norm)
        inside = type(act) in ONEDNN
        _put(module, modules, str(node.target), FusedConv(folded, act if inside else nn.Identity()))
        if inside:
            follower.replace_all_uses_with(node)
            graph.erase_node(follower)
        else:
            _put(module, modules, str(follower.target), act)
    module.delete_all_unused_submodules()
    module.recompile()
    return Backbone(
        module,
        channels=source.channels,
        strides=source.strides,
        mean=source.mean.flatten().tolist(),
        std=source.std.flatten().tolist(),
    )


def _only_follower(node: fx.Node, modules: dict[Any, Any]) -> fx.Node | None:
    """The one module node that reads `node`, if nothing else does and both modules are called once only."""
    users = list(node.users)
    if len(users) != 1 or users[0].op != "call_module" or users[0].target not in modules:
        return None
    calls = [n.target for n in node.graph.nodes if n.op == "call_module"]
    return users[0] if calls.count(node.target) == 1 == calls.count(users[0].target) else None


def _put(net: nn.Module, modules: dict[Any, Any], path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(modules[parent] if parent else net, name, module)
    modules[path] = module
