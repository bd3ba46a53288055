"""The study of what dropout is for: ``python -m bench.studies.generalisation --help``."""
