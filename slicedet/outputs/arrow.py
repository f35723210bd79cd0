"""The table with a polygon for each detection, as a stream of Arrow record batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from slicedet.outputs.pieces import pieces
from slicedet.outputs.table import rings, table

if TYPE_CHECKING:
    from pyarrow import RecordBatch, Schema

    from slicedet.prediction import Prediction

GEOMETRY = "geometry"
"""Name of the column of polygons, in well-known binary (WKB)."""


def schema(prediction: Prediction) -> Schema:
    """Names and types of the columns. Raises NotGeoreferenced where the detections have no place on a map."""
    return _batch(prediction, slice(0, 0)).schema


def batches(prediction: Prediction) -> Iterator[RecordBatch]:
    """All rows in pieces, NaN as null. Raises NotGeoreferenced where the detections have no place on a map."""
    for rows in pieces(len(prediction.detections)):
        yield _batch(prediction, rows)


def _batch(prediction: Prediction, rows: slice) -> RecordBatch:
    import pyarrow
    import shapely

    columns = table(prediction, rows)
    text = pyarrow.large_string()
    arrays = {
        name: pyarrow.array(values, text if values.dtype == object else None, from_pandas=True)
        for name, values in columns.items()
    }
    polygons = shapely.to_wkb(shapely.polygons(rings(prediction, rows)))
    arrays[GEOMETRY] = pyarrow.array(polygons, pyarrow.binary())
    return pyarrow.record_batch(list(arrays.values()), list(arrays))
