"""PicoDet and PP-YOLOE as Paddle layers, for training and export; what to build is data, in slicedet.configs."""

from slicedet.networks.network import Network, assemble, build, names

__all__ = ["Network", "assemble", "build", "names"]
