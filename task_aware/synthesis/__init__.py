"""The built-in corpus: synthetic domestic sounds in DESED's layout, so that everything runs without a download."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from task_aware.synthesis.cache import builtin_corpus as builtin_corpus
    from task_aware.synthesis.cache import make_corpus as make_corpus
    from task_aware.synthesis.cache import open_corpus as open_corpus

# Names are imported on first use: the sizes of the corpus are read without NumPy.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"cache": ["builtin_corpus", "make_corpus", "open_corpus"]}
)
