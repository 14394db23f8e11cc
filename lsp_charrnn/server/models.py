"""The loaded models, one per directory, shared by all clients of a process. Used on the model thread only.

Finding, verifying and loading are `model.files`'s, and which one a project has, `model.installed`'s.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from lsp_charrnn.config import language_id
from lsp_charrnn.errors import ModelError
from lsp_charrnn.model.files import (
    find_model,
    list_models,
    load_model,
    load_weights,
    model_for_language,
    read_config,
)
from lsp_charrnn.model.installed import installed_model, pointer_of
from lsp_charrnn.model.neurons import Label, kept
from lsp_charrnn.model.step import Model

logger = logging.getLogger(__name__)


class NoModelError(ModelError):
    """No model was trained for a document's language: nothing is wrong, and nothing can be completed."""


class Models:
    """Models by path; each is loaded when first asked for, and then kept."""

    def __init__(self) -> None:
        self._loaded: dict[Path, Model] = {}
        self._weights: WeakKeyDictionary[Model, dict[str, npt.NDArray[np.float32]]] = WeakKeyDictionary()
        self._of_projects: dict[str, Path] = {}  # by the project's root: where the one is that counts

    def by_name(self, name: str) -> Model:
        """Return the model of that name or path. Raises `ModelError`."""
        return self._load(find_model(name))

    def by_language(self, language: str) -> Model:
        """Return the model for a language id. Raises `NoModelError` where the models found are for other languages."""
        try:
            path = model_for_language(language)
        except ModelError as error:
            if any(not info.problem for info in list_models()):
                raise NoModelError(str(error)) from error
            raise
        return self._load(path)

    def of_project(self, root: str, language: str) -> Model | None:
        """Return the project's own model, if it has one for this language. Raises `ModelError`."""
        pointer = pointer_of(root)
        try:
            path = installed_model(root)
            self._forget_older(root, None if path is None else path.resolve())
            if path is None or language_id(language) not in read_config(path)[0]["languages"]:
                return None
            return self._load(path)
        except ModelError:
            if pointer_of(root) == pointer:
                raise
            return self.of_project(root, language)  # another one was installed meanwhile, and this one removed

    def weights(self, model: Model) -> dict[str, npt.NDArray[np.float32]]:
        """Return the float32 weights of a model that was loaded here.

        Raises `ModelError` where they are gone, or another model's lie there by now.
        """
        found = self._weights.get(model)
        if found is None:
            path = self._path(model)
            found = load_weights(path)[0]
            if read_config(path)[0]["files"] != model.config["files"]:
                raise ModelError(f"{path} is another model since it was loaded: restart the server to use that.")
            self._weights[model] = found
        return found

    def labels(self, model: Model) -> list[Label]:
        """Return which neurons of a model that was loaded here are known to track something, best first.

        None is, where no table lies beside its weights. Raises `ModelError` where they are gone, or it is damaged.
        """
        table = kept(self._path(model))
        return [] if table is None else table.labels()

    def _path(self, model: Model) -> Path:
        path = next((path for path, loaded in self._loaded.items() if loaded is model), None)
        if path is None:
            raise ModelError(f"the model {model.name} has been replaced meanwhile: ask again.")
        return path

    def _forget_older(self, root: str, path: Path | None) -> None:
        """Keep of a project's models the one that counts: no path means two, so others won't be asked for again."""
        before = self._of_projects.pop(root, None)
        if path is not None:
            self._of_projects[root] = path
        if before is not None and before not in self._of_projects.values():
            self._loaded.pop(before, None)

    def _load(self, path: Path) -> Model:
        path = path.resolve()
        model = self._loaded.get(path)
        if model is None:
            start = time.perf_counter()
            model = self._loaded[path] = load_model(path)
            logger.info("loaded the model %s in %.0f ms", path, 1e3 * (time.perf_counter() - start))
        return model
