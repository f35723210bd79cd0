"""One YAML per model: what it is, how it wants its pixels, what it gives back."""
