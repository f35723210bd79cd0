"""Datasets: COCO files read, checked, converted, split, cut into tiles, and painted."""
