"""A folder of diffusers' UNet2DModel computes in our network what it computes in theirs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel

from anodiff import config as configuration
from anodiff.cond import Cond
from anodiff.diffusion.denoiser import EpsDenoiser, VDenoiser, X0Denoiser
from anodiff.diffusion.schedule import sigmas_of, zero_terminal
from anodiff.errors import ConfigError, ModelFileError
from anodiff.interop.weights import Foreign, diffusers
from anodiff.nets.unet import UNet

BASE: dict[str, Any] = {
    "sample_size": 16,
    "block_out_channels": (16, 24),
    "norm_num_groups": 8,
    "layers_per_block": 1,
}
PLAIN = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
MIDDLE = {
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (16, 24, 24),
}
LAST = {
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}
ADM = {
    "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "resnet_time_scale_shift": "scale_shift",
    "attn_norm_num_groups": 8,
    "downsample_type": "resnet",
    "upsample_type": "resnet",
    "attention_head_dim": 8,
}
FAMILIES: dict[str, dict[str, Any]] = {
    # google/ddpm-*: one head on one level, frequencies shifted by one, zeros below and to the right alone
    "ddpm": {
        **MIDDLE,
        "layers_per_block": 2,
        "attention_head_dim": None,
        "freq_shift": 1,
        "flip_sin_to_cos": False,
        "norm_eps": 1e-6,
        "downsample_padding": 0,
        "mid_block_scale_factor": 1,
    },
    "heads of eight": LAST,
    "adm": {**ADM, "layers_per_block": 2},
    # openai's consistency models: ImageNet labels
    "adm with labels": {**ADM, "num_class_embeds": 5},
    "adm with a learned variance": {**ADM, "out_channels": 6},
    "labels": {**LAST, "num_class_embeds": 3},
    "centred": {**LAST, "center_input_sample": True},
    "no attention": {**PLAIN, "add_attention": False},
    "attention in the middle alone": PLAIN,
    "grey, old names of blocks": {
        "down_block_types": ("UNetResDownBlock2D", "UNetResAttnDownBlock2D"),
        "up_block_types": ("UNetResAttnUpBlock2D", "UNetResUpBlock2D"),
        "in_channels": 1,
        "out_channels": 1,
    },
    "odd widths": {**LAST, "block_out_channels": (24, 40), "dropout": 0.1},
    "one level": {
        "down_block_types": ("AttnDownBlock2D",),
        "up_block_types": ("AttnUpBlock2D",),
        "block_out_channels": (16,),
    },
    "scale and shift, convolutions": {
        **LAST,
        "resnet_time_scale_shift": "scale_shift",
        "attn_norm_num_groups": 8,
    },
}


def original(**options: Any) -> UNet2DModel:
    """Their network with every parameter drawn, those of norms too."""
    torch.manual_seed(0)
    net = UNet2DModel(**{**BASE, **options}).eval()
    for name, p in net.named_parameters():
        torch.nn.init.normal_(p, mean=1.0 if "norm" in name and name.endswith("weight") else 0.0, std=0.1)
    return net


def batch(net: UNet2DModel, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    torch.manual_seed(1)
    x = torch.randn(2, net.config["in_channels"], 16, 16, dtype=dtype)
    label = torch.tensor([2, 0]) if net.config["num_class_embeds"] else None
    return x, torch.tensor([3.0, 871.0]), label


def both(net: UNet2DModel, foreign: Foreign, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Their prediction and ours."""
    x, t, label = batch(net, dtype)
    inner = foreign.net
    with torch.no_grad():
        seen = 2 * x - 1 if foreign.centred else x
        return net(x, t, label).sample, inner(seen, t, Cond(label=label))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_the_output_is_the_original_s(family, dtype, bound, tmp_path):
    net = original(**FAMILIES[family]).to(dtype)
    net.save_pretrained(tmp_path)
    foreign = diffusers(tmp_path)
    assert {p.dtype for p in foreign.net.parameters()} == {dtype}
    theirs, ours = both(net, foreign, dtype)
    assert theirs.std() > 0.05  # it is no comparison of zeros
    torch.testing.assert_close(ours, theirs, atol=bound, rtol=0)
    # The arguments build the same network anew.
    again = UNet(**foreign.arguments)
    again.load_state_dict(foreign.net.state_dict())


def test_a_denoiser_of_a_pipeline_is_the_papers_line(tmp_path):
    net = original(**LAST)
    DDPMPipeline(
        net, DDPMScheduler(num_train_timesteps=200, beta_schedule="squaredcos_cap_v2")
    ).save_pretrained(tmp_path)
    foreign = diffusers(tmp_path)
    assert foreign.prediction == "eps"
    theirs = DDPMScheduler(num_train_timesteps=200, beta_schedule="squaredcos_cap_v2")
    assert foreign.table is not None
    torch.testing.assert_close(foreign.table, sigmas_of(theirs.betas), atol=0, rtol=1e-3)
    abar = 1 / (1 + foreign.table.square())
    torch.testing.assert_close(abar.float(), theirs.alphas_cumprod, atol=1e-6, rtol=0)
    # One step of both from the same x_t: the estimate of x0.
    x, k = torch.randn(2, 3, 16, 16), 120
    with torch.no_grad():
        want = theirs.step(
            net(x, k).sample, k, x, generator=torch.Generator().manual_seed(0)
        ).pred_original_sample
        y = x * abar[k].rsqrt().float()
        x0 = foreign.denoiser()(y, foreign.table[k])
    torch.testing.assert_close(x0.clamp(-1, 1), want, atol=1e-4, rtol=0)
    # the folder of the network alone finds the scheduler beside it, too
    assert torch.equal(diffusers(tmp_path / "unet").table, foreign.table)


@pytest.mark.parametrize(
    ("options", "made", "prediction"),
    [
        ({"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}, VDenoiser, "v"),
        ({"prediction_type": "sample"}, X0Denoiser, "x0"),
        ({"beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear"}, EpsDenoiser, "eps"),
        ({"trained_betas": [0.01, 0.02, 0.03]}, EpsDenoiser, "eps"),
    ],
)
def test_the_scheduler_tells_table_and_prediction(options, made, prediction, tmp_path):
    original(**PLAIN).save_pretrained(tmp_path)
    scheduler = DDIMScheduler(**options)
    scheduler.save_pretrained(tmp_path)
    foreign = diffusers(tmp_path)
    assert isinstance(foreign.denoiser(), made)
    assert foreign.prediction == prediction
    betas = DDIMScheduler(**{k: v for k, v in options.items() if k != "rescale_betas_zero_snr"}).betas
    want = sigmas_of(betas)
    want = zero_terminal(want) if "rescale_betas_zero_snr" in options else want
    torch.testing.assert_close(foreign.table, want, atol=0, rtol=1e-4)


def test_a_centred_network_is_centred_by_its_denoiser(tmp_path):
    net = original(**FAMILIES["centred"])
    net.save_pretrained(tmp_path)
    DDPMScheduler().save_pretrained(tmp_path)
    foreign = diffusers(tmp_path)
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([5.0, 5.0])
    with torch.no_grad():
        torch.testing.assert_close(foreign.denoiser().net(x, t, None), net(x, t).sample, atol=5e-5, rtol=0)
    assert foreign.denoiser().reads == frozenset()
    with pytest.raises(ConfigError, match="center_input_sample"):
        foreign.overrides()


def test_an_upsampler_of_latent_diffusion_reads_the_small_picture(tmp_path):
    net = original(**PLAIN, in_channels=6)
    net.save_pretrained(tmp_path)
    foreign = diffusers(tmp_path)
    assert foreign.kind == "upsampler"
    assert foreign.net.reads == {"image"}
    x, small, t = torch.randn(2, 3, 16, 16), torch.randn(2, 3, 16, 16), torch.tensor([5.0, 90.0])
    with torch.no_grad():
        ours, theirs = foreign.net(x, t, Cond(image=small)), net(torch.cat([x, small], 1), t).sample
    torch.testing.assert_close(ours, theirs, atol=5e-5, rtol=0)


def test_without_a_scheduler_the_table_is_asked_for(tmp_path):
    original(**PLAIN).save_pretrained(tmp_path)
    foreign = diffusers(tmp_path)
    assert foreign.table is None
    with pytest.raises(ConfigError, match=r"dataclasses\.replace"):
        foreign.denoiser()
    table = sigmas_of(torch.linspace(1e-4, 0.02, 10))
    assert isinstance(dataclasses.replace(foreign, table=table).denoiser(), EpsDenoiser)


def test_old_files_are_read(tmp_path):
    """Old names of attention, half precision, and a pickle of tensors in place of safetensors."""
    net = original(**LAST)
    net.save_pretrained(tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = net.state_dict()
    for new, name in old.items():
        state = {k.replace(f".{new}.", f".{name}."): v for k, v in state.items()}
    assert any(".proj_attn." in name for name in state)
    torch.save({k: v.half() for k, v in state.items()}, tmp_path / "diffusion_pytorch_model.bin")
    foreign = diffusers(tmp_path)
    assert {p.dtype for p in foreign.net.parameters()} == {torch.float32}
    theirs, ours = both(net.half().float(), foreign, torch.float32)
    torch.testing.assert_close(ours, theirs, atol=5e-5, rtol=0)


def test_weights_in_several_files_are_read(tmp_path):
    net = original(**LAST)
    net.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    theirs, ours = both(net, diffusers(tmp_path), torch.float32)
    torch.testing.assert_close(ours, theirs, atol=5e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"time_embedding_type": "fourier"}, "time_embedding_type"),
        ({"time_embedding_type": "learned"}, "time_embedding_type"),
        ({"time_embedding_dim": 32}, "time_embedding_dim"),
        ({"down_block_types": ["SkipDownBlock2D", "DownBlock2D"]}, "down_block_types"),
        ({"up_block_types": ["KUpBlock2D", "UpBlock2D"]}, "up_block_types"),
        ({"up_block_types": ["AttnUpBlock2D", "UpBlock2D"]}, "up_block_types"),
        ({"down_block_types": ["ResnetDownsampleBlock2D", "DownBlock2D"]}, "downsample_type"),
        ({"mid_block_type": None}, "mid_block_type"),
        ({"mid_block_scale_factor": 1.4142}, "mid_block_scale_factor"),
        ({"downsample_padding": 2}, "downsample_padding"),
        ({"act_fn": "gelu"}, "act_fn"),
        ({"resnet_time_scale_shift": "spatial"}, "resnet_time_scale_shift"),
        ({"resnet_time_scale_shift": "scale_shift"}, "attn_norm_num_groups"),
        ({"class_embed_type": "timestep"}, "class_embed_type"),
        ({"attention_head_dim": 7}, "attention_head_dim"),
        ({"out_channels": 4}, "out_channels"),
        ({"block_out_channels": [16, 24, 32]}, "block_out_channels"),
        ({"_class_name": "UNet2DConditionModel"}, "_class_name"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_its_key(change, key, tmp_path):
    original(**PLAIN).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ConfigError, match=key) as error:
        diffusers(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"prediction_type": "flow_prediction"}, "prediction_type"),
        ({"beta_schedule": "laplace"}, "beta_schedule"),
        ({"variance_type": "learned"}, "variance_type"),
        ({"variance_type": "learned_range"}, "variance_type"),
    ],
)
def test_a_scheduler_without_counterpart_is_refused_by_its_key(change, key, tmp_path):
    original(**PLAIN).save_pretrained(tmp_path)
    DDPMScheduler().save_pretrained(tmp_path)
    file = tmp_path / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ConfigError, match=key):
        diffusers(tmp_path)


def test_files_that_are_missing_or_damaged(tmp_path):
    with pytest.raises(ModelFileError, match=r"config\.json"):
        diffusers(tmp_path)
    net = original(**PLAIN)
    net.save_config(tmp_path)
    with pytest.raises(ModelFileError, match="expected weights"):
        diffusers(tmp_path)
    weights = tmp_path / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(b"not a file of tensors")
    with pytest.raises(ModelFileError, match="expected safetensors"):
        diffusers(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelFileError, match="JSON"):
        diffusers(tmp_path)


def test_weights_of_another_network(tmp_path):
    from safetensors.torch import save_file

    net = original(**PLAIN)
    net.save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    state = net.state_dict()
    save_file({**state, "extra.weight": torch.ones(1)}, file)
    with pytest.raises(ModelFileError, match=r"extra\.weight"):
        diffusers(tmp_path)
    save_file({k: v for k, v in state.items() if k != "conv_in.bias"}, file)
    with pytest.raises(ModelFileError, match=r"conv_in\.bias"):
        diffusers(tmp_path)
    save_file({**state, "conv_in.bias": torch.ones(3)}, file)
    with pytest.raises(ModelFileError, match="does not fit"):
        diffusers(tmp_path)


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    original(**PLAIN).save_config(tmp_path)
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (ran,)

    torch.save({"conv_in.weight": Evil()}, tmp_path / "diffusion_pytorch_model.bin")
    with pytest.raises(ModelFileError):
        diffusers(tmp_path)
    assert not ran.exists()


def test_the_configuration_builds_the_same_network(tmp_path):
    from anodiff import compose

    options = {**ADM, "block_out_channels": (32, 64), "norm_num_groups": 32, "attn_norm_num_groups": 32}
    original(**options, num_class_embeds=4, out_channels=6).save_pretrained(tmp_path)
    DDPMScheduler(variance_type="learned_range").save_pretrained(tmp_path)
    foreign = diffusers(tmp_path)
    config = configuration.parse(foreign.overrides())
    denoiser = compose.denoiser(config, channels=3)
    denoiser.net.load_state_dict(foreign.start())
    # Without labels it computes what the published network does for the mean of its labels' embeddings.
    rows = foreign.net.label.table.weight.data
    rows[-1] = rows[:-1].mean(0)
    x, sigma = torch.randn(2, 3, 16, 16), torch.tensor(0.95, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(denoiser.eval()(x, sigma), foreign.denoiser()(x, sigma), atol=5e-5, rtol=0)
    labelled = UNet(**{**foreign.arguments, "classes": 2})
    labelled.load_state_dict(foreign.start(labels=2))


def test_what_a_configuration_cannot_say_is_named(tmp_path):
    original(**PLAIN, in_channels=6).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="cond_channels=3"):
        diffusers(tmp_path).overrides()
