"""The commands with their arguments and options; `app` puts them together."""
