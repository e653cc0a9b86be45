"""A CLIP text model of a local folder, against transformers' own output; the model is tiny and random."""

from __future__ import annotations

import builtins
from pathlib import Path

import pytest
import torch

from anodiff.encode.clip import ClipText
from anodiff.encode.prompt import alignment, gains, parse
from anodiff.errors import ConfigError, MissingExtraError, ModelFileError

transformers = pytest.importorskip("transformers")

TEXTS = ["A brass washer", "steel", ""]


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A folder as transformers saves it: letters as the vocabulary, and one merge, `br`."""
    folder = tmp_path_factory.mktemp("clip")
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "br", "<|startoftext|>", "<|endoftext|>"]
    tokenizer = transformers.CLIPTokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)}, merges=[("b", "r")]
    )
    config = transformers.CLIPTextConfig(
        vocab_size=len(pieces),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=20,
        bos_token_id=len(pieces) - 2,
        eos_token_id=len(pieces) - 1,
        pad_token_id=len(pieces) - 1,
    )
    torch.manual_seed(0)
    transformers.CLIPTextModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_the_tokens_are_transformers_own(saved):
    """Law: words; reference: transformers' CLIPTextModel and CLIPTokenizer on the same folder"""
    tokens, mask = ClipText(str(saved))(TEXTS)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(saved)
    model = transformers.CLIPTextModel.from_pretrained(saved).eval()
    for row, text in enumerate(TEXTS):  # one by one and without padding
        with torch.no_grad():
            want = model(**tokenizer([text], return_tensors="pt")).last_hidden_state[0]
        assert int(mask[row].sum()) == len(want)
        assert mask[row, : len(want)].all()
        torch.testing.assert_close(tokens[row, : len(want)], want, atol=1e-5, rtol=1e-5)
    assert tokens.shape == (3, 20, 16)
    assert not torch.equal(tokens[0, 1], tokens[1, 1])


def test_it_tells_its_shape_and_has_nothing_to_learn(saved):
    clip = ClipText(str(saved))
    assert (clip.channels, clip.length) == (16, 20)
    tokens, _ = clip(["a washer"])
    assert not tokens.requires_grad
    assert not any(p.requires_grad for p in clip._model.parameters())
    assert not clip._model.training
    assert [t.shape for t in clip([])] == [(0, 20, 16), (0, 20)]


def test_prompts_and_alignments_work_on_its_words(saved):
    clip = ClipText(str(saved))
    assert [(w.text, w.places) for w in clip.read("A brass nut")] == [
        ("a", (1,)),
        ("brass", (2, 3, 4, 5)),  # br a s s
        ("nut", (6, 7, 8)),
    ]
    prompt = parse("a (Brass:2) nut")
    assert gains(prompt, clip)[:9].tolist() == [1, 1, 2, 2, 2, 2, 1, 1, 1]
    assert alignment("a nut", "a brass nut", clip)[:10].tolist() == [0, 1, -1, -1, -1, -1, 2, 3, 4, 5]


def test_a_pipelines_folder_is_read_too(saved, tmp_path):
    for part, files in {
        "text_encoder": ("config.json", "model.safetensors"),
        "tokenizer": ("tokenizer.json", "tokenizer_config.json"),
    }.items():
        (tmp_path / part).mkdir()
        for file in files:
            (tmp_path / part / file).write_bytes((saved / file).read_bytes())
    assert torch.equal(ClipText(str(tmp_path))(TEXTS)[0], ClipText(str(saved))(TEXTS)[0])


def test_what_is_wrong_is_said(saved, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"22 pieces .* 18 at most"):
        ClipText(str(saved))(["washer " * 3 + "nutt"])
    with pytest.raises(ModelFileError, match="save_pretrained"):
        ClipText(str(tmp_path))(TEXTS)
    for file in saved.iterdir():
        if file.name != "model.safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ModelFileError, match="does not hold"):
        ClipText(str(tmp_path)).channels  # noqa: B018
    from safetensors.torch import load_file, save_file

    tensors = load_file(saved / "model.safetensors")
    gone = next(name for name in tensors if "final_layer_norm.weight" in name)
    save_file(
        {k: v for k, v in tensors.items() if k != gone}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(ModelFileError, match=r"lacks 1 tensors.*final_layer_norm"):
        ClipText(str(tmp_path)).channels  # noqa: B018

    plain = builtins.__import__

    def absent(name, *args, **kwargs):
        if name == "transformers":
            raise ImportError(name)
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingExtraError, match=r"anodiff\[pretrained\]"):
        ClipText(str(saved))(TEXTS)
