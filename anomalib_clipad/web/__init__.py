"""One HTML file that is the inspector: model, runtime and page, for a browser without server or network."""
