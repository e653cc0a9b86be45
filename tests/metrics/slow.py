"""The same metrics written as plainly as possible: a loop over every threshold, every pair, every region."""

import numpy as np
from scipy import ndimage


def auroc(scores, labels):
    good, bad = scores[~labels], scores[labels]
    wins = sum((b > good).sum() + 0.5 * (b == good).sum() for b in bad)
    return wins / (len(good) * len(bad))


def average_precision(scores, labels):
    area, last_recall = 0.0, 0.0
    for threshold in np.unique(scores)[::-1]:
        called = scores >= threshold
        recall = (called & labels).sum() / labels.sum()
        area += (recall - last_recall) * (called & labels).sum() / called.sum()
        last_recall = recall
    return area


def f1max(scores, labels):
    best = 0.0
    for threshold in np.unique(scores):
        called = scores >= threshold
        hit = (called & labels).sum()
        best = max(best, 2 * hit / (called.sum() + labels.sum()))
    return best


def fpr_at_tpr(scores, labels, percent):
    for threshold in np.unique(scores)[::-1]:
        called = scores >= threshold
        if 100 * (called & labels).sum() >= percent * labels.sum():
            return (called & ~labels).sum() / (~labels).sum()
    raise AssertionError("the lowest threshold catches everything")


def aupro(maps, masks, limit):
    """Threshold by threshold, region by region, trapezes up to the limit, the last one cut there."""
    regions = []
    for scores, mask in zip(maps, masks, strict=True):
        names, count = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [scores[names == name] for name in range(1, count + 1)]
    good = np.concatenate([s[~m] for s, m in zip(maps, masks, strict=True)])
    rate, overlap = [0.0], [0.0]
    for threshold in np.unique(np.concatenate([s.ravel() for s in maps]))[::-1]:
        rate.append((good >= threshold).mean())
        overlap.append(np.mean([(region >= threshold).mean() for region in regions]))
    area = 0.0
    for f0, f1, p0, p1 in zip(rate, rate[1:], overlap, overlap[1:], strict=False):
        if f0 >= limit or f1 == f0:
            continue
        if f1 > limit:
            p1 = p0 + (p1 - p0) * (limit - f0) / (f1 - f0)
            f1 = limit
        area += (f1 - f0) * (p0 + p1) / 2
    return area / limit


def flat(maps, masks):
    return np.concatenate([m.ravel() for m in maps]), np.concatenate([m.ravel() for m in masks])
