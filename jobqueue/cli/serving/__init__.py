"""The parts of long-running commands: signals, fleets, probes, process managers."""
