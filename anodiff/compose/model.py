"""The networks of a configuration: denoiser, critic, classifier and labeller; and what is trained of them first."""

from __future__ import annotations

from math import lcm, prod

from torch import Tensor, nn

from anodiff.codec.backbone import backbone
from anodiff.codec.fuse import fused
from anodiff.codec.pooled import Pooled
from anodiff.compose.codec import seeded, source
from anodiff.config import RunConfig, schema
from anodiff.detect.predictor import Predictor
from anodiff.diffusion.classifier import NoisyClassifier
from anodiff.diffusion.denoiser import EpsDenoiser, KarrasDenoiser, VDenoiser, X0Denoiser
from anodiff.diffusion.gan import Critic, DDGANDenoiser
from anodiff.diffusion.levels import Levels
from anodiff.diffusion.schedule import table, zero_terminal
from anodiff.encode.label import Labeller
from anodiff.errors import ConfigError
from anodiff.nets.boxes import BoxEncoder
from anodiff.nets.classifier import Classifier
from anodiff.nets.discriminator import Discriminator
from anodiff.nets.generator import Generator
from anodiff.nets.reader import Reader
from anodiff.nets.text import TextEncoder
from anodiff.nets.unet import UNet
from anodiff.train.adversarial import Adversaries

Family = EpsDenoiser | VDenoiser | X0Denoiser | KarrasDenoiser | DDGANDenoiser


def multiple(config: RunConfig, stride: int) -> int:
    """What both sides of the working shape are multiples of, so that no level of a network pads."""
    nets: list[schema.UNet | schema.ClassifierNet | schema.CriticNet] = [config.net]
    if isinstance(config.guidance, schema.ClassifierGuidance):
        nets.append(config.guidance.net)
    if isinstance(config.family, schema.DDGANFamily):
        nets.append(config.family.critic)
    return stride * lcm(*(net.patch * 2 ** (len(net.multipliers) - 1) for net in nets))


def learner(predictor: Predictor) -> nn.Module:
    """What is trained first of a predictor: its denoiser, together with the critic it plays against if it has one."""
    denoiser, critic = predictor.denoiser, predictor.critic
    if isinstance(denoiser, DDGANDenoiser) and isinstance(critic, Critic):
        return Adversaries(denoiser, critic)
    assert isinstance(denoiser, nn.Module)
    return denoiser


def check_shape(config: RunConfig, shape: tuple[int, int], stride: int) -> None:
    """Nothing, when no group norm of a network meets one value alone, which it would turn into 0 whatever it is.

    That is so where the deepest map has one position, and one of its norms a group a channel. Discriminators have none.

    Args:
        config: of the networks.
        shape: working (height, width), multiples of `multiple`.
        stride: of the codec.

    Raises:
        ConfigError: one does; with what to change.
    """
    nets: dict[str, schema.UNet | schema.ClassifierNet] = {"net": config.net}
    if isinstance(config.guidance, schema.ClassifierGuidance):
        nets["guidance.net"] = config.guidance.net
    for key, net in nets.items():
        side = stride * net.patch * 2 ** (len(net.multipliers) - 1)
        groups = net.groups if isinstance(net, schema.UNet) else schema.UNet().groups
        # The deepest level is entered with the channels of the one above it.
        fewest = min(max(1, round(net.width * multiplier)) for multiplier in net.multipliers[-2:])
        if prod(shape) == side**2 and fewest <= groups:
            raise ConfigError(
                f"At {shape[0]} x {shape[1]} the deepest map of the network ({key}) has one position, and with "
                f"{fewest} channels in {fewest} groups its norms would leave nothing of it. Take a larger data.size "
                f"(--size {2 * side}), fewer {key}.multipliers, a smaller {key}.patch, or a {key}.width that gives "
                f"that level more than {groups} channels."
            )


def denoiser(config: RunConfig, channels: int) -> Family:
    """An untrained denoiser of `channels` channels; its first weights are a function of the seed."""
    net, family = config.net, config.family
    learned = isinstance(family, schema.DiscreteFamily) and family.variance == "learned"
    bounded = isinstance(config.codec, schema.PixelCodec)

    def unet() -> UNet:
        return UNet(
            in_channels=channels,
            out_channels=2 * channels if learned else channels,
            width=net.width,
            multipliers=net.multipliers,
            blocks=net.blocks,
            attention=net.attention,
            heads=net.heads,
            head_channels=net.head_channels,
            resample=net.resample,
            rescale=net.rescale,
            modulation=net.modulation,
            mid_attention=net.mid_attention,
            groups=net.groups,
            eps=net.eps,
            frequency_shift=net.frequency_shift,
            pad=net.pad,
            classes=len(config.labels.classes) or None,
            cond_channels=beside_channels(config, channels),
            token_channels=0 if config.tokens.kind == "none" else config.tokens.channels,
            transformer=net.transformer,
            positions=net.positions,
            dropout=net.dropout,
            patch=net.patch,
            edge=net.edge,
        )

    def body() -> nn.Module:
        made = reading(config, unet())
        match family:
            case schema.DDGANFamily(latent=latent, mapping=layers):
                limit = 1 / family.std if bounded else None  # pixels end at -1 and 1
                return Generator(made, latent=latent, layers=layers, limit=limit)
        return made

    return of_family(config, seeded(config, body))


def reading(config: RunConfig, net: UNet) -> UNet | Reader:
    """The network, with the encoder of the words or boxes that it is told, where it is."""
    match config.tokens:
        case schema.Text(clip=None) as told:
            return Reader(
                net,
                TextEncoder(
                    len(told.vocabulary),
                    told.channels,
                    depth=told.depth,
                    heads=told.heads,
                    length=told.length,
                ),
                "words",
            )
        case schema.Layout() as told:
            return Reader(
                net, BoxEncoder(len(told.classes), told.channels, depth=told.depth, heads=told.heads), "boxes"
            )
    return net


def beside_channels(config: RunConfig, channels: int) -> int:
    """Channels of what is concatenated to codes of `channels` channels."""
    match config.beside:
        case schema.LowRes():
            return config.data.channels
        case schema.Masked():
            return channels + 1
        case schema.Semantic(classes=classes):
            return classes
    return 0


def of_family(config: RunConfig, net: nn.Module) -> Family:
    """The denoiser that reads what `net` says as the family of `config` does."""
    match config.family:
        case schema.KarrasFamily(std=std, low=low, high=high):
            return KarrasDenoiser(net, std=std, low=low, high=high)
        case schema.DDGANFamily(latent=latent, std=std):
            return DDGANDenoiser(net, chain(config.family), latent=latent, std=std)
        case schema.DiscreteFamily(kind=kind, schedule=schedule, variance=variance):
            made = {"eps": EpsDenoiser, "v": VDenoiser, "x0": X0Denoiser}[kind]
            return made(net, levels_table(schedule), learned_variance=variance == "learned")


def critic(config: RunConfig, channels: int) -> Critic | None:
    """An untrained discriminator of rows of `channels` channels, where the family has one."""
    if not isinstance(config.family, schema.DDGANFamily):
        return None
    net = config.family.critic
    made = seeded(
        config,
        lambda: Discriminator(
            in_channels=channels,
            width=net.width,
            multipliers=net.multipliers,
            blocks=net.blocks,
            classes=len(config.labels.classes) or None,
            patch=net.patch,
            spread=net.spread,
        ),
    )
    return Critic(made, chain(config.family), std=config.family.std)


def classifier(
    config: RunConfig, channels: int, size: tuple[int, int], levels: Levels
) -> NoisyClassifier | None:
    """An untrained classifier of noisy rows [channels, *size], where the guidance is by one."""
    if not isinstance(config.guidance, schema.ClassifierGuidance):
        return None
    net = config.guidance.net
    half = seeded(
        config,
        lambda: Classifier(
            in_channels=channels,
            classes=len(config.labels.classes),
            width=net.width,
            multipliers=net.multipliers,
            blocks=net.blocks,
            attention=net.attention,
            head_channels=net.head_channels,
            resample=net.resample,
            pool=net.pool,
            size=size,
            patch=net.patch,
            dropout=net.dropout,
        ),
    )
    return NoisyClassifier(half, levels)


def labeller(config: RunConfig, *, weights: str | None = None) -> Labeller | None:
    """What tells the label of a picture, where the model has labels."""
    if not config.labels.classes:
        return None
    kind = schema.FeatureCodec()
    found = backbone(kind.backbone, kind.stages, weights=source(weights or kind.weights))
    return Labeller(Pooled(fused(found)), len(config.labels.classes))


def chain(family: schema.DDGANFamily) -> Tensor:
    """The few levels of a generator's chain, [T] ascending float64: those of unit data, times the data's deviation."""
    return family.std * levels_table(family.schedule)


def levels_table(config: schema.Schedule) -> Tensor:
    """The ascending sigmas [T] float64 of a schedule."""
    found = table(config.name, config.steps)
    return zero_terminal(found) if config.zero_terminal_snr else found
