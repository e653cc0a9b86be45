"""The results table of the README: published without paths of this machine, checked against the cells."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from made_bench import make_bench

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("readme_table", ROOT / "benchmarks" / "readme_table.py")
assert SPEC is not None
assert SPEC.loader is not None
readme_table = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(readme_table)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_bench(tmp_path_factory.mktemp("bench"))
    path = folder / "cells/bottle/features/seed0/cell.json"
    cell = json.loads(path.read_text())
    cell["about"]["command"] = (
        "anodiff bench /home/someone/work/detection.yaml -o /scratch/out 4/5 https://host/a/b"
    )
    cell["about"] |= {"test_good": 13, "test_defective": 27}
    path.write_text(json.dumps(cell))
    results = folder / "results"
    readme_table.publish(folder, results / "detection")
    return results


def readme(folder: Path) -> Path:
    path = folder / "README.md"
    path.write_text(f"# Title\n\n{readme_table.BEGIN}\nold\n{readme_table.END}\n\nAfter.\n")
    return path


def call(results: Path, path: Path, *more: str) -> int:
    return readme_table.main(["--results", str(results), "--readme", str(path), *more])


def test_published_files_name_no_place_of_this_machine(results):
    texts = {path.name: path.read_text() for path in (results / "detection").iterdir()}
    assert set(texts) == {"cells.json", "audit.json", "standings.json", "report.md"}
    assert not any("/home" in text or "/scratch" in text for text in texts.values())
    assert "anodiff bench detection.yaml -o out 4/5 https://host/a/b" in texts["cells.json"]
    assert len(json.loads(texts["cells.json"])) == 36
    assert json.loads(texts["audit.json"])["magnetic_tile"]["leaking_pairs"] == 17


def test_the_table_is_written_between_its_markers_and_checked(results, tmp_path, capsys):
    path = readme(tmp_path)
    assert call(results, path, "--check") == 1
    assert "run python benchmarks/readme_table.py" in capsys.readouterr().out
    assert call(results, path) == 0
    assert call(results, path, "--check") == 0
    text = path.read_text()
    assert text.startswith("# Title\n\n")
    assert text.endswith("\n\nAfter.\n")
    assert "| bottle (13 / 27) | **." in text
    assert "| mean of 3 sets | " in text
    assert "34 of 36 cells" in text
    path.write_text(text.replace("mean of 3", "mean of 4"))
    assert call(results, path, "--check") == 1


def test_what_the_maps_draw_has_a_table_of_its_own(results, tmp_path):
    path = readme(tmp_path)
    call(results, path)
    cells = json.loads((results / "detection" / "cells.json").read_text())
    kept = [
        c["metrics"]["aupro_30"]["value"]
        for c in cells
        if c["status"] == "done" and "aupro_30" in c["metrics"]
    ]
    lines = path.read_text().partition("How well the maps draw the defects")[2].splitlines()
    rows = {line.split("|")[1].strip(): line for line in lines if line.startswith("| ")}
    own = [
        c["metrics"]["aupro_30"]["value"]
        for c in cells
        if (c["set"], c["method"], c["status"]) == ("bottle", "features", "done")
    ]
    assert len(kept) > len(own) > 1
    assert f"{sum(own) / len(own):.3f}".removeprefix("0") in rows["bottle"]
    assert rows["bottle"].count("**") == 2


def test_standings_that_are_not_those_of_the_cells_are_refused(results, tmp_path):
    told = json.loads((results / "detection" / "standings.json").read_text())
    told[0]["mean"] += 0.01
    (tmp_path / "detection").mkdir()
    (tmp_path / "detection" / "standings.json").write_text(json.dumps(told))
    (tmp_path / "detection" / "cells.json").write_text((results / "detection" / "cells.json").read_text())
    with pytest.raises(SystemExit, match="Publish the bench again"):
        call(tmp_path, readme(tmp_path))


def test_a_readme_without_markers_is_refused(results, tmp_path):
    path = tmp_path / "README.md"
    path.write_text("# Title\n")
    with pytest.raises(SystemExit, match="results:begin"):
        call(results, path)


@pytest.mark.skipif(
    not any(readme_table.RESULTS.glob("*/standings.json")), reason="no bench has been published yet"
)
def test_the_readme_says_what_the_published_results_say():
    assert readme_table.main(["--check"]) == 0
