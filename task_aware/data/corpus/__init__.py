"""The built-in corpus: synthesised domestic sounds in DESED's layout, so that all runs without a download."""

from task_aware.data.corpus.cache import builtin_corpus, main

__all__ = ["builtin_corpus", "main"]
