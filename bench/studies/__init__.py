"""Studies: long measurements with results of their own, each a package with its tests."""
