"""Times the streaming pixel metrics against the exact sort and anomalib, and prints a table of ratios.

    python benchmarks/metrics_speed.py                      # 83 pictures of 256 x 256, then 100 of a megapixel
    python benchmarks/metrics_speed.py --pictures 20 --size 1024 --skip anomalib

Every method runs in a process of its own on the same pictures, so that the peak of its memory is its own.
"""

import argparse
import multiprocessing
import platform
import resource
import time

import numpy as np


def pictures(count, size):
    """Gamma-distributed maps with rectangular defects in every second picture; the same for every method."""
    rng = np.random.default_rng(0)
    noise = rng.gamma(2, 1, (size, size)).astype(np.float32)
    for i in range(count):
        mask = np.zeros((size, size), bool)
        if i % 2:
            for _ in range(4):
                y, x = rng.integers(0, size * 7 // 8, 2)
                mask[y : y + size // 12, x : x + size // 10] = True
        yield np.roll(noise, (7919 * i, 104729 * i), (0, 1)) + mask * np.float32(2 * rng.random()), mask


def streaming(data, **options):
    from anodiff.metrics.pixel import PIXEL, PixelScores

    scores = PixelScores(**options)
    for score, mask in data:
        scores.update(score, mask)
    curve = scores.curve()
    return {name: float(metric(curve)) for name, metric in PIXEL.items()}


def summarised(data):
    """Streaming as if more than 20 million pixels had come: nothing is kept as it is for long."""
    return streaming(data, exact=2_000_000)


def exact_sort(data):
    """scikit-learn on all pixels at once; it has no AUPRO."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    scores, masks = zip(*data, strict=True)
    flat = np.concatenate([s.ravel() for s in scores])
    labels = np.concatenate([m.ravel() for m in masks])
    return {
        "pixel_auroc": float(roc_auc_score(labels, flat)),
        "pixel_ap": float(average_precision_score(labels, flat)),
    }


def anomalib_aupro(data):
    """anomalib's AUPRO at both limits, on scores brought into [0, 1] as it expects."""
    import torch
    from anomalib.metrics.aupro import _AUPRO

    found = {}
    held = list(data)
    scores = torch.from_numpy(np.stack([s for s, _ in held]))
    masks = torch.from_numpy(np.stack([m for _, m in held])).int()
    scores /= scores.max()
    for name, limit in {"aupro_30": 0.3, "aupro_05": 0.05}.items():
        metric = _AUPRO(fpr_limit=limit)
        metric.update(scores, masks)
        found[name] = float(metric.compute())
    return found


METHODS = {
    "streaming": streaming,
    "summarised": summarised,
    "exact sort": exact_sort,
    "anomalib AUPRO": anomalib_aupro,
}


def measure(method, count, size, out):
    if method == "anomalib AUPRO":
        from anomalib.metrics.aupro import _AUPRO  # noqa: F401  importing is not what is timed
    else:
        import sklearn.metrics  # noqa: F401

        import anodiff.metrics.pixel  # noqa: F401
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    spent = [0.0]

    def timed():  # the making of pictures is not what is timed either
        start = time.process_time()
        for item in pictures(count, size):
            spent[0] += time.process_time() - start
            yield item
            start = time.process_time()

    start = time.process_time()
    found = METHODS[method](timed())
    seconds = time.process_time() - start - spent[0]
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    out.put((seconds, peak, found))


def table(count, size, skip):
    print(f"\n{count} pictures of {size} x {size} ({count * size * size / 1e6:.1f} Mpx)")
    names = ("pixel_auroc", "pixel_ap", "aupro_30", "aupro_05")
    print(f"{'method':<16}{'cpu s':>8}{'ratio':>8}{'MB':>8}" + "".join(f"{name:>14}" for name in names))
    context, first = multiprocessing.get_context("spawn"), None
    for method in METHODS:
        if any(word in method for word in skip):
            continue
        out = context.Queue()
        process = context.Process(target=measure, args=(method, count, size, out))
        process.start()
        while process.is_alive() and out.empty():
            process.join(0.2)
        if out.empty():
            print(f"{method:<16}  ended with code {process.exitcode} (out of memory?)")
            continue
        seconds, peak, found = out.get()
        process.join()
        first = first or seconds
        shown = "".join(f"{found[name]:>14.7f}" if name in found else f"{'-':>14}" for name in names)
        print(f"{method:<16}{seconds:>8.2f}{seconds / first:>8.1f}{peak:>8.0f}{shown}", flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--skip", nargs="*", default=[], help="words in the names of methods to leave out")
    given = parser.parse_args()
    print(f"{platform.machine()}, numpy {np.__version__}; ratio = time / time of the first line")
    if given.pictures:
        table(given.pictures, given.size, given.skip)
    else:
        table(83, 256, given.skip)
        table(100, 1000, [*given.skip, "summarised"])


if __name__ == "__main__":
    main()
