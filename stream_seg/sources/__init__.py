"""Where pictures come from, behind the stage `capture`."""
