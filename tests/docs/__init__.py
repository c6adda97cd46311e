"""Tests of the pages: each code block of README.md, docs/ and the examples is run; see docs/writing.md."""
