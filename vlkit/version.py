"""The version of vlkit, read by the build and written into every saved model and result."""

__version__ = "0.9.0"
