"""The picture of the README: defects of the demo set, and where a model sees them.

    make demo && python benchmarks/demo_picture.py demo/brick/model.anodiff demo/data/brick docs/images/demo.png

One column a kind of defect: the picture, the same with its map over it, and the true outline. The colours run from 0 to
twice the mask's threshold, the same for all.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2

import anodiff
from anodiff.data.image import read_mask
from anodiff.data.index import index
from anodiff.report.picture import grid, outline, overlay, rgb


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    detector = anodiff.load(args.model)
    table = index(args.data)
    test = table[table["split"] == "test"].groupby("defect", sort=False).head(1)
    top, bottom = [], []
    for row in test.itertuples():
        result = detector.predict(row.image)
        picture = rgb(result.image)
        found = overlay(picture, result.heatmap, low=0.0, high=2 * result.mask_threshold)
        top.append(picture)
        bottom.append(outline(found, read_mask(row.mask)) if isinstance(row.mask, str) else found)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(args.out), grid(top + bottom, columns=len(top))[..., ::-1])
    print(args.out, list(test["defect"]))


if __name__ == "__main__":
    main()
