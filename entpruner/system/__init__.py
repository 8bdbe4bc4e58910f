"""The ground of the package: files, processes, devices, random numbers, and records of how a result was made."""
