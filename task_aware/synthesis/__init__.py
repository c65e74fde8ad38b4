"""The built-in corpus: synthetic domestic sounds in DESED's layout, so that everything runs without a download."""

from task_aware.synthesis.cache import builtin_corpus, make_corpus, open_corpus

__all__ = ["builtin_corpus", "make_corpus", "open_corpus"]
