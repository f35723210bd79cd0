"""Agreement merging: unites what two tiles say of the pixels that both of them saw."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicedet.boxes import area, intersection_area, overlap
from slicedet.merging.pairs import Floats, Integers, Run, Sweep

Flags = NDArray[np.bool_]

MARGIN = 0.01
"""How close to an inner edge of its tile a box counts as cut by it, as a share of the tile's longer side."""

INSIDE = 0.6
"""Share of a cut box that lies inside a whole one of another tile, from which on it is a fragment of that object."""

LONE = 0.5
"""What is left of the score of a cut box that no other tile confirms."""

FINAL = 0.6

BOX = "mean"
MODE = "full"
FRAG = "all"


class Tiles(NamedTuple):
    """tiles: float64 [N, 4], the tile of each box. ids: int64 [N], equal where the tile is."""

    tiles: Floats
    ids: Integers


def tile_ids(tiles):
    _, ids = np.unique(tiles, axis=0, return_inverse=True)
    return ids.reshape(-1)

def shared_iou(boxes, tiles, i, j):
    low = np.maximum(tiles[i, :2], tiles[j, :2])
    high = np.minimum(tiles[i, 2:], tiles[j, 2:])
    low, high = np.tile(low, 2), np.tile(high, 2)
    return overlap(np.clip(boxes[i], low, high), np.clip(boxes[j], low, high), "iou")

def agree(boxes, tiles, ids, groups, threshold):
    sweep = Sweep(boxes, groups)
    found=[]
    for run in sweep.within(np.arange(len(boxes))):
        for a, b in sweep.candidates(run):
            i, j = np.minimum(a,b), np.maximum(a,b)
            k = ids[i]!=ids[j]; i,j=i[k],j[k]
            v = shared_iou(boxes, tiles, i, j)
            k = v>=threshold
            found.append((i[k],j[k],v[k]))
    if not found: return np.empty(0,int),np.empty(0,int),np.empty(0)
    return tuple(np.concatenate(c) for c in zip(*found))

def unite(n, ids, i, j, v, boxes=None, tiles=None, t=.5):
    order=np.lexsort((j,i,-v))
    group=list(range(n)); members={}
    for a,b in zip(i[order].tolist(), j[order].tolist()):
        ga,gb=group[a],group[b]
        if ga==gb: continue
        ma=members.get(ga) or {ids[a]:a}; mb=members.get(gb) or {ids[b]:b}
        if not ma.keys().isdisjoint(mb.keys()): continue
        if ga>gb: ga,gb=gb,ga
        ma.update(mb); members[ga]=ma; members.pop(gb,None)
        for m in mb.values(): group[m]=ga
        for m in ma.values(): group[m]=ga
    return np.array(group)

def cut_sides(boxes, tiles, frame):
    m = MARGIN*np.maximum(tiles[:,2]-tiles[:,0],tiles[:,3]-tiles[:,1])[:,None]
    near = np.concatenate([boxes[:,:2]-tiles[:,:2]<=m, tiles[:,2:]-boxes[:,2:]<=m],1)
    inner = np.concatenate([tiles[:,:2]>frame[:2], tiles[:,2:]<frame[2:]],1)
    return near&inner
