"""Which device holds which layers of a model, and how fast that will be. No I/O.

`plan` finds the fastest way to run a model on the devices there are, or says why there is none.
`predict` says what given shares are worth: the four formulas over exact bytes, each term in
seconds. What was measured afterwards teaches a `Calibration`, which the next prediction takes; what
is believed of the answers of a running split, `Lessons` decide.
"""

from ._calibration import GAIN, MAX_FACTOR, MIN_FACTOR, Calibration, Factors, Measured
from ._lessons import Answered, Lessons
from ._plan import Considered, Plan, Refused, Share
from ._planner import plan
from ._predict import predict
from ._prediction import DeviceTime, Parts, Prediction
from ._settings import Guesses, Speculation
from ._text import describe, size_text, time_text
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
    "plan",
    "describe",
    "size_text",
    "time_text",
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
    "Lessons",
    "Answered",
    "Calibration",
    "Factors",
    "Measured",
    "GAIN",
    "MIN_FACTOR",
    "MAX_FACTOR",
    "Guesses",
]
