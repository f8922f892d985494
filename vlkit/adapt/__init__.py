"""Adapters: the few weights that train inside a frozen encoder."""
