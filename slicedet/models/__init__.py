"""Models: what a detector's weights file does not say about itself, read from one YAML per model."""
