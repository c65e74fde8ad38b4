"""Pictures of mixtures, of what was separated and detected, of how training went, and of scores side by side.

Drawn on matplotlib's own canvas (Agg), without pyplot: no display, no global state, safe in any thread.
"""

from task_aware.plots.ablation import Bar, plot_ablation
from task_aware.plots.mixture import plot_mixture
from task_aware.plots.separation import plot_separation
from task_aware.plots.training import plot_training

__all__ = ["Bar", "plot_ablation", "plot_mixture", "plot_separation", "plot_training"]
