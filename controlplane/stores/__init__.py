"""What the engine writes, in batches: request records, cached answers, metrics, what it measured of models and node.

Rule: the engine only ever appends to a buffer (no waiting, no ORM); `flush` and the functions are synchronous and
are called in a thread.
"""

from controlplane.stores.cache import CacheBuffer, load_cache, save_hits
from controlplane.stores.metrics import MetricPoint, roll_up, save_metrics
from controlplane.stores.node import node_name, node_started, node_state, save_measurement
from controlplane.stores.records import RecordBuffer
from controlplane.stores.retention import delete_old, roll_up_old

__all__ = [
    "CacheBuffer",
    "MetricPoint",
    "RecordBuffer",
    "delete_old",
    "load_cache",
    "node_name",
    "node_started",
    "node_state",
    "roll_up",
    "roll_up_old",
    "save_hits",
    "save_measurement",
    "save_metrics",
]
