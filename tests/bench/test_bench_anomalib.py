"""Models of anomalib under measurement: the same pictures and weights, raw scores, nothing downloaded."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from bench_tree import part, spec

from anodiff.bench import cell
from anodiff.bench.foreign import Foreign as Subject
from anodiff.bench.foreign import Pictures
from anodiff.codec.backbone import backbone
from anodiff.data.index import index, normals
from anodiff.errors import ConfigError, ModelFileError, RefusalError
from anodiff.interop.anomalib import Foreign, built, fill, train

LITE0 = "tf_efficientnet_lite0"
PADIM = Foreign(
    path="anomalib.models.Padim",
    args={"n_features": 20},
    size=32,
    backbone=LITE0,
    layers=(2, 3),
    device=torch.device("cpu"),
)
CORE = replace(PADIM, path="anomalib.models.Patchcore", args={}, coreset=30)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return part(tmp_path_factory.mktemp("data") / "part", train=40)


def test_padim_finds_the_defects_and_gives_raw_scores(data: Path, tmp_path: Path) -> None:
    how = {
        "kind": "anomalib",
        "anomalib": PADIM.path,
        "args": PADIM.args,
        "backbone": LITE0,
        "layers": [2, 3],
        "size": 32,
        "coreset": None,
        "batch": 8,
        "epochs": None,
    }
    found = cell.measured(spec(data, tmp_path, how))
    assert found["metrics"]["image_auroc"]["value"] == 1
    assert found["metrics"]["pixel_auroc"]["value"] > 0.7
    assert (found["about"]["train"], found["about"]["held"]) == (40, 0)
    assert found["cost"]["evaluations_per_image"] == 0
    assert found["cost"]["gflops_per_image"] > 0
    scores = [
        float(line.rsplit(",", 1)[1]) for line in (tmp_path / "predictions.csv").read_text().split()[1:]
    ]
    assert max(scores) > 1  # a distance, through no sigmoid and no normalisation


def test_scores_do_not_depend_on_the_batch(data: Path) -> None:
    subject = Subject(partial(train, how=PADIM), size=32, batch=3)
    subject.fit(normals(index(data)))
    paths = [str(path) for path in sorted((data / "test").rglob("*.png"))]
    alone, together = [subject.one(path) for path in paths], list(subject.stream(paths))
    assert np.allclose([r.score for r in alone], [r.score for r in together], rtol=1e-4)
    assert together[0].heat is not None
    assert together[0].heat.shape == (32, 32)


def test_the_backbone_has_the_weights_and_the_normalisation_of_ours() -> None:
    torch.manual_seed(0)
    module = built(PADIM, count=8).eval()
    ours = backbone(LITE0, (2, 3))
    images = torch.rand(2, 3, 32, 32)
    theirs = module.model.feature_extractor(module.pre_processor(images))
    for one, other in zip(ours(images), theirs.values(), strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_a_coreset_has_the_patches_asked_for(data: Path) -> None:
    pictures = Pictures([str(path) for path in normals(index(data))["image"]], 32)
    trained = train(pictures, CORE)
    assert trained.module.model.memory_bank.shape == (30, 40 + 112)
    same = train(pictures, CORE)
    assert torch.equal(trained.module.model.memory_bank, same.module.model.memory_bank)
    other = train(pictures, replace(CORE, seed=1))
    assert not torch.equal(trained.module.model.memory_bank, other.module.model.memory_bank)


@pytest.mark.parametrize(
    ("how", "kind", "said"),
    [
        (replace(PADIM, path="anomalib.models.Padimm"), ConfigError, "no model anomalib.models.Padimm"),
        (replace(PADIM, path="os.path.join"), ConfigError, "path of a class of anomalib"),
        (replace(PADIM, args={"n_featurez": 3}), ConfigError, "takes no argument 'n_featurez'"),
        (replace(PADIM, args={"n_features": 9999}), ConfigError, "refuses its arguments"),
        (replace(PADIM, backbone="resnet18", layers=None), ModelFileError, "nothing is downloaded"),
    ],
)
def test_what_cannot_be_compared_is_told(how: Foreign, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        built(how, count=8)


def test_a_backbone_that_would_stay_random_is_refused() -> None:
    with pytest.raises(RefusalError, match="would be measured with random ones"):
        fill(torch.nn.Linear(2, 2), "anomalib.models.Fastflow")
