"""A benchmark at work: audited first, then cell after cell, each in a process of its own."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from anodiff.bench import record
from anodiff.bench.audit import audit
from anodiff.bench.plan import Cell
from anodiff.bench.sets import Place, place
from anodiff.config.bench import Bench, dump
from anodiff.run import write_text

Say = Callable[[str], None]

_NOWHERE = "http://127.0.0.1:9"
_OFFLINE = {
    **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), _NOWHERE),
    "HF_HUB_OFFLINE": "1",
    "TQDM_DISABLE": "1",
}
"""Over a cell's environment: libraries that would fetch weights find no network, and draw no bars in its log."""

_TAIL = 400  # characters of a log that are looked at for the reason of a death


@dataclass(frozen=True, kw_only=True)
class Job:
    """A benchmark on this machine."""

    bench: Bench
    file: Path  # of the benchmark
    root: Path  # what paths of data are relative to
    out: Path
    device: str

    @property
    def home(self) -> Path:
        """What paths of configurations and weights are relative to."""
        return self.file.parent

    def begin(self) -> None:
        """Keep the whole configuration beside the results."""
        write_text(self.out / "bench.yaml", dump(self.bench))

    def places(self, names: Sequence[str]) -> dict[str, Place]:
        """Where the sets are; those that a package brings along are made."""
        return {
            name: place(name, self.bench.sets[name], root=self.root, made=self.out / "data") for name in names
        }


@dataclass(frozen=True)
class Outcome:
    """What became of a cell."""

    cell: Cell
    record: dict[str, Any]
    reused: bool
    number: int  # of the cells, from 1
    of: int


def audits(
    job: Job, places: Mapping[str, Place], *, fresh: bool = False, say: Say = lambda text: None
) -> dict[str, dict[str, Any]]:
    """The audit of every set, kept in audit.json; one whose pictures are the same as before is not made again."""
    path = job.out / "audit.json"
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        kept = {}
    for name, where in places.items():
        table = where.table()
        digest = where.digest(table)
        if fresh or kept.get(name, {}).get("digest") != digest:
            say(f"audit {name}: {len(table)} pictures")
            kept[name] = {**audit(table).to_dict(), "digest": digest}
            write_text(path, json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    return {name: kept[name] for name in places}


def run(
    job: Job,
    cells: Sequence[Cell],
    places: Mapping[str, Place],
    *,
    fresh: bool = False,
    say: Say = lambda text: None,
) -> Iterator[Outcome]:
    """What becomes of each cell, one after the other; a cell that is settled and unchanged is not run again.

    A process that dies, or takes longer than the benchmark's `timeout`, is a failed cell with the end of its log as
    the reason; the others go on.

    Args:
        job: the benchmark.
        cells: of `plan.cells`.
        places: of the cells' sets.
        fresh: run settled cells too.
        say: is told which cell begins.
    """
    tables = {name: where.digest(where.table()) for name, where in places.items()}
    generation = None if job.bench.generation is None else job.bench.generation.model_dump(mode="json")
    for number, cell in enumerate(cells, start=1):
        digest = cell.digest(data=tables[cell.set], device=job.device, generation=generation)
        folder = cell.folder(job.out)
        kept = record.read(folder)
        if (
            not fresh
            and kept is not None
            and kept.get("digest") == digest
            and kept["status"] in record.SETTLED
        ):
            yield Outcome(cell, kept, True, number, len(cells))
            continue
        say(f"[{number}/{len(cells)}] {cell.name}")
        spec = _spec(job, cell, places[cell.set], digest, generation)
        yield Outcome(cell, _ran(spec, folder, timeout=job.bench.timeout), False, number, len(cells))


def _spec(
    job: Job, cell: Cell, where: Place, digest: str, generation: dict[str, Any] | None
) -> dict[str, Any]:
    """What `bench.cell` reads."""
    words = ["anodiff", "bench", job.file.name, "--data", "DATA", "-o", "OUT", "--device", job.device]
    words += ["--sets", cell.set, "--methods", cell.method, "--seeds", str(cell.seed)]
    weights = job.bench.generation.weights if job.bench.generation else None
    hidden = {str(job.out): "OUT", str(job.root): "DATA", str(job.home): "HOME"}
    return {
        "set": cell.set,
        "method": cell.method,
        "seed": cell.seed,
        "digest": digest,
        "how": cell.how,
        "place": asdict(where),
        "device": job.device,
        "folder": str(cell.folder(job.out)),
        "command": shlex.join(words),
        "hidden": hidden,
        "generation": generation,
        "weights": None if weights is None else str(job.home / weights),
    }


def _ran(spec: dict[str, Any], folder: Path, *, timeout: float | None) -> dict[str, Any]:
    """The record that a cell's process left, or one that says why it left none."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / record.FILE).unlink(missing_ok=True)
    log = folder / "log.txt"
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, log.open("wb") as said:
        path = Path(scratch) / "spec.json"
        path.write_text(json.dumps(spec), encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, "-m", "anodiff.bench.cell", str(path)],
            stdout=said,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **_OFFLINE},
            start_new_session=True,  # so that what it starts ends with it
        )
        try:
            code = process.wait(timeout)
            reason = f"the process ended with {_spoken(code)}"
        except subprocess.TimeoutExpired:
            reason = f"stopped after {time.monotonic() - start:.0f} s, the benchmark's timeout"
        finally:
            _end(process)
    found = record.read(folder)
    if found is None:
        key = {name: spec[name] for name in ("set", "method", "seed", "digest")}
        found = record.stopped(key, "failed", _reason(reason, log, spec["hidden"]))
        record.write(folder, found)
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a cell's process and what it started; nothing where it has ended."""
    if process.poll() is None:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()


def _spoken(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _reason(reason: str, log: Path, hidden: Mapping[str, str]) -> str:
    """Why there are no figures, with the last words of the log."""
    text = log.read_text(encoding="utf-8", errors="replace")[-_TAIL:].strip()
    for path in sorted(hidden, key=len, reverse=True):
        text = text.replace(path, hidden[path])
    last = text.splitlines()[-1] if text else "nothing"
    return f"{reason[0].upper()}{reason[1:]}; last in its log: {last}. See log.txt beside this file."
