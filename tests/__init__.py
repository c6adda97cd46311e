"""The tests; the tree mirrors settle_mp/."""
