"""Scenes: any raster or photo, read by windows, as uint8 RGB in one georeferenced pixel frame. Knows no model."""
