"""The pure core: values in, values out; callers pass the time."""
