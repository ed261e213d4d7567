"""The sub-commands: each file adds its arguments and runs them."""
