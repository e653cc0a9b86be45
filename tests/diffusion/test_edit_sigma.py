"""What an edit of attention hears: the noise level, whatever number the family feeds its network."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from anodiff.cond import Cond
from anodiff.diffusion.denoiser import EpsDenoiser, KarrasDenoiser, VDenoiser, X0Denoiser, moments, told
from anodiff.diffusion.gan import DDGANDenoiser
from anodiff.diffusion.guidance import CFG, Bind
from anodiff.diffusion.levels import spaced
from anodiff.diffusion.sampling import ddim
from anodiff.diffusion.schedule import table
from anodiff.nets.generator import Generator
from anodiff.nets.unet import UNet
from anodiff.noise import PerImageNoise

TABLE = table("linear")
CHAIN = table("vp", 4)
TOKENS = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(3))


def unet(*, outputs: int = 2) -> UNet:
    torch.manual_seed(0)
    net = UNet(
        in_channels=2,
        out_channels=outputs,
        width=8,
        multipliers=(1, 2),
        blocks=1,
        groups=4,
        attention=(1,),
        token_channels=6,
    )
    for p in net.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.1)
    return net.eval()


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "eps": lambda: EpsDenoiser(unet(), TABLE),
    "v": lambda: VDenoiser(unet(), TABLE),
    "x0": lambda: X0Denoiser(unet(), TABLE),
    "karras": lambda: KarrasDenoiser(unet(), std=0.5, low=0.01, high=50.0),
    "ddgan": lambda: DDGANDenoiser(Generator(unet(), latent=3), CHAIN, latent=3),
}


class Recorder:
    """An edit that changes nothing and keeps what it heard."""

    def __init__(self) -> None:
        self.places: list[str] = []
        self.sigmas: list[Tensor] = []

    def __call__(self, probs: Tensor, place: str, sigma: Tensor) -> Tensor:
        self.places.append(place)
        self.sigmas.append(sigma)
        return probs


def cond(edit: Recorder | None = None) -> Cond:
    return Cond(tokens=TOKENS, edit=edit, noise=PerImageNoise([1, 2]))


def sigmas_of(kind: str) -> Tensor:
    return CHAIN[[0, 2]] if kind == "ddgan" else TABLE[[100, 700]]


@pytest.mark.parametrize("kind", FAMILIES)
def test_an_edit_hears_the_level_of_each_row_at_every_layer(kind):
    denoiser = FAMILIES[kind]()
    y, sigma = torch.randn(2, 2, 8, 8), sigmas_of(kind)
    for given in (sigma, sigma.float(), sigma[0]):
        edit = Recorder()
        with torch.no_grad():
            x0 = denoiser(y, given, cond(edit))
            plain = denoiser(y, given, cond())
        net = denoiser.net.unet if kind == "ddgan" else denoiser.net
        assert tuple(edit.places) == net.places
        want = given.float().expand(2)
        assert all(torch.equal(heard, want) and heard.dtype == torch.float32 for heard in edit.sigmas)
        torch.testing.assert_close(x0, plain, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", FAMILIES)
def test_without_an_edit_the_network_is_handed_what_came(kind):
    denoiser = FAMILIES[kind]()
    seen = []
    denoiser.net.register_forward_pre_hook(lambda _, args: seen.append(args[-1]))
    y, bare = torch.randn(2, 2, 8, 8), cond()
    denoiser(y, sigmas_of(kind), bare)
    assert seen[-1] is bare
    if kind != "ddgan":
        denoiser(y, sigmas_of(kind), None)
        assert seen[-1] is None


def test_an_edit_by_level_changes_the_rows_it_is_for():
    denoiser = FAMILIES["v"]()
    y, sigma = torch.randn(2, 2, 8, 8), sigmas_of("v")

    def late(probs: Tensor, place: str, heard: Tensor) -> Tensor:
        flat = torch.full_like(probs, 1 / probs.shape[-1])
        return torch.where(heard.view(-1, 1, 1, 1) > 1, flat, probs)

    with torch.no_grad():
        x0, plain = (denoiser(y, sigma, c) for c in (Cond(tokens=TOKENS, edit=late), Cond(tokens=TOKENS)))
    torch.testing.assert_close(x0[0], plain[0], atol=1e-5, rtol=0)  # sigma 0.3
    assert (x0[1] - plain[1]).abs().max() > 1e-5  # sigma 8


def test_the_learned_variance_hears_it_too():
    denoiser = EpsDenoiser(unet(outputs=4), TABLE, learned_variance=True)
    edit = Recorder()
    moments(denoiser, torch.randn(2, 2, 8, 8), TABLE[300], Cond(tokens=TOKENS, edit=edit))
    assert all(torch.equal(heard, TABLE[300].float().expand(2)) for heard in edit.sigmas)
    assert len(edit.sigmas) == len(denoiser.net.places)


@torch.no_grad()
def test_a_walk_tells_the_levels_of_its_grid_and_guidance_edits_the_words_alone():
    denoiser = FAMILIES["eps"]()
    grid = spaced(denoiser.levels, 3)
    edit = Recorder()
    guided = Bind(CFG(denoiser, 3.0), Cond(tokens=TOKENS, edit=edit))
    ddim(guided, grid[0] * torch.randn(2, 2, 8, 8), grid)
    heard = [float(sigma[0]) for sigma in edit.sigmas]
    each = len(denoiser.net.places)  # once a step, though each step evaluates twice
    assert heard == [float(sigma.float()) for sigma in grid[:-1] for _ in range(each)]


def test_nothing_to_tell_is_returned_as_it_came():
    y, sigma = torch.zeros(2, 1, 1, 1), torch.tensor(2.0, dtype=torch.float64)
    assert told(None, sigma, y) is None
    bare = Cond(tokens=TOKENS)
    assert told(bare, sigma, y) is bare
    first = told(cond(Recorder()), sigma, y)
    assert first.tokens is TOKENS
    edit = Recorder()
    told(cond(edit), sigma, y).edit(torch.zeros(1), "here", torch.tensor(7.0))
    assert (edit.places, edit.sigmas[0].tolist()) == (["here"], [2.0, 2.0])
