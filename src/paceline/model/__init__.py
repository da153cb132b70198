"""The words and rules of the queue as plain values: nothing here does I/O or reads a clock."""
