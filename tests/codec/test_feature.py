import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from anodiff.codec.backbone import backbone
from anodiff.codec.feature import FeatureCodec, at_size
from anodiff.codec.fuse import fused
from anodiff.errors import ConfigError, DataError, RefusalError

LITE = "tf_efficientnet_lite0"


def patches(count: int, size: int = 64) -> torch.Tensor:
    """Crops `[count, 1, size, size]` of the photograph of a brick wall."""
    wall = torch.from_numpy(skimage.data.brick()).float()[None] / 255
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 512 - size, (count, 2))
    return torch.stack([wall[:, y : y + size, x : x + size] for y, x in corners])


@pytest.fixture(scope="module")
def lite():
    return fused(backbone(LITE, (2, 3)))


@pytest.fixture(scope="module")
def codec(lite):
    codec = FeatureCodec(lite, floor=1e-4)
    codec.learn(patches(12).split(5))
    return codec


def test_a_picture_of_256_is_152_maps_of_32(lite):
    codec = FeatureCodec(lite)
    codec.learn([torch.rand(1, 3, 256, 256)])
    assert codec.encode(torch.rand(1, 3, 256, 256)).shape == (1, 152, 32, 32)
    assert (codec.channels, codec.stride, codec.paints) == (152, 8, False)


def test_normals_are_white(codec):
    z = codec.encode(patches(12)).double().transpose(0, 1).flatten(1)
    covariance = torch.cov(z, correction=0)
    torch.testing.assert_close(z.mean(1), torch.zeros(152).double(), atol=1e-4, rtol=0)
    values = torch.linalg.eigvalsh(covariance)
    assert values.max() < 1.001
    assert values.median() > 0.99  # the floor touches the last directions only
    off = covariance - covariance.diagonal().diag()
    raw = torch.corrcoef(codec.features(patches(12)).transpose(0, 1).flatten(1))
    assert off.abs().mean() < 0.05 * (raw - torch.eye(152)).abs().mean()


def test_the_streams_order_and_batches_do_not_matter(lite, codec):
    other = FeatureCodec(lite, floor=1e-4)
    other.learn(reversed(patches(12).split(1)))
    torch.testing.assert_close(other.encode(patches(2)), codec.encode(patches(2)), atol=1e-3, rtol=0)


def test_a_code_is_the_same_alone_and_in_any_batch(codec):
    images = patches(7)
    with torch.inference_mode():
        z = codec.encode(images)
        assert torch.equal(codec.encode(images.flip(0)).flip(0), z)
        for i in range(7):
            assert torch.equal(codec.encode(images[i : i + 1])[0], z[i])


def test_a_fresh_module_takes_the_state_with_the_backbone(codec, tmp_path):
    save_file(codec.state_dict(), tmp_path / "codec.safetensors")
    fresh = FeatureCodec(fused(backbone(LITE, (2, 3), weights="random")), floor=1e-4)
    with pytest.raises(ConfigError, match="Whiten has learnt nothing yet"):
        fresh.encode(patches(1))
    fresh.load_state_dict(load_file(tmp_path / "codec.safetensors"))
    assert torch.equal(fresh.encode(patches(2)), codec.encode(patches(2)))


def test_it_paints_nothing(codec):
    with pytest.raises(RefusalError, match="paints nothing"):
        codec.decode(torch.zeros(1, 152, 8, 8))


@pytest.mark.parametrize("size", [(64, 64), (60, 44), (33, 71)])
def test_a_position_is_known_only_where_all_of_it_is(codec, size):
    torch.manual_seed(0)
    mask = torch.ones(2, 1, *size, dtype=torch.bool)
    mask[0, 0, 20:22, 30:40] = False
    small = codec.shrink(mask)
    assert small.shape[-2:] == codec.encode(torch.rand(1, 3, *size)).shape[-2:]
    assert small[1].all()
    known = F.interpolate(small.float(), scale_factor=8)[..., : size[0], : size[1]].bool()
    assert not (known & ~mask).any()
    assert small[0].any()
    assert not small[0].all()


def test_the_local_mean_is_that_of_the_neighbours_inside(lite):
    plain, local = FeatureCodec(lite, local=1), FeatureCodec(lite, local=3)
    image = patches(1)
    a, b = plain.features(image)[0, :40].detach(), local.features(image)[0, :40].detach()
    torch.testing.assert_close(b[:, 3, 4], a[:, 2:5, 3:6].mean((1, 2)), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(b[:, 0, 0], a[:, :2, :2].mean((1, 2)), atol=1e-4, rtol=1e-5)


def test_stages_meet_at_the_stride_asked_for(lite):
    z = torch.rand(1, 2, 8, 8)
    torch.testing.assert_close(at_size(z, (4, 4)), F.avg_pool2d(z, 2))
    assert torch.equal(at_size(z, (8, 8)), z)
    assert at_size(z, (16, 16)).shape == (1, 2, 16, 16)
    coarse = FeatureCodec(lite, stride=16)
    assert coarse.features(torch.rand(1, 3, 64, 64)).shape == (1, 152, 4, 4)
    assert coarse.stride == 16


def test_one_picture_is_enough_and_none_is_not(lite):
    codec = FeatureCodec(lite)
    codec.learn([patches(1)])
    assert codec.encode(patches(3)).isfinite().all()
    with pytest.raises(DataError, match="at least one good picture"):
        codec.learn([])


def test_per_channel_whitening_standardises(lite):
    codec = FeatureCodec(lite, whitening="channel")
    codec.learn([patches(6)])
    z = codec.encode(patches(6)).transpose(0, 1).flatten(1)
    assert (z.std(1) < 1.01).all()
    assert z.std(1).median() > 0.99
    assert codec.whiten.weight.shape == (152,)


def test_pictures_are_not_changed(codec):
    image = patches(2)
    before = image.clone()
    codec.encode(image)
    assert torch.equal(image, before)


def test_a_folded_code_keeps_the_finer_stages_positions_as_channels():
    net = fused(backbone(LITE, (1, 2, 3, 4)))
    codec = FeatureCodec(net, whitening="stage", stride=16, fold=2)
    codec.learn(patches(12).split(5))
    assert codec.folds == (2, 2, 1, 1)
    assert codec.groups == (96, 160, 112, 320)
    image = patches(3)
    z = codec.encode(image)
    assert z.shape == (3, 688, 4, 4)
    stages = codec.whiten.each(codec._maps(image))
    first, second, third, fourth = z.split(codec.groups, dim=1)
    assert stages[0].shape[-2:] == (8, 8)  # stage 1 has 16 x 16 positions, in means of 2 x 2
    torch.testing.assert_close(F.pixel_shuffle(first, 2), stages[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(F.pixel_shuffle(second, 2), stages[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(third, stages[2], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(fourth, at_size(stages[3], (4, 4)), atol=1e-4, rtol=1e-4)


def test_each_stage_of_a_folded_code_is_white_at_its_own_size():
    codec = FeatureCodec(fused(backbone(LITE, (2, 3))), whitening="stage", floor=1e-6, stride=16, fold=2)
    codec.learn(patches(12).split(5))
    whole = FeatureCodec(codec.backbone, whitening="stage", floor=1e-6, stride=16, fold=2)
    whole.learn([patches(12)])
    torch.testing.assert_close(whole.whiten.weight, codec.whiten.weight, atol=1e-3, rtol=1e-3)
    for stage in codec.whiten.each(codec._maps(patches(12))):
        flat = stage.double().transpose(0, 1).flatten(1)
        torch.testing.assert_close(flat.mean(1), torch.zeros(len(flat)).double(), atol=1e-3, rtol=0)
        values = torch.linalg.eigvalsh(torch.cov(flat, correction=0))
        assert values.max() < 1.01
        assert values.median() > 0.98


def test_a_fold_has_to_fit():
    net = backbone(LITE, (2, 3), weights="random")
    with pytest.raises(ConfigError, match=r"fold: 3 should divide the stride 16"):
        FeatureCodec(net, whitening="stage", stride=16, fold=3)
    with pytest.raises(ConfigError, match=r"not full"):
        FeatureCodec(net, stride=16, fold=2)
