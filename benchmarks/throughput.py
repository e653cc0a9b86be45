"""Pictures a second of `anodiff score`, decoding to CSV, and the share of time outside the networks.

    python benchmarks/throughput.py MODEL FOLDER [--repeat 5]

Both figures come from one run. The share is `1 - (time in codec and denoiser) / (time of the whole stream)`, medians
over the repeats, the first left out.
"""

from __future__ import annotations

import argparse
import csv
import io
import statistics
import time
from pathlib import Path

import torch

import anodiff
from anodiff.data.layout import pictures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    args = parser.parse_args()
    detector = anodiff.load(args.model, device="cpu")
    paths = pictures(args.folder)
    spent = [0.0]
    for module in (detector.predictor.codec, detector.predictor.denoiser):
        time_calls(module, spent)
    rates, shares = [], []
    for _ in range(args.repeat + 1):
        spent[0] = 0.0
        start = time.perf_counter()
        table = csv.writer(io.StringIO())
        for result in detector.stream(paths, batch=args.batch):
            table.writerow([result.path, result.score, result.p_value, len(result.regions)])
        whole = time.perf_counter() - start
        rates.append(len(paths) / whole)
        shares.append(1 - spent[0] / whole)
    print(
        f"{len(paths)} pictures, {torch.get_num_threads()} threads, batch {args.batch}, size {detector.shape}"
    )
    print(
        f"{statistics.median(rates[1:]):.1f} pictures a second (min {min(rates[1:]):.1f}, max {max(rates[1:]):.1f})"
    )
    print(f"{100 * statistics.median(shares[1:]):.1f} % of the time outside the networks")


def time_calls(module: torch.nn.Module, spent: list[float]) -> None:
    """Add the wall time of every `encode` or call of `module` to `spent[0]`."""
    name = "encode" if hasattr(module, "encode") else "forward"
    inner = getattr(module, name)

    def timed(*args: object, **kwargs: object) -> object:
        start = time.perf_counter()
        try:
            return inner(*args, **kwargs)
        finally:
            spent[0] += time.perf_counter() - start

    setattr(module, name, timed)


if __name__ == "__main__":
    main()
