"""The order of `bench/ours` as a saga, with a race of two payment providers."""
