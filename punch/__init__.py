"""Your machines, one model endpoint, nobody in the middle."""

__version__ = "0.1.0"
