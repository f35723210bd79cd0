"""Backbones: images [B, 3, H, W] -> feature maps, finest first; `out_channels` has the channels of each."""
