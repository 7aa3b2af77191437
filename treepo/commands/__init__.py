"""The subcommands of `treepo`, one module each; `treepo.cli` says how they plug in."""
