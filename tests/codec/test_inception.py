"""FID's network from a local file: fed rightly, and no other file is taken for it."""

import sys

import pytest
import torch

from anodiff.codec.inception import Inception, inception
from anodiff.errors import DataError, MissingExtraError, ModelFileError


class Mean(torch.nn.Module):
    """Takes what Inception takes, and shows what it was given."""

    def forward(self, x):
        assert x.dtype == torch.uint8
        return (x.float().mean((2, 3)),)


def test_pictures_come_as_bytes_and_grey_as_three_equal_channels():
    image = torch.rand(2, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    seen = Inception(Mean())(image)
    assert seen.shape == (2, 3)
    assert torch.equal(seen, Inception(Mean())(image.expand(-1, 3, -1, -1)))
    assert torch.allclose(seen[:, 0], (image * 255).round().mean((1, 2, 3)))
    assert torch.equal(
        Inception(Mean())(torch.full((1, 1, 2, 2), 1.7)), torch.full((1, 3), 255.0)
    )  # not wrapped round
    with pytest.raises(DataError, match="grey or RGB"):
        Inception(Mean())(torch.rand(1, 2, 4, 4))


def test_the_file_must_be_there_and_be_inceptions(tmp_path):
    pytest.importorskip("torch_fidelity", reason="pip install 'anodiff[generation]'")
    with pytest.raises(ModelFileError, match="found no file"):
        inception(tmp_path / "absent.pth")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ModelFileError, match="does not hold FID's Inception"):
        inception(tmp_path / "other.pth")


def test_a_file_that_would_run_code_is_not_run(tmp_path):
    pytest.importorskip("torch_fidelity", reason="pip install 'anodiff[generation]'")
    torch.save(Planted(str(tmp_path / "ran")), tmp_path / "planted.pth")
    with pytest.raises(ModelFileError):
        inception(tmp_path / "planted.pth")
    assert not (tmp_path / "ran").exists()


class Planted:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_without_the_package_the_pip_line_is_said(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(MissingExtraError, match=r"anodiff\[generation\]"):
        inception(tmp_path / "weights.pth")


def test_the_real_network_runs_on_weights_of_a_file(tmp_path):
    module = pytest.importorskip(
        "torch_fidelity.feature_extractor_inceptionv3", reason="pip install 'anodiff[generation]'"
    )

    class Unfilled(module.FeatureExtractorInceptionV3):  # theirs cannot be had without a file
        def load_state_dict(self, state):
            assert state == {}

    torch.save({}, tmp_path / "empty.pth")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = Unfilled("inception", ["2048"], feature_extractor_weights_path=tmp_path / "empty.pth")
    torch.save(drawn.state_dict(), tmp_path / "drawn.pth")
    net = inception(tmp_path / "drawn.pth")
    image = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    found = net(image)
    assert found.shape == (2, 2048)
    assert found.std() > 0
    assert torch.equal(found, drawn((image.expand(-1, 3, -1, -1) * 255).round().to(torch.uint8))[0])
