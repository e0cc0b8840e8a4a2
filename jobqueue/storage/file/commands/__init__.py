"""The calls that change a store, as the journal keeps them."""
