import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from anodiff.encode.label import Labeller, number_of
from anodiff.errors import ConfigError, DataError


class Means(nn.Module):
    """The mean of each channel, as the features of a picture."""

    def forward(self, image: Tensor) -> Tensor:
        return image.mean((2, 3))


def clouds(count: int, seed: int = 0) -> tuple[Tensor, list[int]]:
    """Three well separated clouds of different sizes in five dimensions, and which row belongs to which."""
    generator = torch.Generator().manual_seed(seed)
    centres = 6 * torch.eye(3, 5)
    labels = [0] * (3 * count) + [1] * (2 * count) + [2] * count
    return centres[labels] + torch.randn(len(labels), 5, generator=generator), labels


def test_a_taught_head_is_scikit_learns_logistic_regression() -> None:
    rows, labels = clouds(20)
    labeller = Labeller(Means(), 3)
    labeller.learn(rows, labels)
    fresh, truth = clouds(40, seed=1)
    scaled = ((rows - rows.mean(0)) / rows.std(0)).numpy()
    reference = LogisticRegression(max_iter=2000).fit(scaled, labels)
    expected = reference.predict(((fresh - rows.mean(0)) / rows.std(0)).numpy())
    assert labeller.of(fresh).tolist() == expected.tolist()
    assert (labeller.of(fresh) == torch.tensor(truth)).float().mean() > 0.98


def test_two_labels_are_told_apart_as_well() -> None:
    rows, labels = clouds(20)
    some = [i for i, label in enumerate(labels) if label < 2]
    labeller = Labeller(Means(), 2)
    labeller.learn(rows[some], [labels[i] for i in some])
    assert labeller.of(rows[some]).tolist() == [labels[i] for i in some]


def test_a_label_without_a_picture_is_told() -> None:
    rows, labels = clouds(5)
    with pytest.raises(DataError, match="label 3"):
        Labeller(Means(), 4).learn(rows, labels)


def test_clusters_are_k_means_numbered_by_size() -> None:
    rows, truth = clouds(20)
    labeller = Labeller(Means(), 3)
    labeller.cluster(rows, seed=0)
    found = labeller.of(rows)
    assert found.tolist() == truth  # the clouds' sizes descend
    scaled = ((rows - rows.mean(0)) / rows.std(0)).numpy()
    reference = KMeans(3, n_init=10, random_state=0).fit(scaled).labels_
    pairs = {(int(a), int(b)) for a, b in zip(reference, found, strict=True)}
    assert len(pairs) == 3  # the same division, under other numbers


def test_fewer_pictures_than_clusters_are_refused() -> None:
    with pytest.raises(DataError, match=r"labels\.count"):
        Labeller(Means(), 4).cluster(torch.zeros(3, 5), seed=0)


def test_pictures_are_labelled_one_by_one_and_kept_in_the_state() -> None:
    image = torch.zeros(6, 5, 4, 4)
    rows, labels = clouds(10)
    labeller = Labeller(Means(), 3)
    with pytest.raises(ConfigError, match="learnt nothing"):
        labeller(image)
    labeller.learn(rows, labels)
    image = image + rows[::10][:, :, None, None]
    again = Labeller(Means(), 3)
    again.load_state_dict(labeller.state_dict())
    assert again(image).tolist() == labels[::10]
    assert [int(again(row[None])) for row in image] == labels[::10]


def test_names_and_numbers() -> None:
    assert number_of("nut", ("lid", "nut")) == 1
    assert number_of("0", ("lid", "nut")) == 0
    with pytest.raises(ConfigError, match=r"no label 'bolt': its labels are lid \(0\), nut \(1\)"):
        number_of("bolt", ("lid", "nut"))
    with pytest.raises(ConfigError, match="it has no labels"):
        number_of("bolt", ())
    with pytest.raises(ConfigError):
        number_of("2", ("lid", "nut"))
