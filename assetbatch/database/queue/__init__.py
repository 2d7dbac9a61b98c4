"""The queue: what is claimed, ended and brought back; what comes in; what an operator does with it."""
