"""Fuzzers of all that reads bytes of others: `make fuzz`. What they found is in `corpus/`."""
