"""A command-line laboratory for reinforcement learning from demonstrations."""

__version__ = "0.1.0"
