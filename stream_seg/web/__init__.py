"""The page: what a browser sees of a running graph, and its JSON API. Behind the stage `serve`."""
