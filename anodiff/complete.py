"""A configuration made whole: what only the pictures, or files that it names, can tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from anodiff.codec.published import read_autoencoder
from anodiff.config import RunConfig, schema
from anodiff.data.boxes import boxes, class_names
from anodiff.data.caption import captions
from anodiff.data.image import read
from anodiff.data.survey import survey
from anodiff.encode.clip import ClipText
from anodiff.encode.vocabulary import Vocabulary, learn_vocabulary
from anodiff.errors import ConfigError
from anodiff.gather import Gathered, label_numbers, labelled

MOVES = ("flip_h", "flip_v", "rotate90", "rotate", "translate", "scale")
"""Changes of a picture that its boxes or its map of classes would have to follow."""


MOST_SURVEYED = 200
"""Pictures at most, evenly chosen, on which is measured how parts lie."""


def complete(
    config: RunConfig, gathered: Gathered, *, say: Callable[[str], None] = lambda text: None
) -> RunConfig:
    """The configuration with names of labels, vocabulary, classes of boxes, the layout of a published autoencoder and
    the pose that parts are brought to.

    What is settled already stays as it is. `say` is told what was found of how parts lie.

    Raises:
        DataError: as `labelled`, `captions` and `boxes`.
        ConfigError: settings that do not fit what the pictures bring.
    """
    config = labelled(config, gathered)
    config = config.model_copy(
        update={"data": config.data.model_copy(update={"pose": _pose(config, gathered, say)})}
    )
    return config.model_copy(
        update={"tokens": _tokens(config, gathered), "codec": _codec(config), "beside": _beside(config)}
    )


def _pose(config: RunConfig, gathered: Gathered, say: Callable[[str], None]) -> schema.Pose:
    """The pose that parts are brought to, found from the pictures to train on alone."""
    pose = config.data.pose
    if isinstance(pose, schema.KeepPose) or (
        isinstance(pose, schema.UprightPose) and pose.canvas is not None
    ):
        return pose
    auto = isinstance(pose, schema.AutoPose)
    if auto and (isinstance(config.tokens, schema.Layout) or isinstance(config.beside, schema.Semantic)):
        return schema.KeepPose()  # boxes and maps would stay where they are
    every = -(-len(gathered.train) // MOST_SURVEYED)
    shown = gathered.train[::every]
    found = survey(
        (read(picture) if isinstance(picture, str) else picture for picture in shown),
        turn=None if auto else pose.turn,
        square=config.data.aspect == "square",
    )
    left = auto and not found.helps
    say(f"{found.sentence}; {'keeping pictures as they are' if left else 'bringing parts upright'}")
    if left:
        return schema.KeepPose()
    if found.upright is None or 2 * found.clear < found.looked_at:
        raise ConfigError(
            f"data.pose: upright needs parts that stand out from their ground, and {found.clear} of "
            f"{found.looked_at} pictures show one; set data.pose.kind to keep."
        )
    return schema.UprightPose(canvas=found.upright.canvas, turn=found.upright.turn)


def _tokens(config: RunConfig, gathered: Gathered) -> schema.Tokens:
    tokens = config.tokens
    match tokens:
        case schema.Text():
            told = captions(gathered.train_rows, column=tokens.column, template=tokens.template)
            labels = label_numbers(config, gathered.train_rows)
            normal = tokens.normal or _usual(told, labels, len(config.labels.classes))
            if tokens.clip is not None:
                return tokens.model_copy(
                    update={"normal": normal, "channels": ClipText(tokens.clip).channels}
                )
            known = tokens.vocabulary or learn_vocabulary([*told, *normal], size=tokens.size)
            Vocabulary(known, tokens.length).rows([*sorted(set(told)), *normal])  # refuses what is too long
            return tokens.model_copy(update={"normal": normal, "vocabulary": known})
        case schema.Layout():
            _still(config, "boxes")
            rows = boxes(gathered.train_rows, column=tokens.column)
            names = tokens.classes or class_names(rows)
            if not names:
                raise ConfigError(f"tokens: there is no box in the column {tokens.column!r} of any picture.")
            if (longest := max(map(len, rows))) > tokens.most:
                raise ConfigError(
                    f"tokens.most: a picture has {longest} boxes, more than {tokens.most}; set it higher."
                )
            return tokens.model_copy(update={"classes": names})
    return tokens


def _usual(told: Sequence[str], labels: Sequence[int] | None, count: int) -> tuple[str, ...]:
    """The commonest caption, of each of `count` labels by itself where they are known; the first of equally common
    ones, and the commonest of all for a label that no picture has.
    """

    def commonest(texts: Sequence[str]) -> str:
        return Counter(texts or told).most_common(1)[0][0]

    if labels is None:
        return (commonest(told),)
    pairs = list(zip(told, labels, strict=True))
    return tuple(commonest([text for text, label in pairs if label == number]) for number in range(count))


def _codec(config: RunConfig) -> schema.Codec:
    """The codec with the layout of the published weights that it names."""
    section = config.codec
    if not isinstance(section, schema.LatentCodec) or section.weights is None:
        return section
    found = read_autoencoder(Path(section.weights)).options
    if found["image_channels"] != config.data.channels:
        raise ConfigError(
            f"codec.weights: the autoencoder paints {found['image_channels']} channels, data.channels is "
            f"{config.data.channels}; set data.channels={found['image_channels']}."
        )
    multipliers = tuple(float(value) for value in found["multipliers"])
    return section.model_copy(
        update={
            "stride": 2 ** (len(multipliers) - 1),
            "channels": found["channels"],
            "width": found["width"],
            "multipliers": multipliers,
            "blocks": found["blocks"],
            "attention": found["attention"],
            "groups": found["groups"],
            "shortcuts": False,
        }
    )


def _beside(config: RunConfig) -> schema.Beside:
    if isinstance(config.beside, schema.Semantic):
        _still(config, "maps of classes")
    return config.beside


def _still(config: RunConfig, what: str) -> None:
    """Nothing; ConfigError where pictures are moved but what is told of them is not."""
    moved = [f"augment.{name}" for name in MOVES if getattr(config.data.augment, name)]
    if not isinstance(config.data.pose, schema.KeepPose):
        moved = ["pose"]
    if moved:
        raise ConfigError(
            f"data.{moved[0]} moves the pictures, and their {what} would stay where they are: leave it out."
        )
