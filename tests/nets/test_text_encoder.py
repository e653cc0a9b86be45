import pytest
import torch
from transformers import SiglipTextConfig, SiglipTextModel

from anodiff.errors import ConfigError
from anodiff.nets.text import TextEncoder

WORDS = torch.tensor([[5, 3, 7, 0, 0], [2, 2, 9, 4, 1], [6, 0, 0, 0, 0]])


def made(*, depth: int = 2) -> TextEncoder:
    # An even number of heads: with an odd one PyTorch has no way of its own without gradients.
    torch.manual_seed(0)
    net = TextEncoder(vocabulary=10, channels=12, depth=depth, heads=4, length=8)
    for p in net.parameters():  # norms and biases too
        torch.nn.init.normal_(p, std=0.4)
    return net


def siglip(net: TextEncoder) -> SiglipTextModel:
    """Another library's pre-norm encoder of text, with the same weights."""
    config = SiglipTextConfig(
        vocab_size=net.vocabulary,
        hidden_size=net.channels,
        intermediate_size=4 * net.channels,
        num_hidden_layers=len(net.encoder.layers),
        num_attention_heads=4,
        max_position_embeddings=net.length,
        hidden_act="gelu",
        layer_norm_eps=1e-5,
        attn_implementation="eager",
    )
    theirs = SiglipTextModel(config).eval()
    parts = {
        "embeddings.token_embedding.weight": net.word.weight,
        "embeddings.position_embedding.weight": net.position,
        "final_layer_norm.weight": net.encoder.norm.weight,
        "final_layer_norm.bias": net.encoder.norm.bias,
    }
    for i, layer in enumerate(net.encoder.layers):
        weights, biases = layer.self_attn.in_proj_weight.chunk(3), layer.self_attn.in_proj_bias.chunk(3)
        for kind, weight, bias in zip(("q", "k", "v"), weights, biases, strict=True):
            parts[f"encoder.layers.{i}.self_attn.{kind}_proj.weight"] = weight
            parts[f"encoder.layers.{i}.self_attn.{kind}_proj.bias"] = bias
        for name, module in (
            ("self_attn.out_proj", layer.self_attn.out_proj),
            ("layer_norm1", layer.norm1),
            ("layer_norm2", layer.norm2),
            ("mlp.fc1", layer.linear1),
            ("mlp.fc2", layer.linear2),
        ):
            parts[f"encoder.layers.{i}.{name}.weight"] = module.weight
            parts[f"encoder.layers.{i}.{name}.bias"] = module.bias
    prefix = "text_model." if any(k.startswith("text_model.") for k in theirs.state_dict()) else ""
    missing, unexpected = theirs.load_state_dict({prefix + k: v for k, v in parts.items()}, strict=False)
    assert not unexpected
    assert all("head" in name or "position_ids" in name for name in missing)
    return theirs


@pytest.mark.parametrize("depth", [1, 3])
@torch.no_grad()
def test_it_equals_the_text_encoder_of_transformers(depth):
    net = made(depth=depth).eval()
    tokens, mask = net(WORDS)
    assert torch.equal(mask, WORDS != 0)
    want = siglip(net)(input_ids=WORDS, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(tokens[mask], want[mask], atol=1e-5, rtol=0)


def test_tokens_depend_on_their_own_words_alone():
    net = made().eval()
    tokens, _ = net(WORDS)
    longer, mask = net(torch.cat([WORDS, torch.zeros(3, 3, dtype=torch.long)], dim=1))
    torch.testing.assert_close(longer[:, :5], tokens, atol=1e-5, rtol=0)
    assert not longer[:, 5:].any()
    assert not mask[:, 5:].any()
    for i, row in enumerate(WORDS):
        torch.testing.assert_close(net(row[row != 0][None])[0][0], tokens[i, row != 0], atol=1e-5, rtol=0)
    other = WORDS.clone()
    other[1] = 8
    torch.testing.assert_close(net(other)[0][[0, 2]], tokens[[0, 2]], atol=1e-5, rtol=0)


def test_a_row_of_padding_is_zeros_and_spoils_no_gradient():
    net = made()
    tokens, mask = net(torch.tensor([[0, 0, 0], [4, 5, 0]]))
    assert not tokens[0].any()
    assert not mask[0].any()
    assert tokens[1, :2].abs().min() > 0
    tokens.pow(3).sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())
    with torch.no_grad():
        assert not net.eval()(torch.zeros(2, 4, dtype=torch.long))[0].any()


def test_a_row_of_padding_is_a_number_inside_too():
    net = made().eval()
    seen = []
    net.encoder.norm.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    words = torch.tensor([[0, 0, 0], [4, 5, 0]])
    net(words)
    with torch.no_grad():  # where PyTorch takes a way of its own
        net(words)
    assert all(h.isfinite().all() for h in seen)


def test_training_evaluation_and_no_gradients_are_the_same():
    net = made().train()
    want = net(WORDS)[0]
    torch.testing.assert_close(net.eval()(WORDS)[0], want, atol=1e-5, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(net(WORDS)[0], want, atol=1e-5, rtol=0)
        torch.testing.assert_close(net.double()(WORDS)[0].float(), want, atol=1e-5, rtol=0)


def test_words_and_their_order_matter():
    net = made().eval()
    a, b, c = net(torch.tensor([[1, 2, 3], [3, 2, 1], [1, 2, 4]]))[0]
    assert (a - b.flip(0)).abs().max() > 1e-2  # the same words, in places of their own
    assert (a[0] - c[0]).abs().max() > 1e-3  # the first word hears the last


def test_gradient_reaches_every_parameter_but_that_of_padding():
    net = made()
    tokens, _ = net(torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8], [9, 1, 0, 0, 0, 0, 0, 0]]))
    (tokens * torch.randn_like(tokens)).sum().backward()
    # The attention's biases stand in one vector of which the keys' third changes nothing.
    assert [n for n, p in net.named_parameters() if not p.grad.abs().sum() > 1e-4] == []
    assert not net.word.weight.grad[0].any()
    assert (net.word.weight.grad[1:].abs().sum(1) > 0).all()
    assert (net.position.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (torch.ones(2, 9).long(), "reads 8 words at most, got 9"),
        (torch.ones(2, 3), r"whole numbers, got \[2, 3\] of float32"),
        (torch.ones(3).long(), r"shape \[B, L\].* got \[3\]"),
        (torch.tensor([[1, 10]]), "words 0 to 9, got 10"),
        (torch.tensor([[1, -1]]), "words 0 to 9, got -1"),
    ],
)
def test_words_that_do_not_fit_say_what_was_expected(words, says):
    with pytest.raises(ConfigError, match=says):
        made()(words)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"heads": 5}, "heads that divide"),
        ({"vocabulary": 1}, "vocabulary of 2"),
        ({"length": 0}, "length=0"),
    ],
)
def test_an_encoder_that_cannot_be_built_says_why(change, says):
    with pytest.raises(ConfigError, match=says):
        TextEncoder(**{"vocabulary": 10, "channels": 12, "depth": 1, "heads": 4, "length": 8} | change)
