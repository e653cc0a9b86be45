import pytest
import torch

from anodiff.cond import Cond
from anodiff.errors import ConfigError
from anodiff.nets.boxes import BoxEncoder
from anodiff.nets.generator import Generator
from anodiff.nets.reader import Reader
from anodiff.nets.text import TextEncoder
from anodiff.nets.unet import UNet

SMALL = {"in_channels": 3, "out_channels": 5, "width": 8, "multipliers": (1, 2), "blocks": 1, "groups": 4}
WORDS = torch.tensor([[5, 3, 7, 0], [2, 9, 0, 0]])
BOXES = torch.tensor(
    [[[0, 0.1, 0.2, 0.4, 0.5], [1, 0.0, 0.0, 1.0, 1.0]], [[1, 0.3, 0.3, 0.6, 0.9], [-1, 0, 0, 0, 0]]]
)
BATCHES = {"words": WORDS, "boxes": BOXES}


def encoder(field: str) -> TextEncoder | BoxEncoder:
    if field == "words":
        return TextEncoder(vocabulary=10, channels=8, depth=1, heads=2, length=6)
    return BoxEncoder(classes=2, channels=8, depth=1, heads=2)


def made(field: str = "words", **switches) -> Reader:
    torch.manual_seed(0)
    switches = {"attention": (1,), "token_channels": 8, "transformer": 1} | switches
    net = Reader(UNet(**SMALL | switches), encoder(field), field)
    for p in net.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.1)
    return net.eval()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2)), torch.tensor([5.0, 70.0])


@pytest.mark.parametrize("field", BATCHES)
def test_it_is_the_unet_with_the_tokens_of_the_encoder(field):
    net = made(field)
    x, t = batch()
    cond = Cond(**{field: BATCHES[field]})
    tokens, mask = net.encoder(BATCHES[field])
    places = net.encoder.places(BATCHES[field]) if field == "boxes" else None
    want = net.net(x, t, Cond(tokens=tokens, token_mask=mask, token_boxes=places))
    assert torch.equal(net(x, t, cond), want)
    assert (want - net(x, t)).abs().max() > 1e-4
    other = "boxes" if field == "words" else "words"
    assert torch.equal(net(x, t, Cond(**{other: BATCHES[other]})), net(x, t))  # it does not read that


@pytest.mark.parametrize("field", BATCHES)
def test_what_was_read_once_is_not_read_again(field):
    net = made(field)
    x, t = batch()
    count = []
    net.encoder.register_forward_hook(lambda *_: count.append(1))
    cond = Cond(**{field: BATCHES[field]}, token_gain=torch.ones(2, BATCHES[field].shape[1]))
    ready = net.read(cond)
    assert len(count) == 1
    assert torch.equal(net(x, t, ready), net(x, t, ready))
    assert len(count) == 1
    assert net.read(ready) is ready
    torch.testing.assert_close(net(x, t, cond), net(x, t, ready))
    assert len(count) == 2
    assert getattr(ready, field) is BATCHES[field]
    assert torch.equal(ready.token_gain[:, : BATCHES[field].shape[1]], cond.token_gain)
    assert ready.token_gain.shape == ready.tokens.shape[:2]
    assert net.read(Cond()) == Cond()


def test_tokens_that_are_there_go_before_words():
    net = made()
    x, t = batch()
    tokens = torch.randn(2, 3, 8)
    assert torch.equal(net(x, t, Cond(words=WORDS, tokens=tokens)), net.net(x, t, Cond(tokens=tokens)))


def test_no_words_rows_not_kept_and_rows_of_padding_are_the_null():
    net = made()
    x, t = batch()
    null = net(x, t)
    assert torch.equal(net.net(x, t), null)
    cond = Cond(words=WORDS, token_gain=torch.full((2, 4), 3.0), edit=lambda p, place, _: 0 * p)
    torch.testing.assert_close(net(x, t, cond.null()), null, atol=1e-5, rtol=0)
    torch.testing.assert_close(net(x, t, Cond(words=torch.zeros_like(WORDS))), null, atol=1e-5, rtol=0)
    torch.testing.assert_close(net(x, t, Cond(words=WORDS[:, :0])), null, atol=1e-5, rtol=0)
    half = net(x, t, Cond(words=WORDS, keep=torch.tensor([True, False])))
    torch.testing.assert_close(half[0], net(x, t, Cond(words=WORDS))[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(half[1], null[1], atol=1e-5, rtol=0)


def test_more_padding_and_other_neighbours_change_nothing():
    net = made()
    x, t = batch()
    y = net(x, t, Cond(words=WORDS))
    longer = torch.cat([WORDS, torch.zeros(2, 2, dtype=torch.long)], dim=1)
    torch.testing.assert_close(net(x, t, Cond(words=longer)), y, atol=1e-5, rtol=0)
    alone = net(x[1:], t[1:], Cond(words=WORDS[1:, :2]))
    torch.testing.assert_close(alone[0], y[1], atol=1e-5, rtol=0)


def test_a_mask_that_comes_with_words_takes_them_out_after_they_were_encoded():
    net = made()
    x, t = batch()
    mask = torch.tensor([[True, False, True, True], [True, True, True, True]])
    ready = net.read(Cond(words=WORDS, token_mask=mask))
    assert torch.equal(ready.token_mask, mask & (WORDS != 0))
    assert torch.equal(ready.tokens, net.encoder(WORDS)[0])
    y, full = (net(x, t, Cond(words=WORDS, token_mask=m)) for m in (mask, None))
    assert (y[0] - full[0]).abs().max() > 1e-5
    torch.testing.assert_close(y[1], full[1], atol=1e-5, rtol=0)


def test_a_gain_of_a_word_and_an_edit_reach_the_attention():
    net = made()
    x, t = batch()
    y = net(x, t, Cond(words=WORDS))
    gain = torch.ones(2, 4)
    gain[0, 1] = 4
    changed = net(x, t, Cond(words=WORDS, token_gain=gain))
    assert (changed[0] - y[0]).abs().max() > 1e-5
    torch.testing.assert_close(changed[1], y[1], atol=1e-5, rtol=0)
    seen = []
    net(x, t, Cond(words=WORDS, edit=lambda p, place, _: seen.append(place) or p))
    assert tuple(seen) == net.places


def test_it_tells_what_the_unet_tells():
    net = made(classes=3, cond_channels=2, patch=2)
    assert net.reads == {"label", "image", "words"}
    assert made("boxes").reads == {"boxes"}
    for name in (
        *("classes", "in_channels", "out_channels", "cond_channels", "token_channels", "patch"),
        *("stride", "levels", "blocks", "embed", "places", "last"),
    ):
        assert getattr(net, name) == getattr(net.net, name), name
    assert (net.classes, net.stride, net.embed, net.token_channels) == (3, 4, 32, 8)


@pytest.mark.parametrize("field", BATCHES)
def test_gradient_reaches_the_encoder(field):
    net = made(field).train()
    x, t = batch()
    y = net(x, t, Cond(**{field: BATCHES[field]}))
    (y * torch.randn_like(y)).sum().backward()
    dead = [n for n, p in net.encoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 1e-7]
    assert dead == []


def test_a_generator_of_it_draws_by_words_and_latent():
    torch.manual_seed(0)
    unet = UNet(**SMALL, attention=(1,), token_channels=8)
    net = Generator(Reader(unet, encoder("words"), "words"), latent=4, hidden=16)
    assert unet.last.weight.any()  # what starts at zero was drawn through the reader
    for p in net.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.3)
    x, t = batch()
    w = torch.randn(2, 4)
    y = net(x, t, w, Cond(words=WORDS))
    assert y.shape == (2, 5, 8, 8)
    assert (net.reads, net.classes, net.stride, net.patch) == ({"words"}, None, 2, 1)
    assert (net(x, t, w, Cond(words=WORDS.flip(0))) - y).abs().max() > 1e-5
    assert (net(x, t, -w, Cond(words=WORDS)) - y).abs().max() > 1e-4


def test_it_learns_what_words_mean():
    torch.manual_seed(0)
    net = Reader(
        UNet(**SMALL | {"out_channels": 3}, attention=(1,), token_channels=8, transformer=1),
        encoder("words"),
        "words",
    )
    words = torch.tensor([[4, 2, 0], [4, 3, 0], [5, 2, 0], [5, 3, 1]])
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0]).view(4, 1, 1, 1)  # the second word says it
    x = torch.randn(1, 3, 8, 8).expand(4, -1, -1, -1)
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(80):
        loss = (net(x, torch.tensor(1.0), Cond(words=words)) - sign).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.3  # without words it is 1


def test_parts_that_do_not_fit_say_why():
    unet = UNet(**SMALL, attention=(1,), token_channels=6)
    with pytest.raises(ConfigError, match="token_channels=8"):
        Reader(unet, encoder("words"), "words")
    with pytest.raises(ConfigError, match="words or boxes, got 'label'"):
        Reader(UNet(**SMALL, attention=(1,), token_channels=8), encoder("words"), "label")
    with pytest.raises(ConfigError, match="words 0 to 9"):
        made()(*batch(), Cond(words=WORDS + 9))
