"""Every decision about when and who, as plain objects and functions that are given the time and do no I/O."""
