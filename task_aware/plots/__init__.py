"""Plots of mixtures, of separated sources with their detections, of training curves, and of scores.

They are drawn on matplotlib's Agg canvas without pyplot, so they need no display or global state and are thread-safe.
"""

from task_aware.plots.ablation import Bar, plot_ablation
from task_aware.plots.mixture import plot_mixture
from task_aware.plots.separation import plot_separation
from task_aware.plots.training import plot_training

__all__ = ["Bar", "plot_ablation", "plot_mixture", "plot_separation", "plot_training"]
