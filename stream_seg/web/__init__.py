"""The page of the stage `serve`: a browser view of a running graph, and its JSON API."""
