"""A graph as processes on this machine: gateway, workers, scrape targets, and the API that scales them."""
