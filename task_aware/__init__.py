"""Task-aware sound separation: train a separator through a frozen sound event detector (Cornell et al., DCASE 2020)."""

__version__ = "0.1.0"
