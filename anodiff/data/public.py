"""Public benchmarks, read by anomalib's readers where those do; nothing is ever downloaded."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from anodiff.data.index import index
from anodiff.data.table import GOOD, table_of
from anodiff.errors import ConfigError, DataError

Reader = Callable[[Path, str], pd.DataFrame]
"""(root of the set, category) -> anomalib's samples: image_path, mask_path, label, label_index, split"""


@dataclass(frozen=True, kw_only=True)
class PublicSet:
    """How one public set is read, what its folder must look like and where people get it."""

    title: str
    read: Reader
    layout: str  # below the root
    home: str
    masks_by_name: bool = True  # the mask of <stem> is <stem> or <stem>_mask


def public(name: str, root: str | os.PathLike[str], category: str) -> pd.DataFrame:
    """The table of one category of a public set, columns as `index` gives them, split as its authors split it.

    Kolektor has no split of its own: anomalib's is used (80 % of the good ones, random state 42). A further split "val"
    (MVTec LOCO, MVTec AD 2) is kept as it is. Of MVTec AD 2 the public test set is read. In MVTec LOCO the
    mask is a folder of several files, whose union counts.

    Args:
        name: mvtec_ad, mvtec_ad_2, mvtec_loco, visa, btech, mpdd, kolektor or real_iad; case and marks do not count.
        root: the folder the set was unpacked into.
        category: of the set; for kolektor any name, the set has one only.

    Raises:
        ConfigError: an unknown set.
        DataError: the folder is missing or differently laid out; the message says what is expected and where to get it.
    """
    key = re.sub(r"[^a-z0-9]", "", name.lower())
    if key not in SETS:
        names = ", ".join(sorted({known.title for known in SETS.values()}))
        raise ConfigError(f"There is no public set {name!r}; known are: {names}.")
    known, root = SETS[key], Path(os.path.abspath(root))
    try:
        samples = known.read(root, category)
    except DataError:
        raise
    except Exception as error:  # readers raise a different type for each way a folder can differ
        raise DataError(
            f"{known.title} was expected at {root} as {known.layout.format(category=category)}, but: {error}. "
            f"Nothing is downloaded; get it from {known.home} and unpack it there."
        ) from error
    return table_of(_row(row, category, known) for row in samples.to_dict("records"))


def _row(row: dict[Any, Any], category: str, known: PublicSet) -> dict[str, Any]:
    bad = int(row["label_index"]) == 1
    image, mask = str(row["image_path"]), row.get("mask_path")
    defect = str(row.get("label") or "defect") if bad else GOOD
    return {
        "image": image,
        "mask": _mask_of(image, str(mask), by_name=known.masks_by_name) if bad and mask else None,
        "category": category,
        "split": str(row["split"]),
        "defect": "defect" if defect.lower() in ("bad", "ko") else defect,
        "label": int(bad),
        "group": row.get("group"),
    }


def _mask_of(image: str, mask: str, *, by_name: bool) -> str | None:
    """The mask that belongs to the picture by its name; anomalib pairs by sorted order, wrong for 1.png ... 11.png."""
    stem, path = Path(image).stem, Path(mask)
    if by_name and not path.is_dir() and path.stem not in (stem, f"{stem}_mask"):
        named = [path.with_name(f"{name}{path.suffix}") for name in (f"{stem}_mask", stem)]
        path = next((found for found in named if found.is_file()), named[0])
    return str(path) if path.exists() else None


def _part(root: Path, category: str) -> Path:
    if not (folder := root / category).is_dir():
        there = sorted(child.name for child in root.iterdir() if child.is_dir()) if root.is_dir() else []
        raise FileNotFoundError(f"{folder} is missing; found {', '.join(there[:20]) or 'nothing'}")
    return folder


def _mvtec_shaped(folder: Path) -> pd.DataFrame:
    from anomalib.data.datasets.image.mvtecad import make_mvtec_ad_dataset
    from anomalib.data.errors import MisMatchError

    try:
        return make_mvtec_ad_dataset(
            folder, extensions=(".png", ".jpg", ".JPG", ".jpeg", ".bmp", ".tif", ".tiff")
        )
    except (MisMatchError, ValueError, TypeError):
        # it pairs masks by sorted order, and gives up where that fails; our own index pairs by name
        return _as_samples(index(folder))


def _as_samples(table: pd.DataFrame) -> pd.DataFrame:
    names = {"image": "image_path", "mask": "mask_path", "label": "label_index", "defect": "label"}
    return table.rename(columns=names)


def _mvtec_ad(root: Path, category: str) -> pd.DataFrame:
    return _mvtec_shaped(_part(root, category))


def _mvtec_ad_2(root: Path, category: str) -> pd.DataFrame:
    from anomalib.data.datasets.image.mvtecad2 import make_mvtec2_dataset

    return make_mvtec2_dataset(_part(root, category))


def _mvtec_loco(root: Path, category: str) -> pd.DataFrame:
    # by our index: anomalib 2.7 writes lists of masks into a column of texts, which pandas 3 refuses
    return _as_samples(index(_part(root, category)))


def _visa(root: Path, category: str) -> pd.DataFrame:
    """VisA as its authors pack it, by `split_csv/1cls.csv`, or as anomalib and spot-diff rearrange it."""
    if (root / "visa_pytorch" / category).is_dir():
        return _mvtec_shaped(root / "visa_pytorch" / category)
    listing = root / "split_csv" / "1cls.csv"
    if not listing.is_file():
        return _mvtec_shaped(_part(root, category))
    rows = pd.read_csv(listing, dtype=str, keep_default_na=False)
    rows = rows[rows["object"] == category]
    if rows.empty:
        raise FileNotFoundError(f"{listing} lists no object {category!r}")
    bad = [label.lower() not in ("normal", GOOD) for label in rows["label"]]
    return pd.DataFrame(
        {
            "image_path": [str(root / image) for image in rows["image"]],
            "mask_path": [str(root / mask) if mask else None for mask in rows["mask"]],
            "split": list(rows["split"]),
            "label": ["defect" if is_bad else GOOD for is_bad in bad],
            "label_index": [int(is_bad) for is_bad in bad],
        }
    )


def _btech(root: Path, category: str) -> pd.DataFrame:
    from anomalib.data.datasets.image.btech import make_btech_dataset

    return make_btech_dataset(_part(root, category))


def _mpdd(root: Path, category: str) -> pd.DataFrame:
    return _mvtec_shaped(_part(root, category))


def _kolektor(root: Path, category: str) -> pd.DataFrame:
    from anomalib.data.datasets.image.kolektor import make_kolektor_dataset

    if not root.is_dir():
        raise FileNotFoundError(f"{root} is missing")
    samples = make_kolektor_dataset(root)
    return samples.assign(group=samples["item"])  # the eight photographs of one commutator


def _real_iad(root: Path, category: str) -> pd.DataFrame:
    from anomalib.data.datasets.image.realiad import RESOLUTIONS, make_realiad_dataset

    listing = root / "realiad_jsons" / "realiad_jsons" / f"{category}.json"
    sizes = [size for size in RESOLUTIONS if (root / f"realiad_{size}" / category).is_dir()]
    if not listing.is_file() or not sizes:
        raise FileNotFoundError(
            f"{listing if sizes else root / 'realiad_<resolution>' / category} is missing"
        )
    metadata = json.loads(listing.read_text(encoding="utf-8"))
    samples = make_realiad_dataset(
        root / f"realiad_{sizes[0]}" / category, metadata=metadata, confinement_root=root
    )
    # .../<defect>/S0001/<picture>: the views of one part lie in one folder
    parents = [Path(path).parent for path in samples["image_path"]]
    return samples.assign(group=[str(p) for p in parents], label=[p.parent.name for p in parents])


_PLAIN = "{category}/train/good, {category}/test/<good|defect>, {category}/ground_truth/<defect>"
_MVTEC = "https://www.mvtec.com/company/research/datasets"

_MVTEC_AD = PublicSet(title="MVTec AD", read=_mvtec_ad, layout=_PLAIN, home=f"{_MVTEC}/mvtec-ad")
_MVTEC_AD_2 = PublicSet(
    title="MVTec AD 2",
    read=_mvtec_ad_2,
    layout="{category}/train/good, {category}/validation/good, {category}/test_public/<good|bad|ground_truth>",
    home=f"{_MVTEC}/mvtec-ad-2",
)
_MVTEC_LOCO = PublicSet(
    title="MVTec LOCO AD",
    read=_mvtec_loco,
    layout="{category}/train/good, {category}/test/<good|defect>, {category}/ground_truth/<defect>/<stem>/000.png",
    home=f"{_MVTEC}/mvtec-loco",
    masks_by_name=False,
)
_VISA = PublicSet(
    title="VisA",
    read=_visa,
    layout="split_csv/1cls.csv beside {category}/Data, or " + _PLAIN,
    home="https://github.com/amazon-science/spot-diff",
)
_BTECH = PublicSet(
    title="BTech (BTAD)",
    read=_btech,
    layout="{category}/train/ok, {category}/test/<ok|ko>, {category}/ground_truth/ko",
    home="https://github.com/pankajmishra000/VT-ADL",
)
_MPDD = PublicSet(title="MPDD", read=_mpdd, layout=_PLAIN, home="https://github.com/stepanje/MPDD")
_KOLEKTOR = PublicSet(
    title="KolektorSDD",
    read=_kolektor,
    layout="kos01/Part0.jpg with kos01/Part0_label.bmp",
    home="https://www.vicos.si/resources/kolektorsdd",
    masks_by_name=False,
)
_REAL_IAD = PublicSet(
    title="Real-IAD",
    read=_real_iad,
    layout="realiad_jsons/realiad_jsons/{category}.json beside realiad_<256|512|1024|raw>/{category}",
    home="https://realiad4ad.github.io/Real-IAD",
    masks_by_name=False,
)

SETS = {
    "mvtecad": _MVTEC_AD,
    "mvtecad2": _MVTEC_AD_2,
    "mvtecloco": _MVTEC_LOCO,
    "mvteclocoad": _MVTEC_LOCO,
    "visa": _VISA,
    "btech": _BTECH,
    "btad": _BTECH,
    "mpdd": _MPDD,
    "kolektor": _KOLEKTOR,
    "kolektorsdd": _KOLEKTOR,
    "realiad": _REAL_IAD,
}
"""Sets by their name in lower case without marks."""
