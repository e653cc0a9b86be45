"""The detector: fitted on good pictures, saved to one file, and asked about pictures."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from anodiff import artefact, compose
from anodiff import config as configuration
from anodiff.config import RunConfig
from anodiff.detect.bylabel import ThresholdByLabel
from anodiff.detect.predictor import Predictor
from anodiff.detect.result import Result
from anodiff.detect.suspects import Suspect, Suspicion
from anodiff.device import device_of
from anodiff.errors import ConfigError, ModelFileError, RefusalError
from anodiff.frame import frame
from anodiff.scoring import Scoring

if TYPE_CHECKING:
    from anodiff.detect.bits import Bits
    from anodiff.diffusion.sampling import Variance
    from anodiff.gather import Gathered
    from anodiff.train.progress import Progress


class Detector:
    """Learns good parts, then says what is not normal in a picture.

    ```python
    detector = Detector(preset="features", image_size=256).fit("data/good")
    result = detector.predict("part.png")
    ```

    After `fit` or `load` it only reads itself, so threads may share one detector.

    Args:
        preset: a built-in configuration: "features" (default), "fine", "pixels" or "tiny".
        image_size: side in pixels of the square whose area pictures are worked at; None: the preset's.
        seed: of everything random.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        config: a whole configuration, in place of the three first.
    """

    def __init__(
        self,
        *,
        preset: str = "features",
        image_size: int | None = None,
        seed: int | None = None,
        device: str = "auto",
        config: RunConfig | None = None,
    ) -> None:
        options = {"data.size": image_size, "seed": seed}
        overrides = [f"{key}={value}" for key, value in options.items() if value is not None]
        if config is not None and overrides:
            raise ConfigError("Give a whole config, or image_size and seed on a preset, not both.")
        self.config = config or configuration.load(preset=preset, overrides=overrides)
        self.device = device_of(device)
        self._learnt: Scoring | None = None
        self.suspicion: Suspicion | None = None

    @classmethod
    def from_config(
        cls, path: str | Path, *, overrides: Iterable[str] = (), device: str = "auto"
    ) -> Detector:
        """A detector with the configuration of a YAML file, `key.sub=value` overrides laid over it."""
        return cls(config=configuration.load(path, overrides=overrides), device=device)

    def fit(
        self,
        good: Any,
        *,
        folder: str | Path | None = None,
        resume: str | None = None,
        devices: int = 1,
        start: Mapping[str, torch.Tensor] | None = None,
        progress: Progress | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> Detector:
        """This detector, fitted on good pictures alone.

        Args:
            good: folder, MVTec-layout part (only train/good is looked at), manifest CSV, list of paths, table of
                `data.index`, arrays as `predict` takes them, or what `gather.gather` found.
            folder: where checkpoints and the course of training are kept; None keeps nothing.
            resume: "auto" goes on from the newest checkpoint in `folder`.
            devices: how many.
            start: weights the network begins with, in place of random ones: a state dict of the same network, such as
                `anodiff.interop.weights` reads from published files.
            progress: shows the course of training.
            say: is told what is being done.

        Raises:
            DataError: no good picture.
            ConfigError: a false-alarm rate the held-out pictures cannot support, or noise levels of the score that the
                model will not have.
            TrainingError: the loss is not a number.
        """
        from anodiff.complete import complete
        from anodiff.fitting import about, fit
        from anodiff.gather import Gathered, gather

        compose.check_levels(self.config)
        gathered = good if isinstance(good, Gathered) else gather(good, self.config)
        self.config = complete(self.config, gathered, say=say)
        fitted = fit(
            self.config,
            gathered,
            folder=None if folder is None else Path(folder),
            resume=resume,
            device=self.device,
            devices=devices,
            start=start,
            progress=progress,
            say=say,
        )
        self.config, self.suspicion = fitted.config, fitted.usual.suspicion
        told = about(self.config, gathered, fitted)
        return self.adopt(fitted.predictor, shape=fitted.shape, target_fpr=fitted.target_fpr, about=told)

    def adopt(
        self,
        predictor: Predictor,
        *,
        shape: tuple[int, int],
        target_fpr: float,
        about: Mapping[str, Any] | None = None,
    ) -> Detector:
        """This detector with a predictor of its configuration that learnt elsewhere.

        Args:
            predictor: as `compose.predictor(config)` made it, and `Predictor.learn` taught it.
            shape: working (height, width) it learnt at.
            target_fpr: the false-alarm rate its threshold was learnt for.
            about: where it comes from, for `info` and the file.
        """
        self._learnt = Scoring(predictor, shape, self.config, target_fpr, about or {})
        return self

    def calibrate(self, good: Any, *, target_fpr: float | None = None) -> Detector:
        """This detector with its threshold learnt anew from good pictures that trained nothing.

        The rate `target_fpr` then holds exactly, as split-conformal prediction promises: on average over such sets of
        pictures, at most that share of good pictures is called anomalous. Nothing else is learnt anew.

        Raises:
            ConfigError: a rate below 1 / (n + 1), which n pictures cannot support.
        """
        from anodiff.counted import counted_anew

        return self._counting(counted_anew(self._fitted(), good, target_fpr=target_fpr, device=self.device))

    def add_normal(self, good: Any, *, target_fpr: float | None = None) -> Detector:
        """This detector with further good pictures beside those its thresholds rest on; nothing else is learnt anew.

        A random sample of what comes off the line keeps the promise, now that of n + m pictures. False alarms alone
        never lower the threshold: fewer false alarms than promised, more escapes. Pictures that trained the model may
        not be among them; those that are counted already, known again by what they show, are not counted twice.

        Raises:
            ConfigError: `target_fpr`, or else the detector's own, below 1 / (n + m + 1).
        """
        from anodiff.counted import counted_too

        found = counted_too(self._fitted(), good, target_fpr=target_fpr, device=self.device)
        self.config, self._learnt = found.config, found
        return self

    def leave_out(self, left: Gathered) -> Detector:
        """This detector with thresholds from the held-out pictures that are left after `Gathered.without`."""
        from anodiff.counted import counted_without

        return self._counting(counted_without(self._fitted(), left, device=self.device))

    def bits(
        self, good: Any, *, levels: int = 50, variance: Variance | None = None, split_column: str = "split"
    ) -> Bits:
        """The variational bound of good pictures in bits a dimension, with its terms (arXiv:2006.11239, equation 5).

        Args:
            good: pictures the model was not fitted on: folder, part in MVTec layout (its test/good; train/good where it
                has none), manifest CSV, or a list as `predict` takes it.
            levels: of the chain; one evaluation of the denoiser each.
            variance: of the reverse steps; None: the learned one where there is one, else "small".
            split_column: of a manifest.

        Raises:
            DataError: no good picture.
        """
        from anodiff.batches import batches, with_labels
        from anodiff.detect.bits import bits
        from anodiff.gather import good_rows, label_numbers

        learnt = self._fitted()
        labels = None
        if isinstance(good, str | Path):
            table = good_rows(good, split_column=split_column)
            pictures: Sequence[Any] = list(table["image"])
            labels = label_numbers(self.config, table)
        else:
            pictures = [item if isinstance(item, str) else frame(item) for item in good]
        learned = bool(getattr(self.predictor.denoiser, "learned_variance", False))
        return bits(
            self.predictor,
            with_labels(batches(pictures, learnt.shape, self.config, self.device), labels),
            steps=levels,
            variance=variance or ("learned" if learned else "small"),
            bins=256 if self.config.codec.kind == "pixel" else None,
        )

    def save(self, path: str | Path) -> Path:
        """The file written: all that `anodiff.load` needs, and nothing that executes."""
        learnt = self._fitted()
        meta = {
            "config": self.config.model_dump(mode="json"),
            "shape": list(learnt.shape),
            "target_fpr": learnt.target_fpr,
            "threshold": self.threshold,
            **self.costs,
            "provenance": {**learnt.about, **artefact.versions()},
        }
        tensors = {name: value.cpu().contiguous() for name, value in learnt.predictor.state_dict().items()}
        return artefact.write(path, tensors, meta)

    def predict(self, source: Any, *, label: str | None = None, batch: int = 8) -> Any:
        """The `Result` of one picture, or a list of them for a list of pictures.

        Args:
            source: a path, an array H x W or H x W x 3 in BGR as OpenCV gives it (uint8, uint16, float in [0, 1]), a
                PIL picture or a tensor in RGB; or a list or tuple of these.
            label: which of the model's labels the part is known to be, such as its category; None: the model finds out.
            batch: pictures scored at once; scores do not depend on it.

        Raises:
            DataError: one picture that cannot be read. In a list it becomes a result with `error` set.
            ConfigError: a label the model does not have.
        """
        if isinstance(source, list | tuple):
            return list(self.stream(source, batch=batch, labels=label))
        return self._fitted().one(source, label)

    def stream(
        self, sources: Iterable[Any], *, batch: int = 8, labels: str | Iterable[str | None] | None = None
    ) -> Iterator[Result]:
        """One result a picture, in order, in constant memory; a picture that cannot be read gives a failed result.

        Pictures of the next batch are decoded while one is scored. `labels` names what they are known to be: one
        name for all, or one a picture; ConfigError where they run out.
        """
        yield from self._fitted().stream(sources, batch=batch, labels=labels)

    def warmup(self, shape: Sequence[int]) -> Detector:
        """This detector after one picture of `shape` (H, W) or (H, W, 3), so that the first real one is not slower."""
        self.predict(np.zeros(tuple(shape), np.uint8))
        return self

    def with_steps(self, steps: int) -> Detector:
        """A copy whose restorations take `steps` steps, its calibration kept: more is slower, scores differ a little.

        Raises:
            RefusalError: for a scorer that takes no steps.
            ConfigError: more steps than the model has levels.
        """
        if "steps" not in type(self.config.score).model_fields:
            raise RefusalError(
                f"The model scores with {self.config.score.kind}, which takes no steps; leave --steps out."
            )
        score = self.config.score.model_copy(update={"steps": steps})
        found = copy.copy(self)
        found.config = configuration.parse(self.config.model_copy(update={"score": score}).model_dump())
        compose.check_levels(found.config)
        learnt = self._fitted()
        predictor = learnt.rebuilt(found.config, learnt.target_fpr).to(self.device)
        found._learnt = replace(learnt, predictor=predictor, config=found.config)
        return found

    @property
    def predictor(self) -> Predictor:
        """The networks and what was learnt, as a module."""
        return self._fitted().predictor

    @property
    def shape(self) -> tuple[int, int]:
        """The working (height, width)."""
        return self._fitted().shape

    @property
    def threshold(self) -> float:
        """A score above it is anomalous; where each label has its own threshold, the highest of them."""
        return self.predictor.threshold.value

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the labels, 0 first; none where the model is not conditional."""
        return self._fitted().names

    @property
    def thresholds(self) -> dict[str, float]:
        """The threshold of each label that has its own."""
        threshold = self.predictor.threshold
        return threshold.values if isinstance(threshold, ThresholdByLabel) else {}

    @property
    def evaluations(self) -> int:
        """Evaluations of the denoiser a picture."""
        return self.predictor.evaluations

    @property
    def opinions(self) -> int:
        """Evaluations of the discriminator a picture; 0 for a model that asks none."""
        return self.predictor.scorer.opinions

    @property
    def costs(self) -> dict[str, int]:
        """The evaluations a picture, by the names they have in files."""
        asked = {"opinions_per_image": self.opinions} if self.opinions else {}
        return {"evaluations_per_image": self.evaluations, **asked}

    @property
    def alarms(self) -> tuple[str, ...]:
        """What looked wrong at the end of training, a sentence each; mostly nothing."""
        return tuple(self._fitted().about.get("alarms", ()))

    @property
    def suspects(self) -> tuple[Suspect, ...]:
        """Pictures of the fit that look unlike the rest, the surest first; by file name alone after `load`."""
        if self.suspicion is not None:
            return self.suspicion.found
        return tuple(Suspect(**entry) for entry in self._fitted().about.get("suspects", {}).get("found", ()))

    @property
    def counted(self) -> int:
        """How many good pictures the threshold rests on; where each label has its own, the fewest of any."""
        return self.predictor.threshold.count

    @property
    def model_id(self) -> str:
        """Twelve hexadecimal digits that change with any weight or setting."""
        return self._fitted().model_id

    @property
    def info(self) -> dict[str, Any]:
        """What is known of this model: configuration, shape, threshold, provenance."""
        learnt = self._fitted()
        return {
            "model_id": self.model_id,
            "shape": list(learnt.shape),
            "threshold": self.threshold,
            **({"thresholds": self.thresholds} if self.thresholds else {}),
            "target_fpr": learnt.target_fpr,
            **self.costs,
            "device": str(self.device),
            "provenance": learnt.about,
            "config": self.config.model_dump(mode="json"),
        }

    def _counting(self, found: Scoring) -> Detector:
        """This detector with thresholds that rest on other pictures."""
        self.config, self._learnt = found.config, found
        if self.suspicion is not None:
            self.suspicion = self.suspicion.without_held(self.threshold)
        return self

    def _fitted(self) -> Scoring:
        if self._learnt is None:
            raise ConfigError("This detector has learnt nothing yet: call fit(good), or anodiff.load(path).")
        return self._learnt


def load(path: str | Path, device: str = "auto") -> Detector:
    """The detector that a `.anodiff` file holds, ready to score.

    Raises:
        ModelFileError: no such file, or one that is damaged, foreign or of a newer version.
        DeviceError: the device is not there.
    """
    tensors, meta = artefact.read(path)
    try:
        config = configuration.parse(meta["config"])
        shape = (int(meta["shape"][0]), int(meta["shape"][1]))
        target_fpr = float(meta["target_fpr"])
        predictor = compose.predictor(config, target_fpr=target_fpr, shape=shape, weights=compose.LEARNT)
        predictor.load_state_dict(tensors)
    except (KeyError, RuntimeError, TypeError, ConfigError) as error:
        raise ModelFileError(
            f"{path} does not hold a model this version can build: {error}. Fit it anew, or use the version of "
            "anodiff that wrote it."
        ) from error
    detector = Detector(config=config, device=device)
    predictor.eval().to(detector.device)
    return detector.adopt(predictor, shape=shape, target_fpr=target_fpr, about=meta.get("provenance", {}))
