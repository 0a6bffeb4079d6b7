"""Learning from Python: sample and weights files, the network in PyTorch, a trainer that speaks the worker contract.

`samples`, `weights` and `contract` need numpy, safetensors and blake3; `network` and `trainer` need torch too.
Importing the package itself needs nothing.
"""

__all__ = ["Refused"]


class Refused(ValueError):
    """What was given cannot be used, now or later; the text says why in one sentence."""
