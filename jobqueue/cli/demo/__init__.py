"""``jobqueue demo``: real work on real files, with every answer checked."""
