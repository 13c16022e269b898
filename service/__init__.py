"""Remora rides along with image-generation APIs so that nobody polls."""

__version__ = "0.1.0"
