"""Which device holds which layers of a model, and how fast that will be. No I/O.

`predict` says what given shares are worth: the four formulas over exact bytes, each term in
seconds. What was measured afterwards teaches a `Calibration`, which the next prediction takes.
"""

from ._calibration import GAIN, MAX_FACTOR, MIN_FACTOR, Calibration, Factors, Measured
from ._plan import Considered, Plan, Refused, Share
from ._predict import predict
from ._prediction import DeviceTime, Parts, Prediction
from ._speculation import Speculation
from ._wants import HEAD, HEAD_CPU, Device, Link, Mix, Solo, Wants

__all__ = [
    # what there is
    "Device",
    "Link",
    "Solo",
    "HEAD",
    "HEAD_CPU",
    # what is wanted
    "Wants",
    "Mix",
    # planning
    "Plan",
    "Share",
    "Speculation",
    "Refused",
    "Considered",
    # predicting
    "predict",
    "Prediction",
    "DeviceTime",
    "Parts",
    # learning
    "Calibration",
    "Factors",
    "Measured",
    "GAIN",
    "MIN_FACTOR",
    "MAX_FACTOR",
]
