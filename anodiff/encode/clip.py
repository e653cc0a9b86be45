"""A CLIP text model of a local folder as the encoder of captions and prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anodiff.encode.vocabulary import Word, located
from anodiff.errors import ConfigError, MissingExtraError, ModelFileError

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTokenizer


@dataclass(frozen=True)
class ClipText:
    """Texts as the tokens of a frozen CLIP text model (arXiv:2103.00020); the files are read at the first use.

    Nothing is downloaded, and weights are safetensors alone, so that no code in a file is run. Needs the extra
    `pretrained`. Reads words as a `Vocabulary` does, so prompts and alignments work on it alike.

    Args:
        folder: with `config.json`, `model.safetensors` and the tokenizer's files, as transformers saves them; or a
            pipeline's, with the model in `text_encoder/` and the tokenizer in `tokenizer/`.

    Raises:
        MissingExtraError: at the first use, if transformers is not installed.
        ModelFileError: at the first use, if a file is missing, damaged or of another model.
    """

    folder: str

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The tokens [B, L, channels] float32 and the mask [B, L] of texts, on the CPU.

        The last hidden state after the final norm. True in the mask: the start, the pieces and the end; what stands
        behind the end was made from padding, and no earlier token has seen it.

        Raises:
            ConfigError: a text is longer than the model reads.
        """
        for text in texts:
            self._check(text)
        if not texts:
            return torch.zeros(0, self.length, self.channels), torch.zeros(0, self.length, dtype=torch.bool)
        row = self._tokenizer(
            list(texts), padding="max_length", max_length=self.length, return_tensors="pt"
        )  # input_ids and attention_mask, [B, L] each
        mask = row["attention_mask"]
        tokens = self._model(input_ids=row["input_ids"], attention_mask=mask).last_hidden_state
        return tokens, mask.bool()

    @property
    def channels(self) -> int:
        """Channels of a token."""
        return self._model.config.hidden_size

    @property
    def length(self) -> int:
        """Tokens of a text, L."""
        return self._model.config.max_position_embeddings

    def read(self, text: str) -> list[Word]:
        """The words of a text with their characters and their places among the tokens.

        Raises:
            ConfigError: the text is longer than the model reads.
        """
        self._check(text)
        return located(self._tokenizer.backend_tokenizer, text, first=1)

    def _check(self, text: str) -> None:
        pieces = len(self._tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)
        if pieces + 2 > self.length:
            raise ConfigError(
                f"the text has {pieces} pieces of words, but this CLIP model reads {self.length - 2} at most (and "
                f"where they start and end): shorten {text!r}"
            )

    @cached_property
    def _model(self) -> CLIPTextModel:
        try:
            from transformers import CLIPTextModel
        except ImportError as error:
            raise MissingExtraError("a CLIP text model", "pretrained") from error
        root = _part(Path(self.folder), "text_encoder", "config.json")
        try:
            model, info = CLIPTextModel.from_pretrained(  # pyright: ignore[reportGeneralTypeIssues]
                root,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                dtype=torch.float32,
            )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise ModelFileError(f"{root} does not hold a CLIP text model: {str(error)[:200]}") from error
        if missing := sorted(info["missing_keys"]):
            raise ModelFileError(
                f"{root} lacks {len(missing)} tensors of a CLIP text model, {missing[0]} among them: save it anew "
                "with save_pretrained"
            )
        return model.requires_grad_(False).eval()

    @cached_property
    def _tokenizer(self) -> CLIPTokenizer:
        try:
            from transformers import CLIPTokenizer
        except ImportError as error:
            raise MissingExtraError("a CLIP text model", "pretrained") from error
        root = _part(Path(self.folder), "tokenizer", "tokenizer.json", "vocab.json")
        try:
            tokenizer = CLIPTokenizer.from_pretrained(root, local_files_only=True)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ModelFileError(f"{root} does not hold a CLIP tokenizer: {str(error)[:200]}") from error
        if len(tokenizer) > self._model.config.vocab_size:
            raise ModelFileError(
                f"the tokenizer in {root} has {len(tokenizer)} pieces, but the text model knows "
                f"{self._model.config.vocab_size}: put the two of one CLIP model into the folder"
            )
        return tokenizer


def _part(folder: Path, name: str, *files: str) -> Path:
    """`folder`, or `name` in it, whichever holds one of `files`."""
    for root in (folder / name, folder):
        if any((root / file).is_file() for file in files):
            return root
    raise ModelFileError(
        f"expected {' or '.join(files)} of a CLIP text model in {folder} or {folder / name}, found none: name a "
        "folder that transformers' save_pretrained has written"
    )
