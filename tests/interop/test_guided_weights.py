"""A state dict of guided-diffusion computes in our networks what its own description says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from guided_twin import FILES, Twin, drawn, net, run, shapes
from safetensors.torch import save_file

from anodiff.cond import Cond
from anodiff.diffusion.classifier import NoisyClassifier
from anodiff.diffusion.denoiser import EpsDenoiser, X0Denoiser
from anodiff.diffusion.schedule import table
from anodiff.errors import ConfigError, ModelFileError, RefusalError
from anodiff.interop.dialect import folded, mixed_qkv, sorted_qkv
from anodiff.interop.from_guided import guided
from anodiff.interop.weights import PUBLISHED, Foreign, guided_diffusion, to_guided_diffusion
from anodiff.nets.classifier import Classifier
from anodiff.nets.unet import UNet

FLAGS: dict[str, Any] = {"num_head_channels": 16, "noise_schedule": "linear"}


def flags(twin: Twin) -> dict[str, Any]:
    """What was passed to the script that trained it, as far as the file cannot say it."""
    heads = (
        {"num_head_channels": twin.num_head_channels}
        if twin.num_head_channels
        else {"num_heads": twin.num_heads}
    )
    return {**heads, "use_new_attention_order": twin.new_order, "noise_schedule": "linear"}


def shrunk(name: str) -> Twin:
    """A published network, narrow and for small pictures: the same layers at the same levels."""
    twin = FILES[name]
    if twin.pool:  # its heads are always of 64, and it takes no other size of picture
        eighth = {
            "image_size": twin.image_size // 8,
            "attention": tuple(side // 8 for side in twin.attention),
        }
        return twin.small(64, outputs=7, num_head_channels=64, **eighth)
    return twin.small(32 if min(twin.channel_mult) >= 1 else 64)


def both(twin: Twin, foreign: Foreign, state: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """What the twin computes and what our network does, for a small picture."""
    torch.manual_seed(1)
    side = twin.image_size if twin.pool == "attention" else max(8, 2 ** (len(twin.channel_mult) - 1))
    x = torch.randn(2, twin.inputs, side, side, dtype=state["time_embed.0.weight"].dtype)
    t, y = torch.tensor([3.0, 871.0]), torch.tensor([twin.num_classes - 1, 0]) if twin.num_classes else None
    own = foreign.net.in_channels
    with torch.no_grad():
        cond = Cond(label=y, image=x[:, own:] if own < twin.inputs else None)
        return run(twin, state, x, t, y), foreign.net(x[:, :own], t, cond)


DISTINCT = [name for i, name in enumerate(FILES) if FILES[name] not in list(FILES.values())[:i]]


@pytest.mark.parametrize("name", DISTINCT)
def test_every_published_file_is_known_by_its_tensors(name):
    """Full size, without numbers: names and shapes are complete both ways."""
    twin = FILES[name]
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in shapes(twin).items()}
    foreign = guided(state)
    entry = next(e for e in PUBLISHED if name in e.names)
    assert set(foreign.names) == {other for other, its in FILES.items() if its == twin}
    assert {key: tuple(v.shape) for key, v in to_guided_diffusion(foreign.net).items()} == shapes(twin)
    a = foreign.arguments
    assert (a["heads"], a["head_channels"]) == (twin.num_heads, 64)
    assert {twin.image_size >> i for i in a["attention"]} == set(twin.attention)
    assert entry.order == ("new" if twin.new_order else "legacy")
    schedule = "cosine" if name.startswith("64x64") else "linear"
    assert foreign.table is not None
    assert torch.equal(foreign.table, table(schedule))
    if twin.pool:
        assert foreign.kind == "classifier"
        assert (a["classes"], a["size"]) == (1000, (twin.image_size,) * 2)
        assert isinstance(foreign.classifier(), NoisyClassifier)
    else:
        assert foreign.kind == ("upsampler" if "upsampler" in name else "unet")
        assert (a["in_channels"], a["out_channels"], a["classes"]) == (3, 6, twin.num_classes)
        assert foreign.learned_variance
        assert isinstance(foreign.denoiser(), EpsDenoiser)
    assert guided(state, config=name).arguments["width"] == a["width"]


def test_every_published_network_was_tried():
    assert {name for entry in PUBLISHED for name in entry.names} == set(FILES)


@pytest.mark.parametrize("name", [n for n in DISTINCT if "uncond" not in n])
def test_the_output_is_that_of_the_description(name, tmp_path):
    twin = shrunk(name)
    state = drawn(twin, dtype=torch.float64)
    torch.save(state, tmp_path / "model.pt")
    foreign = guided_diffusion(tmp_path / "model.pt", config=flags(twin))
    theirs, ours = both(twin, foreign, state)
    assert theirs.std() > 0.05  # it is no comparison of zeros
    torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)


OTHERS: dict[str, Twin] = {
    "convolutions": net(16, 32, (1, 2), resblock_updown=False, num_heads=2, attention=(8,)),
    "added embedding": net(16, 32, (1, 2), scale_shift=False, num_heads=2, attention=(16,), num_classes=3),
    "new order": net(16, 32, (1, 2), new_order=True, num_heads=4, attention=(8, 16)),
    "fixed variance": net(16, 32, (1, 1), outputs=3, num_heads=1, attention=()),
    "upsampler of fixed variance": net(16, 32, (1, 1), inputs=6, outputs=3, num_heads=1, attention=()),
    "one level": net(8, 32, (1,), num_heads=2, attention=(8,)),
    "grey": net(8, 64, (1, 1.5), inputs=1, outputs=2, num_heads=2, attention=()),
    "adaptive": net(16, 64, (1, 2), pool="adaptive", outputs=4, num_head_channels=64, attention=(8,)),
    "spatial": net(16, 64, (1, 1, 2), pool="spatial", outputs=4, num_head_channels=64, attention=(4, 8)),
    "classifier with convolutions": net(
        16,
        64,
        (1, 1),
        pool="attention",
        outputs=4,
        num_head_channels=64,
        attention=(8,),
        resblock_updown=False,
    ),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_other_layouts(name, dtype, bound):
    twin = OTHERS[name]
    state = drawn(twin, dtype=dtype)
    foreign = guided(state, config=flags(twin))
    theirs, ours = both(twin, foreign, state)
    torch.testing.assert_close(ours, theirs, atol=bound * max(1, float(theirs.std())), rtol=0)
    assert {p.dtype for p in foreign.net.parameters()} == {dtype}
    cls = Classifier if twin.pool else UNet
    cls(**foreign.arguments).load_state_dict(foreign.net.state_dict())


@pytest.mark.parametrize("name", [*OTHERS, "64x64_diffusion", "128_512_upsampler", "64x64_classifier"])
def test_there_and_back_changes_no_bit(name, tmp_path):
    twin = OTHERS[name] if name in OTHERS else shrunk(name)
    first = guided(drawn(twin), config=flags(twin))
    theirs = to_guided_diffusion(first.net, order="new" if twin.new_order else "legacy")
    assert {key: tuple(v.shape) for key, v in theirs.items()} == shapes(twin)
    save_file(theirs, tmp_path / "model.safetensors")
    second = guided_diffusion(tmp_path / "model.safetensors", config=flags(twin))
    assert second.arguments == first.arguments
    for key, tensor in first.net.state_dict().items():
        assert torch.equal(tensor, second.net.state_dict()[key]), key
    _, a = both(twin, first, theirs)
    want, b = both(twin, second, theirs)
    assert torch.equal(a, b)
    torch.testing.assert_close(b, want, atol=1e-5 * max(1, float(want.std())), rtol=0)


def test_our_own_network_goes_there():
    torch.manual_seed(0)
    ours = UNet(
        in_channels=3, out_channels=3, width=32, multipliers=(1, 2), blocks=1, mid_attention=True, heads=2
    )
    for p in ours.parameters():
        torch.nn.init.normal_(p, std=0.1)
    twin = net(8, 32, (1, 2), num_res_blocks=1, outputs=3, num_heads=2, attention=(), resblock_updown=False)
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([1.0, 700.0])
    with torch.no_grad():
        want = ours.eval()(x, t)
        torch.testing.assert_close(run(twin, to_guided_diffusion(ours), x, t), want, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"patch": 2}, "patch"),
        ({"rescale": True}, "rescale"),
        ({"mid_attention": False}, "attention in the middle"),
        ({"eps": 1e-6}, "eps"),
        ({"pad": "after"}, "pad"),
        ({"groups": 16}, "groups"),
        ({"frequency_shift": 1.0}, "frequency_shift"),
        ({"token_channels": 4}, "tokens"),
    ],
)
def test_what_guided_diffusion_lacks_is_not_written(options, what):
    ours = UNet(**{
        "in_channels": 3, "out_channels": 3, "width": 32, "multipliers": (1, 1), "mid_attention": True, **options
    })  # fmt: skip
    with pytest.raises(RefusalError, match=what):
        to_guided_diffusion(ours)


@pytest.mark.parametrize("order", ["legacy", "new"])
def test_rows_are_sorted_and_mixed_again(order):
    rows = torch.arange(24.0)[:, None] * torch.ones(2)
    q, k, v = sorted_qkv(rows, heads=2, order=order)
    if order == "legacy":  # the first head's four of each, then the second's
        assert q[:, 0].tolist() == [0, 1, 2, 3, 12, 13, 14, 15]
        assert k[:, 0].tolist() == [4, 5, 6, 7, 16, 17, 18, 19]
    else:
        assert k[:, 0].tolist() == list(range(8, 16))
    assert torch.equal(mixed_qkv(q, k, v, heads=2, order=order), rows)


def test_the_wrong_order_is_another_network():
    twin = OTHERS["new order"]
    state = drawn(twin)
    theirs, ours = both(twin, guided(state, config={"num_heads": 4}), state)
    assert (ours - theirs).abs().max() > 1e-2


def test_folding_is_the_algebra():
    torch.manual_seed(0)
    w, b, gain, offset = torch.randn(12, 5), torch.randn(12), torch.randn(6), torch.randn(6)
    n, e = torch.randn(4, 6).double(), torch.randn(4, 5).double()
    s, shift = (e @ w.double().T + b).chunk(2, 1)
    W, c = folded(w.double(), b.double(), gain.double(), offset.double())
    s2, shift2 = (e @ W.T + c).chunk(2, 1)
    torch.testing.assert_close(
        n * (1 + s2) + shift2, (gain * n + offset) * (1 + s) + shift, atol=1e-13, rtol=0
    )
    same = folded(w, b, torch.ones(6), torch.zeros(6))
    assert torch.equal(same[0], w)
    assert torch.equal(same[1], b)


def test_half_precision_is_widened():
    twin = OTHERS["convolutions"]
    state = {key: v.half() for key, v in drawn(twin).items()}
    foreign = guided(state, config=flags(twin))
    assert {p.dtype for p in foreign.net.parameters()} == {torch.float32}
    theirs, ours = both(twin, foreign, {key: v.float() for key, v in state.items()})
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_a_denoiser_and_a_classifier_sample_together():
    from anodiff.diffusion.guidance import Bind, Guide
    from anodiff.diffusion.levels import spaced
    from anodiff.diffusion.sampling import ddim

    twin = net(16, 32, (1, 2), num_heads=2, attention=(8,), num_classes=4)
    half = net(16, 64, (1, 2), pool="attention", outputs=4, num_head_channels=64, attention=(8,))
    denoiser = guided(drawn(twin), config=flags(twin)).denoiser()
    judge = guided(drawn(half), config=flags(half)).classifier()
    sigmas = spaced(denoiser.levels, 3, start=0.9)
    y = torch.randn(2, 3, 16, 16)
    cond = Cond(label=torch.tensor([1, 3]))
    plain = ddim(Bind(denoiser, cond), y, sigmas)
    led = ddim(Bind(Guide(denoiser, judge.log_prob, 5.0), cond), y, sigmas)
    assert plain.isfinite().all()
    assert (led - plain).abs().max() > 1e-4
    with pytest.raises(RefusalError, match="no classes"):
        guided(drawn(twin), config=flags(twin)).classifier()
    with pytest.raises(RefusalError, match="denoises nothing"):
        guided(drawn(half), config=flags(half)).denoiser()


def test_flags_say_what_the_file_does_not():
    twin = OTHERS["fixed variance"]
    state = drawn(twin)
    foreign = guided(
        state,
        config={"num_heads": 2, "predict_xstart": True, "diffusion_steps": 4000, "dropout": 0.3},
    )
    assert isinstance(foreign.denoiser(), X0Denoiser)
    assert foreign.arguments["heads"] == 2
    assert foreign.arguments["dropout"] == 0.3
    assert foreign.table is not None
    assert torch.equal(foreign.table, table("linear", 4000, first=1e-4 / 4, last=0.02 / 4))
    cosine = guided(state, config={"num_heads": 1, "noise_schedule": "cosine"})
    assert torch.equal(cosine.table, table("cosine"))
    # As many channels in as out: 6 are an upsampler's, unless the flags say that no variance was learned.
    six = drawn(net(16, 32, (1, 1), inputs=6, outputs=6, num_heads=1, attention=()))
    assert guided(six, config={"num_heads": 1}).kind == "upsampler"
    assert guided(six, config={"num_heads": 1, "learn_sigma": False}).arguments["in_channels"] == 6


@pytest.mark.parametrize(
    ("config", "match"),
    [
        (None, "none of the published"),
        ("256x256_diffusion", "not those of"),
        ("256x256_difusion", "did you mean '256x256_diffusion'"),
        ({"noise_schedule": "linear"}, "num_heads"),
        ({"num_head": 4}, "did you mean 'num_heads'"),
        ({"num_heads": 2, "noise_schedule": "sigmoid"}, "noise_schedule"),
        ({"num_heads": 2, "num_channels": 64}, "num_channels=64"),
        ({"num_heads": 2, "num_res_blocks": 1}, "num_res_blocks=1"),
        ({"num_heads": 2, "class_cond": True}, "class_cond=True"),
        ({"num_heads": 2, "resblock_updown": True}, "resblock_updown"),
        ({"num_heads": 2, "use_scale_shift_norm": False}, "use_scale_shift_norm"),
        ({"num_heads": 2, "learn_sigma": False}, "learn_sigma"),
        ({"num_heads": 2, "image_size": 16, "attention_resolutions": "16"}, "attention"),
        ({"num_heads": 2, "num_heads_upsample": 4}, "num_heads_upsample"),
        ({"num_heads": 2, "rescale_timesteps": True, "diffusion_steps": 4000}, "rescale_timesteps"),
        ({"num_heads": 5}, "num_heads=5"),
        ({"num_head_channels": 48}, "num_head_channels=48"),
    ],
)
def test_flags_that_do_not_fit(config, match):
    with pytest.raises(ConfigError, match=match) as error:
        guided(drawn(OTHERS["convolutions"]), config=config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("twin", "change", "match"),
    [
        ("convolutions", {"-": "input_blocks.3.0.op"}, "conv_resample"),
        ("convolutions", {"-": "middle_block.1"}, "attention in the middle"),
        ("adaptive", {"+": "out.1.weight", "-": "out.3"}, "classifier_pool"),
    ],
)
def test_layouts_without_counterpart(twin, change, match):
    state = {k: v for k, v in drawn(OTHERS[twin]).items() if not k.startswith(change["-"])}
    state |= {change["+"]: torch.ones(3)} if "+" in change else {}
    with pytest.raises(ConfigError, match=match):
        guided(state, config=FLAGS)


def test_a_classifier_without_attention_on_the_last_level_is_refused():
    twin = net(16, 64, (1, 2), pool="adaptive", outputs=4, num_head_channels=64, attention=(16,))
    with pytest.raises(ConfigError, match="last level"):
        guided(drawn(twin), config={})


def test_files_that_are_no_network(tmp_path):
    with pytest.raises(ModelFileError, match="there is none"):
        guided_diffusion(tmp_path / "absent.pt")
    (tmp_path / "text.pt").write_text("weights")
    with pytest.raises(ModelFileError, match="expected safetensors"):
        guided_diffusion(tmp_path / "text.pt")
    torch.save({"epoch": 3}, tmp_path / "epoch.pt")
    with pytest.raises(ModelFileError, match="state dict"):
        guided_diffusion(tmp_path / "epoch.pt")
    torch.save({"fc.weight": torch.ones(2)}, tmp_path / "fc.pt")
    with pytest.raises(ModelFileError, match="no network of guided-diffusion"):
        guided_diffusion(tmp_path / "fc.pt")


def test_tensors_too_few_and_too_many():
    twin = OTHERS["convolutions"]
    state = drawn(twin)
    with pytest.raises(ModelFileError, match=r"output_blocks\.1\.0\.out_layers\.0\.bias"):
        guided({k: v for k, v in state.items() if k != "output_blocks.1.0.out_layers.0.bias"}, config=FLAGS)
    with pytest.raises(ModelFileError, match=r"encoder\.extra"):
        guided({**state, "encoder.extra": torch.ones(1)}, config=FLAGS)
