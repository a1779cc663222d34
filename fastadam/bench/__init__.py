"""The benchmark ``python -m fastadam bench``: fastadam beside its peers and the memory's limit."""
