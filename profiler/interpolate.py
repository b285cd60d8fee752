"""What reads values out of measured tables: the public names of interpolation in one place."""

from profiler.curve import Curve, PrefillCurve, TransferCurve
from profiler.estimate import Estimate, LeaveOneOut, Where
from profiler.mixed import MixedTable
from profiler.surface import DecodeSurface

__all__ = [
    "Curve",
    "DecodeSurface",
    "Estimate",
    "LeaveOneOut",
    "MixedTable",
    "PrefillCurve",
    "TransferCurve",
    "Where",
]
