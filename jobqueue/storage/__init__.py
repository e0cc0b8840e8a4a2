"""Stores: the contract (`base`) and what implements it."""
