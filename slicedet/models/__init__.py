"""Models: what a detector's weights file does not say about itself, read from one YAML per model."""

DEFAULT_MODEL = "aerial-vehicles"
"""The model that comes with slicedet, weights included."""
