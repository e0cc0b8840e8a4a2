"""Upkeep of a store: the reaper and the election of its leader."""
