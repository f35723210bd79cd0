"""Necks: feature maps of a backbone -> feature maps that have seen each other, in the order their head wants."""
