"""Real data sets that several benchmarks use: path under the data folder, and the column of the split."""

from __future__ import annotations

SETS = {
    "bottle": ("mvtec_ad/bottle", "split"),
    "toothbrush": ("mvtec_ad/toothbrush", "split"),
    "kolektor": ("kolektor_sdd/kolektorsdd", "split"),
    "PA_BFT01_TL": ("piped/PA_BFT01_TL", "split"),
    "PA_GLA01_TL": ("piped/PA_GLA01_TL", "split"),
    "magnetic_tile": ("magnetic_tile/manifest.csv", "split_grouped"),
}
