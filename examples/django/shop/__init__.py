"""A small product with Django: translations, and a nightly run that keeps files."""
