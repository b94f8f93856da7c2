"""The order of `bench/ours` with local steps: none of them has a message of its own."""
