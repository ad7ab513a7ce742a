"""Static word-piece embeddings (Model2Vec) from a folder on this machine; nothing is downloaded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from memlab.embedders.embedder import Vectors
from memlab.errors import not_found, validation

_FILES = ("model.safetensors", "tokenizer.json", "config.json")


class Model2VecEmbedder:
    """A model saved by `StaticModel.save_pretrained`. Texts without any known word share one fixed vector.

    Its name holds a digest of the model's files, so that a database notices another model, wherever the folder lies.

    Args:
        path: the model's folder.
    Raises:
        MemlabError: VALIDATION `embedder`: the extra is not installed, or the files are not a model; NOT_FOUND `file`.
    """

    def __init__(self, path: str | Path) -> None:
        folder = Path(path)
        for file in _FILES:
            if not (folder / file).is_file():
                raise not_found("file", f"no {file} in '{folder}'; give a folder that StaticModel.save_pretrained wrote")
        try:
            from model2vec import StaticModel
        except ImportError:
            raise validation("embedder", "the model2vec embedder needs an extra: pip install 'memlab[model2vec]'") from None
        digest = hashlib.sha256()
        for file in _FILES:
            content = (folder / file).read_bytes()
            digest.update(len(content).to_bytes(8, "little") + content)
        try:
            self._model = StaticModel.from_pretrained(folder, normalize=False, force_download=False)
        except Exception as error:  # safetensors and tokenizers raise their own kinds, some of them bare Exception
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise validation("embedder", f"'{folder}' does not hold a model2vec model: {reason}") from error
        self.dimension = int(self._model.dim)
        self.name = f"model2vec:{digest.hexdigest()[:16]}:{self.dimension}"

    def embed(self, texts: Sequence[str], *, query: bool = False) -> Vectors:
        """Return one unit vector for each text; queries and stored texts are treated alike."""
        if not texts:
            return np.empty((0, self.dimension), dtype=np.float32)
        # Processes would fork beside DuckDB's threads.
        sums = self._model.encode(list(texts), use_multiprocessing=False).astype(np.float64)
        sums[~sums.any(axis=1)] = 1.0
        vectors: Vectors = (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32)
        return vectors
