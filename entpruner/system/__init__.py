"""What everything stands on: files, processes, devices, random numbers, records of how a result was made."""
