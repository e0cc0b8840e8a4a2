"""The pages, one file each: what a page shows, and the facts by which a change of it is told."""
