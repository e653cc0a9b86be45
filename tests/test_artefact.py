"""The model file: what is written comes back, and every other file is refused with a sentence."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from anodiff import artefact
from anodiff.errors import ModelFileError

TENSORS = {
    "denoiser.weight": torch.arange(24, dtype=torch.float32)
    .reshape(2, 3, 4)
    .transpose(0, 2),  # not contiguous
    "threshold.scores": torch.linspace(0, 1, 7, dtype=torch.float64),
    "count": torch.tensor(3),
    "empty": torch.zeros(0, 4),
}
META = {
    "config": {"seed": 1, "name": "é"},
    "shape": [64, 96],
    "provenance": {"created": "2024-01-01", "seconds": 1.5},
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return artefact.write(tmp_path / "part.anodiff", TENSORS, META)


def test_what_is_written_comes_back(model: Path) -> None:
    tensors, about = artefact.read(model)
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(tensors[name], tensor)
        assert tensors[name].dtype == tensor.dtype
    assert {key: about[key] for key in META} == META
    assert about["version"] == artefact.VERSION
    assert about == artefact.read_header(model)


def test_other_readers_of_safetensors_understand_it(model: Path) -> None:
    assert torch.equal(load_file(model)["threshold.scores"], TENSORS["threshold.scores"])


def test_identity_follows_tensors_and_configuration_alone(tmp_path: Path) -> None:
    first = artefact.read_header(artefact.write(tmp_path / "a.anodiff", TENSORS, META))
    reordered = dict(reversed(TENSORS.items()))
    meta = {"provenance": {"created": "2025-01-01"}, "config": {"name": "é", "seed": 1}}
    again = artefact.read_header(artefact.write(tmp_path / "b.anodiff", reordered, meta))
    other = {**TENSORS, "count": torch.tensor(4)}
    changed = artefact.read_header(artefact.write(tmp_path / "c.anodiff", other, META))
    assert artefact.model_id(first) == artefact.model_id(again) != artefact.model_id(changed)
    assert len(artefact.model_id(first)) == 12
    assert artefact.model_id({**first, "config": {"name": "é", "seed": 2}}) != artefact.model_id(first)
    assert artefact.identity(TENSORS, {"seed": 1, "name": "é"}) == artefact.model_id(first)
    assert artefact.sha256(TENSORS) == first["sha256"]


def test_tensors_that_share_memory_are_written(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    tensors, _ = artefact.read(artefact.write(tmp_path / "m.anodiff", {"a": whole, "b": whole[2:]}, {}))
    assert torch.equal(tensors["b"], whole[2:])


def test_the_header_is_read_without_torch(model: Path) -> None:
    code = (
        "import sys; from anodiff import artefact; print(artefact.read_header(sys.argv[1])['shape']);"
        "print(sorted({'torch', 'numpy', 'safetensors'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, model], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[64, 96]", "[]"]


@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.6, 0.9, 0.999])
def test_a_file_cut_short_is_told(model: Path, fraction: float) -> None:
    raw = model.read_bytes()
    model.write_bytes(raw[: int(len(raw) * fraction)])
    for reader in (artefact.read, artefact.read_header):
        with pytest.raises(ModelFileError, match=r"cut short|not a model"):
            reader(model)


def test_every_flipped_byte_is_found(model: Path) -> None:
    raw = model.read_bytes()
    unseen = set()
    for place in range(len(raw)):
        model.write_bytes(raw[:place] + bytes([raw[place] ^ 0x04]) + raw[place + 1 :])
        try:
            tensors, about = artefact.read(model)
        except ModelFileError:
            continue
        unseen.add(place)
        assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())
        assert about["config"] == META["config"]
    # nothing depends on the text that says `format`, which stands there for other readers
    begin = raw.index(b'"format"')
    assert unseen <= set(range(begin, begin + len(b'"format":"pt"')))


def test_a_byte_flipped_among_the_numbers_names_the_file(model: Path) -> None:
    raw = bytearray(model.read_bytes())
    raw[-1] ^= 1
    model.write_bytes(raw)
    artefact.read_header(model)
    with pytest.raises(ModelFileError, match=r"part\.anodiff is damaged: its numbers"):
        artefact.read(model)


def test_a_missing_file_names_those_beside_it(model: Path) -> None:
    with pytest.raises(ModelFileError, match=r"no model file at .*parts\.anodiff.*part\.anodiff"):
        artefact.read(model.with_name("parts.anodiff"))


def test_a_run_folder_gives_a_hint(tmp_path: Path) -> None:
    artefact.write(tmp_path / "run" / "model.anodiff", TENSORS, META)
    with pytest.raises(ModelFileError, match=r"is a folder\. Did you mean .*model\.anodiff"):
        artefact.read_header(tmp_path / "run")


def _torch_file() -> bytes:
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(3)}, buffer)
    return buffer.getvalue()


def _zip_file() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", "b")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (_torch_file(), "torch.save"),
        (_zip_file(), "zip archive"),
        (b"\x80\x04\x95" + bytes(60), "pickle"),
        (b"path,score\na.png,1\n" * 10, "text file"),
        (b"{}", "text file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "another program"),
        (b"", "empty"),
    ],
)
def test_foreign_files_are_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "m.anodiff"
    path.write_bytes(content)
    for reader in (artefact.read, artefact.read_header):
        with pytest.raises(ModelFileError, match=says):
            reader(path)


def test_foreign_safetensors_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3)}, tmp_path / "m.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelFileError, match="weights of another program"):
        artefact.read(tmp_path / "m.safetensors")


def test_a_newer_version_says_how_to_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artefact, "VERSION", 7)
    path = artefact.write(tmp_path / "m.anodiff", TENSORS, META)
    monkeypatch.undo()
    with pytest.raises(ModelFileError, match=r"newer anodiff \(format 7.*pip install --upgrade"):
        artefact.read_header(path)


def test_numbers_that_json_lacks_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        artefact.write(tmp_path / "m.anodiff", TENSORS, {"threshold": float("nan")})


def test_a_failed_write_leaves_the_old_file(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = model.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(artefact.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        artefact.write(model, {"a": torch.zeros(3)}, {})
    assert model.read_bytes() == before
    assert [path.name for path in model.parent.iterdir()] == [model.name]


def test_the_header_is_json_anyone_can_read(model: Path) -> None:
    raw = model.read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert json.loads(header["__metadata__"]["anodiff"])["shape"] == [64, 96]
