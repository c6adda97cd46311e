"""Hooks for process managers; they make shutdown quicker and nothing depends on them."""
