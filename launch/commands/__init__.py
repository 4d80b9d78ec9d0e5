"""What each `vitrine` command does: options and settings in, one call to a package, the output's path.

One module for each family of commands. The command line imports the one module that it needs, and
imports of torch are inside the functions, so that a command's `--help` is quick.
"""
