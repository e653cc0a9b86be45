"""The critic's opinion as evidence: what was trained to tell drawn pairs from real ones looks at the picture itself."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from anodiff.cond import Cond
from anodiff.detect.blend import Blend
from anodiff.detect.calibrate import GlobalCalibration
from anodiff.detect.restore import Model, average, source
from anodiff.detect.scorer import Observation, Observations, Parts, Scorer
from anodiff.diffusion.gan import Critic, pair
from anodiff.diffusion.levels import level
from anodiff.errors import ConfigError, RefusalError


class OpinionScorer(Scorer):
    """What speaks against a picture's own noisy pairs being real, by place; the critic's resolution.

    At each level the pair `y_next = z + sigma_next n`, `y = y_next + sqrt(sigma^2 - sigma_next^2) hop` of the picture
    is judged as those of normals were in training, and `map = -places(y_next, y)`: each place's share of the logit
    with its sign turned. A level's maps are averaged over `draws` of n and hop, calibrated globally on normals, and
    the mean of the levels is taken. No restoration is made and the generator is not asked.

    Args:
        critic: of the denoiser's training, in evaluation mode. Whoever holds the scorer owns it, moves it and saves it:
            its weights are no part of this module.
        levels: noise levels; of each the entry of the critic's table that is nearest by ratio.
        draws: pairs a level.

    Source: the discriminator of arXiv:2112.07804 eq. 5, which the paper uses in training alone.
    """

    def __init__(self, critic: Critic, levels: Sequence[float], *, draws: int = 1) -> None:
        super().__init__()
        if not levels or draws < 1:
            raise ConfigError(
                f"A critic's opinion needs a level and a draw, got levels={tuple(levels)}, draws={draws}."
            )
        self._critic = (critic,)  # in a tuple, where a module does not see a child
        self.levels = tuple(levels)
        self.draws = draws
        self.width = len(self.levels)
        self.blend = Blend(self.width, GlobalCalibration())

    @property
    def evaluations(self) -> int:
        """None of the denoiser."""
        return 0

    @property
    def opinions(self) -> int:
        """Evaluations of the critic a picture, one a level and draw."""
        return self.width * self.draws

    def observe(self, model: Model, image: Tensor, cond: Cond) -> Observation:
        """The maps [B, 1, h, w], one a level.

        Raises:
            RefusalError: the critic is in training mode, the batch brings no noise, or a level lies outside its table.
        """
        (critic,) = self._critic
        if critic.training:
            raise RefusalError(
                "A critic in training compares the pictures of a batch with each other, so that a score would depend "
                "on its neighbours: call critic.eval() first."
            )
        noise = source(cond)
        z = model[1].encode(image)  # [B, c, h, w]
        maps = []
        for asked in self.levels:
            sigma = critic.table[critic.levels.index(level(asked))]
            found = []
            for _ in range(self.draws):
                y_next, y = pair(z, noise(z), noise(z), sigma, critic.sigma_next(sigma))
                found.append(-critic.places(y_next, y, sigma, cond))  # [B, 1, h', w']
            maps.append(average(found))
        return Observation(tuple(maps))

    def weigh(self, parts: Parts) -> Tensor:
        """The map [B, 1, h, w]."""
        return self.blend(parts)

    def learn(self, observations: Observations) -> None:
        """Learn each level's calibration."""
        self.blend.learn(observations)
