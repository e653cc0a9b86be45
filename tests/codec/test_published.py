"""A folder of diffusers' AutoencoderKL computes in our network what it computes in theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from anodiff.codec.published import read_autoencoder
from anodiff.errors import ConfigError, ModelFileError
from anodiff.nets.autoencoder import Autoencoder

FILE = "diffusion_pytorch_model.safetensors"


def levels(*widths: int) -> dict[str, Any]:
    return {
        "block_out_channels": widths,
        "down_block_types": ("DownEncoderBlock2D",) * len(widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(widths),
    }


SD: dict[str, Any] = {
    **levels(8, 16, 32, 32),
    "layers_per_block": 2,
    "norm_num_groups": 8,
    "latent_channels": 4,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "stable diffusion 1 and 2": SD,
    "sdxl": {**SD, "scaling_factor": 0.13025, "force_upcast": False},
    "stable diffusion 3 and flux": {
        **SD,
        "latent_channels": 16,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
    },
    "no attention": {**SD, "mid_block_add_attention": False},
    "a stride of four, one block, grey": {
        **levels(12, 20, 12),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "in_channels": 1,
        "out_channels": 1,
        "latent_channels": 3,
    },
    "one level": {**levels(8), "norm_num_groups": 2},
}


def theirs(folder: Path, **config: Any) -> AutoencoderKL:
    """A network of diffusers with weights all of which matter, saved into `folder`."""
    torch.manual_seed(0)
    net = AutoencoderKL(**config).eval()
    with torch.no_grad():
        for weight in net.parameters():
            weight += 0.05 * torch.randn_like(weight)
    net.save_pretrained(folder, safe_serialization=True)
    return net


def ours(folder: Path) -> Autoencoder:
    found = read_autoencoder(folder)
    torch.manual_seed(1)
    net = Autoencoder(**found.options).eval()
    net.load_state_dict(dict(found.state), strict=True)
    return net


@torch.no_grad()
def assert_same(a: AutoencoderKL, b: Autoencoder) -> None:
    x = 2 * torch.rand(2, b.image_channels, 32, 48, generator=torch.Generator().manual_seed(2)) - 1
    found = a.encode(x).latent_dist
    z = b.encode(x)
    torch.testing.assert_close(z, found.mean, atol=1e-5, rtol=0)
    z = torch.randn(z.shape, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(b.decode(z), a.decode(z).sample, atol=1e-5, rtol=1e-5)
    code = b.code(x, torch.zeros_like)
    torch.testing.assert_close(code.penalty, found.kl(), rtol=1e-4, atol=0)
    draw = b.code(x, torch.ones_like).z
    torch.testing.assert_close(draw, found.mean + found.std, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_encoding_decoding_and_divergence_are_theirs(tmp_path, family):
    config = FAMILIES[family]
    a = theirs(tmp_path, **config)
    b = ours(tmp_path)
    assert b.stride == 2 ** (len(config["block_out_channels"]) - 1)
    assert_same(a, b)
    found = read_autoencoder(tmp_path)
    assert found.scale == config.get("scaling_factor", 0.18215)
    assert found.shift == config.get("shift_factor", 0.0)


@pytest.mark.parametrize("square", [False, True])
def test_old_names_and_shapes_of_attention_are_read(tmp_path, square):
    net = theirs(tmp_path, **SD)
    tensors = load_file(tmp_path / FILE)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for name in [name for name in tensors if ".attentions." in name and "group_norm" not in name]:
        tensor = tensors.pop(name)
        for new, was in old.items():
            name = name.replace(f".{new}.", f".{was}.")
        tensors[name] = tensor[:, :, None, None] if square and tensor.ndim == 2 else tensor
    save_file(tensors, tmp_path / FILE)
    assert_same(net, ours(tmp_path))


def test_the_folder_of_a_pipeline_and_half_precision_are_read(tmp_path):
    net = theirs(tmp_path / "vae", **SD).half()
    net.save_pretrained(tmp_path / "vae", variant="fp16")
    (tmp_path / "vae" / FILE).unlink()
    found = read_autoencoder(tmp_path)
    assert {tensor.dtype for tensor in found.state.values()} == {torch.float32}
    assert_same(net.float(), ours(tmp_path))


def test_a_configuration_that_leaves_defaults_out_is_read(tmp_path):
    net = theirs(tmp_path, norm_num_groups=32)  # one level of 64 channels
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({"_class_name": "AutoencoderKL", "sample_size": config["sample_size"]}))
    assert_same(net, ours(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "VQModel"}, "_class_name: expected an AutoencoderKL"),
        (
            {"down_block_types": ["DownEncoderBlock2D"] * 3 + ["AttnDownEncoderBlock2D"]},
            "AttnDownEncoderBlock2D",
        ),
        ({"up_block_types": ["UpDecoderBlock2D"]}, "up_block_types: 1 levels"),
        ({"act_fn": "relu"}, "act_fn: 'relu' has no counterpart"),
        ({"out_channels": 4}, "out_channels: 4 for 3 in"),
        ({"norm_num_groups": 3}, "norm_num_groups: 3 does not divide"),
        ({"temporal": True}, "keys that no autoencoder known here has, temporal"),
    ],
)
def test_other_layouts_are_refused_by_the_key(tmp_path, change, message):
    theirs(tmp_path, **SD)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError, match=message):
        read_autoencoder(tmp_path)


def test_files_that_are_missing_damaged_or_of_another_network_are_refused(tmp_path):
    with pytest.raises(ModelFileError, match=r"its config\.json cannot be read"):
        read_autoencoder(tmp_path)
    theirs(tmp_path, **SD)
    whole = load_file(tmp_path / FILE)

    def saved(tensors: dict[str, torch.Tensor]) -> None:
        save_file(tensors, tmp_path / FILE)

    name = "decoder.up_blocks.1.resnets.0.conv1.weight"
    saved({key: value for key, value in whole.items() if key != name})
    with pytest.raises(ModelFileError, match=f"lacks the tensor {name}"):
        read_autoencoder(tmp_path)
    saved(whole | {"loss.logvar": torch.zeros(1)})
    with pytest.raises(ModelFileError, match=r"1 tensors that have no place .* loss.logvar"):
        read_autoencoder(tmp_path)
    saved(whole | {name: whole[name][:5].clone()})
    with pytest.raises(ModelFileError, match="do not belong together"):
        read_autoencoder(tmp_path)
    (tmp_path / FILE).write_bytes(b"no safetensors")
    with pytest.raises(ModelFileError, match="no file of safetensors"):
        read_autoencoder(tmp_path)
    (tmp_path / FILE).unlink()
    torch.save(whole, tmp_path / "diffusion_pytorch_model.bin")
    with pytest.raises(ModelFileError, match="safe_serialization=True"):
        read_autoencoder(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelFileError, match="not valid JSON"):
        read_autoencoder(tmp_path)
