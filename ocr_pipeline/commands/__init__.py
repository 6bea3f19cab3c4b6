"""The subcommands of `ocr-pipeline`, one module each; a module's `command` is what the command line calls."""
