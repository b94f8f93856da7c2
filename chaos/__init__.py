"""The order of 14 steps while everything around it is killed: `python -m chaos`."""
