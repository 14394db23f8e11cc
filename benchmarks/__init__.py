"""What the figures of this project are measured with. A package, so that `typing.py` here is no other `typing`."""
