"""The doctor: looks at a set-up, and names for each thing that is wrong the exact mend."""
