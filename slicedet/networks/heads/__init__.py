"""Heads: feature maps -> class scores and distance distributions per level, and these -> boxes and scores."""
