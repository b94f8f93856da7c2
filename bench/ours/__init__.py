"""The same order on celeriac."""
