"""Paceline: a durable outbound message queue that keeps every limit exactly."""

__version__ = "0.1.0"
