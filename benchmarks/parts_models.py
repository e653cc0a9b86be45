"""Models of drawn parts that read words, boxes or pictures, over one autoencoder; each is trained once and kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from anodiff import compose
from anodiff.codec.latent import LatentCodec
from anodiff.coding.codes import codes
from anodiff.coding.floor import floor
from anodiff.complete import complete
from anodiff.cond import Cond
from anodiff.config import RunConfig, load, parse
from anodiff.data.dataset import ImageSet
from anodiff.data.image import read
from anodiff.data.index import index
from anodiff.data.parts import make_parts
from anodiff.data.table import rows_where
from anodiff.detect.predictor import Predictor
from anodiff.fitting import batches
from anodiff.gather import gather
from anodiff.guiding import guiding
from anodiff.painting import Rows, paint
from anodiff.tasks.asked import worded
from anodiff.told import Teller, telling
from anodiff.train.fit import fit

SIDE = 64
SHAPE = (SIDE, SIDE)
COUNT = 1200  # pictures made; a fifth of them is for testing
FRESH = 1  # seed of the pictures whose captions and boxes nothing trained on
BATCH = 32
DEVICE = torch.device("cpu")
NET = (
    "net.width=48",
    "net.attention=[1]",
    "train.batch=16",
    "data.holdout=0.05",
    "codec.batch=8",
    "codec.learning_rate=2.0e-3",
    "codec.perceptual=0.3",
    "codec.adversarial=0",
)
"""What differs from configs/parts, so that a model trains within minutes on a CPU.

Without shortcuts an autoencoder needed 2,200 steps of 8 to keep the four finishes of the test pictures apart, brass and
copper last. With them 1,200 do."""


@dataclass(frozen=True, eq=False)
class Model:
    """A model that paints, and how it came about."""

    config: RunConfig
    predictor: Predictor
    about: dict[str, Any]

    def painted(
        self,
        count: int,
        *,
        steps: int,
        seed: int,
        scale: float | None = None,
        cond_of: Callable[[range], Cond] | None = None,
        rows_of: Callable[[range], Rows] | None = None,
        batch: int = BATCH,
    ) -> np.ndarray:
        """Pictures uint8 [n, h, w, C] by dpmpp_2m."""
        made = paint(
            self.predictor,
            SHAPE,
            count=count,
            steps=steps,
            sampler="dpmpp_2m",
            seed=seed,
            batch=batch,
            device=DEVICE,
            cond_of=cond_of,
            rows_of=rows_of,
            guided=guiding(self.predictor, (), scale=scale),
        )
        return np.stack(list(made))

    def told(self, texts: Sequence[str], **options: Any) -> np.ndarray:
        """A picture a text."""

        def cond_of(rows: range) -> Cond:
            return worded(self.config, [texts[k] for k in rows], DEVICE)

        return self.painted(len(texts), cond_of=cond_of, **options)

    @torch.no_grad()
    def through(self, pictures: np.ndarray) -> np.ndarray:
        """The pictures encoded and decoded: what the autoencoder alone loses."""
        image = torch.from_numpy(pictures).movedim(-1, 1).float() / 255
        codec = self.predictor.codec
        again = torch.cat([codec.decode(codec.encode(part)) for part in image.split(32)])
        return (again.clamp(0, 1) * 255).round().byte().movedim(1, -1).numpy()


@dataclass(frozen=True)
class Models:
    """Pictures, the autoencoder, and the models, made in `work` when they are first asked for."""

    work: Path
    seed: int
    steps: int  # of a model
    codec_steps: tuple[int, ...]  # of the autoencoder; the learning rate begins anew with each number
    codec_channels: int  # numbers a position of the code

    @cached_property
    def table(self) -> pd.DataFrame:
        """The pictures trained on, and those of the same seed that are for testing."""
        return index(self._parts("parts", seed=0, count=COUNT))

    @cached_property
    def test(self) -> pd.DataFrame:
        """The pictures for testing."""
        return rows_where(self.table, self.table["split"] == "test")

    @cached_property
    def fresh(self) -> pd.DataFrame:
        """Pictures of another seed."""
        return index(self._parts("fresh", seed=FRESH, count=400))

    @cached_property
    def codec(self) -> LatentCodec:
        """The autoencoder, frozen, that all models share."""
        config = self._config("text")
        codec = compose.codec(config)
        assert isinstance(codec, LatentCodec)
        kept = self._kept("codec", config)
        if kept is not None:
            codec.load_state_dict(kept["state"])
            codec.requires_grad_(False).eval()
            return codec
        gathered = gather(self.table, config)
        pictures = ImageSet(gathered.train, shape=SHAPE, channels=3, seed=self.seed, cache=torch.uint8)
        start, cpu = time.perf_counter(), time.process_time()
        for steps in self.codec_steps:
            fit(
                compose.criticised(config, codec.net),  # type: ignore[arg-type]
                pictures,
                replace(compose.codec_plan(config, compose.plan(config, accelerator="cpu")), steps=steps),
                objective=compose.autoencoding(config),
            )
        seconds = {
            "seconds": round(time.perf_counter() - start),
            "cpu_seconds": round(time.process_time() - cpu),
        }
        codec.requires_grad_(False).eval()
        codec.learn(batches(gathered.train, SHAPE, config, DEVICE))
        lost = floor(codec, batches(gathered.held, SHAPE, config, DEVICE), defect=16, seed=self.seed)
        about = {
            "steps": list(self.codec_steps),
            "psnr": round(lost.psnr, 2),
            "ssim": round(lost.ssim, 4),
            "warnings": list(lost.warnings),
            **seconds,
        }
        self._keep("codec", config, codec.state_dict(), about)
        return codec

    def model(self, kind: str, *overrides: str) -> Model:
        """The model of `configs/parts/{kind}.yaml`, smaller (`NET`)."""
        config = self._config(kind, *overrides)
        codec = self.codec
        gathered = gather(self.table, config)
        config = complete(config, gathered)
        predictor = compose.predictor(config, target_fpr=0.05, shape=SHAPE, ready=codec)
        kept = self._kept(kind, config)
        if kept is None:
            about = self._train(config, predictor, gathered)
            self._keep(kind, config, predictor.denoiser.state_dict(), about)  # type: ignore[attr-defined]
        else:
            predictor.denoiser.load_state_dict(kept["state"])  # type: ignore[attr-defined]
            about = kept["about"]
        whole = {"steps": self.steps, "batch": config.train.batch, "smaller": list(NET + overrides), **about}
        autoencoder = torch.load(self.work / "codec.pt", weights_only=True)["about"]
        return Model(config, predictor.eval(), {"model": whole, "autoencoder": autoencoder})

    def at_hand(self, kind: str) -> Model | None:
        """The model of a kind that is kept, however long it was trained; None where there is none."""
        file = self.work / f"{kind}.pt"
        if not file.is_file():
            return None
        found = torch.load(file, weights_only=True)
        config = parse(found["config"])
        predictor = compose.predictor(config, target_fpr=0.05, shape=SHAPE, ready=self.codec)
        predictor.denoiser.load_state_dict(found["state"])  # type: ignore[attr-defined]
        return Model(config, predictor.eval(), {"model": {"steps": config.train.steps, **found["about"]}})

    def _train(self, config: RunConfig, predictor: Predictor, gathered: Any) -> dict[str, Any]:
        codec, teller = self.codec, Teller(config)
        beside = teller.beside(codec)
        pictures = ImageSet(gathered.train, shape=SHAPE, channels=3, seed=self.seed, cache=torch.uint8)
        draws = config.data.draws if beside is not None else 1
        rows = codes(pictures, codec, draws=draws, beside=beside, device=DEVICE)
        start, cpu = time.perf_counter(), time.process_time()
        outcome = fit(
            predictor.denoiser,  # type: ignore[arg-type]
            rows,
            compose.plan(config, accelerator="cpu"),
            objective=compose.objective(config),
            told=telling(teller.rows(gathered.train_rows), rows, beside),
        )
        tail = outcome.losses[-100:]
        return {
            "trained_on": len(gathered.train),
            "seconds": round(time.perf_counter() - start),
            "cpu_seconds": round(time.process_time() - cpu),
            "loss": round(sum(tail) / len(tail), 4),
            "alarms": list(outcome.alarms),
        }

    def _parts(self, name: str, *, seed: int, count: int) -> Path:
        manifest = self.work / name / "manifest.csv"
        return manifest if manifest.is_file() else make_parts(self.work / name, count=count, seed=seed)

    def _config(self, kind: str, *overrides: str) -> RunConfig:
        steps = (
            f"train.steps={self.steps}",
            f"codec.steps={sum(self.codec_steps)}",
            f"codec.channels={self.codec_channels}",
            f"seed={self.seed}",
        )
        return load(f"configs/parts/{kind}.yaml", overrides=[*NET, *steps, *overrides])

    def _kept(self, name: str, config: RunConfig) -> dict[str, Any] | None:
        """What was kept of the same configuration."""
        file = self.work / f"{name}.pt"
        if not file.is_file():
            return None
        found = torch.load(file, weights_only=True)
        same = config.codec.model_dump(mode="json") if name == "codec" else config.model_dump(mode="json")
        return found if found["config"] == same else None

    def _keep(self, name: str, config: RunConfig, state: dict[str, Tensor], about: dict[str, Any]) -> None:
        same = config.codec.model_dump(mode="json") if name == "codec" else config.model_dump(mode="json")
        print(name, about, flush=True)
        torch.save({"config": same, "state": state, "about": about}, self.work / f"{name}.pt")


def images(paths: Iterable[str]) -> np.ndarray:
    """Pictures uint8 [n, h, w, 3], RGB."""
    return np.stack([read(path) for path in paths])
