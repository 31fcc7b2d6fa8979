"""The pure parts of the benchmarks: a wrong sum there would be believed."""
