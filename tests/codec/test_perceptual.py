"""The distance of features: what it is by hand, what it must be for equal pictures, and whose files are read."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import vgg16

from anodiff.codec.backbone import Backbone, backbone
from anodiff.codec.perceptual import LEAST, Lpips, Perceptual, lpips, unit
from anodiff.errors import DataError, ModelFileError

STAGES = ((0, 4), (4, 9), (9, 16), (16, 23), (23, 30))


def picture(*shape: int, seed: int = 0) -> Tensor:
    return 2 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) - 1


class Two(nn.Module):
    """Two stages that can be followed by hand: the channels themselves, and their squares at half the size."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x, nn.functional.avg_pool2d(x, 2).square()]


def two() -> Perceptual:
    return Perceptual(Backbone(Two(), channels=(3, 3), strides=(1, 2), mean=(0.5,) * 3, std=(0.5,) * 3))


@pytest.fixture(scope="module")
def reference():
    """torchvision's own VGG16 with random weights, and five random positive weightings."""
    torch.manual_seed(0)
    features = vgg16(weights=None, init_weights=False).features.eval().requires_grad_(False)
    # The classifier would be as large again; it is not kept.
    generator = torch.Generator().manual_seed(1)
    lins = [torch.rand(1, c, 1, 1, generator=generator) for c in (64, 128, 256, 512, 512)]
    return features, lins


@pytest.fixture(scope="module")
def packaged(reference):
    """A state dict with the names of the package."""
    features, lins = reference
    state = {}
    for i, (first, last) in enumerate(STAGES):
        for number in range(first, last):
            for kind, value in features[number].state_dict().items():
                state[f"net.slice{i + 1}.{number}.{kind}"] = value
        state[f"lin{i}.model.1.weight"] = lins[i]
    state["scaling_layer.shift"] = torch.zeros(1, 3, 1, 1)
    return state


@pytest.fixture(scope="module")
def ours(packaged, tmp_path_factory):
    path = tmp_path_factory.mktemp("lpips") / "vgg.pth"
    torch.save(packaged, path)
    return lpips(path)


# ------------------------------------------------------------------- the distance


def test_without_weights_it_is_the_mean_over_stages_of_squared_chords() -> None:
    """Law: arXiv:1801.03924 eq. 1; reference: 2 - 2 cos of the feature vectors, place by place."""
    x, y = picture(2, 3, 4, 4), picture(2, 3, 4, 4, seed=1)
    expected = torch.zeros(2)
    for a, b in zip(Two()(x), Two()(y), strict=True):
        expected += (2 - 2 * nn.functional.cosine_similarity(a, b, dim=1)).mean((1, 2)) / 2
    torch.testing.assert_close(two()(x, y), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("which", ["two", "real", "lpips"])
def test_equal_pictures_are_not_apart_and_the_order_does_not_matter(which: str, ours: Lpips) -> None:
    found = {"two": two(), "real": _real(), "lpips": ours}[which]
    x, y = picture(2, 1, 32, 32), picture(2, 1, 32, 32, seed=1)
    assert torch.equal(found(x, x.clone()), torch.zeros(2))
    torch.testing.assert_close(found(x, y), found(y, x), rtol=1e-5, atol=1e-7)
    assert (found(x, y) > 1e-3).all()
    near = found(x, x + 0.1 * (y - x))
    assert (near < found(x, y)).all()
    torch.testing.assert_close(found(x, y)[1:], found(x[1:], y[1:]), rtol=1e-4, atol=1e-6)  # a row is its own


def _real() -> Perceptual:
    torch.manual_seed(0)
    return Perceptual(backbone("tf_efficientnet_lite0", (1, 2), weights="random"))


@pytest.mark.parametrize("which", ["real", "lpips"])
def test_the_gradient_reaches_the_pictures_and_no_weight(which: str, ours: Lpips) -> None:
    found = {"real": _real(), "lpips": ours}[which]
    found.train()
    assert not any(module.training for module in found.modules())
    x, y = picture(2, 3, 32, 32), picture(2, 3, 32, 32, seed=1).requires_grad_()
    found(x, y).sum().backward()
    assert y.grad is not None
    assert y.grad.isfinite().all()
    assert (y.grad.flatten(1).abs().sum(1) > 0).all()
    assert all(weight.grad is None and not weight.requires_grad for weight in found.parameters())


def test_places_without_any_feature_have_a_gradient_of_zero() -> None:
    h = torch.zeros(1, 3, 2, 2).requires_grad_()
    unit(h).square().sum().backward()
    assert torch.equal(unit(h), torch.zeros(1, 3, 2, 2))
    assert h.grad is not None
    assert torch.equal(h.grad, torch.zeros(1, 3, 2, 2))


# --------------------------------------------------------------------------- LPIPS


def by_hand(features: nn.Module, lins: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Law: arXiv:1801.03924 eq. 1; reference: torchvision's network, the package's scaling, written out."""
    total = torch.zeros(len(x))
    mean = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
    deviation = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)
    a, b = (x - mean) / deviation, (y - mean) / deviation
    for (first, last), lin in zip(STAGES, lins, strict=True):
        a, b = features[first:last](a), features[first:last](b)  # type: ignore[index]
        u, v = (h / (h.norm(dim=1, keepdim=True) + 1e-10) for h in (a, b))
        total += nn.functional.conv2d((u - v) ** 2, lin).mean((1, 2, 3))
    return total


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 3, 45, 16)])
def test_lpips_is_that_of_the_paper_on_torchvisions_network(shape, ours, reference) -> None:
    x, y = picture(*shape), picture(*shape, seed=1)
    torch.testing.assert_close(ours(x, y), by_hand(*reference, x, y), rtol=1e-4, atol=1e-7)


def test_grey_is_shown_as_grey_colour(ours) -> None:
    x, y = picture(2, 1, 32, 32), picture(2, 1, 32, 32, seed=1)
    expected = ours(x.expand(-1, 3, -1, -1), y.expand(-1, 3, -1, -1))
    assert torch.equal(ours(x, y), expected)


def test_other_spellings_and_safetensors_are_the_same_network(tmp_path, reference, ours) -> None:
    features, lins = reference
    state = {f"features.{name}": value.clone() for name, value in features.state_dict().items()}
    state |= {f"lin{i}.model.1.weight": lin for i, lin in enumerate(lins)}
    save_file(state, tmp_path / "vgg.safetensors")
    x, y = picture(1, 3, 32, 32), picture(1, 3, 32, 32, seed=1)
    assert torch.equal(lpips(tmp_path / "vgg.safetensors")(x, y), ours(x, y))


# ------------------------------------------------------------------------ refusals


def test_what_is_no_such_file_is_refused(tmp_path, packaged) -> None:
    with pytest.raises(ModelFileError, match="found no file: check the path"):
        lpips(tmp_path / "absent.pth")
    (tmp_path / "text.pth").write_text("not weights")
    with pytest.raises(ModelFileError, match="safetensors or a torch state_dict"):
        lpips(tmp_path / "text.pth")
    (tmp_path / "text.safetensors").write_text("not weights")
    with pytest.raises(ModelFileError, match="safetensors or a torch state_dict"):
        lpips(tmp_path / "text.safetensors")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ModelFileError, match="got a list"):
        lpips(tmp_path / "list.pth")
    torch.save({k: v for k, v in packaged.items() if k.startswith("lin")}, tmp_path / "heads.pth")
    with pytest.raises(
        ModelFileError, match=r"31 tensors were expected, of which 26 are missing.*features\.0\.weight"
    ):
        lpips(tmp_path / "heads.pth")
    few = {k: v for k, v in packaged.items() if "slice5" not in k and k != "lin2.model.1.weight"}
    torch.save({**few, "net.slice1.0.weight": torch.zeros(64, 1, 3, 3)}, tmp_path / "few.pth")
    with pytest.raises(
        ModelFileError, match=r"of which 8 are missing or of another shape, such as features\.0"
    ):
        lpips(tmp_path / "few.pth")


def test_pictures_that_do_not_fit_are_refused(ours) -> None:
    with pytest.raises(
        DataError, match=r"two pictures of one shape .* got \[1, 3, 32, 32\] and \[1, 1, 32, 32\]"
    ):
        ours(picture(1, 3, 32, 32), picture(1, 1, 32, 32))
    with pytest.raises(DataError, match="1 or 3"):
        two()(picture(1, 2, 32, 32), picture(1, 2, 32, 32))
    with pytest.raises(DataError, match=f"{LEAST} pixels a side at least, got 32 x 15"):
        ours(picture(1, 3, 32, 15), picture(1, 3, 32, 15))
