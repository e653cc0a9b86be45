"""The documentation is true: its blocks run, its links lead somewhere, its tables name everything there is."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from anodiff import errors
from anodiff.cli.main import VERBS, main
from anodiff.config import RunConfig
from anodiff.data.demo import make_demo

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SKIP = "no-run"


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int  # of its first line of code
    language: str
    skip: str | None  # the reason not to run it
    code: str

    @property
    def is_command(self) -> bool:
        """Whether it calls anodiff and nothing else."""
        return self.language in ("console", "bash", "sh") and self.code.startswith("anodiff ")

    @property
    def is_run(self) -> bool:
        """Whether the tests run it."""
        return self.skip is None and (self.language == "python" or self.is_command)


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text("utf-8")
    for found in re.finditer(r"^```([^\n]*)\n(.*?)^```\s*$", text, flags=re.MULTILINE | re.DOTALL):
        language, _, rest = found[1].strip().partition(" ")
        skip = rest.removeprefix(SKIP).strip() if rest.startswith(SKIP) else None
        yield Block(page, text.count("\n", 0, found.start(2)) + 1, language, skip, found[2])


def commands(block: Block) -> list[list[str]]:
    """The words of each command of a block, without the first."""
    lines = block.code.replace("\\\n", " ").splitlines()
    found = [shlex.split(line, comments=True) for line in lines]
    return [words[1:] for words in found if words]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder the documentation speaks of: good pictures, new ones, a part in MVTec layout, a manifest, a model."""
    folder = tmp_path_factory.mktemp("docs")
    make_demo(folder / "made", categories=("brick",), train=18, good=5, bad=6)
    brick = (folder / "made" / "brick").rename(folder / "brick")
    shutil.rmtree(folder / "made")
    make_demo(folder / "parts", categories=("brick", "grass"), train=18, good=3, bad=3)
    train = sorted((brick / "train" / "good").glob("*.png"))
    places = {"photos/good": train[:12], "photos/more": train[12:]}
    places["photos/new"] = [
        *sorted(brick.glob("test/good/*.png"))[:3],
        *sorted(brick.glob("test/scratch/*.png")),
    ]
    for place, pictures in places.items():
        (folder / place).mkdir(parents=True)
        for number, picture in enumerate(pictures):
            shutil.copy(picture, folder / place / f"{number:03}.png")
    rows = ["image,mask,defect,split"]
    for picture in sorted(brick.glob("*/*/*.png")):
        split, defect, name = picture.relative_to(brick).parts
        if split != "ground_truth":
            mask = brick / "ground_truth" / defect / name.replace(".png", "_mask.png")
            told = mask.relative_to(folder) if mask.is_file() else ""
            rows.append(f"{picture.relative_to(folder)},{told},{defect},{split}")
    (folder / "parts.csv").write_text("\n".join(rows) + "\n")
    shutil.copytree(ROOT / "configs", folder / "configs")
    short = ["--preset", "tiny", "--size", "64", "--set", "net.width=16", "--set", "train.steps=12"]
    torch.set_num_threads(1)
    assert main(["fit", str(folder / "photos/good"), "-o", str(folder / "run"), *short]) == 0
    (folder / "run" / "model.anodiff").rename(folder / "part.anodiff")
    shutil.rmtree(folder / "run")
    return folder


@pytest.mark.xdist_group("docs")
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(block.is_run for block in blocks(page))],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_the_blocks_of_a_page_run(
    page: Path,
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}  # shared by the blocks of the page
    for block in blocks(page):
        if not block.is_run:
            continue
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec"), names)
            continue
        for words in commands(block):
            capsys.readouterr()
            code = main(words)
            assert code == 0, (
                f"{page.name}, line {block.line}: anodiff {shlex.join(words)}\n{capsys.readouterr().err}"
            )


def test_every_page_that_shows_code_is_run() -> None:
    """So that a change of the fences does not switch the test above off unseen."""
    run = {page.relative_to(ROOT).as_posix() for page in PAGES if any(block.is_run for block in blocks(page))}
    assert run >= {
        "README.md",
        *(
            f"docs/{name}.md"
            for name in (
                "index",
                "quickstart",
                "data",
                "cli",
                "configuration",
                "scores",
                "notation",
                "guidance",
            )
        ),
    }


def test_blocks_that_do_not_run_say_why() -> None:
    for page in PAGES:
        for block in blocks(page):
            where = f"{page.name}, line {block.line}"
            assert block.skip != "", f"{where}: {SKIP} needs a reason"
            if block.language in ("console", "bash", "sh") and block.skip is None and not block.is_command:
                assert not re.search(r"^anodiff ", block.code, flags=re.MULTILINE), (
                    f"{where}: commands are mixed"
                )


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and mkdocs make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if target.startswith(("http://", "https://")):
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            assert file.is_file(), f"{page.name} links to {target}"
            if anchor:
                headings = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), flags=re.MULTILINE)
                assert anchor in {slug(heading) for heading in headings}, f"{page.name} links to {target}"


def keys(schema: dict[str, Any], node: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Every key of a configuration that is not a section, with its place."""
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].removeprefix("#/$defs/")]
    below = [*node.get("oneOf", []), *node.get("anyOf", []), *node.get("allOf", [])]
    sections = [part for part in below if "$ref" in part]
    if "properties" in node:
        for name, value in node["properties"].items():
            yield from keys(schema, value, f"{prefix}{name}.")
    elif sections:
        for part in sections:
            yield from keys(schema, part, prefix)
    else:
        yield prefix.rstrip(".")


def test_every_key_of_the_configuration_is_explained_and_no_other() -> None:
    schema = RunConfig.model_json_schema()
    there = set(keys(schema, schema))
    assert {"seed", "data.augment.rotate90", "family.schedule.name", "family.std", "score.sigmas"} <= there
    text = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    first_cells = [row.split("|")[1] for row in text.splitlines() if row.startswith("| `")]
    told = {key for cell in first_cells for key in re.findall(r"`([\w.]+)`", cell)}
    assert told - {"features", "fine", "pixels", "tiny"} == there


@pytest.mark.parametrize("name", ["README.md", "docs/cli.md"])
def test_every_exit_code_is_explained(name: str) -> None:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.AnodiffError)
    ]
    codes = {kind.exit_code for kind in kinds} | {0, 10, 11, 130}
    rows = re.findall(r"^\| (\d+) \|", (ROOT / name).read_text("utf-8"), flags=re.MULTILINE)
    assert {int(code) for code in rows} == codes


def test_every_command_is_explained() -> None:
    text = (ROOT / "docs" / "cli.md").read_text("utf-8")
    headings = " ".join(re.findall(r"^## (.*)$", text, flags=re.MULTILINE))
    assert set(re.findall(r"\w+", headings)) >= {verb.__name__.rsplit(".", 1)[-1] for verb in VERBS}


def test_the_reference_names_what_there_is() -> None:
    named = [
        name
        for page in PAGES
        for name in re.findall(r"^::: ([\w.]+)$", page.read_text("utf-8"), flags=re.MULTILINE)
    ]
    assert len(named) > 30
    for name in named:
        module, _, attribute = name.rpartition(".")
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), attribute), name


def test_the_package_names_no_place_of_this_machine() -> None:
    """Documentation and configurations hold for any checkout."""
    for file in [*PAGES, ROOT / "Makefile", ROOT / "mkdocs.yml", *(ROOT / "configs").rglob("*.yaml")]:
        assert not re.search(r"(?<![\w.])/(work|home|root|tmp|Users)/", file.read_text("utf-8")), file


def test_the_documentation_is_built_without_a_network(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "NO_MKDOCS_2_WARNING": "1",
            "http_proxy": "http://127.0.0.1:9",
            "https_proxy": "http://127.0.0.1:9",
        },
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    for source in (ROOT / "docs").glob("*.md"):  # a block that is not closed would swallow what follows
        page = (tmp_path / "site" / source.with_suffix(".html").name).read_text("utf-8")
        code = re.sub(r"^```.*?^```\s*$", "", source.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
        assert len(re.findall("<h2", page)) == len(re.findall("^## ", code, flags=re.MULTILINE)), source
    for page in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|link|img)\b[^>]*?\b(?:src|href)=[\"']?(https?:)?//", page.read_text("utf-8")
        )
        assert not loaded, page
