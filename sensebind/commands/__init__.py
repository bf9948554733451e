"""The subcommands of `sensebind`, one module each: `add_parser` declares the arguments, `run` executes it."""
