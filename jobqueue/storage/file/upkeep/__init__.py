"""Reading, mending and compacting the files of a store."""
